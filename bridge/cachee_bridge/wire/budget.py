"""How much of this host one peer may use: a token bucket of bytes, and charges for work that costs more than
its bytes.

    charged for   the bytes that come, with TLS the encrypted ones (a record of one byte has 23),
                  MESSAGE_BYTES for each message, ROW_BYTES for each row in it,
                  for a map of buckets the size of this host's own, since each of its fences may have to be
                  raised, and WORDS_BYTES each time that it is gone on with (buckets.EVICT_WORDS),
                  what is sent once more because the peer asks for it again (of a map, PIECE_BYTES), and a
                  byte for each position of the ring that is looked at for that,
                  ROW_BYTES for each row of the beats that answer a SYNC, and of an ANSWER,
                  and JOURNAL_BYTES for each hash that a journal is looked through for

A peer has one budget, however often it connects. Messages are handled as long as there is anything in the
bucket. Then the peer is not read until the bucket holds something again: its bytes wait in its own kernel,
and nothing is lost. The link is not closed, because a host that recovers from a partition may exceed its
budget for good reason.
"""

from __future__ import annotations

import math

MESSAGE_BYTES = 1024
ROW_BYTES = 256
"""A second of 16 MiB is 1.8 million keys to evict (two thirds of a core on a 2-core EPYC), or 16,000 messages
without anything in them, or 65,000 rows (a quarter of it each)."""
WORDS_BYTES = 128 * 1024
"""5 ms of work, or a little more."""
JOURNAL_BYTES = 48 * 1024
"""A whole journal that is looked through for one hash: a millisecond or two in a segment of 1 GiB."""
BURST_S = 1.0
DEBT_S = 0.5
"""The largest debt. A ring that is sent again may cost more, but the peer is not held for longer than
this."""


class Budget:
    def __init__(self, bytes_per_s: float, now: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.owed = 0.0
        """Everything that was ever taken out."""
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
        """How many of `times` charges of `cost` fit until the budget is spent."""
        if self._left > cost * times:
            return times
        refilled = max(0.0, now - self._at) * self.bytes_per_s
        left = min(self._full, max(self._left - cost, -DEBT_S * self.bytes_per_s) + refilled)
        return min(times, 1 + max(0, math.ceil(left / cost)))
