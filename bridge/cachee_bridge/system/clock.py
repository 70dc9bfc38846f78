"""The clock of the mesh: the time since boot, suspended time counted.

It is the clock of the segments (core/clock.h). A host that was suspended has heard nothing for as long: the
words of its peers have grown old by that, so it is isolated from them when it wakes, until it has heard them
anew.
"""

from __future__ import annotations

import time


def clock() -> float:
    """Seconds; never set back. Of one host alone: no two hosts' clocks can be compared."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


READINGS = 3


def wall_ahead_s() -> float:
    """What the wall clock is ahead of `clock`, in seconds. Of READINGS the one that took the shortest time: a
    process that loses its processor between the two clocks is wrong by as long."""
    return min(_reading() for _ in range(READINGS))[1]


def _reading() -> tuple[float, float]:
    """How long it took, and what the wall clock was ahead in its middle."""
    before, wall, after = clock(), time.time(), clock()
    return after - before, wall - (before + after) / 2
