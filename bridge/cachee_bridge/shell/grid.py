"""When to tick: at the wall clock's multiples of the heartbeat, so that all hosts beat at one moment."""

from __future__ import annotations

import math

GRID_S_MAX = 0.1


class Grid:
    """The ticks of one host.

    A bridge woken for one beat spends most of that on waking up; eight beats that come together cost little
    more than one. Clocks that differ cost that saving and nothing else. A slow heartbeat is divided, since
    what else is due (a dial) shall not wait for it.
    """

    def __init__(self, heartbeat_s: float, wall_s: float) -> None:
        """`wall_s`: what the wall clock is ahead of CLOCK_MONOTONIC. A later step of it goes unnoticed."""
        self._period_s = heartbeat_s / math.ceil(heartbeat_s / GRID_S_MAX)
        self._wall_s = wall_s
        self._deadline = 0.0

    def next(self, deadline: float) -> float:
        """The first tick at or after `deadline`."""
        self._deadline = deadline
        return self._at(math.ceil((deadline + self._wall_s) / self._period_s - 1e-4))

    def settle(self, now: float) -> float:
        """The tick that `now` is for: without this, each would be as late as all before it together."""
        tick = max(self._at(math.floor((now + self._wall_s) / self._period_s)), self._deadline)
        return tick if 0 <= now - tick < self._period_s / 8 else now

    def _at(self, number: int) -> float:
        return number * self._period_s - self._wall_s
