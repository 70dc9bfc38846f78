"""What the machine's TCP costs: one small message there and back between two processes, over loopback.

Half the round trip is the one-way trip that an invalidation would take if it cost nothing else. Once with
blocking sockets, the least that TCP costs, and once with uvloop at both ends, as bridges use it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import cast

import uvloop

MESSAGE = b"x" * 64  # about what a frame of one record has
PROCESSES = multiprocessing.get_context("spawn")
JOIN_S = 30.0
now_ns = time.monotonic_ns


def _echo_raw(pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        link, _ = server.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while message := link.recv(4096):
        link.sendall(message)


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        asyncio.get_running_loop().stop()


def _echo_uvloop(pipe: Connection) -> None:
    loop = uvloop.new_event_loop()
    server = loop.run_until_complete(loop.create_server(_Echo, "127.0.0.1", 0))
    pipe.send(server.sockets[0].getsockname()[1])
    loop.run_forever()


class RawPing:
    """Blocking sockets at both ends."""

    echo = staticmethod(_echo_raw)

    def __init__(self, port: int) -> None:
        self._link = socket.create_connection(("127.0.0.1", port))
        self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def trips(self, count: int, pause_s: float) -> list[int]:
        """One-way trips in ns, one at a time, each begun `pause_s` after the one before, or at once."""
        found: list[int] = []
        begun = 0
        for _ in range(count):
            if pause_s and begun:
                time.sleep(max(0.0, pause_s - (now_ns() - begun) / 1e9))
            begun = now_ns()
            self._link.sendall(MESSAGE)
            self._link.recv(4096)
            found.append((now_ns() - begun) // 2)
        return found

    def close(self) -> None:
        self._link.close()


class UvloopPing(asyncio.Protocol):
    """uvloop at both ends."""

    echo = staticmethod(_echo_uvloop)

    def __init__(self, port: int) -> None:
        self._loop = uvloop.new_event_loop()
        self._transport, _ = self._loop.run_until_complete(
            self._loop.create_connection(lambda: self, "127.0.0.1", port)
        )

    def trips(self, count: int, pause_s: float) -> list[int]:
        """As RawPing's."""
        self._left, self._pause_s = count, pause_s
        self._found: list[int] = []
        self._ping()
        self._loop.run_forever()
        return self._found

    def _ping(self) -> None:
        self._begun = now_ns()
        self._transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        took = now_ns() - self._begun
        self._found.append(took // 2)
        self._left -= 1
        if self._left == 0:
            self._loop.stop()
        elif self._pause_s:
            self._loop.call_later(max(0.0, self._pause_s - took / 1e9), self._ping)
        else:
            self._ping()

    def connection_lost(self, error: Exception | None) -> None:
        self._loop.stop()

    def close(self) -> None:
        self._transport.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@contextmanager
def partner(kind: type[RawPing] | type[UvloopPing]) -> Iterator[RawPing | UvloopPing]:
    """One end in this process; the other, which sends everything back, in its own."""
    pipe, far_end = PROCESSES.Pipe()
    process = PROCESSES.Process(target=kind.echo, args=(far_end,), daemon=True)
    process.start()
    far_end.close()  # its death is our end of the pipe
    try:
        port = pipe.recv()
    except EOFError:
        raise SystemExit("the echoing process did not start") from None
    ping = kind(port)
    try:
        yield ping
    finally:
        ping.close()
        process.join(JOIN_S)
        process.terminate()
