"""Lists the segments that exist, and looks into one without changing it.

Attaching creates a missing segment. It also replaces a segment whose sizes differ from the configuration, if
no process uses it. That is right for a worker. A command that only looks must do neither: as root it would
leave a segment that only root may open, and after a change of the configuration it would empty the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cachee_shm import _core
from cachee_shm.cache import Cache
from cachee_shm.errors import CacheeError
from cachee_shm.segment import SHARED_MEMORY, file_of, segment_path

if TYPE_CHECKING:
    from cachee_shm.segment import Spec

SLOTS_MAX = 4096  # of a roster, in any layout
FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid


class NoSegment(CacheeError):
    """There is nothing to look into. Nothing was made."""


def existing(host: str) -> list[str]:
    """Namespaces of this host that have a segment of this build's layout, by name."""
    before, after = segment_path(host, "\0").split("\0")
    paths = glob.glob(f"{SHARED_MEMORY}{glob.escape(before)}*{glob.escape(after)}")
    names = (path.removeprefix(SHARED_MEMORY + before).removesuffix(after) for path in paths)
    return sorted(name for name in names if "." not in name)  # a dot: it is host "web.1"'s, not "web"'s


@contextlib.contextmanager
def looked_into(spec: Spec) -> Iterator[Cache]:
    """The segment, whatever its sizes are. Raises ``NoSegment``, and what attaching raises."""
    assert spec.path is not None
    with contextlib.ExitStack() as stack:
        size = stack.enter_context(_kept(spec.path))
        yield stack.enter_context(Cache(spec._replace(memory_bytes=size, entry_bytes=0)))


@contextlib.contextmanager
def _kept(path: str) -> Iterator[int]:
    """The segment's size in bytes. During the block the segment counts as used, so no process replaces it.

    Each attached process holds a lock on the byte of its slot in the file. This holds the byte of the last
    slot, with a read lock. If a process has that slot, the segment is in use anyway.
    """
    try:
        fd = os.open(file_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoSegment(f"no segment {path}: no process has attached to this namespace yet") from None
    except OSError:  # attaching says what is wrong with it
        yield 0
        return
    try:
        at = _core.LOCK_BASE + _core.LOCK_SLOTS + SLOTS_MAX - 1
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, at, 1, 0))
        yield os.fstat(fd).st_size
    finally:
        os.close(fd)
