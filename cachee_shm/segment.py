"""A typed handle on one namespace's segment: its name, its file, its life.

Whoever attaches first creates the segment; everybody else finds it. The file is opened first and created
only when it is missing (``O_EXCL``): Debian's ``protected_regular`` refuses ``O_CREAT`` on another user's
file. What is in the file is the core's business (``core/segment.c``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import posix_ipc

from cachee_shm import _core, codec
from cachee_shm.errors import AccessDenied, ConfigError, SegmentError, SegmentRetired

if TYPE_CHECKING:
    from cachee_shm.config import Config

__all__ = [
    "EMBEDDED_MEMORY_BYTES",
    "Segment",
    "Spec",
    "bridge_socket",
    "embedded",
    "open_for_bridge",
    "private",
    "spec_of",
]

EMBEDDED_MEMORY_BYTES = 32 << 20
EMBEDDED_NAMESPACE = "default"
NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")  # config.NAMESPACE, without importing pydantic
ON_ISOLATION = ("cap", "flush", "serve")  # as attachment.h numbers them
OPEN_TRIES_MAX = 200
OPEN_WAIT_S = 0.005


class Spec(NamedTuple):
    """Everything that attaching needs: bytes and milliseconds; lifetime 0 is for ever."""

    path: str | None  # the shared memory object's name; None: anonymous
    namespace: str
    host: str
    memory_bytes: int
    hash_key: bytes | None
    group: int | None
    has_bridge: bool
    isolation_ttl_ms: int
    default_ttl_ms: int
    near_cache_entries: int = 0
    on_isolation: str = "cap"

    @property
    def doorbell(self) -> str:
        """The bridge's message queue; empty without a bridge."""
        return f"/cachee.{self.host}" if self.has_bridge else ""


def segment_path(host: str, namespace: str) -> str:
    """The shared memory object's name: host, namespace and layout, so that an upgrade makes a new one."""
    return f"/cachee.{host}.{namespace}.{_core.LAYOUT}"


def bridge_socket(host: str) -> str:
    """Where the host's bridge answers `cachee peers`; see control.py there."""
    return f"/dev/shm/cachee.{host}.sock"


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
        near_cache_entries=table.near_cache_entries,
        on_isolation=table.on_isolation,
    )


def _only_namespace(config: Config) -> str:
    listed = list(config.namespaces)
    return listed[0] if len(listed) == 1 and config.defaults is None else EMBEDDED_NAMESPACE


def private(spec: Spec) -> Spec:
    """The same namespace as an anonymous segment of this process alone."""
    return spec._replace(path=None, has_bridge=False)


def warn(message: str, *arguments: object) -> None:
    """Tells the logger "cachee_shm". Imported here, since most processes never have anything to tell it."""
    import logging

    logging.getLogger("cachee_shm").warning(message, *arguments)


class Segment(_core.Segment):
    """An attachment to one segment. Its verbs are the core's; here are its name and its re-attachment."""

    spec: Spec

    def __init__(self, spec: Spec) -> None:
        """Attach, creating the segment if nobody has. Raises the ``SegmentError`` that says what is wrong."""
        _require_the_interpreters_lock()
        self.spec = spec
        self._open()

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
        """The age up to which it is."""
        return self.spec.isolation_ttl_ms / 1000

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.namespace!r} {self.name or 'private'} {state}>"

    def _open(self) -> None:
        for _ in range(OPEN_TRIES_MAX):
            fd = _open_file(self.spec)
            try:
                self._attach_file(fd)
                return
            except SegmentRetired:
                _unlink_retired(self.spec)
        raise SegmentError(
            f"Segment {self.spec.path} was retired again and again. Nothing was attached. See who removes it."
        )

    def _attach_file(self, fd: int) -> None:
        spec = self.spec
        actual = self._attach(
            fd,
            spec.path or spec.namespace,
            spec.memory_bytes,
            spec.host,
            spec.hash_key,
            spec.path is not None,
            spec.has_bridge,
            spec.isolation_ttl_ms,
            ON_ISOLATION.index(spec.on_isolation),
            spec.default_ttl_ms,
            spec.near_cache_entries,
            spec.doorbell,
            codec.encode,
            codec.HOOKS_BY_TAG,
        )
        if actual != spec.memory_bytes:
            warn(
                "segment %s has %d bytes, not the configured %d: the existing one wins until it is removed",
                spec.path,
                actual,
                spec.memory_bytes,
            )

    def _reattach(self) -> None:
        """Called by the core when the segment was retired: who holds positions of it must be told."""
        raise SegmentRetired(f"Segment {self.spec.path} was retired. Attach again: its successor is empty.")


def _require_the_interpreters_lock() -> None:
    """An attachment is one process's: one open page, one slot, and the interpreter's lock around each verb.

    A free-threaded Python turns its lock on when it imports the core, unless it was told not to.
    """
    is_locked = getattr(sys, "_is_gil_enabled", None)
    if is_locked is not None and not is_locked():
        raise SegmentError(
            "This Python runs without its global lock, which keeps the threads of a process out of each "
            "other's half-written entries. Nothing was attached. Run it without PYTHON_GIL=0 and -X gil=0."
        )


def _open_file(spec: Spec) -> int:
    """The descriptor of the segment's file, made if it is missing."""
    if spec.path is None:
        return os.memfd_create("cachee.private", os.MFD_CLOEXEC)
    denied: OSError | None = None
    for _ in range(OPEN_TRIES_MAX):
        try:
            return int(posix_ipc.SharedMemory(spec.path).fd)
        except posix_ipc.ExistentialError:
            fd = _create_file(spec.path, spec.group)
            if fd is not None:
                return fd
        except (posix_ipc.PermissionsError, PermissionError) as error:
            denied = OSError(errno.EACCES, str(error))
            time.sleep(OPEN_WAIT_S)  # its creator may not have set its mode yet
    raise AccessDenied(
        f"Segment {spec.path} may not be opened by user {os.getuid()}: {denied}. Nothing was attached. "
        "Run as the user that made it, or name a common group in the configuration's [host]."
    )


def _create_file(path: str, group: int | None) -> int | None:
    """A new file, 0600, or 0660 of the group; None if somebody else was faster."""
    try:
        fd = int(posix_ipc.SharedMemory(path, posix_ipc.O_CREX, mode=0o600).fd)
    except posix_ipc.ExistentialError:
        return None
    except (posix_ipc.PermissionsError, OSError) as error:
        raise AccessDenied(
            f"Segment {path} cannot be created: {error}. Nothing was attached. See the mode of /dev/shm."
        ) from error
    if group is not None:
        try:
            os.fchown(fd, -1, group)
            os.fchmod(fd, 0o660)
        except OSError as error:
            os.close(fd)
            posix_ipc.unlink_shared_memory(path)
            raise AccessDenied(
                f"Segment {path} cannot be given to group {group}: {error}. Nothing was attached. "
                "Run as a member of the group."
            ) from error
    return fd


def _unlink_retired(spec: Spec) -> None:
    """Take a retired segment's name away, once: whoever holds the old file's lock looks before it unlinks."""
    if spec.path is None:
        return
    try:
        old = int(posix_ipc.SharedMemory(spec.path).fd)
    except posix_ipc.ExistentialError:
        return
    try:
        fcntl.flock(old, fcntl.LOCK_EX)
        now = int(posix_ipc.SharedMemory(spec.path).fd)
        try:
            if os.path.sameopenfile(old, now) and _core.is_retired(now):
                posix_ipc.unlink_shared_memory(spec.path)
        finally:
            os.close(now)
    except posix_ipc.ExistentialError:
        pass
    finally:
        os.close(old)


def open_for_bridge(config: Config, namespace: str) -> Segment:
    """Attach as the bridge does: exactly as workers do, without their Python face."""
    return Segment(spec_of(config, namespace))
