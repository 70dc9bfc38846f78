"""Who is attached to a segment, for people: the roster's locks tell who lives, the system all the rest."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from cachee_shm.segment import Segment

MIB = 1 << 20
COMMAND_MAX = 60


def attached(segment: Segment) -> Iterator[str]:
    """A line for each live process: pid, role, service, resident memory, CPU time so far, command."""
    for _, pid, is_bridge, command, service, alive in segment.roster():
        if alive:
            role = "bridge" if is_bridge else "worker"
            yield f"{pid:>8}  {role}  {service:<16}  {_told_by_the_system(pid, command)}"


def _told_by_the_system(pid: int, command: str) -> str:
    """A process of another pid namespace has a number that is nobody's here, or somebody else's."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            words, memory, times = process.cmdline(), process.memory_info().rss, process.cpu_times()
            if process.name()[:15] != command[:15]:
                return f"{command}  (of another pid namespace)"
        line = " ".join(words)[:COMMAND_MAX] or command
        shown = "".join(each if each.isprintable() else "?" for each in line)
        return f"{memory / MIB:6.0f} MiB  {times.user + times.system:7.1f} s  {shown}"
    except psutil.Error:
        return f"{command}  (nothing more may be known of it)"
