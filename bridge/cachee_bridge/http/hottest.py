"""Which keys are invalidated most: counted from a sample of the ring's newest records, in minutes.

The dashboard shows them by their hashes. A look costs some 50 µs for a ring that moved, and nothing for one
that did not; what is kept of a ring is bounded by HASHES_MAX, whatever is written.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any, Protocol

RECORD = struct.Struct("<QQBBHHxx")
"""As `read_ring` gives them: position, hash, kind, whether it is this host's own, source, digest bits."""
KEY_KINDS = frozenset({1, 2, 7})
"""RECORD_KEY, RECORD_SET and RECORD_GUARDED of core/layout.h: those that evict a key elsewhere."""
RANGE = 2
"""The digest bits of a record about many keys."""
HASH_FREE = 0xFFC00000FFC00000
"""Of core/hash.h. A hash without any other bit is a canary's, or no key's."""
RECORDS_MAX = 128
"""Of one ring at one look."""
HASHES_MAX = 1024
WINDOW_S = 60.0
SHOWN = 10


class Ring(Protocol):
    """What is asked of a segment."""

    @property
    def tail(self) -> int: ...

    def read_ring(self, cursor: int, records_max: int, /) -> tuple[int, bytes] | None: ...


class Hottest:
    """Of one ring, since the window before the one that runs."""

    def __init__(self, tail: int, now: float) -> None:
        self._cursor, self._begun = tail, now
        self._counts: Counter[int] = Counter()
        self._before: Counter[int] = Counter()

    def look(self, ring: Ring, now: float) -> None:
        """To be called each second or so. Records between two samples are not looked at."""
        if now >= self._begun + WINDOW_S:
            self._before, self._counts, self._begun = self._counts, Counter(), now
        tail = ring.tail
        if tail == self._cursor:
            return
        begin = min(max(self._cursor, tail - RECORDS_MAX), tail)
        self._cursor = tail
        read = ring.read_ring(begin, RECORDS_MAX)
        for _, hashed, kind, _, _, digest in RECORD.iter_unpack(read[1] if read is not None else b""):
            if kind in KEY_KINDS and hashed & ~HASH_FREE and hashed > 1 and digest != RANGE:
                self._counts[hashed] += 1
        if len(self._counts) > HASHES_MAX:
            self._counts = Counter(dict(self._counts.most_common(HASHES_MAX // 2)))

    def shown(self) -> list[dict[str, Any]]:
        """{"hash", "count"} of the hottest, the hottest first."""
        together = self._counts + self._before
        return [{"hash": f"{hashed:016x}", "count": n} for hashed, n in together.most_common(SHOWN)]
