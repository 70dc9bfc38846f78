"""The ladder: what a receiver does about what it has missed. Each rung evicts more, none less.

    nothing missed          same incarnation                            go on from the cursor
    a gap                   frames lost, link or bridge made anew       REPLAY(cursor + 1): it reads its ring
    lapped                  the ring no longer has it                   it answers with a map of the buckets
                                                                        it wrote in (buckets.py); or CLEAR; or
                                                                        nothing if nothing was its own
      2^31 records ago      its tables no longer have it                it answers with ALL(cursor + 1..)
    no answer               FRUITLESS_MAX times                         the link is made anew
    never met, not cut off  a host that joined                          from position 0: REPLAY, or lapped
    never met, or met in    its earlier records are unknown             flush here (ALL), cursor = its tail
      another incarnation
    impossible              a lower incarnation; asked of a source: a   loud, link closed
                            higher one, or more than it has written

Impossible, because a sequence that was used twice cannot be followed.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

FRUITLESS_MAX = 6
"""REPLAYs without an answer before the link is closed and made anew."""
PACE_DOUBLINGS_MAX = 4


class Rung(Enum):
    GO_ON = auto()
    FROM_BIRTH = auto()
    FLUSH = auto()
    IMPOSSIBLE = auto()


class Contact(NamedTuple):
    rung: Rung
    cursor: int
    """Where to read on, once the rung has been done."""


def contact(known: tuple[int, int] | None, incarnation: int, tail: int, not_cut_off: bool) -> Contact:
    """What to do about a source that says it is `incarnation` with `tail`; `known` is (incarnation, cursor)
    or None.

    `not_cut_off`: nothing can have been missed by not knowing of a source (see Horizon.whole).
    """
    if known is not None and known[0] == incarnation:
        # A tail below the cursor: another link was faster than this word. If not, the source will object.
        return Contact(Rung.GO_ON, known[1])
    if known is not None and known[0] > incarnation:
        return Contact(Rung.IMPOSSIBLE, known[1])
    if known is None and not_cut_off:  # a tail of 0 is no excuse: it may have had a former life
        return Contact(Rung.FROM_BIRTH, 0)
    return Contact(Rung.FLUSH, tail)


class Ask(Enum):
    WAIT = auto()
    REPLAY = auto()
    HOPELESS = auto()


class Asker:
    """When to ask a source for a replay: not for every frame behind one gap, and not for ever."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._asked_at = float("-inf")
        self._asked_cursor = -1
        self.fruitless = 0

    def behind(self, cursor: int, now: float) -> Ask:
        """Records after `cursor` exist and have not come."""
        if cursor != self._asked_cursor:
            self.fruitless = 0
        elif now < self._asked_at + self._pace_s * 2 ** min(self.fruitless - 1, PACE_DOUBLINGS_MAX):
            return Ask.WAIT
        if self.fruitless >= FRUITLESS_MAX:
            return Ask.HOPELESS
        self._asked_at, self._asked_cursor = now, cursor
        self.fruitless += 1
        return Ask.REPLAY

    def forget(self) -> None:
        """What was asked does not count."""
        self._asked_cursor, self.fruitless = -1, 0
