"""When the machine itself stood still: what a process saw that sleeps a millisecond, again and again.

A virtual machine is not always run, and a figure at the far end of a distribution says nothing without that.
On each core one process of real-time priority sleeps: it is late only where the core did not run at all, or
the kernel let nobody on it. Where that priority may not be had, they are plain ones, and late whenever
others want the core too.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from crew import Member, member, orders

SLEEP_S = 0.001
STALL_NS = 1_000_000
"""So much later than it was due."""
PRIORITY = 1
Stall = tuple[int, int]
now_ns = time.monotonic_ns


def watch(pipe: Connection) -> None:
    """A member's orders: (until_ns,); it answers with its stalls until then, and whether it had priority."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        has_priority = True
    except PermissionError:
        has_priority = False
    for (until_ns,) in orders(pipe):
        pipe.send((has_priority, list(_stalls(until_ns))))


def _stalls(until_ns: int) -> Iterator[Stall]:
    while (begun := now_ns()) < until_ns:
        time.sleep(SLEEP_S)
        due, woke = begun + int(SLEEP_S * 1e9), now_ns()
        if woke - due >= STALL_NS:
            yield due, woke


def merged(stalls: Iterable[Stall]) -> list[Stall]:
    """Those of all cores in one line: the machine stood still, in part, from when until when."""
    found: list[Stall] = []
    for begin, end in sorted(stalls):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def stalled_ns(stalls: Sequence[Stall], begin: int, end: int) -> int:
    """How much of the time from `begin` to `end` lies in one of `stalls`, which are merged."""
    first = max(0, bisect_right(stalls, (begin, begin)) - 1)
    total = 0
    for start, stop in stalls[first:]:
        if start >= end:
            break
        total += max(0, min(stop, end) - max(start, begin))
    return total


@dataclass(frozen=True)
class Spent:
    """What became of the machine's processors, in seconds: somebody ran, or they were not given to it."""

    busy_s: float
    stolen_s: float

    def since(self, before: Spent) -> Spent:
        return Spent(self.busy_s - before.busy_s, self.stolen_s - before.stolen_s)


def spent() -> Spent:
    """Since the machine was started, of all cores."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, file.readline().split()[1:])
    ticks = os.sysconf("SC_CLK_TCK")
    return Spent((user + nice + system + irq + softirq) / ticks, stolen / ticks)


@contextmanager
def watchers() -> Iterator[list[Member]]:
    """One for each core that this process may run on."""
    with ExitStack() as stack:
        yield [stack.enter_context(member(watch, frozenset([core]))) for core in os.sched_getaffinity(0)]
