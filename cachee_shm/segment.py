"""A typed handle on one namespace's segment: its name, its file, its life.

The process that attaches first creates the segment; all others find it. The file is opened first and created
only when it is missing (``O_EXCL``): Debian's ``protected_regular`` refuses ``O_CREAT`` on another user's
file. The file's owner and mode are checked before anything in it is locked or used. The core
(``core/segment.c``) handles the file's content.

The file is opened directly in ``/dev/shm``, as ``shm_open`` does, because ``os.open`` reports each errno.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cachee_shm import _core
from cachee_shm.codec import Codec
from cachee_shm.errors import (
    AccessDenied,
    ConfigError,
    NoSpace,
    ProcessLimit,
    SegmentBusy,
    SegmentError,
    SegmentRetired,
)
from cachee_shm.service import service_name

if TYPE_CHECKING:
    from datetime import timedelta
    from types import EllipsisType

    from cachee_shm.config import Config

__all__ = [
    "EMBEDDED_MEMORY_BYTES",
    "SHARED_MEMORY",
    "Segment",
    "Spec",
    "boot_file",
    "bridge_socket",
    "embedded",
    "explained",
    "open_for_bridge",
    "private",
    "spec_of",
]

EMBEDDED_MEMORY_BYTES = 32 << 20
EMBEDDED_NAMESPACE = "default"
NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")  # config.NAMESPACE, without importing pydantic
NEAR_OBJECTS = (False, True, "copy")  # as module.h numbers them
ON_ISOLATION = ("cap", "flush", "serve")  # as attachment.h numbers them
JOURNAL_MODES = ("sampled", "off", "all")  # as layout.h numbers them
STDERR = 2
NO_FILE = -1
SHARED_MEMORY = "/dev/shm"  # where Linux keeps what shm_open makes
ATTACH_WAIT_S = 10.0  # how long attach() waits for another process that is making the segment
ACCESS_WAIT_S = 1.0  # and for one that has not yet set the file's mode
POLL_S = 0.005
TRIES_MAX = 16  # in one attempt: each try means that a segment was retired meanwhile


class Spec(NamedTuple):
    """Everything that attaching needs, in bytes and milliseconds; lifetime 0 means never."""

    path: str | None  # the shared memory object's name; None: anonymous
    namespace: str
    host: str
    memory_bytes: int
    hash_key: bytes | None
    group: int | None
    has_bridge: bool
    isolation_ttl_ms: int
    default_ttl_ms: int
    near_bytes: int = 0  # of each process
    near_objects: int = 0  # 1: shared; 2: copied
    on_isolation: str = "cap"
    pickle: bool = False
    compress_bytes: int | None = None
    unknown_ttl_ms: int = 30_000
    origin_lag_ms: int = 0
    entry_bytes: int = 0  # size of a typical entry, for which the tables are sized; 0: the core's default
    jitter: float = 0.0  # of the lifetimes of loaded values
    prewarm: bool = False  # invalidated keys may be loaded before somebody asks for them: see prewarm.py
    prewarm_weight: float = 3.0  # how many wasted loads an avoided cold read is worth
    prewarm_budget: float = 0.05  # additional loads, as a share of the loads without prewarm
    peer_fill_ms: int = 0  # how long a load waits for a value of another host; 0: it asks for none
    journal: str = "sampled"
    service: str = ""  # this process's name in the roster; empty: its program's name

    @property
    def doorbell(self) -> str:
        """The bridge's message queue; empty without a bridge."""
        return f"/cachee.{self.host}" if self.has_bridge else ""


def segment_path(host: str, namespace: str) -> str:
    """The shared memory object's name: host, namespace and layout, so that an upgrade makes a new one."""
    return f"/cachee.{host}.{namespace}.{_core.LAYOUT}"


def bridge_socket(host: str) -> str:
    """Where the host's bridge answers `cachee peers`; see operator_socket.py there."""
    return f"/dev/shm/cachee.{host}.sock"


def boot_file(host: str) -> str:
    """Where the host's bridge numbers the lives of this shared memory; see system/boot.py there."""
    return f"/dev/shm/cachee.{host}.boot"


def embedded(namespace: str | None) -> Spec:
    """What ``attach()`` uses without a configuration: 32 MiB, this user's alone, no bridge."""
    name = EMBEDDED_NAMESPACE if namespace is None else namespace
    if not isinstance(name, str) or not NAMESPACE.fullmatch(name):
        raise ConfigError(f"namespace: found {name!r}; accepted: 1 to 64 letters, digits, '-' and '_'")
    host = str(os.getuid())
    return Spec(
        path=segment_path(host, name),
        namespace=name,
        host=host,
        memory_bytes=EMBEDDED_MEMORY_BYTES,
        hash_key=None,
        group=None,
        has_bridge=False,
        isolation_ttl_ms=0,
        default_ttl_ms=0,
    )


def spec_of(config: Config, namespace: str | None) -> Spec:
    """What the host's configuration says of a namespace; ``ConfigError`` if it says nothing."""
    name = _only_namespace(config) if namespace is None else namespace
    table = config.namespace(name)
    return Spec(
        path=segment_path(config.host.name, name),
        namespace=name,
        host=config.host.name,
        memory_bytes=table.memory,
        hash_key=table.hash_key,
        group=config.host.gid(),
        has_bridge=config.bridge is not None,
        isolation_ttl_ms=round(table.isolation_ttl * 1000),
        default_ttl_ms=round((table.default_ttl or 0) * 1000),
        near_bytes=table.near_cache,
        near_objects=NEAR_OBJECTS.index(table.near_objects),
        on_isolation=table.on_isolation,
        pickle=table.pickle,
        compress_bytes=table.compress,
        unknown_ttl_ms=round(table.unknown_ttl * 1000),
        origin_lag_ms=round(table.origin_lag * 1000),
        entry_bytes=table.entry_size,
        jitter=table.jitter,
        prewarm=table.prewarm,
        prewarm_weight=table.prewarm_weight,
        prewarm_budget=table.prewarm_budget,
        peer_fill_ms=round(table.peer_fill_wait * 1000) if table.peer_fill else 0,
        journal=table.journal,
    )


def _only_namespace(config: Config) -> str:
    listed = list(config.namespaces)
    return listed[0] if len(listed) == 1 and config.defaults is None else EMBEDDED_NAMESPACE


def private(spec: Spec) -> Spec:
    """The same namespace as an anonymous segment of this process alone."""
    return spec._replace(path=None, has_bridge=False, peer_fill_ms=0)


def warn(message: str, *arguments: object) -> None:
    """Log a warning as "cachee_shm". ``logging`` is imported here, because most processes never need it.

    Verbs call this, and they must go on even if logging fails: there may be no descriptor left for the
    import, or a handler may raise. Then the message goes to stderr.
    """
    try:
        import logging

        logging.getLogger("cachee_shm").warning(message, *arguments)
    except Exception as error:
        with suppress(Exception):
            print(message % arguments, f"(the log has failed: {error})", file=sys.stderr)


class Segment(_core.Segment):
    """An attachment to one segment. Its verbs are the core's; here are its name and its re-attachment."""

    spec: Spec
    _follows = False  # moves to the successor of a retired segment; a stand-in takes its place meanwhile
    jitter = 0.0
    """Of the lifetimes of loaded values, as the namespace's configuration says."""
    peer_fill_s = 0.0
    """How long a load waits for a value of another host; 0: it asks for none."""
    detached_because = ""
    """Why there is no segment at present; "" while there is one."""

    def __init__(self, spec: Spec, waits: bool = True) -> None:
        """Attach, creating the segment if nobody has. Raises the ``SegmentError`` that says what is wrong.

        ``waits``: a bounded time for another process that is making the segment.
        """
        _require_the_interpreters_lock()
        self._configure(spec)
        if waits:
            self._open()
        else:
            self._try_to_open()

    def _configure(self, spec: Spec) -> None:
        """Set what to attach, and how; it takes effect with the next attachment."""
        self.spec = spec
        self.jitter = spec.jitter
        self.peer_fill_s = spec.peer_fill_ms / 1000
        self._codec = Codec(spec.namespace, spec.pickle, spec.compress_bytes, warn)
        self.uncacheable: set[tuple[type, type]] = set()  # warned of: error and type of value, see loading.py

    @property
    def namespace(self) -> str:
        """The namespace's name."""
        return self.spec.namespace

    @property
    def name(self) -> str:
        """The shared memory object's name; empty for a private segment."""
        return self.spec.path or ""

    @property
    def on_isolation(self) -> str:
        """What is served while this host is cut off: "cap", "flush" or "serve"."""
        return self.spec.on_isolation

    @property
    def isolation_ttl_s(self) -> float:
        """The age up to which values are served then."""
        return self.spec.isolation_ttl_ms / 1000

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.namespace!r} {self.name or 'private'} {state}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled or copied: it is this process's attachment. Nothing "
            "was changed. Call cachee_shm.attach() in the process that uses it; the values are shared."
        )

    def _open(self, patience_s: float | None = None) -> None:
        """Attach; wait, a bounded time, for another process that is making the segment or its mode."""
        patience_s = ATTACH_WAIT_S if patience_s is None else patience_s
        began = time.monotonic()
        while True:
            try:
                self._try_to_open()
                return
            except (SegmentBusy, SegmentRetired, AccessDenied) as error:
                wait_s = min(ACCESS_WAIT_S, patience_s) if isinstance(error, AccessDenied) else patience_s
                if time.monotonic() - began >= wait_s:
                    raise
            time.sleep(POLL_S)

    def _try_to_open(self) -> None:
        """Attach, or raise the ``SegmentError`` that says why not, without waiting."""
        found = None
        for _ in range(TRIES_MAX):
            try:
                fd = _beyond_standard(_open_file(self.spec))
                found = os.fstat(fd)
                self._attach_file(fd)
                return
            except SegmentRetired:
                pass  # its name is free now
            except OSError as error:
                _remove_unmade(self.spec.path, found)
                raise explained(error, f"Segment {self.spec.path or '(private)'}") from error
        raise SegmentRetired(
            f"Segment {self.spec.path} was retired again and again. Nothing was attached. Find out which "
            "process removes it."
        )

    def _attach_file(self, fd: int) -> None:
        """``fd``: the segment's file, or NO_FILE: until there is a file, reads miss and nothing is stored."""
        spec = self.spec
        actual, made_for, prewarms = self._attach(
            fd,
            spec.path or spec.namespace,
            spec.memory_bytes,
            spec.entry_bytes,
            spec.prewarm,
            spec.prewarm_weight,
            spec.prewarm_budget,
            spec.host,
            spec.hash_key,
            spec.path is not None,
            spec.has_bridge,
            spec.isolation_ttl_ms,
            ON_ISOLATION.index(spec.on_isolation),
            spec.default_ttl_ms,
            spec.near_bytes,
            spec.near_objects,
            spec.doorbell,
            self._codec.encode,
            self._codec.decoders,
            spec.compress_bytes or 0,
            self._follows,
        )
        self._set_unknown_ttl(spec.unknown_ttl_ms)
        self._set_origin_lag(spec.origin_lag_ms)
        if fd == NO_FILE:
            return
        self._call(spec.service or service_name(None))
        self._journal_mode(JOURNAL_MODES.index(spec.journal))
        if actual != spec.memory_bytes:
            warn(
                "segment %s has %d bytes, not the configured %d: the existing one wins until the last "
                "process has left it, the bridge too",
                spec.path,
                actual,
                spec.memory_bytes,
            )
        elif made_for != (spec.entry_bytes or made_for):
            warn(
                "segment %s is made for entries of %d bytes, not the configured %d: the existing one wins "
                "until the last process has left it, the bridge too",
                spec.path,
                made_for,
                spec.entry_bytes,
            )
        elif spec.prewarm and not prewarms:
            warn(
                "segment %s has no tables for pre-warming: it was made without prewarm = true, and "
                "stays as it is until the last process has left it, the bridge too",
                spec.path,
            )

    def _judge_ttl(self, ttl: float | timedelta | EllipsisType | None, local: bool = False) -> None:
        """Raises ``InvalidTTL``, and whatever asking for the truth of ``local`` raises."""
        self._judge(ttl, 0, None, (), local, False, 0.0, 0, 0.0)

    def _reattach(self) -> None:
        """Called by the core when the segment was retired. Raises, because callers with positions of the old
        ring must notice."""
        raise SegmentRetired(f"Segment {self.spec.path} was retired. Attach again: its successor is empty.")


def _require_the_interpreters_lock() -> None:
    """An attachment is one process's: one open page, one slot, and the interpreter's lock around each verb.

    A free-threaded Python turns its lock on when it imports the core, unless it was told not to.
    """
    is_locked = getattr(sys, "_is_gil_enabled", None)
    if is_locked is not None and not is_locked():
        raise SegmentError(
            "This Python runs without its global lock, which Cachee needs: only one thread of a "
            "process may write an entry at a time. Nothing was attached. Run it without PYTHON_GIL=0 and "
            "-X gil=0."
        )


def file_of(path: str) -> str:
    """Where the shared memory object of this name is."""
    return SHARED_MEMORY + path


def _open_file(spec: Spec) -> int:
    """The descriptor of the segment's file, made if it is missing."""
    if spec.path is None:
        return os.memfd_create("cachee.private", os.MFD_CLOEXEC)
    for _ in range(TRIES_MAX):
        try:
            fd = os.open(file_of(spec.path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            made = _create_file(spec.path, spec.group)
            if made is not None:
                return made
            continue
        if _is_left_over(os.fstat(fd)):
            os.close(fd)
            os.unlink(file_of(spec.path))
            continue
        try:
            check_owner(os.fstat(fd), spec.path, spec.group)
        except BaseException:
            os.close(fd)
            raise
        return fd
    raise SegmentBusy(f"Segment {spec.path} is made and removed again and again. Nothing was attached.")


def _beyond_standard(fd: int) -> int:
    """If descriptor 0, 1 or 2 is closed, the next opened file gets that number. As descriptor 2, the segment
    would be overwritten by error messages of this process."""
    if fd > STDERR:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    os.close(fd)
    return moved


def _remove_unmade(path: str | None, found: os.stat_result | None) -> None:
    """Remove the empty file of a segment that could not be made. If another process is about to use the file,
    it notices that the name is gone, and tries again."""
    if path is None or found is None or found.st_size or found.st_uid != os.geteuid():
        return
    with suppress(OSError):
        now = os.lstat(file_of(path))
        if (now.st_dev, now.st_ino, now.st_size) == (found.st_dev, found.st_ino, 0):
            os.unlink(file_of(path))


def _is_left_over(found: os.stat_result) -> bool:
    """An empty file of this user that was not made as a segment: no creator gives its file such a mode."""
    is_mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return is_mine and found.st_size == 0 and bool(found.st_mode & stat.S_IRWXO)


def check_owner(found: os.stat_result, path: str, group: int | None) -> None:
    """Raises ``AccessDenied`` if anybody but root, this user and the group may read or write the file.

    ``found``: of the open descriptor. A file of the configured group was given to it by a member, or by root.
    """
    wrong = _wrong_owner(found, group)
    if wrong:
        raise AccessDenied(
            f"Segment {path}: the file {file_of(path)} {wrong}. Nothing in it was read or changed, and "
            f"nothing was attached. Find out who made it; remove it with `cachee segment rm {path}` as "
            "root or as that user. Where several users share a host's segments, name a common group in "
            "the configuration's [host]."
        )


def _wrong_owner(found: os.stat_result, group: int | None) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    is_groups = group is not None and found.st_gid == group
    if found.st_uid not in (0, os.geteuid()) and not is_groups:
        return f"belongs to user {found.st_uid}: neither root, nor this user, nor of the configured group"
    others = stat.S_IRWXO if is_groups else stat.S_IRWXO | stat.S_IRWXG
    if found.st_mode & others:
        mode = stat.S_IMODE(found.st_mode)
        return f"may be opened by others: its mode is {mode:o}, its group {found.st_gid}"
    return ""


def _create_file(path: str, group: int | None) -> int | None:
    """A new file, 0600, or 0660 of the group; None if another process was faster."""
    try:
        fd = os.open(file_of(path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    except PermissionError as error:
        raise AccessDenied(
            f"Segment {path} cannot be created: {error}. Nothing was attached. See the mode of /dev/shm."
        ) from error
    if group is not None:
        try:
            os.fchown(fd, -1, group)
            os.fchmod(fd, 0o660)
        except OSError as error:
            os.close(fd)
            os.unlink(file_of(path))
            raise AccessDenied(
                f"Segment {path} cannot be given to group {group}: {error}. Nothing was attached. "
                "Run as a member of the group."
            ) from error
    return fd


def explained(error: OSError, name: str) -> SegmentError:
    """The ``SegmentError`` for a system call that failed while ``name`` was attached."""
    why = error.errno
    kind, text = EXPLANATIONS.get(why or 0, (SegmentError, ""))
    if why == errno.EACCES:
        text = text.format(user=os.getuid())
    elif why == errno.ENOENT and not os.path.isdir(SHARED_MEMORY):
        text = f"needs {SHARED_MEMORY}, which is not there. Nothing was attached. Mount a tmpfs there."
    elif why == errno.ENOENT and not os.path.isdir("/proc/self/fd"):
        text = "needs /proc/self/fd, which is not there. Nothing was attached. Mount /proc."
    text = text or "cannot be attached. Nothing was attached. See the file and the limits of this process."
    return kind(f"{name} {text} ({error})")


EXPLANATIONS: dict[int, tuple[type[SegmentError], str]] = {
    errno.EACCES: (
        AccessDenied,
        "may not be opened by user {user}. Nothing was attached. Run as the user that made it, or name a "
        "common group in the configuration's [host].",
    ),
    errno.EPERM: (
        AccessDenied,
        "may not be used: a system call is forbidden to this process. Nothing was attached. See its sandbox "
        "(seccomp, AppArmor, SELinux).",
    ),
    errno.ELOOP: (
        AccessDenied,
        "is a symbolic link. Nothing was attached. Find out who made it, and remove it with "
        "`cachee segment rm`.",
    ),
    errno.EISDIR: (
        AccessDenied,
        "is a folder. Nothing was attached. Find out who made it, and remove it with `cachee segment rm`.",
    ),
    errno.ENXIO: (
        AccessDenied,
        "is a socket or a device. Nothing was attached. Find out who made it, and remove it with "
        "`cachee segment rm`.",
    ),
    errno.EMFILE: (
        ProcessLimit,
        "cannot be opened: this process has as many files open as it may. Nothing was attached. See what "
        "leaves descriptors open, or raise the limit (`ulimit -n`, LimitNOFILE=).",
    ),
    errno.ENFILE: (
        ProcessLimit,
        "cannot be opened: this machine has as many files open as it may (fs.file-max). Nothing was "
        "attached. See what leaves descriptors open, or raise the limit.",
    ),
    errno.ENOMEM: (
        ProcessLimit,
        "cannot be mapped: there is no memory, or no address space (RLIMIT_AS, `ulimit -v`). Nothing was "
        "attached. Raise the limit, or give the namespace less memory.",
    ),
    errno.ENOSPC: (
        NoSpace,
        "cannot be made: /dev/shm has no room for another file. Nothing was attached. Remove files there, or "
        "give it more room and inodes.",
    ),
    errno.EROFS: (
        AccessDenied,
        "cannot be made: /dev/shm is mounted read-only. Nothing was attached. Mount it read-write.",
    ),
    errno.ENOSYS: (
        SegmentError,
        "needs a system call that is missing here. Nothing was attached. Cachee needs Linux, and a sandbox "
        "(seccomp) that allows memfd_create, fallocate and locks of open files.",
    ),
}


def open_for_bridge(config: Config, namespace: str) -> Segment:
    """Attach for the bridge: as workers do, but as a plain Segment."""
    return Segment(spec_of(config, namespace))
