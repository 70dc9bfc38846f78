"""What two event loops on the way cost: a small message to a process here, to one over there, and back.

That is the way of a write that is waited for, without all that is done with it: a writer, its host's bridge,
the peer's bridge, and back. Both processes run uvloop, and pass on what they read, by callbacks alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import cast

import uvloop
from namespaces import Loopback, Place
from pingpong import JOIN_S, PROCESSES, Ping


class _Passing(asyncio.Protocol):
    """What is read here is written to `to`: another end, or, by default, this one."""

    def __init__(self) -> None:
        self.to = self
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        assert self.to.transport is not None
        self.to.transport.write(data)


async def _serve(address: str, onward: tuple[str, int] | None, pipe: Connection) -> None:
    near = _Passing()
    loop = asyncio.get_running_loop()
    if onward is not None:
        _, far = await loop.create_connection(_Passing, *onward)
        near.to, far.to = far, near
    server = await loop.create_server(lambda: near, address, 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(address: str, onward: tuple[str, int] | None, pipe: Connection) -> None:
    uvloop.run(_serve(address, onward, pipe))


@contextmanager
def _process(place: Place | Loopback, onward: tuple[str, int] | None) -> Iterator[int]:
    """Its port."""
    pipe, far_end = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_run, args=(place.address, onward, far_end), daemon=True)
    with place.inside():
        process.start()
    far_end.close()  # its death is our end of the pipe
    try:
        yield pipe.recv()
    except EOFError:
        raise SystemExit("an echoing process did not start") from None
    finally:
        process.terminate()
        process.join(JOIN_S)


@contextmanager
def two_loops(here: Place | Loopback, there: Place | Loopback) -> Iterator[Ping]:
    with _process(there, None) as far_port, _process(here, (there.address, far_port)) as port:
        ping = Ping(here.address, port)
        try:
            yield ping
        finally:
            ping.close()
