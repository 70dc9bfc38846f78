"""How many requests are answered in a second, and in which order.

A request costs the event loop 0.1 ms and its answer up to some milliseconds, and all of that delays
invalidations. So at most REQUESTS_PER_S requests are answered, after a burst of REQUESTS_BURST. Those beyond
wait; they are answered in the order in which they came. A connection has one request at a time in that
queue, so a client that sends many on one connection does not push another one back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from cachee_bridge.carriers.gate import Bucket

REQUESTS_PER_S, REQUESTS_BURST = 100.0, 100
"""1 % of a core, beside what the answers cost. A page of the dashboard asks for ten files at once."""


class Turns:
    """Of one listener."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._bucket = Bucket(REQUESTS_PER_S, REQUESTS_BURST, time.monotonic())
        self._waiting: deque[Callable[[], None]] = deque()
        self._timer: asyncio.Handle | None = None

    def take(self, answer: Callable[[], None]) -> None:
        """`answer()` is called when it is this request's turn, never from within this call."""
        self._waiting.append(answer)
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Nobody who waits gets a turn any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        wait_s = self._bucket.wait_s(time.monotonic())
        self._timer = self._loop.call_later(wait_s, self._run) if wait_s else self._loop.call_soon(self._run)

    def _run(self) -> None:
        """One request, then the event loop has its turn."""
        self._timer = None
        if self._waiting and not self._bucket.wait_s(time.monotonic()):
            self._bucket.take()
            answer = self._waiting.popleft()
            try:
                answer()
            finally:
                if self._waiting and self._timer is None:
                    self._wait()
        elif self._waiting:
            self._wait()
