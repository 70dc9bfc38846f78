"""Shells over real segments of this process alone, real TCP and the real mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

import cachee_shm
from cachee_bridge.carriers.tls import Contexts
from cachee_bridge.ports.effects import Effect
from cachee_bridge.protocol.mesh import Settings
from cachee_bridge.shell.shell import Shell
from cachee_shm import Cache
from cachee_shm.ports import free_ports

WAIT_S = 30.0
HEARTBEAT_S = 0.05


def held(namespace: str) -> Cache:
    """A worker's segment, which its bridge holds as well. There is none of another layout."""
    cache: Cache = cachee_shm.attach(namespace, private=True, config={"defaults": {"memory": "4MiB"}})
    cache.gather = lambda: None  # type: ignore[attr-defined]
    return cache


class Side:
    """One shell over one namespace."""

    def __init__(
        self, name: str, port: int, secrets: tuple[bytes, ...] = (), tls: Contexts | None = None
    ) -> None:
        self.port = port
        self.cache = held("shop")
        self.broken: list[BaseException] = []
        settings = Settings(address=f"127.0.0.1:{port}", heartbeat_s=HEARTBEAT_S, secrets=secrets)
        loop = asyncio.get_running_loop()
        self.shell = Shell(loop, name, {"shop": self.cache}, settings, None, self.broken.append, tls)

    async def start(self, *peers: int) -> None:
        await self.shell.start("127.0.0.1", self.port, [f"127.0.0.1:{peer}" for peer in peers])

    def up(self) -> list[str]:
        return [peer.name for peer in self.shell.mesh.views.peers() if peer.state == "up"]


def run(test: Callable[[Side, Side], Awaitable[None]]) -> None:
    async def main() -> None:
        ports = free_ports(2)
        left, right = Side("left", ports[0]), Side("right", ports[1])
        try:
            await left.start(*ports)
            await right.start(*ports)
            await until(lambda: left.up() == ["right"] and right.up() == ["left"])
            await test(left, right)
        finally:
            for side in (left, right):
                side.shell.stop()
                side.cache.close()

    uvloop.run(main())


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), WAIT_S)


def perform(shell: Shell, effects: list[Effect]) -> None:
    """As if the mesh had wanted just these."""
    shell.mesh.effects()
    for effect in effects:
        shell.mesh._effects.add(effect)
    shell.inputs.perform()
