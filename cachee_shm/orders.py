"""Which keys are to be loaded ahead, and when: the orders of the core (``core/prewarm.h``), by their time.

The core decides when a key is invalidated. That happens in the bridge, which applies what other hosts wrote.
The orders go through a mailbox in the segment. One process of the host takes them out, and keeps them here
until they are due. If it dies, its orders are lost: then the next reader of each key must load it, as without
pre-warming.

No clock is read here: ``now_ms`` is an argument, in milliseconds of the segment's clock (``Segment.now_ms``).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import randrange
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Orders"]

DELAY_MS_MAX = 1 << 18  # above the longest delay that the core chooses; what is due later is garbage


class Orders:
    """The orders of one segment that this process has taken out of the mailbox, one a key."""

    def __init__(self, segment: Segment, jitter_ms: int = 0) -> None:
        """``jitter_ms``: each order is due later than the core says, by a random time up to this."""
        self._segment = segment
        self._jitter_ms = jitter_ms
        self._most = segment._warm_most()
        self._by_time: list[tuple[int, int, int]] = []  # (due_ms, number, hash): a heap; some were replaced
        self._number = 0
        self._by_hash: dict[int, tuple[int, float, bytes]] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def take(self, now_ms: int) -> None:
        """Empty the mailbox. At most ``_warm_most()`` orders are kept; further ones are dropped."""
        while (order := self._segment._warm_take()) is not None:
            hash, due_ms, p, key = order
            known = self._by_hash.get(hash)
            if not key and known is not None:
                key = known[2]  # the key was written again before its order was due
            if not key or due_ms - now_ms > DELAY_MS_MAX:
                continue
            if known is None and len(self._by_hash) >= self._most:
                continue
            if self._jitter_ms:
                due_ms += randrange(self._jitter_ms)
            self._by_hash[hash] = (due_ms, p, key)
            self._number += 1
            heappush(self._by_time, (due_ms, self._number, hash))

    def due(
        self, now_ms: int, most: int = 64, wanted: Callable[[int, bytes], bool] | None = None
    ) -> list[tuple[int, bytes]]:
        """The keys to load now, with their hashes, at most ``most``. Each load is paid for: do it.

        ``wanted(hash, key)``: can this process load the key?
        """
        keys: list[tuple[int, bytes]] = []
        while self._by_time and self._by_time[0][0] <= now_ms and len(keys) < most:
            due_ms, _, hash = heappop(self._by_time)
            order = self._by_hash.get(hash)
            if order is None or order[0] != due_ms:
                continue
            del self._by_hash[hash]
            if (wanted is None or wanted(hash, order[2])) and self._segment._warm_claim(hash, order[1]):
                keys.append((hash, order[2]))
        return keys

    def next_ms(self) -> int | None:
        """When the next order may be due; None: there is none."""
        return self._by_time[0][0] if self._by_time else None
