"""The number of the present life of this host's shared memory, in a file beside the segments.

The file goes when the segments go: at a boot, with the memory volume of a pod, by a cleanup of `/dev/shm`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat

from cachee_bridge.system.owners import wrong_owner

DIGITS = re.compile(rb"[0-9a-f]{8}")


def boot_of_shared_memory(path: str, gid: int | None) -> int:
    """u32, random for each life of the shared memory that `path` is in. The first bridge makes the file.

    `gid`: of the configured group, None without one. OSError: the file can be neither read nor made, or
    somebody else has made it. It is not touched then.
    """
    with contextlib.suppress(FileExistsError):
        _make(path, gid)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        wrong = wrong_owner(found, gid) if stat.S_ISREG(found.st_mode) else "is no regular file"
        content = b"" if wrong else os.read(fd, 9)
    finally:
        os.close(fd)
    if not wrong and not DIGITS.fullmatch(content):
        wrong = "does not hold 8 hexadecimal digits"
    if wrong:
        raise PermissionError(f"{path} {wrong}; it was not touched; remove it by `rm {path}` as root")
    return int(content, 16)


def _make(path: str, gid: int | None) -> None:
    """It has its name when it is whole. FileExistsError: it is there already."""
    if os.path.lexists(path):
        raise FileExistsError(path)
    new = f"{path}.{secrets.token_hex(8)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(fd, secrets.token_hex(4).encode())
            if gid is not None:
                os.fchown(fd, -1, gid)
                os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
        os.link(new, path)
    finally:
        os.unlink(new)
