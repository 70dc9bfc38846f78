"""``cachee segment ls`` and ``rm``: the shared memory of this machine, of every host and build."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pwd
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cachee_shm import _core
from cachee_shm.errors import AccessDenied, SegmentError
from cachee_shm.segment import Segment, Spec

FOLDER = "/dev/shm"  # where Linux keeps POSIX shared memory
NAME = re.compile(r"cachee\.(?P<host>[A-Za-z0-9._-]+)\.(?P<namespace>[A-Za-z0-9_-]+)\.(?P<layout>[0-9]+)")
FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
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

    @property
    def path(self) -> str:
        """Where the file is."""
        return os.path.join(FOLDER, self.name)


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
    missing = [name for name in options.names if name.lstrip("/") not in existing]
    for name in options.names:
        if name not in missing:
            _remove(existing[name.lstrip("/")], options.force)
    for name in missing:
        print(f"no segment {name}: `cachee segment ls` shows the names")
    return 1 if missing else 0


def _segments() -> Iterator[Found]:
    with os.scandir(FOLDER) as entries:
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
    """Whether anybody is attached, in any layout: whoever is holds a lock on a byte of the file."""
    with open(found.path, "rb") as file:
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0]
    return bool(kind != fcntl.F_UNLCK)


def _attached(found: Found) -> str:
    try:
        if found.layout != _core.LAYOUT:
            return f"{'yes' if _in_use(found) else 'nobody'} (layout {found.layout}: another build)"
        return _members(found)
    except (SegmentError, OSError) as error:
        return f"? ({error})"


def _members(found: Found) -> str:
    with contextlib.closing(Segment(_spec(found))) as segment:
        bridges = [is_bridge for _, _, is_bridge, _, alive in segment.roster() if alive]
    workers = bridges.count(False) - 1  # this process is one of them
    return f"{workers or 'nobody'}{' and the bridge' if any(bridges) else ''}"


def _spec(found: Found) -> Spec:
    """To look into a segment as it is: its size, whatever its hash key."""
    return Spec(
        path=f"/{found.name}",
        namespace=found.namespace,
        host=found.host,
        memory_bytes=found.size,
        hash_key=None,
        group=None,
        has_bridge=False,
        isolation_ttl_ms=0,
        default_ttl_ms=0,
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
