"""Asks discovery for addresses when the mesh wants it (Discover), and gives the mesh the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from cachee_bridge.system.clock import clock

if TYPE_CHECKING:
    from cachee_bridge.protocol.mesh import Mesh
    from cachee_bridge.shell.inputs import Inputs


class Answer(Protocol):
    """The addresses that are named, and for how long."""

    @property
    def addresses(self) -> Collection[str]: ...
    @property
    def ttl_s(self) -> float: ...


class Resolver(Protocol):
    """Asks the DNS: resolver.py, which is imported only if the configuration has `discover`."""

    what: str

    async def ask(self) -> Answer:
        """Raises an exception whose text says why there is no answer."""


class Question:
    """Of one resolver, to one mesh."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, resolver: Resolver, mesh: Mesh, inputs: Inputs
    ) -> None:
        self._loop, self._resolver, self._mesh, self._inputs = loop, resolver, mesh, inputs
        self._asking: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Ask, and give the mesh the answer, or the reason why there is none."""
        self._asking = self._loop.create_task(self._ask())

    def stop(self) -> None:
        """Give the mesh nothing more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        try:
            answer = await self._resolver.ask()
        except Exception as error:  # also what a server's bytes may do to a library
            self._inputs.take(0, self._mesh.discovery_failed, str(error) or repr(error), clock())
        else:
            self._inputs.take(0, self._mesh.discovered, answer.addresses, answer.ttl_s, clock())
