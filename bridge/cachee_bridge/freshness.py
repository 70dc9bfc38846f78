"""How fresh a source's word is.

Age cannot be seen in what arrives: a beat that lay 30 s in a stalled link looks new, and the clocks of two
hosts cannot be compared. So this host sends stamps of its own clock; a beat echoes the newest one its sender
had received, together with the tail of the sender's ring at that moment:

    stamp e leaves here ---> source reads its tail: H ---> (e, H) arrives here, whenever

Whatever the source announced before e was sent has a position <= H. So once this host has applied H, the
source is fresh as of e; before that, the beat waits. Nothing is assumed about how long anything took.
"""

from __future__ import annotations

from collections import deque

WAITING_MAX = 32
"""Beats whose head is not applied yet: 3 s of them. One more replaces the newest, so the oldest count."""


class Freshness:
    """Of one source in one namespace. All times are seconds of this host's clock."""

    def __init__(self) -> None:
        self.at = float("-inf")
        """Everything the source announced before this has been applied here."""
        self._waiting: deque[tuple[float, int]] = deque()

    def told(self, stamp: float, head: int, cursor: int) -> None:
        """A word sent after `stamp` said that the source's tail was `head`; `cursor` is applied."""
        if head <= cursor:
            self.at = max(self.at, stamp)
            return
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.pop()
        self._waiting.append((stamp, head))

    def applied(self, cursor: int) -> None:
        """The cursor has moved."""
        while self._waiting and self._waiting[0][1] <= cursor:
            self.at = max(self.at, self._waiting.popleft()[0])

    def restarted(self) -> None:
        """Another incarnation: heads of the former one say nothing about it."""
        self._waiting.clear()
