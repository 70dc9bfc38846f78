"""Networks on loopback that keep what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator

import uvloop

from cachee_bridge.carriers.transport import Network
from cachee_bridge.wire.identity import Identity

WAIT_S = 20.0


class Recorder:
    """A handler that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.data: dict[int, bytes] = {}
        self.identities: dict[int, Identity | None] = {}
        self.wire_bytes = 0
        self.dialled: dict[str, list[str]] = {}
        """By address that could not be reached, the IP addresses that were tried."""
        self.on_received: Callable[[int, bytes], None] = lambda link, data: None

    def opened(self, link: int, address: str | None, remote_host: str, identity: Identity | None) -> None:
        self.told.append(("opened", link, address, remote_host))
        self.identities[link] = identity

    def refused(self, stranger: str, reason: str) -> None:
        self.told.append(("refused", stranger, reason))

    def connect_failed(self, address: str, reason: str, dialled: Collection[str]) -> None:
        self.told.append(("failed", address, reason))
        self.dialled[address] = list(dialled)

    def leads_here(self, address: str) -> None:
        self.told.append(("leads here", address))

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        self.wire_bytes += wire_bytes
        self.data[link] = self.data.get(link, b"") + data
        self.on_received(link, data)

    def writable(self, link: int) -> None:
        self.told.append(("writable", link))

    def closed(self, link: int, reason: str) -> None:
        self.told.append(("closed", link, reason))

    def events(self, name: str) -> list[tuple[object, ...]]:
        return [event for event in self.told if event[0] == name]


class Side:
    """One network with its recorder, listening on a port of its own."""

    def __init__(self) -> None:
        self.seen = Recorder()
        self.network = Network(asyncio.get_running_loop(), self.seen)
        self.port = 0

    async def listen(self) -> None:
        (self.port,) = await self.network.listen("127.0.0.1", 0)

    def dial(self, port: int) -> str:
        address = f"127.0.0.1:{port}"
        self.network.connect(address, "127.0.0.1", port)
        return address


def run(test: Callable[[Side, Side], Awaitable[None]]) -> None:
    async def main() -> None:
        left, right = Side(), Side()
        await left.listen()
        await right.listen()
        await test(left, right)
        left.network.stop()
        right.network.stop()

    uvloop.run(main())


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), WAIT_S)


async def linked(left: Side, right: Side) -> None:
    left.dial(right.port)
    await until(lambda: left.seen.told and right.seen.told)


def told_times(side: Side, times: int) -> bool:
    return len(side.seen.told) == times


@contextlib.contextmanager
def descriptors(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def stranger(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
