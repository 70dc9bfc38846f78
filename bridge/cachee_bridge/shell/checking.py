"""The checker (checker/checker.py) over the real mesh and the real segments: its time, its questions.

Its timer is its own: the looks at a suspect are 1 and 10 ms apart, and the mesh ticks ten times a second.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cachee_bridge.checker.checker import Checker
from cachee_bridge.shell import lines
from cachee_bridge.system.clock import clock
from cachee_bridge.wire.messages import ARM, Asked

if TYPE_CHECKING:
    from cachee_bridge.checker.around import Watched
    from cachee_bridge.ports.effects import Answered, Level
    from cachee_bridge.protocol.mesh import Mesh
    from cachee_bridge.protocol.questions import Peer
    from cachee_bridge.shell.inputs import Inputs
    from cachee_bridge.shell.inquiries import Inquiries, Told
    from cachee_bridge.shell.pump import Pump

ARMED_S = 120.0
"""How long a suspect's reads are journalled: twice as long as it is looked at."""
MISTAKEN_S = 1.0
"""After a tick that raised."""


class Checking:
    """Of one shell. Its methods without a docstring are the checker's Around."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        segments: Mapping[str, Watched],
        every_s: float,
        lost_after_s: float,
        mesh: Mesh,
        inputs: Inputs,
        inquiries: Inquiries,
        pump: Pump,
    ) -> None:
        self._loop, self._segments, self._lost_after_s = loop, segments, lost_after_s
        self._mesh, self._inputs, self._inquiries, self._pump = mesh, inputs, inquiries, pump
        self.checker = Checker(host, self, every_s, random.Random())
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The first round comes some time within the first period."""
        self._tick()

    def stop(self) -> None:
        """No more of them."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _tick(self) -> None:
        now = clock()
        done = self._inputs.take(0, self._ticked, now)
        self._call_at(self.checker.next_due(now) if done else now + MISTAKEN_S)

    def _ticked(self, now: float) -> bool:
        self.checker.tick(now)
        return True

    def _call_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = due - clock()
        self._timer = self._loop.call_later(max(0.0, wait_s), self._tick) if wait_s < float("inf") else None

    # Around

    def namespaces(self) -> list[str]:
        return list(self._segments)

    def segment(self, namespace: str) -> Watched | None:
        return self._segments.get(namespace)

    def peers(self, namespace: str, now: float) -> list[Peer]:
        questions = self._mesh.questions
        return questions.peers(namespace) + questions.lost(namespace, now - self._lost_after_s)

    def send(self, namespace: str) -> None:
        self._pump.look([namespace])

    def ask(
        self,
        peer: str,
        what: int,
        namespace: str,
        rows: Sequence[Asked],
        told: Callable[[Answered], None],
    ) -> None:
        self._inquiries.ask(peer, what, namespace, rows, self._then_call(told))

    def _then_call(self, told: Told) -> Told:
        """An answer may bring forward what is due. It is told while effects are performed, so nothing is
        written in the same callback."""

        def call(answered: Answered) -> None:
            told(answered)
            if self._timer is not None:
                self._call_at(self.checker.next_due(answered.at))

        return call

    def arm(self, namespace: str, hash: int) -> None:
        segment = self._segments.get(namespace)
        if segment is not None:
            segment.arm(hash, ARMED_S)
        for peer in self._mesh.questions.peers(namespace):
            rows = (Asked(hash, int(1000 * ARMED_S)),)
            self._inquiries.ask(peer.name, ARM, namespace, rows, lambda answered: None)

    def say(self, level: Level, text: str, **fields: str | int | float) -> None:
        lines.write(level, text, **fields)
