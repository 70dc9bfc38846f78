"""What the machine's TCP costs: a small message there and back between two processes, over blocking sockets.

Half the round trip is the one-way trip that an invalidation would take if it cost nothing else.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from namespaces import Loopback, Place

MESSAGE = b"x" * 64  # about what a frame of one record has
PROCESSES = multiprocessing.get_context("spawn")
JOIN_S = 30.0
now_ns = time.monotonic_ns


def _echo(address: str, pipe: Connection) -> None:
    with socket.create_server((address, 0)) as server:
        pipe.send(server.getsockname()[1])
        link, _ = server.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while message := link.recv(4096):
        link.sendall(message)


class Ping:
    """The end that measures."""

    def __init__(self, address: str, port: int) -> None:
        self._link = socket.create_connection((address, port))
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


@contextmanager
def echo(far: Place | Loopback) -> Iterator[int]:
    """A process over there that sends everything back to whoever comes first; its port."""
    pipe, far_end = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_echo, args=(far.address, far_end), daemon=True)
    with far.inside():
        process.start()
    far_end.close()  # its death is our end of the pipe
    try:
        port = pipe.recv()
    except EOFError:
        raise SystemExit("the echoing process did not start") from None
    try:
        yield port
    finally:
        process.join(JOIN_S)
        process.terminate()


@contextmanager
def ping(address: str, port: int) -> Iterator[Ping]:
    end = Ping(address, port)
    try:
        yield end
    finally:
        end.close()


@contextmanager
def partner(far: Place | Loopback) -> Iterator[Ping]:
    """One end in this process; the other, which sends everything back, in its own, over there."""
    with echo(far) as port, ping(far.address, port) as end:
        yield end
