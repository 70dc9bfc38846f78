"""This host's segments of other layouts during an upgrade: it finds, relays and finally removes them.

    /cachee.HOST.shop.2   workers of the release before, not restarted yet
    /cachee.HOST.shop.3   workers of this release            the bridge of this release serves both

What is written in the other segment is announced in this one, and so to the peers. Whenever this one's ring
has moved, nothing that lies in the other one is served any more. See core/older.h, and "Upgrades" in the
README.

Each second: a segment that has come is taken over; one that nobody is attached to is retired, and a second
later removed.
"""

from __future__ import annotations

import logging
import os
import re

from cachee_shm import _core, segment
from cachee_shm.errors import AccessDenied, BridgeRunning, LayoutMismatch, SegmentRetired

SHARED_MEMORY = "/dev/shm"
RELAY_RECORDS = 4096
"""At a time: a fraction of a millisecond."""

log = logging.getLogger("cachee_bridge")


class Segment(segment.Segment):
    """A segment as its bridge holds it, with those of other layouts beside it."""

    def __init__(self, spec: segment.Spec) -> None:
        self.older: dict[str, Older] = {}
        """By file name."""
        super().__init__(spec, waits=False)  # the event loop's callers do not wait either

    def _reattach(self) -> None:
        """A worker would continue with the successor; a bridge must begin again, because ring and cursors are
        others."""
        raise SegmentRetired(f"segment {self.name} was given up or removed")

    def gather(self) -> None:
        """Takes into this ring what was written in the others."""
        for older in self.older.values():
            older.gather()

    def heal(self, cursor: int, records_max: int, after: int, head: bytes, /) -> tuple[int, int, bytes]:
        """Applies own records here, and invalidates older values in the other segments."""
        healed = segment.Segment.heal(self, cursor, records_max, after, head)
        for older in self.older.values():
            older.core.silence()
        return healed

    def bridge_sleep(self, sleeping: bool, /) -> bool:
        """Arms or disarms the doorbell in every segment. False: records came, do not sleep."""
        if not self.older:
            return segment.Segment.bridge_sleep(self, sleeping)
        quiet = [older.core.bridge_sleep(sleeping) for older in self.older.values()]
        return super().bridge_sleep(sleeping) and all(quiet)

    def set_serve_until(self, ms: int, /) -> None:
        """Workers of the other segments are as isolated as those of this one."""
        super().set_serve_until(ms)
        for older in self.older.values():
            older.core.set_serve_until(ms)

    def bridge_vouch(self, until_ms: int, /) -> None:
        """For workers of the other segments: they have a bridge."""
        super().bridge_vouch(until_ms)
        for older in self.older.values():
            older.core.vouch(until_ms)

    def close(self) -> None:
        """Leaves all of them."""
        for older in self.older.values():
            older.core.close()
        self.older.clear()
        super().close()


class Older:
    """One segment of another layout."""

    def __init__(self, held: Segment, name: str) -> None:
        """`name` of a file in /dev/shm. BridgeRunning: its own bridge lives. LayoutMismatch: it cannot be
        relayed. AccessDenied: it may be a stranger's. OSError: it cannot be opened."""
        self.path = f"{SHARED_MEMORY}/{name}"
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        found = os.fstat(fd)
        try:
            segment.check_owner(found, f"/{name}", held.spec.group)
        except AccessDenied:
            os.close(fd)
            raise
        self._inode = found.st_ino
        self._retired = False
        self.core = _core.Older(held, fd)
        if not self.core.take():
            self.core.close()
            raise BridgeRunning(
                f"segment {name} is served by a bridge of another release; nothing was changed; "
                "stop that one first"
            )
        log.info(
            "segment %s of another layout is in use: its writes are relayed, it serves nothing stale", name
        )

    def gather(self) -> None:
        """Relays everything that was written there until now."""
        end = self.core.tail
        while (cursor := self.core.pump_cursor) < end:
            self.core.relay(RELAY_RECORDS)
            if self.core.pump_cursor <= cursor:
                break

    def is_named(self) -> bool:
        """Whether its file still has its name."""
        return _inode(self.path) == self._inode

    def leave(self) -> None:
        """Another file has its name: its workers move there, and their writes here are relayed first."""
        self.core.finish()
        self.core.close()

    def ended(self) -> bool:
        """Removes the segment if no process is attached; True when it is gone. It checks twice: a process
        that attached just before the segment was retired has left by the second check, or still counts as
        attached."""
        if self.core.in_use():
            return False
        if not self._retired:
            self._retired = True
            self.core.retire()
            return False
        self.core.finish()
        if self.is_named():
            os.unlink(self.path)
        self.core.close()
        log.info("segment %s of another layout is removed: nobody is attached to it any more", self.path)
        return True


class Search:
    """Finds the segments of other layouts, and follows each to its end."""

    def __init__(self, host: str) -> None:
        before, after = segment.segment_path(host, "\0").lstrip("/").split("\0")
        self._own = after
        self._name = re.compile(rf"{re.escape(before)}([A-Za-z0-9_-]{{1,64}})(\.[0-9]{{1,3}})")
        self._said: dict[str, str] = {}

    def namespaces(self) -> set[str]:
        """Those of this host, of whatever layout."""
        return {namespace for namespace, _ in self._listed().values()}

    def look(self, held: dict[str, Segment], starting: bool) -> None:
        """To be called each second. At the start, BridgeRunning when a bridge of another release lives."""
        for own in held.values():
            own.older = {name: older for name, older in own.older.items() if not older.ended()}
        for name, (namespace, layout) in self._listed().items():
            if layout != self._own and namespace in held and not _is_held(held[namespace], name):
                self._open(held[namespace], name, starting)

    def _open(self, held: Segment, name: str, starting: bool) -> None:
        try:
            held.older[name] = Older(held, name)
            self._said.pop(name, None)
        except FileNotFoundError:
            pass
        except (AccessDenied, BridgeRunning, LayoutMismatch, OSError) as error:
            if starting and isinstance(error, BridgeRunning):
                raise
            if self._said.get(name) != str(error):
                self._said[name] = str(error)
                log.warning("segment %s of another layout is not relayed: %s", name, error)

    def _listed(self) -> dict[str, tuple[str, str]]:
        found = map(self._name.fullmatch, os.listdir(SHARED_MEMORY))
        return {match[0]: (match[1], match[2]) for match in found if match}


def _is_held(held: Segment, name: str) -> bool:
    """Also one whose name is another file's by now is not: that file is to be taken over."""
    older = held.older.get(name)
    if older is None or older.is_named():
        return older is not None
    held.older.pop(name).leave()
    return False


def _inode(path: str) -> int:
    """0 when there is no such file."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
