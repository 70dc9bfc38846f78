"""When discovery is asked, and which of its answers are accepted. How it is asked: shell/question.py.

asked        at the start; then a TTL after each answer, but within 1 to 30 s; soon after a link was lost
all waits    are shortened by chance, up to half: the hosts of a mesh do not ask at one instant
an answer    is complete: a host that is not in it is not named
naming none  after an answer that named a host is taken for a fault of the DNS, and counts as a failure
a failure    changes nothing, is logged once, and is asked again after a wait that grows
"""

from __future__ import annotations

import random

TTL_S_MIN, TTL_S_MAX = 1.0, 30.0
"""With a TTL of 0 it would be asked without a pause; with one of a day, changes would not be noticed."""
HURRY_S = 1.0
"""A minimum, because all peers of a host that died lose their links at the same moment."""
ABSENCES = 2
"""An address counts as no longer named after this many answers in a row without it, because one answer may
come from a server that has just started."""


class Discovery:
    """Of one name. `now` is seconds of this host's clock."""

    def __init__(self, what: str, rng: random.Random, now: float) -> None:
        """`what` is asked, as the configuration says it."""
        self.what = what
        self._rng = rng
        self._asking = False
        self._due = now
        self.answers = self._naming = 0
        """How many answers were accepted so far; how many of them named a host."""
        self.named = 0
        """Addresses in the last of them."""
        self.answered_at = float("-inf")
        self.failures = 0
        """In a row, since then."""
        self.failure = ""
        """The last of those."""

    @property
    def settled(self) -> bool:
        """Whether enough answers named hosts, so that an absent host counts as not named."""
        return self._naming >= ABSENCES

    def due(self, now: float) -> bool:
        """Whether to ask now; if so, it counts as being asked from here on."""
        if self._asking or now < self._due:
            return False
        self._asking = True
        return True

    def next_due(self) -> float:
        """When `due` will say so; never while an answer is awaited."""
        return float("inf") if self._asking else self._due

    def answered(self, named: int, ttl_s: float, now: float) -> bool:
        """An answer with `named` addresses has come. Returns whether it is accepted."""
        if not named and self.named:
            return False
        self._ask_after(min(max(ttl_s, TTL_S_MIN), TTL_S_MAX), now)
        self.answers += 1
        self._naming += named > 0
        self.named, self.answered_at = named, now
        self.failures, self.failure = 0, ""
        return True

    def failed(self, reason: str, now: float) -> int:
        """No answer has come, or none that is accepted. Returns how many times in a row."""
        self._ask_after(min(TTL_S_MAX, TTL_S_MIN * 2 ** min(self.failures, 10)), now)
        self.failures += 1
        self.failure = reason
        return self.failures

    def hurry(self, now: float) -> None:
        """A link to a host was lost: ask soon whether the host is still named."""
        self._due = min(self._due, now + self._rng.uniform(0.0, HURRY_S))

    def _ask_after(self, seconds: float, now: float) -> None:
        self._asking = False
        self._due = now + seconds * self._rng.uniform(0.5, 1.0)
