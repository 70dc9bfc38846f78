"""The processes that are attached to a segment. The roster's locks say which live, psutil says the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import psutil

from cachee_shm.cli.terminal import shown
from cachee_shm.segment import Segment

COLUMNS = ("PID", "ROLE", "SERVICE", "MEMORY", "CPU", "COMMAND")
NUMBERS = (0, 3, 4)
"""The columns of numbers."""
MIB = 1 << 20
COMMAND_MAX = 60


class Attached(NamedTuple):
    """One live process, a cell for each of COLUMNS."""

    pid: str
    role: str
    service: str
    memory: str
    """Resident."""
    cpu: str
    """Time so far."""
    command: str


def attached(segment: Segment) -> Iterator[Attached]:
    """Each live process, including the calling one."""
    for _, pid, is_bridge, command, service, alive in segment.roster():
        if alive:
            role = "bridge" if is_bridge else "worker"
            yield Attached(str(pid), role, shown(service), *_told_by_the_system(pid, shown(command)))


def _told_by_the_system(pid: int, command: str) -> tuple[str, str, str]:
    """Memory, CPU time and command line. The pid of a process in another pid namespace may be unknown here,
    or may be another process's."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            words, memory, times = process.cmdline(), process.memory_info().rss, process.cpu_times()
            if process.name()[:15] != command[:15]:
                return "", "", f"{command}  (of another pid namespace)"
        line = shown(" ".join(words)) or command
        return f"{memory / MIB:.0f} MiB", f"{times.user + times.system:.1f} s", line[:COMMAND_MAX]
    except psutil.Error:
        return "", "", f"{command}  (nothing more may be known of it)"
