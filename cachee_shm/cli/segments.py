"""``cachee segment ls`` and ``rm``: the segments of this machine, of every host name and build.

Neither command attaches or reads what is in a file. Each attached process holds a lock on a byte of the file,
so the locks show how many there are.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from cachee_shm import _core
from cachee_shm.attaching import host_of
from cachee_shm.cli.existing import FLOCK, SLOTS_MAX
from cachee_shm.cli.terminal import table
from cachee_shm.errors import AccessDenied, SegmentError
from cachee_shm.segment import SHARED_MEMORY, boot_file

NAME = re.compile(r"cachee\.(?P<host>[A-Za-z0-9._-]+)\.(?P<namespace>[A-Za-z0-9_-]+)\.(?P<layout>[0-9]+)")


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
    """Print every segment of the machine, one a line; 1 if there is none."""
    every = sorted(found_segments(), key=lambda found: found.name)
    if options.json:
        print(json.dumps({"segments": [_row(found) for found in every]}))
        return 0 if every else 1
    rows = [
        (f"/{found.name}", f"{found.size / MIB:.0f} MiB", _user(found.uid), _attached(found))
        for found in every
    ]
    if not rows:
        print("no segment on this machine")
        return 1
    print(*table([("NAME", "SIZE", "USER", "ATTACHED"), *rows], {1}), sep="\n")
    return 0


def _row(found: Found) -> dict[str, object]:
    """The row for programs. "used" is null if this user may not open the file."""
    used: bool | None
    try:
        used = is_in_use(found) if stat.S_ISREG(found.mode) else None
    except OSError:
        used = None
    keys = ("host", "namespace", "layout", "size", "uid")
    return {"name": f"/{found.name}", **{key: getattr(found, key) for key in keys}, "used": used}


def remove(options: argparse.Namespace) -> int:
    """Remove the named segments; 1 if one does not exist, ``SegmentError`` if one is in use."""
    existing = {found.name: found for found in found_segments()}
    missing = []
    for name in options.names:
        found = _named(name, existing, options.config)
        for one in found:
            _remove(one, options.force)
            _end_boot(one.host)
        if not found:
            missing.append(name)
    for name in missing:
        print(f"no segment {name}: `cachee segment ls` shows the names")
    return 1 if missing else 0


def _named(name: str, existing: dict[str, Found], config: str | None) -> list[Found]:
    """The segment of this name, or all segments of this host for a namespace of this name, in any layout."""
    if name.lstrip("/") in existing:
        return [existing[name.lstrip("/")]]
    if "/" in name or "." in name:
        return []
    host = host_of(config)
    return [found for found in existing.values() if (found.host, found.namespace) == (host, name)]


def found_segments() -> Iterator[Found]:
    """Every segment of this machine, of any host name, user and layout."""
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
        if not force and stat.S_ISREG(found.mode) and is_in_use(found):
            raise SegmentError(
                f"/{found.name} is in use; it was not removed. Stop its processes first, or use "
                "--force: they then go on with a new, empty one."
            )
        (os.rmdir if stat.S_ISDIR(found.mode) else os.unlink)(found.path)
    except PermissionError as error:
        raise AccessDenied(
            f"/{found.name} was not removed: {error.strerror}; it is {_user(found.uid)}'s"
        ) from None
    except FileNotFoundError:
        pass
    except OSError as error:  # a folder that is not empty
        raise SegmentError(f"/{found.name} was not removed: {error.strerror}; look into it first") from None
    print(f"removed /{found.name}")


def _end_boot(host: str) -> None:
    """Peers may not have heard of all that was written to the segment: they are told that it is gone when the
    host's bridge starts the next time."""
    with contextlib.suppress(OSError):
        os.unlink(boot_file(host))


def is_in_use(found: Found) -> bool:
    """Whether any process is attached; works for any layout."""
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
    """How many bytes of the range are locked. The kernel only says whether a range has a lock, so the range
    is halved again and again."""
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
            who = f"{'yes' if is_in_use(found) else 'nobody'} (layout {found.layout}: another build)"
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
