"""A segment of a simulated host: the stand-in, with what only the simulated world has.

Its clock is the host's. The truth is told what the bridge does to it. Its bridge may be killed between two
steps of a verb, and so may a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.leases import Leases
from tests.stand_in.ring import Shape
from tests.stand_in.segment import Segment
from tests.stand_in.wire import RANGE_BITS

if TYPE_CHECKING:
    from tests.simulation.loading import Caller
    from tests.simulation.truth import Truth

KEYS, TAGS, LOCAL = 6, 2, 7
"""Of a namespace: the keys 1 to KEYS, the tags from 0 on, and one more key, which is only ever local."""
BUCKETS, BUCKET_BITS = 5, 3
"""So few that keys share a fence."""
HASH_BITS, NAMESPACE_AT = 64, 32
WORDS = 8
"""Of the index: one for each key."""


def hash_of(namespace: int, number: int, bucket: int) -> int:
    """The leading bits are the bucket, as in the core; no two namespaces share a hash."""
    return bucket << (HASH_BITS - BUCKET_BITS) | namespace << NAMESPACE_AT | number


def key_hash(namespace: int, number: int) -> int:
    return hash_of(namespace, number, number % BUCKETS)


def tag_hash(namespace: int, number: int) -> int:
    return hash_of(namespace, number, number)


def namespace_of(hashed: int) -> int:
    return hashed >> NAMESPACE_AT & 0xFF


def number_of(hashed: int) -> int:
    """Of a key, or of a tag."""
    return hashed & 0xFF


def range_of(hashed: int) -> int:
    """The bit that an intent shares with its neighbours."""
    return hashed >> (HASH_BITS - RANGE_BITS)


def shape(ring_slots: int) -> Shape:
    return Shape(ring_slots, key_bits=BUCKET_BITS, tag_bits=BUCKET_BITS, words=WORDS, word_of=number_of)


class BridgeKilled(Exception):
    """The bridge dies here."""


class Halfway(Exception):
    """The worker is killed or stopped here: its record is in the ring, no entry is stored or evicted yet."""


class Watched(Segment):
    def __init__(
        self,
        truth: Truth,
        host: str,
        namespace: str,
        number: int,
        incarnation: int,
        ring_slots: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(shape(ring_slots), incarnation)
        self.truth, self.host, self.namespace, self.number = truth, host, namespace, number
        self._clock = clock
        self.leases = Leases()
        self.loaders: set[Caller] = set()
        """Who is asking the origin, with a lease or without."""
        self.bridge_generation = 0
        """How many bridges have taken it."""
        self.bridge_dies_in: int | None = None
        """The adversary: the bridge is killed before it does so many more steps of apply and source_store."""
        self.gets_halfway = False
        """So does the next event."""
        self.local_value: int | None = None
        """What the local key must have."""

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    # Deaths

    def step(self) -> None:
        if self.bridge_dies_in is not None:
            self.bridge_dies_in -= 1
            if self.bridge_dies_in < 0:
                self.bridge_dies_in = None
                raise BridgeKilled

    def between(self, key: int) -> None:
        if self.gets_halfway:
            self.gets_halfway = False
            raise Halfway

    # What the truth is told

    def raise_incarnation(self, incarnation: int) -> None:
        self.truth.raised(self, incarnation)
        super().raise_incarnation(incarnation)

    def apply_one(self, source: int, kind: int, key: int, digest: int) -> None:
        self.truth.concerns(self, key)
        super().apply_one(source, kind, key, digest)

    def source_store(self, index: int, incarnation: int, cursor: int) -> None:
        self.step()
        slot = self.slots[index]
        was = slot.incarnation, slot.cursor
        super().source_store(index, incarnation, cursor)
        self.truth.cursor_moved(self, slot.name, was, (incarnation, cursor))

    def source_forget(self, index: int) -> None:
        slot = self.slots[index]
        self.truth.forgotten(self, slot.name, slot.incarnation, slot.cursor)
        super().source_forget(index)

    def source_set_aside(self, index: int) -> None:
        super().source_set_aside(index)
        self.truth.removed(self, self.slots[index].name, self.slots[index].incarnation)

    def draw_line(self) -> int:
        self.truth.line_drawn(self)
        return super().draw_line()

    def source_acked(self, index: int, position: int) -> None:
        super().source_acked(index, position)
        self.truth.acked(self, self.slots[index].name, position)

    def sync_asked(self) -> int:
        """Always all: peers are asked out of turn after everything that was written."""
        return self.tail
