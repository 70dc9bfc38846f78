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
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

from cachee_bridge.members import Members

Position = tuple[int, int]
"""(incarnation, position in the ring)."""
Positions = tuple[Position, "Position | None"]
"""Of one namespace: the sender's head, and its cursor in the receiver's ring, None if it has none."""
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


class Told:
    """What a peer was last told of each namespace on one link. A heartbeat adds up only what has changed."""

    def __init__(self) -> None:
        self.positions: dict[str, Positions] = {}
        self._heads = self._cursors = 0

    def put(self, known: Mapping[str, Positions], whole: bool) -> None:
        """It is told `known`; nothing of other namespaces counts any more if that is the `whole`."""
        for namespace, positions in known.items():
            if self.positions.get(namespace) != positions:
                self._drop(namespace)
                self.positions[namespace] = positions
                self._add(namespace, positions, 1)
        if whole and len(self.positions) > len(known):
            for namespace in self.positions.keys() - known.keys():
                self._drop(namespace)

    def sums_without(self, namespaces: Iterable[str]) -> tuple[int, int]:
        """Of the heads and of the cursors of all others."""
        heads, cursors = self._heads, self._cursors
        for namespace in namespaces:
            head, cursor = self.positions[namespace]
            heads -= part_of(namespace, head)
            cursors -= part_of(namespace, cursor) if cursor is not None else 0
        return heads & SUM_MAX, cursors & SUM_MAX

    def _drop(self, namespace: str) -> None:
        if (positions := self.positions.pop(namespace, None)) is not None:
            self._add(namespace, positions, -1)

    def _add(self, namespace: str, positions: Positions, sign: int) -> None:
        head, cursor = positions
        self._heads += sign * part_of(namespace, head)
        self._cursors += sign * part_of(namespace, cursor) if cursor is not None else 0


def positions_of(
    members: Mapping[str, Members], name: str, namespaces: Iterable[str]
) -> dict[str, Positions]:
    """Of each: this host's head, which is the tail of its ring by now, and how far the ring of `name` is
    applied here; None if it was never met."""
    found: dict[str, Positions] = {}
    for namespace in namespaces:
        known = members[namespace]
        found[namespace] = (known.store.incarnation, known.store.tail), known.cursor(name)
    return found


def sums_here(
    members: Mapping[str, Members], name: str, acked: Mapping[str, int], namespaces: Iterable[str]
) -> tuple[int, int]:
    """What this host expects in a CALM of `name`: the sums of how far its rings are applied here, and of how
    far it has acknowledged this host's."""
    applied, held = [], []
    for namespace in namespaces:
        known = members[namespace]
        inbox, cursor = known.inboxes.get(name), acked.get(namespace)
        applied.append((namespace, (inbox.incarnation, inbox.cursor) if inbox is not None else None))
        held.append((namespace, (known.store.incarnation, cursor) if cursor is not None else None))
    return sum_of(applied), sum_of(held)
