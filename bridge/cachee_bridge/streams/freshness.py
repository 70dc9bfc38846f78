"""How fresh a source is: up to when everything that it announced has been applied here.

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


class Word:
    """What one source reports of all its namespaces at once. Each one where it is a member is covered or
    apart."""

    def __init__(self) -> None:
        self.fresh_at = float("-inf")
        """In every covered namespace the source was fresh at this time, or later."""
        self.heard_at = float("-inf")
        """The same of some namespace."""
        self.covered: set[str] = set()
        self.apart: set[str] = set()
        self.stirred: set[str] = set()
        """Namespaces where how far its ring is applied here has changed, until a heartbeat takes it over."""

    def heard(self, at: float) -> None:
        """It was fresh at this time in some namespace."""
        self.heard_at = max(self.heard_at, at)


class Freshness:
    """Of one source in one namespace. All times are seconds of this host's clock.

    While it is covered, what the source says of all covered namespaces at once counts here as well: to keep
    200 of them fresh is one store.
    """

    def __init__(self, word: Word | None = None) -> None:
        """`word`: what the source reports of all its namespaces at once."""
        self._at = float("-inf")
        self._word = word
        self._is_covered = False
        self._waiting: deque[tuple[float, int]] = deque()

    @property
    def at(self) -> float:
        """Everything the source announced before this has been applied here."""
        return max(self._at, self._word.fresh_at) if self._is_covered and self._word else self._at

    @at.setter
    def at(self, at: float) -> None:
        self._at = at

    def cover(self, is_covered: bool) -> None:
        """Whether `word` counts here from now on. Its freshness until now stays."""
        self._at, self._is_covered = self.at, is_covered

    def head_heard(self, stamp: float, head: int, cursor: int) -> None:
        """A beat that was sent after `stamp` reported `head` as the source's tail; `cursor` is applied."""
        if head <= cursor:
            self._came(stamp)
            return
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.pop()
        self._waiting.append((stamp, head))

    def applied(self, cursor: int) -> None:
        """The cursor has moved."""
        while self._waiting and self._waiting[0][1] <= cursor:
            self._came(self._waiting.popleft()[0])

    def restarted(self) -> None:
        """Another incarnation: heads of the former one say nothing about it."""
        self._waiting.clear()

    def _came(self, stamp: float) -> None:
        self._at = max(self._at, stamp)
        if self._word is not None:
            self._word.heard(stamp)
