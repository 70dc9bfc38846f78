"""``cachee segment ls`` and ``rm``: the shared memory of this machine, of every host and build.

Neither attaches, nor reads what is in a file: who is attached holds a lock on a byte of it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pwd
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cachee_shm import _core
from cachee_shm.attaching import host_of
from cachee_shm.errors import AccessDenied, SegmentError
from cachee_shm.segment import SHARED_MEMORY

NAME = re.compile(r"cachee\.(?P<host>[A-Za-z0-9._-]+)\.(?P<namespace>[A-Za-z0-9_-]+)\.(?P<layout>[0-9]+)")
FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
SLOTS_MAX = 4096  # of a roster, in any layout
MIB = 1 << 20


@dataclass(frozen=True)
class Found:
    """A segment's file."""

    name: str
    host: str
    namespace: str
    layout: int
    size: int
    uid: int
    mode: int

    @property
    def path(self) -> str:
        """Where the file is."""
        return os.path.join(SHARED_MEMORY, self.name)


def list_all(options: argparse.Namespace) -> int:
    """Print every segment of the machine, a line each; 1 when there is none."""
    rows = [
        (f"/{found.name}", f"{found.size / MIB:.0f} MiB", _user(found.uid), _attached(found))
        for found in sorted(_segments(), key=lambda found: found.name)
    ]
    if not rows:
        print("no segment on this machine")
        return 1
    rows.insert(0, ("NAME", "SIZE", "USER", "ATTACHED"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, size, user, attached in rows:
        print(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {user:<{widths[2]}}  {attached}")
    return 0


def remove(options: argparse.Namespace) -> int:
    """Remove the named segments; 1 when one is not there, ``SegmentError`` when one is in use."""
    existing = {found.name: found for found in _segments()}
    missing = []
    for name in options.names:
        found = _named(name, existing, options.config)
        for one in found:
            _remove(one, options.force)
        if not found:
            missing.append(name)
    for name in missing:
        print(f"no segment {name}: `cachee segment ls` shows the names")
    return 1 if missing else 0


def _named(name: str, existing: dict[str, Found], config: str | None) -> list[Found]:
    """The segment of this name; or, of a namespace's name, all that this host has, in any layout."""
    if name.lstrip("/") in existing:
        return [existing[name.lstrip("/")]]
    if "/" in name or "." in name:
        return []
    host = host_of(config)
    return [found for found in existing.values() if (found.host, found.namespace) == (host, name)]


def _segments() -> Iterator[Found]:
    with os.scandir(SHARED_MEMORY) as entries:
        for entry in entries:
            match = NAME.fullmatch(entry.name)
            if match is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # removed since
                status = entry.stat(follow_symlinks=False)
                yield Found(
                    name=entry.name,
                    host=match["host"],
                    namespace=match["namespace"],
                    layout=int(match["layout"]),
                    size=status.st_size,
                    uid=status.st_uid,
                    mode=status.st_mode,
                )


def _remove(found: Found, force: bool) -> None:
    try:
        if not force and _in_use(found):
            raise SegmentError(
                f"/{found.name} is in use; it was not removed. Stop its processes first, or use "
                "--force: they then go on with a new, empty one."
            )
        os.unlink(found.path)
    except PermissionError as error:
        raise AccessDenied(
            f"/{found.name} was not removed: {error.strerror}; it is {_user(found.uid)}'s"
        ) from None
    except FileNotFoundError:
        pass
    print(f"removed /{found.name}")


def _in_use(found: Found) -> bool:
    """Whether anybody is attached, in any layout."""
    with _opened(found) as fd:
        return _locked(fd, _core.LOCK_BASE, _core.LOCK_SLOTS + SLOTS_MAX) > 0


@contextlib.contextmanager
def _opened(found: Found) -> Iterator[int]:
    fd = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def _locked(fd: int, start: int, length: int) -> int:
    """How many bytes of the range are locked; the kernel tells of a range only whether any is."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    if FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] == fcntl.F_UNLCK:
        return 0
    half = length // 2
    return _locked(fd, start, half) + _locked(fd, start + half, length - half) if half else 1


def _attached(found: Found) -> str:
    if not stat.S_ISREG(found.mode):
        return "? (not a regular file)"
    try:
        if found.layout != _core.LAYOUT:
            who = f"{'yes' if _in_use(found) else 'nobody'} (layout {found.layout}: another build)"
        else:
            who = _members(found)
    except OSError as error:
        who = f"? ({error})"
    return f"{who}; anybody may open it: no process of ours uses it" if found.mode & stat.S_IRWXO else who


def _members(found: Found) -> str:
    with _opened(found) as fd:
        held = _locked(fd, _core.LOCK_BASE + _core.LOCK_SLOTS, SLOTS_MAX)
        has_bridge = _locked(fd, _core.LOCK_BASE + _core.LOCK_BRIDGE, 1)
    return f"{held - has_bridge or 'nobody'}{' and the bridge' if has_bridge else ''}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
