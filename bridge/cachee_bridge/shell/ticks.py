"""The mesh's ticks: on one grid of the wall clock, and each of them though the one before was mistaken.

A tick that raises TICKS_MISTAKEN_MAX times in a row stops the shell, since all that matters is in the
segments and a fresh start resumes from there. Isolation ends by ticks alone: with one that fails for good,
this host would stay isolated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.shell.grid import Grid
from cachee_bridge.system.clock import clock, wall_ahead_s

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
        self.wall_ahead_s = wall_ahead_s()
        """What the wall clock is ahead of the mesh's, at the start. A later step goes unnoticed."""
        self._grid = Grid(heartbeat_s, self.wall_ahead_s)
        self._timer: asyncio.TimerHandle | None = None
        self._is_soon = self._is_over = False
        self._mistaken = 0

    def tick(self) -> None:
        """Now, and again when the next one is due."""
        self._inputs.take(0, self._pump.check)
        self._mesh.questions.wall_ahead_s = wall_ahead_s()
        now = self._grid.settle(clock())
        self._is_soon = False
        deadline: float | None = self._inputs.take(0, self._mesh_tick, now)
        self._sum_up(now)
        self._set(now if deadline is None or self._is_soon else deadline)

    def soon(self) -> None:
        """Something has stirred: the next heartbeat is not to be left out."""
        self._is_soon = True
        self._set(clock())

    def stop(self) -> None:
        """No more of them, whatever stirs."""
        self._is_over = True
        self._cancel()

    def _set(self, deadline: float) -> None:
        self._cancel()
        if not self._is_over:
            wait = self._grid.next(deadline) - clock()
            self._timer = self._loop.call_later(max(wait, TICK_S_MIN), self.tick)

    def _cancel(self) -> None:
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
