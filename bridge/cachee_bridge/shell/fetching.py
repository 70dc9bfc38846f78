"""Peer fill, for the workers of this host: whom to ask for a value, and what to do with what they say.

A worker waits at most so long as it says (`peer_fill_wait`), then loads by itself. Within that time the
chosen host may name another, and a host whose link ends is replaced by the next that is chosen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from cachee_bridge.ports.effects import FAILED, FILLED, LOADED, Failure
from cachee_bridge.system.clock import clock
from cachee_bridge.wire.messages import ELSEWHERE, GIVEN, LOAD

if TYPE_CHECKING:
    from cachee_bridge.ports.effects import Brought
    from cachee_bridge.protocol.mesh import Mesh
    from cachee_bridge.shell.inputs import Inputs
    from cachee_bridge.shell.pump import Pump
    from cachee_bridge.wire.messages import Fetched

LOOK_S = 0.002
"""Between two looks at what waits for a load: a load takes milliseconds, and a look microseconds."""
HOPS_MAX = 16
"""Hosts that are asked for one worker."""
LOADS_MAX = 64
"""Loads that are served at once; one more loads by itself. The other places of the operator's socket
(daemon/operator_socket.py) stay free: loads that wait for a slow origin must not keep the operator out."""


class Fetching:
    """Of one mesh."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, name: str, mesh: Mesh, inputs: Inputs, pump: Pump
    ) -> None:
        self._loop, self._name, self._mesh, self._inputs, self._pump = loop, name, mesh, inputs, pump
        self._told: dict[int, asyncio.Future[Brought]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loads = 0
        """That are being served."""
        self.results: Counter[tuple[str, str, str]] = Counter()
        """By namespace, result, and the reason of a failure, else ""."""

    async def fetch(self, namespace: str, key: bytes, patience_s: float) -> Fetched | None:
        """The value that another host has given; None: the worker is to load it."""
        came: Fetched | Failure | None = Failure.BUSY
        if self._loads < LOADS_MAX:
            self._loads += 1
            try:
                came = await self._fetched(namespace, key, clock() + patience_s)
            finally:
                self._loads -= 1
        if isinstance(came, Failure):
            self.results[namespace, FAILED, came.value] += 1
            return None
        self.results[namespace, LOADED if came is None else FILLED, ""] += 1
        return came

    async def _fetched(self, namespace: str, key: bytes, end: float) -> Fetched | Failure | None:
        """None: this host is the one to load."""
        self._pump.look([namespace])  # what this host has announced is known then
        fetches, host = self._mesh.fetches, ""
        failure = Failure.LATE
        for _ in range(HOPS_MAX):
            now = clock()
            if now >= end:
                break
            host = host or fetches.chosen(namespace, key)
            if host == self._name:
                host = fetches.loader(namespace, key, now)
                if not host:
                    return None
            brought = await self._ask(host, namespace, key, end - now)
            fetched, host = brought.fetched, ""
            if fetched is None:
                failure = brought.failure or Failure.NOTHING
                if not brought.is_lost:
                    return failure
                await asyncio.sleep(LOOK_S)  # the others will have noticed as well
            elif fetched.outcome == GIVEN:
                return fetched
            elif fetched.outcome == LOAD:
                return None
            elif fetched.outcome == ELSEWHERE and fetched.host != self._name:
                host = fetched.host
            else:
                return Failure.NOTHING
        return failure

    async def _ask(self, host: str, namespace: str, key: bytes, patience_s: float) -> Brought:
        number = self._mesh.fetches.ask(host, namespace, key, clock(), patience_s)
        told: asyncio.Future[Brought] = self._loop.create_future()
        self._told[number] = told
        self._inputs.perform()
        self.look_on()
        try:
            return await told
        finally:
            del self._told[number]

    def brought(self, effect: Brought) -> None:
        """The mesh has this answer, or gave a question up."""
        told = self._told.get(effect.number)
        if told is not None and not told.done():  # whoever waited may have gone
            told.set_result(effect)

    def look(self) -> None:
        """Something has come, or a link has ended: look at once at what waits."""
        if self._mesh.fetches.is_busy:
            self._inputs.take(0, self._mesh.fetches.look, clock())
            self.look_on()

    def look_on(self) -> None:
        """Look again and again while anything waits."""
        if self._timer is None and self._mesh.fetches.is_busy:
            self._timer = self._loop.call_later(LOOK_S, self._look_due)

    def _look_due(self) -> None:
        self._timer = None
        self.look()

    def stop(self) -> None:
        """Nobody is told anything more."""
        if self._timer is not None:
            self._timer.cancel()
