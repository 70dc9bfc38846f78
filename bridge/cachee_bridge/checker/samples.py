"""Real keys that this host wrote lately: what a peer may hold of them, and what it may not.

A host that has applied a write holds nothing of that key that is older, but for a value with the bytes that
the write announced. An entry tells its age, so no two clocks are compared: what a peer holds is older than
the write if it was older, when the peer answered, than the time since before the write. Entries know their
age to an eighth of a second. What is younger than that bound is taken for newer.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import AGE_STEP_MS, SHARED

if TYPE_CHECKING:
    from cachee_bridge.checker.around import Watched
    from cachee_bridge.wire.messages import Holding

RECORD = struct.Struct("<QQBBHHxx")
"""sequence, hash, kind, own, source, digest bits: Segment.read_ring."""
DELETED, SET = 1, 2
"""Kinds of records."""
RANGE = 2
"""The digest bits of a record of many keys."""
UNTOLD = 0
"""The digest bits of a set whose value has no digest: nobody knows what a peer may keep."""
HASH_FREE = 0xFFC00000FFC00000
"""The bits in which the hashes of canaries differ: core/hash.h."""
RECORDS_MAX = 256
"""Of the ring that are looked at, the newest ones."""
SAMPLES_MAX = 4


@dataclass(frozen=True)
class Sample:
    """One write of a key."""

    hash: int
    position: int
    digest: int
    """The bits that its record has, 0: no value was announced."""


def samples_of(segment: Watched, after: int, rng: random.Random) -> list[Sample]:
    """Up to SAMPLES_MAX keys that this host wrote after position `after`, with each one's last write."""
    first = max(after, segment.tail - RECORDS_MAX)
    read = segment.read_ring(first, RECORDS_MAX)
    found: dict[int, Sample] = {}
    for position, hashed, kind, own, _, digest in RECORD.iter_unpack(read[1] if read is not None else b""):
        if own and hashed & ~HASH_FREE and kind in (SET, DELETED):
            found[hashed] = Sample(hashed, position, digest if kind == SET else 0)
            if digest == (RANGE if kind == DELETED else UNTOLD):
                del found[hashed]
    return rng.sample(list(found.values()), min(SAMPLES_MAX, len(found)))


def is_older(holding: Holding, digest: int, written_at: float, now: float) -> bool:
    """Whether a peer that answered by `now` held a value from before `written_at`. `digest`: the bits of the
    value that the write announced, which it may hold; 0: none."""
    if holding.held != SHARED or (digest and digest_bits(holding.digest) == digest):
        return False
    return now - (holding.age_ms - AGE_STEP_MS) / 1000 < written_at


def digest_bits(digest: int) -> int:
    """What of a digest fits into a record: write.h."""
    return digest & 0xFFFF or 1
