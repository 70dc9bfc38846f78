"""The doorbell: a POSIX message queue on whose descriptor the sleeping bridge waits.

A writer that finds the bridge asleep puts its namespace's name into ``/cachee.<host name>``; the queue holds
a few, so that one more is refused at once and no writer waits. An event loop can wait on the queue like on
any other descriptor, and (unlike a socket or a FIFO) it has a name that needs no directory of its own.

A crashed bridge leaves its queue behind. The next one takes it over where it can, since writers that have it
open would otherwise ring a bell that no bridge hears. A queue of another shape is removed and made anew. A
lock on the queue, which the kernel releases at death, shows whether the bridge that made it still lives.

Any user of the machine can make a queue of this name first. So the owner, the group and the mode of the open
descriptor are looked at before anything else (owners.py): a stranger's queue is neither locked nor rung.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
from typing import Any

import posix_ipc

from cachee_bridge.system.owners import wrong_owner
from cachee_shm.errors import BridgeRunning

MESSAGES_MAX = 8  # of the ten that an ordinary user may have; when it is full, all rings are looked at
MESSAGE_BYTES_MAX = 64


class DoorbellUnavailable(Exception):
    """There is no doorbell; the bridge polls instead. The text says why; nothing was left behind."""


class Doorbell:
    """The bridge's end of the queue: made by `create`, read by `answer`, removed by `close`."""

    def __init__(self, name: str, queue: Any) -> None:
        self.name = name
        self._queue = queue
        queue.block = False

    @classmethod
    def create(cls, host: str, group: str | None) -> Doorbell:
        """Makes (or takes over) `host`'s queue: 0660 to `group`, 0600 without one.

        Raises BridgeRunning when a live bridge holds it, and DoorbellUnavailable where the kernel, a limit or
        another user's queue of that name forbids it.
        """
        name = queue_name(host)
        try:
            gid = None if group is None else grp.getgrnam(group).gr_gid
        except KeyError as error:
            raise DoorbellUnavailable(f"message queue {name}: {error}") from error
        try:
            bell = cls(name, _take_over(name, host, gid) or _make(name))
        except (posix_ipc.PermissionsError, PermissionError) as error:
            raise _not_ours(name, f"cannot be opened or removed by user {os.geteuid()}: {error}") from error
        except (posix_ipc.Error, OSError, ValueError) as error:
            raise DoorbellUnavailable(f"message queue {name}: {error}{_limits(error)}") from error
        try:
            _share(bell.fileno(), gid)
        except OSError as error:
            bell.close()
            raise DoorbellUnavailable(f"message queue {name}: {error}") from error
        return bell

    def fileno(self) -> int:
        """The descriptor for the event loop: readable when a writer has rung."""
        return int(self._queue.mqd)

    def answer(self) -> bool:
        """Empties the queue, without waiting. True if there was anything."""
        return self.rung() != []

    def rung(self) -> list[str] | None:
        """The same, and returns the namespaces. None: the queue was full, so it may be any of them."""
        names: list[str] = []
        queue = self._queue
        with contextlib.suppress(posix_ipc.BusyError):
            while len(names) < MESSAGES_MAX:
                names.append(queue.receive()[0].decode(errors="replace"))
                if not queue.current_messages and len(names) < MESSAGES_MAX:
                    return names  # to receive once more would raise: that costs more than to ask
            return None
        return names

    def close(self) -> None:
        """Closes and unlinks: a clean exit leaves nothing behind."""
        self._queue.close()
        with contextlib.suppress(posix_ipc.Error, OSError):
            posix_ipc.unlink_message_queue(self.name)


def queue_name(host: str) -> str:
    """The queue of the host of that name; writers open the same."""
    return f"/cachee.{host}"


def _limits(error: Exception) -> str:
    """What to check: mq_open reports EMFILE also for the limit of message bytes."""
    number = getattr(error, "errno", None) or (errno.EMFILE if "maximum" in str(error) else None)
    if number not in (errno.EMFILE, errno.ENOSPC):
        return ""
    return ". See `ulimit -q` (bytes of message queues), `ulimit -n` and /proc/sys/fs/mqueue/queues_max"


def _not_ours(name: str, why: str) -> DoorbellUnavailable:
    return DoorbellUnavailable(
        f"message queue {name} {why}; it was not used; find out who made it, remove it by "
        f"`rm /dev/mqueue{name}` as root, and start the bridge again"
    )


def _take_over(name: str, host: str, gid: int | None) -> Any | None:
    """The queue that a crashed bridge left, if it has the right owner and shape. A queue of another user is
    not touched."""
    try:
        queue = posix_ipc.MessageQueue(name)
    except posix_ipc.ExistentialError:
        return None
    found = os.fstat(queue.mqd)
    wrong = wrong_owner(found, gid)
    if wrong:
        queue.close()
        raise _not_ours(name, wrong)
    if not _lock(queue):
        queue.close()
        raise BridgeRunning(
            f"host {host!r} has a bridge already (it holds message queue {name}); nothing was changed; "
            f"stop that one first, or give this one another [host] name"
        )
    shape = (queue.max_messages, queue.max_message_size)
    if shape == (MESSAGES_MAX, MESSAGE_BYTES_MAX) and found.st_uid == os.geteuid():
        return queue
    queue.close()
    return None


def _lock(queue: Any) -> bool:
    """This process's for as long as it has the queue open; False when another's."""
    try:
        fcntl.flock(queue.mqd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(name: str) -> Any:
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_message_queue(name)
    queue = posix_ipc.MessageQueue(
        name, posix_ipc.O_CREX, mode=0o600, max_messages=MESSAGES_MAX, max_message_size=MESSAGE_BYTES_MAX
    )
    _lock(queue)
    return queue


def _share(descriptor: int, gid: int | None) -> None:
    """Set on the open queue, since the process's umask cuts the mode given at creation."""
    if gid is not None:
        os.fchown(descriptor, -1, gid)
    os.fchmod(descriptor, 0o600 if gid is None else 0o660)
