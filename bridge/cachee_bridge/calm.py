"""What a calm heartbeat says of the namespaces in which nothing moved: one sum in place of a row for each.

    BEAT   a row for each namespace: on wire 2, when a link is new, and in answer to SYNC
    CALM   rows for what has changed since it was last told on this link, or is not acknowledged as it is,
           and two sums over the rest:
           of the sender's heads, and of the sender's cursors (how far it has applied the receiver's ring)

The receiver makes the same two sums: of its own cursors in the rings of the sender, and of what the sender
has acknowledged. Equal sums of heads mean that each head of the rest is applied here, so the sender is fresh
in all of these namespaces as of the stamp that came back (freshness.py). If a sum differs, none of the rest
counts, and the receiver asks for the rows (SYNC), which are then treated as rows always are.

The sender reads the tail of each ring when it makes the sum, not how far its pump has come. So a record of a
writer that died before it rang the doorbell is covered as well.

A sum is one of 64-bit hashes, modulo 2^64, so it does not depend on an order. Two different sets of heads
have the same sum once in 2^64. A peer that makes up sums could as well make up rows: it is believed in what
it says of its own rings, and in nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

Position = tuple[int, int]
"""(incarnation, position in the ring)."""
SUM_MAX = 2**64 - 1
PARTS_MAX = 16384
"""Hashes that are remembered: those of what does not move are the same at each heartbeat."""
_POSITION = struct.Struct("<QQ")


@lru_cache(maxsize=PARTS_MAX)
def part_of(namespace: str, position: Position) -> int:
    """What one namespace adds to a sum."""
    packed = _POSITION.pack(*position) + namespace.encode()
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")


def sum_of(positions: Iterable[tuple[str, Position | None]]) -> int:
    """Of positions by namespace; None adds nothing."""
    return sum(part_of(name, position) for name, position in positions if position is not None) & SUM_MAX
