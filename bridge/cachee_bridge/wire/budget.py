"""How much of this host one peer may use: a bucket of bytes that refills, and what is dearer than its bytes.

    charged for   the bytes that come, with TLS the encrypted ones (a record of one byte has 23),
                  MESSAGE_BYTES for each message, ROW_BYTES for each row in it,
                  for a map of buckets the size of this host's own, since each of its fences may have to be
                  raised, and WORDS_BYTES each time that it is gone on with (buckets.EVICT_WORDS),
                  what is sent once more because the peer asks for it again (of a map, PIECE_BYTES), and a
                  byte for each position of the ring that is looked at for that,
                  and ROW_BYTES for each row of the beats that answer a SYNC

A peer has one budget, however often it connects. A message is looked at as long as there is anything in the
bucket. Then the peer is not read until the bucket holds something again: its bytes wait in its own kernel,
and nothing is lost. It is not closed, since a host that recovers from a partition may be over it in good
faith.
"""

from __future__ import annotations

import math

MESSAGE_BYTES = 1024
ROW_BYTES = 256
"""A second of 16 MiB is 1.8 million keys to evict (two thirds of a core on a 2-core EPYC), or 16,000 messages
without anything in them, or 65,000 rows (a quarter of it each)."""
WORDS_BYTES = 128 * 1024
"""5 ms of work, or a little more."""
BURST_S = 1.0
DEBT_S = 0.5
"""A ring that is sent once more may be larger than a second's worth: it is not waited for in full."""


class Budget:
    def __init__(self, bytes_per_s: float, now: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.owed = 0.0
        """All that was ever taken out."""
        self._left = self._full = bytes_per_s * BURST_S
        self._at = now

    def owe(self, cost: float) -> None:
        """Take `cost` out."""
        self.owed += cost
        self._left = max(self._left - cost, -DEBT_S * self.bytes_per_s)

    def spent(self, now: float) -> bool:
        """Whether there is nothing left."""
        self._left = min(self._full, self._left + max(0.0, now - self._at) * self.bytes_per_s)
        self._at = max(self._at, now)
        return self._left <= 0

    def lasts(self, cost: int, times: int, now: float) -> int:
        """How many of so many `times` it takes, until what takes `cost` out each time finds it spent."""
        if self._left > cost * times:
            return times
        refilled = max(0.0, now - self._at) * self.bytes_per_s
        left = min(self._full, max(self._left - cost, -DEBT_S * self.bytes_per_s) + refilled)
        return min(times, 1 + max(0, math.ceil(left / cost)))
