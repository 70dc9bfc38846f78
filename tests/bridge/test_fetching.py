"""How many loads a bridge serves at once for the workers of its host. Real bridges: test_fetched_hosts.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachee_bridge.ports.effects import FAILED, LOADED, Failure
from cachee_bridge.shell import fetching
from cachee_bridge.shell.fetching import Fetching

BUSY = ("shop", FAILED, Failure.BUSY.value)


class Slow(Fetching):
    """Each load waits until it is let go; then this host is the one to load, or nobody answers for it."""

    def __init__(self) -> None:
        nothing: Any = None
        super().__init__(nothing, "web-1", nothing, nothing, nothing)
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def _fetched(self, namespace: str, key: bytes, end: float) -> None:
        await self.end.wait()
        if self.error is not None:
            raise self.error

    async def served(self, count: int) -> int:
        """Of so many loads at once, how many are not turned away."""
        before = self.results[BUSY]
        self.end.clear()
        tasks = [asyncio.create_task(self.fetch("shop", b"k", 1.0)) for _ in range(count)]
        await asyncio.sleep(0)
        self.end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return count - (self.results[BUSY] - before)


@pytest.mark.parametrize("error", [None, OSError("the link has ended")])
def test_as_many_loads_as_may_be_are_served_and_their_places_are_free_when_they_have_ended(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(fetching, "LOADS_MAX", 4)

    async def run() -> None:
        slow = Slow()
        slow.error = error
        assert [await slow.served(count) for count in (3, 6, 4, 6)] == [3, 4, 4, 4]
        assert slow.results["shop", LOADED, ""] == (0 if error else 3 + 4 + 4 + 4)

    asyncio.run(run())
