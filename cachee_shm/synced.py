"""Waiting until the peers have applied what this process wrote.

The bridge learns from every peer's beats how far it has applied this host's ring, and keeps that in the
segment. Whoever waits reads it there, now and then, and has left word that somebody waits: the bridge then
asks the peers at once, instead of with the next beat. No writer waits for any of this.

A waiter holds nothing, so an exception at any moment leaves nothing behind. The time is the core's own: a
clock that a test has frozen does not stop a waiter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cachee_shm.waiting import await_while

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["await_synced", "wait_synced"]

POLL_MIN_S = 0.0002
POLL_MAX_S = 0.01


class Waiting:
    """For what was written before it was made; at most for so many seconds."""

    def __init__(self, segment: Segment, timeout: float) -> None:
        self.segment = segment
        self.written = segment._written()
        self.until_ms = segment._real_ms() + timeout * 1000

    def synced(self) -> bool:
        """Raises ``Closed``, and what attaching raises when the segment was replaced."""
        return self.segment._synced(*self.written)

    def left_s(self) -> float:
        """0 once the time is over; also where ``timeout`` was no number to wait for."""
        left_ms = self.until_ms - self.segment._real_ms()
        return left_ms / 1000 if left_ms > 0 else 0.0

    def goes_on(self) -> bool:
        return not self.synced() and self.left_s() > 0


def wait_synced(segment: Segment, timeout: float) -> bool:
    """See ``Cache.wait_synced``."""
    waiting, wait = Waiting(segment, timeout), POLL_MIN_S
    while not waiting.synced():
        left = waiting.left_s()
        if not left:
            return False
        time.sleep(min(wait, left))
        wait = min(wait * 2, POLL_MAX_S)
    return True


async def await_synced(segment: Segment, timeout: float) -> bool:
    """``wait_synced``, without blocking the event loop of asyncio, uvloop or trio."""
    waiting = Waiting(segment, timeout)
    await await_while(waiting.goes_on)
    return waiting.synced()
