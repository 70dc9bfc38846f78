"""Waiting until the peers have applied what this process wrote.

The beats of each peer tell the bridge how far the peer has applied this host's ring. The bridge writes that
into the segment, where a waiter polls it. A waiter also writes into the segment that it waits; then the
bridge asks the peers at once, and not with the next beat. No writer waits for any of this.

A waiter holds nothing, so an exception at any moment leaves nothing behind. Waiting uses the real clock, also
where a test has frozen the cache's.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from cachee_shm.waiting import await_while

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["await_synced", "wait_synced"]

POLL_MIN_S = 0.0002
POLL_MAX_S = 0.01
WAIT_S_MAX = 1e9


class Waiting:
    """One waiter: waits for what this process wrote before the object was made, up to a deadline."""

    def __init__(self, segment: Segment, timeout: float | timedelta) -> None:
        timeout_s = _seconds(timeout)
        self.segment = segment
        self.written = segment._written()
        self.until_ms = segment._real_ms() + timeout_s * 1000

    def synced(self) -> bool:
        """Raises ``Closed``, and what attaching raises when the segment was replaced."""
        return self.segment._synced(*self.written)

    def left_s(self) -> float:
        """Seconds until the deadline; 0 once it is over, or if ``timeout`` was not above 0."""
        left_ms = self.until_ms - self.segment._real_ms()
        return left_ms / 1000 if left_ms > 0 else 0.0

    def goes_on(self) -> bool:
        return not self.synced() and self.left_s() > 0


def _seconds(timeout: float | timedelta) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, (int, float)):
        return float(min(seconds, WAIT_S_MAX))
    raise ValueError(
        f"timeout is a number of seconds (0 looks once) or a timedelta, not {timeout!r}. Nothing was waited "
        "for or changed."
    )


def wait_synced(segment: Segment, timeout: float | timedelta) -> bool:
    """See ``Cache.wait_synced``."""
    waiting, wait = Waiting(segment, timeout), POLL_MIN_S
    while not waiting.synced():
        left = waiting.left_s()
        if not left:
            return False
        time.sleep(min(wait, left))
        wait = min(wait * 2, POLL_MAX_S)
    return True


async def await_synced(segment: Segment, timeout: float | timedelta) -> bool:
    """``wait_synced``, without blocking the event loop of asyncio, uvloop or trio."""
    waiting = Waiting(segment, timeout)
    await await_while(waiting.goes_on)
    return waiting.synced()
