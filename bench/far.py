"""A slow network: a proxy process that forwards TCP connections, each piece a fixed time after it came.

The proxy reads the mesh's messages that it forwards, if they are not encrypted, and counts the frames with
records, by their source and the address to or from which they go.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection

import uvloop

from cachee_bridge.shell.timer import Timer
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder
from cachee_bridge.wire.messages import Frame
from cachee_shm.errors import BridgeError

PROCESSES = multiprocessing.get_context("spawn")
now_ns = time.monotonic_ns
Copies = Counter[tuple[str, str]]
"""By (source, "into" or "out of" the target's region), frames that had records in them."""


class Delay:
    """All pieces of all connections, in the order in which they came, since all wait equally long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float) -> None:
        self._delay_ns = int(delay_s * 1e9)
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._timer = Timer()
        loop.add_reader(self._timer.fileno(), self._due)

    def later(self, call: Callable[[], object]) -> None:
        self._waiting.append((now_ns() + self._delay_ns, call))
        if len(self._waiting) == 1:
            self._arm()

    def _due(self) -> None:
        self._timer.passed()
        while self._waiting and self._waiting[0][0] <= now_ns():
            self._waiting.popleft()[1]()
        if self._waiting:
            self._arm()

    def _arm(self) -> None:
        self._timer.after(max(1, min(999_999, (self._waiting[0][0] - now_ns()) // 1000)))


class Reader:
    """Counts what passes in one direction."""

    def __init__(self, copies: Copies, where: str) -> None:
        self._decoder: Decoder | None = Decoder(FRAME_BYTES_MAX)
        self._copies, self._where = copies, where

    def passes(self, data: bytes) -> None:
        if self._decoder is None:
            return
        try:
            for message in self._decoder.feed(data):
                if isinstance(message, Frame) and message.payload:
                    self._copies[message.source, self._where] += 1
        except BridgeError:  # not the mesh's
            self._decoder = None


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Delay, along: Reader
) -> None:
    with suppress(OSError):  # a reset is an end as well
        while data := await reader.read(1 << 16):
            along.passes(data)
            delay.later(partial(arrive, writer, data))
    delay.later(writer.close)


def arrive(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


async def serve(targets: Sequence[tuple[str, str]], delay_s: float, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    delay, copies = Delay(loop, delay_s), Copies()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(
        here: asyncio.StreamReader, back: asyncio.StreamWriter, target: str, into: str, out_of: str
    ) -> None:
        host, _, port = target.rpartition(":")
        try:
            there, on = await asyncio.open_connection(host, int(port))
        except OSError:
            back.close()
            return
        for reader, writer, where in ((here, on, into), (there, back, out_of)):
            task = loop.create_task(carry(reader, writer, delay, Reader(copies, where)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    ports = []
    for target, region in targets:
        into, out_of = f"into {region}", f"out of {region}"
        server = await asyncio.start_server(
            partial(accept, target=target, into=into, out_of=out_of), "127.0.0.1", 0
        )
        ports.append(server.sockets[0].getsockname()[1])
    pipe.send(ports)
    ended = loop.create_future()
    loop.add_reader(pipe.fileno(), lambda: answer(pipe, copies, ended))
    await ended


def answer(pipe: Connection, copies: Copies, ended: asyncio.Future[None]) -> None:
    try:
        pipe.recv()
        pipe.send(dict(copies))
    except (EOFError, OSError):
        if not ended.done():
            ended.set_result(None)


def run(targets: Sequence[tuple[str, str]], delay_s: float, pipe: Connection) -> None:
    """The proxy's process, until the other end of its pipe is closed."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(targets, delay_s, pipe))


class Far:
    """This process's end of it."""

    def __init__(self, pipe: Connection, ports: dict[str, int]) -> None:
        self._pipe = pipe
        self.ports = ports
        """By target, where to dial instead."""

    def copies(self) -> Copies:
        """Frames with records that came to it until now, by source and "into" or "out of" a region."""
        self._pipe.send("copies")
        return Copies(self._pipe.recv())


@contextmanager
def far(targets: Sequence[tuple[str, str]], delay_s: float) -> Iterator[Far]:
    """`targets`: (address, its region)."""
    pipe, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=run, args=(list(targets), delay_s, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        addresses = [address for address, _ in targets]
        yield Far(pipe, dict(zip(addresses, pipe.recv(), strict=True)))
    finally:
        pipe.close()
        process.join(10.0)
        process.terminate()
