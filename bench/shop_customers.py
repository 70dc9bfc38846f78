"""Customers of the shop, in one process: connections that stay open, and each answer checked.

``rush``: each customer sends its next request as the answer comes. ``stroll``: requests come at a given rate,
whether or not those before were answered; a latency counts from when its request was due. Meanwhile a manager
changes prices on the other host.

A read is stale when it shows an older version of a price than one that had been answered before it began.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

CATALOGUE_SHARE = 0.2  # of the requests; the others ask for a product's page
PRODUCTS, CATEGORIES = 100, 5
CHANGE_PAUSE_S = 0.1
ANSWER_S = 30.0
PRICE = re.compile(rb'"id":(\d+),(?:"title":"[^"]*",)?"cents":\d+,"version":(\d+)')


@dataclass
class Found:
    """What the customers of one turn have seen: latencies of a product's page and of the catalogue's.

    `stale_ns`: of each stale read, how long before it the newer version had been answered.
    """

    requests: int = 0
    seconds: float = 0.0
    page_ns: list[int] = field(default_factory=list)
    catalogue_ns: list[int] = field(default_factory=list)
    stale_ns: list[int] = field(
        default_factory=list
    )  # of each stale read: how long the change had been answered
    changes: int = 0


class Line(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.received.find(b"content-length: ", 0, end) + len(b"content-length: ")
        whole = end + 4 + int(self.received[at : self.received.index(b"\r", at)])
        if len(self.received) < whole or self.answer is None:
            return
        if not self.received.startswith(b"HTTP/1.1 200 "):
            self.answer.set_exception(AssertionError(bytes(self.received[:whole]).decode()))
        else:
            self.answer.set_result(bytes(self.received[end + 4 : whole]))
        self.received.clear()

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("the shop closed a connection"))

    async def ask(self, request: bytes) -> bytes:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


class Prices:
    """The versions of each price that the manager was answered with, and when."""

    def __init__(self) -> None:
        self.answered: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)

    def changed(self, id: int, version: int) -> None:
        self.answered[id].append((time.monotonic_ns(), version))

    def behind_ns(self, id: int, version: int, began_ns: int) -> int:
        """How long before the read a newer version had been answered; 0: the read is not stale."""
        answered = self.answered[id]
        if not answered or answered[-1][1] <= version:
            return 0
        first_ns = next(at_ns for at_ns, newer in answered if newer > version)
        return max(0, began_ns - first_ns)


class Customers:
    """`readers`, `manager`: the port of the host that is read, and of the one where prices change."""

    def __init__(self, readers: int, manager: int, seed: int = 7) -> None:
        self.readers, self.manager = readers, manager
        self.random = random.Random(seed)
        self.prices = Prices()

    def popular(self) -> int:
        """A product; the lower its number, the likelier."""
        return 1 + int(PRODUCTS * self.random.random() ** 3)

    def rush(self, connections: int, seconds: float) -> Found:
        return uvloop.run(self._rush(connections, seconds))

    def stroll(self, connections: int, seconds: float, per_second: float) -> Found:
        return uvloop.run(self._stroll(connections, seconds, per_second))

    async def _rush(self, connections: int, seconds: float) -> Found:
        found = Found()
        lines = await self._lines(connections)
        async with self._managed(found):
            began = time.monotonic()

            async def customer(line: Line) -> None:
                while time.monotonic() < began + seconds:
                    await self._look(line, time.monotonic_ns(), found)

            await asyncio.gather(*map(customer, lines))
            found.seconds = time.monotonic() - began
        return _closed(lines, found)

    async def _stroll(self, connections: int, seconds: float, per_second: float) -> Found:
        found = Found()
        lines = await self._lines(connections)
        free: asyncio.Queue[Line] = asyncio.Queue()
        for line in lines:
            free.put_nowait(line)
        looks: deque[asyncio.Task[None]] = deque()
        async with self._managed(found):
            began = time.monotonic()

            async def customer(due_ns: int) -> None:
                line = await free.get()
                await self._look(line, due_ns, found)
                free.put_nowait(line)

            for due in _due(self.random, began, seconds, per_second):
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                looks.append(asyncio.create_task(customer(int(due * 1e9))))
            await asyncio.wait_for(asyncio.gather(*looks), ANSWER_S)
            found.seconds = time.monotonic() - began
        return _closed(lines, found)

    async def _lines(self, count: int) -> list[Line]:
        loop = asyncio.get_running_loop()
        return [(await loop.create_connection(Line, "127.0.0.1", self.readers))[1] for _ in range(count)]

    async def _look(self, line: Line, due_ns: int, found: Found) -> None:
        is_catalogue = self.random.random() < CATALOGUE_SHARE
        id = self.popular()
        path = f"/catalogue/{1 + id % CATEGORIES}" if is_catalogue else f"/pages/{id}"
        began_ns = time.monotonic_ns()
        body = await line.ask(f"GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n".encode())
        (found.catalogue_ns if is_catalogue else found.page_ns).append(time.monotonic_ns() - due_ns)
        found.requests += 1
        for shown, version in PRICE.findall(body):
            if behind_ns := self.prices.behind_ns(int(shown), int(version), began_ns):
                found.stale_ns.append(behind_ns)
                break

    @asynccontextmanager
    async def _managed(self, found: Found) -> AsyncIterator[None]:
        """A manager is at work while the block lasts. What he raised, the block's end raises."""
        is_over = asyncio.Event()
        work = asyncio.create_task(self._manage(found, is_over))
        try:
            yield
        finally:
            is_over.set()
            await work

    async def _manage(self, found: Found, is_over: asyncio.Event) -> None:
        _, line = await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", self.manager)
        while not is_over.is_set():
            body = b'{"cents": %d}' % self.random.randrange(1, 100_000)
            head = (
                f"PUT /prices/{self.popular()} HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n"
            )
            answer = json.loads(
                await line.ask(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            )
            self.prices.changed(answer["id"], answer["version"])
            found.changes += 1
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(is_over.wait(), CHANGE_PAUSE_S)
        line.transport.close()


def _due(chance: random.Random, began: float, seconds: float, per_second: float) -> Iterator[float]:
    """When requests are due: as independent customers come."""
    due = began
    while (due := due + chance.expovariate(per_second)) < began + seconds:
        yield due


def _closed(lines: list[Line], found: Found) -> Found:
    for line in lines:
        line.transport.close()
    return found
