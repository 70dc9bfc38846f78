"""The mesh's ticks: on one grid of the wall clock, and each of them though the one before was mistaken.

A tick that raises TICKS_MISTAKEN_MAX times in a row stops the shell, since all that matters is in the
segments and a fresh start resumes from there. Isolation ends by ticks alone: with one that fails for good,
this host would stay isolated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.shell.grid import Grid
from cachee_bridge.system.clock import clock

if TYPE_CHECKING:
    from cachee_bridge.protocol.mesh import Mesh
    from cachee_bridge.shell.inputs import Inputs
    from cachee_bridge.shell.pump import Pump

TICK_S_MIN = 0.001  # uvloop's timers count milliseconds; less would spin
TICKS_MISTAKEN_MAX = 20


class Ticks:
    """Of one mesh."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        heartbeat_s: float,
        mesh: Mesh,
        pump: Pump,
        inputs: Inputs,
        sum_up: Callable[[float], None],
        on_broken: Callable[[BaseException], None],
    ) -> None:
        """`sum_up(now)` writes the lines that are due about strangers; `on_broken(error)`: ticks fail for
        good."""
        self._loop, self._mesh, self._pump, self._inputs = loop, mesh, pump, inputs
        self._sum_up, self._on_broken = sum_up, on_broken
        self._grid = Grid(heartbeat_s, time.time() - clock())
        self._timer: asyncio.TimerHandle | None = None
        self._mistaken = 0

    def tick(self) -> None:
        """Now, and again when the next one is due."""
        self._inputs.take(0, self._pump.check)
        now = self._grid.settle(clock())
        deadline: float | None = self._inputs.take(0, self._mesh_tick, now)
        self._sum_up(now)
        wait = self._grid.next(now if deadline is None else deadline) - clock()
        self._timer = self._loop.call_later(max(wait, TICK_S_MIN), self.tick)

    def stop(self) -> None:
        """No more of them."""
        if self._timer is not None:
            self._timer.cancel()

    def _mesh_tick(self, now: float) -> float:
        try:
            deadline = self._mesh.tick(now)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            self._mistaken += 1
            if self._mistaken >= TICKS_MISTAKEN_MAX:
                self._on_broken(error)
            raise
        self._mistaken = 0
        return deadline
