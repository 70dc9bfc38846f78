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
