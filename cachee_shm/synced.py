"""Waiting until the peers have applied what this process wrote.

The bridge learns from every peer's beats how far it has applied this host's ring, and keeps that in the
segment. Whoever waits reads it there, now and then, and has left word that somebody waits: the bridge then
asks the peers at once, instead of with the next beat. No writer waits for any of this.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["await_synced", "wait_synced"]

POLL_MIN_S = 0.0002
POLL_MAX_S = 0.01


def looks(segment: Segment, timeout: float) -> Generator[float, None, bool]:
    """Until it is so, or `timeout` is over: yields the seconds to sleep; returns whether it is."""
    deadline, wait, written = time.monotonic() + timeout, POLL_MIN_S, segment._written()
    while not segment._synced(*written):
        left = deadline - time.monotonic()
        if not left > 0:
            return False
        yield min(wait, left)
        wait = min(wait * 2, POLL_MAX_S)
    return True


def wait_synced(segment: Segment, timeout: float) -> bool:
    """See ``Cache.wait_synced``."""
    waiting = looks(segment, timeout)
    try:
        while True:
            time.sleep(next(waiting))
    except StopIteration as end:
        return bool(end.value)


async def await_synced(segment: Segment, timeout: float) -> bool:
    """``wait_synced``, without blocking the event loop."""
    import asyncio

    waiting = looks(segment, timeout)
    try:
        while True:
            await asyncio.sleep(next(waiting))
    except StopIteration as end:
        return bool(end.value)
