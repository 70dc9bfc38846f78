"""What the examples' tests share: is anything of a run left on this machine?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

GONE_S = 30.0  # no test asserts a time: this is when waiting for the inevitable ends


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that were started with something of this folder on their command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in argument for argument in process.cmdline()):
                found.append(process)
    return found


def shared_of(names: list[str]) -> Iterator[str]:
    """Segments and message queues of these hosts."""
    for place in ("/dev/shm", "/dev/mqueue"):
        if os.path.isdir(place):
            yield from (
                f"{place}/{entry}"
                for entry in os.listdir(place)
                if any(entry == f"cachee.{name}" or entry.startswith(f"cachee.{name}.") for name in names)
            )


def left_of(folder: Path, names: list[str]) -> list[str]:
    """What is left of a run, after waiting for what is on its way out."""
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        left = [str(process) for process in processes_of(folder)] + list(shared_of(names))
        if not left:
            return []
        time.sleep(0.1)
    return left
