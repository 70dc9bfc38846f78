"""Calm beats: one sum stands for all namespaces in which nothing moved, in place of a row for each.

    BEAT   a row for each namespace: on wire 2, when a link is new, and in answer to SYNC
    CALM   rows for what has changed since it was last told on this link, or is not acknowledged as it is,
           and two sums over the rest: of the sender's heads, and of the sender's cursors (how far it has
           applied the receiver's rings)

The receiver makes the same two sums: of its own cursors in the rings of the sender, and of what the sender
has acknowledged. If the sums of heads are equal, the receiver has applied each of these heads, so the sender
is fresh in all of these namespaces as of the stamp that came back (freshness.py). If a sum differs, nothing
follows for any of these namespaces, and the receiver asks for the rows (SYNC).

The sender reads the tail of each ring when it makes the sum, not how far its pump has come. So a record of a
writer that died before it rang the doorbell is covered as well.

Both ends keep their sums, and correct them by what has changed. So a heartbeat costs what moved, however many
namespaces there are. Only the tails of all rings are read: once in a tick, however many links there are.

A sum adds 64-bit hashes modulo 2^64, so the order does not matter. Two different sets of heads have the same
sum once in 2^64. Forged sums give a peer no more power than forged rows: a receiver believes a peer about the
peer's own rings, and about nothing else."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cachee_bridge.sources.members import Members

Position = tuple[int, int]
"""(incarnation, position in the ring)."""
Pair = tuple["Position | None", "Position | None"]
"""Of one namespace. As told to the peer: this host's head, and its cursor in the peer's ring, None if it has
none. As expected from the peer: how far the peer's ring is applied here, and how far the peer has
acknowledged this host's ring."""
SUM_MAX = 2**64 - 1
PARTS_MAX = 16384
"""Hashes that are remembered: a position that does not move has the same hash at each heartbeat."""
NOTHING: Pair = (None, None)
_POSITION = struct.Struct("<QQ")


@lru_cache(maxsize=PARTS_MAX)
def part_of(namespace: str, position: Position) -> int:
    """The hash that one namespace adds to a sum."""
    packed = _POSITION.pack(*position) + namespace.encode()
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")


def sum_of(positions: Iterable[tuple[str, Position | None]]) -> int:
    """Of positions by namespace; None adds nothing."""
    return sum(part_of(name, position) for name, position in positions if position is not None) & SUM_MAX


class Sums:
    """Two sums over pairs of positions, by namespace."""

    def __init__(self) -> None:
        self.pairs: dict[str, Pair] = {}
        self._first = self._second = 0

    def put(self, namespace: str, pair: Pair) -> None:
        """Replace the pair of this namespace."""
        before = self.pairs.get(namespace, NOTHING)
        if pair != before:
            first, second = parts_of(namespace, pair)
            first_before, second_before = parts_of(namespace, before)
            self._first += first - first_before
            self._second += second - second_before
            self.pairs[namespace] = pair

    def drop(self, namespace: str) -> None:
        self.put(namespace, NOTHING)
        self.pairs.pop(namespace, None)

    def without(self, namespaces: Iterable[str]) -> tuple[int, int]:
        """The sums over all others."""
        first, second = self._first, self._second
        for namespace in namespaces:
            parts = parts_of(namespace, self.pairs.get(namespace, NOTHING))
            first, second = first - parts[0], second - parts[1]
        return first & SUM_MAX, second & SUM_MAX


def parts_of(namespace: str, pair: Pair) -> tuple[int, int]:
    first, second = (0 if position is None else part_of(namespace, position) for position in pair)
    return first, second


class Ledger:
    """For one link: what the peer was told about each shared namespace, and what is expected in its sums."""

    def __init__(self) -> None:
        self.told, self.expected = Sums(), Sums()
        self._to_tell: set[str] = set()
        """Namespaces of which the peer may not know everything, or may not have acknowledged it."""
        self._to_expect: set[str] = set()

    def change(self, namespaces: Iterable[str]) -> None:
        """A head, a cursor or what is acknowledged has changed, or the namespace has come to be shared."""
        self._to_tell.update(namespaces)
        self._to_expect.update(namespaces)

    def drop(self, namespace: str) -> None:
        """The namespace is no longer shared."""
        for sums in (self.told, self.expected):
            sums.drop(namespace)
        self._to_tell.discard(namespace)
        self._to_expect.discard(namespace)

    def candidates(self, link: Sharing, moved: set[str]) -> set[str]:
        """Shared namespaces of which a calm heartbeat may have a row."""
        return (moved | self._to_tell) & link.shared

    def news(self, link: Sharing, known: Mapping[str, Pair], moved: set[str]) -> set[str]:
        """Namespaces that need a row: the peer was told another position, or has not acknowledged this
        one."""
        told, acked = self.told.pairs, link.acked
        return moved | {ns for ns, at in known.items() if told.get(ns) != at or _lacks(acked.get(ns), at)}

    def settle(self, namespaces: Iterable[str]) -> None:
        """The peer knows everything about these, and has acknowledged it."""
        self._to_tell.difference_update(namespaces)

    def tell(self, link: Sharing, known: Mapping[str, Pair]) -> None:
        """The peer has been told these positions, or is told them now."""
        for namespace, pair in known.items():
            self.told.put(namespace, pair)
            if _lacks(link.acked.get(namespace), pair):
                self._to_tell.add(namespace)
            else:
                self._to_tell.discard(namespace)

    def expect(self, members: Mapping[str, Members], name: str, link: Sharing) -> int:
        """Updates the positions expected from the peer; returns for how many namespaces."""
        changed, self._to_expect = self._to_expect & link.shared, set()
        for namespace in changed:
            self.expected.put(namespace, expected_of(members[namespace], name, link.acked.get(namespace)))
        return len(changed)


class Heads:
    """Of this host's rings: in which of them the tail has moved."""

    def __init__(self) -> None:
        self.are_known = False
        """The tails have been read in this tick."""
        self._heads: dict[str, Position] = {}

    def look(self, members: Mapping[str, Members], links: Iterable[Ledgered]) -> None:
        """Reads the tail of each ring, once in a tick: a writer that died may not have rung the doorbell."""
        if self.are_known:
            return
        self.are_known, heads = True, self._heads
        changed = []
        for namespace, known in members.items():
            store = known.store
            head = store.incarnation, store.tail
            if heads.get(namespace) != head:
                heads[namespace] = head
                changed.append(namespace)
        for link in links if changed else ():
            link.ledger.change(changed)


class Ledgered(Protocol):
    ledger: Ledger


class Sharing(Protocol):
    """What a ledger needs of its link."""

    shared: set[str]
    acked: dict[str, int]


def _lacks(acked: int | None, pair: Pair) -> bool:
    return pair[0] is None or acked != pair[0][1]


def positions_of(members: Mapping[str, Members], name: str, namespaces: Iterable[str]) -> dict[str, Pair]:
    """Of each: this host's head, which is the tail of its ring by now, and how far the ring of `name` is
    applied here; None if it was never met."""
    found: dict[str, Pair] = {}
    for namespace in namespaces:
        known = members[namespace]
        found[namespace] = (known.store.incarnation, known.store.tail), known.cursor(name)
    return found


def expected_of(known: Members, name: str, acked: int | None) -> Pair:
    """What this host expects of one namespace in a CALM of `name`."""
    inbox = known.sources.get(name)
    applied = (inbox.incarnation, inbox.cursor) if inbox is not None else None
    return applied, (known.store.incarnation, acked) if acked is not None else None
