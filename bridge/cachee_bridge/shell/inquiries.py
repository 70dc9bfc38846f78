"""Questions to peers from outside of the mesh: the operator's, the checker's. Each is told what came of it.

`ask` leaves the question among the mesh's effects. A caller in a callback of its own has them performed
(`Inputs.perform`); `told` is called while effects are performed, so it may ask on without that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cachee_bridge.system.clock import clock

if TYPE_CHECKING:
    from cachee_bridge.ports.effects import Answered
    from cachee_bridge.protocol.mesh import Mesh
    from cachee_bridge.shell.inputs import Inputs
    from cachee_bridge.wire.messages import Asked

Told = Callable[["Answered"], None]


class Inquiries:
    """Of one mesh."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mesh: Mesh, inputs: Inputs) -> None:
        self._loop, self._mesh, self._inputs = loop, mesh, inputs
        self._told: dict[int, Told] = {}
        """Which callback gets the answer to a question, by the question's number."""

    def ask(self, peer: str, what: int, namespace: str, rows: Sequence[Asked], told: Told) -> None:
        """`told(answered)` is called once."""
        self._told[self._mesh.questions.ask(peer, what, namespace, rows, clock())] = told

    def answered(self, effect: Answered) -> None:
        """The mesh has this answer, or gave a question up."""
        told = self._told.pop(effect.number, None)
        if told is not None:
            told(effect)

    async def of_all(self, what: int, namespace: str, rows: Sequence[Asked]) -> dict[str, Answered]:
        """Ask every linked peer with which `namespace` is shared; what each said."""
        waiting: dict[str, asyncio.Future[Answered]] = {}
        for peer in self._mesh.questions.peers(namespace):
            waiting[peer.name] = self._loop.create_future()
            self.ask(peer.name, what, namespace, rows, _into(waiting[peer.name]))
        self._inputs.perform()
        await asyncio.gather(*waiting.values())
        return {peer: future.result() for peer, future in waiting.items()}


def _into(future: asyncio.Future[Answered]) -> Told:
    def told(answered: Answered) -> None:
        if not future.done():  # whoever waited may have gone
            future.set_result(answered)

    return told
