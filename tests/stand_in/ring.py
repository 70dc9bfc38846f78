"""The ring: the one order of all that moves a fence. See ring.c, fence.c."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.stand_in.wire import (
    ALL,
    CLEAR,
    EVERY_KEY,
    FENCED_KINDS,
    GUARDED,
    KEY,
    LOCAL,
    RANGE_BITS,
    SOME_BITS,
    TAG,
    Record,
    range_of,
)

GUARD_MS, MARK_EVERY_MS, MARKS = 1000, 125, 16


def _itself(key: int) -> int:
    return key


@dataclass(frozen=True)
class Shape:
    """How large a segment is. Counts are powers of two; the default is a segment of 2 MiB."""

    ring_slots: int = 512
    key_bits: int = 13
    """The log2 of the number of fences."""
    tag_bits: int = 9
    source_slots: int = 64
    words: int = 4096
    """Of the index."""
    leading: Callable[[int], int] = field(default=_itself)
    """Of a hash: 64 bits whose leading ones are its bucket. Tests that need neighbours choose them."""
    word_of: Callable[[int], int] = field(default=_itself)
    """Of a hash: the word of the index where its entry is found, modulo `words`."""

    def key_bucket(self, key: int) -> int:
        return self.leading(key) >> (64 - self.key_bits)

    def tag_slot(self, tag: int) -> int:
        return self.leading(tag) >> (64 - self.tag_bits)


class Ring:
    """Records, fences, the tables of own announcements, and marks of time."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.tail = 0
        self.records: dict[int, Record] = {}
        self.fences: dict[int, int] = defaultdict(int)
        self.tag_fences: dict[int, int] = defaultdict(int)
        self.range_fences: dict[int, int] = defaultdict(int)
        self.own_writes: dict[int, int] = defaultdict(int)
        self.own_tags: dict[int, int] = defaultdict(int)
        self.clear_own = self.clear_remote = 0
        self.marks: list[tuple[int, int]] = []
        """(position, ms), the newest first: what is above the position is younger than the time."""
        self.gave_way_to: dict[int, tuple[int, int] | None] = {}
        """By position of a guarded record, the mark of the event that it gave way to."""
        self.frozen_ms = 0

    @property
    def ring_slots(self) -> int:
        return self.shape.ring_slots

    def now_ms(self) -> int:
        """The segment's clock; it stands until `_freeze` moves it."""
        return self.frozen_ms

    def _freeze(self, ms: int) -> None:
        self.frozen_ms = ms

    def append(self, kind: int, key: int = 0, own: bool = False, source: int = 0, digest: int = 0) -> int:
        """Record, fence, tail. Returns the position."""
        self.tail += 1
        record = self.records[self.tail] = Record(self.tail, kind, key, own, source, digest)
        self.records.pop(self.tail - self.ring_slots, None)
        self.gave_way_to.pop(self.tail - self.ring_slots, None)
        self._raise(record)
        return self.tail

    def _raise(self, record: Record) -> None:
        if record.kind in FENCED_KINDS and not (record.kind == LOCAL and record.hash == EVERY_KEY):
            for bucket in self._buckets(record):
                self.fences[bucket] = record.position
                if record.own:
                    self.own_writes[bucket] = record.position
            if record.is_range:
                self.range_fences[range_of(record.hash)] = record.position
        elif record.kind == TAG:
            slot = self.shape.tag_slot(record.hash)
            self.tag_fences[slot] = record.position
            if record.own:
                self.own_tags[slot] = record.position
        elif record.kind == CLEAR and record.own:
            self.clear_own = record.position
        elif record.kind in (CLEAR, ALL):
            self.clear_remote = record.position

    def _buckets(self, record: Record) -> range:
        first, count = self.shape.key_bucket(record.hash), 1
        if record.is_range:
            count = 1 << max(0, self.shape.key_bits - RANGE_BITS)
            first -= first % count
        return range(first, first + count)

    def read(self, position: int) -> Record | None:
        """None: not there yet, or overwritten."""
        return self.records.get(position)

    def lapped(self, cursor: int) -> bool:
        return cursor > self.tail or self.tail - cursor > self.ring_slots

    def fence_of(self, key: int) -> int:
        return self.fences[self.shape.key_bucket(key)]

    def tag_fence_of(self, tag: int) -> int:
        return self.tag_fences[self.shape.tag_slot(tag)]

    def clear_of(self, local: bool) -> int:
        """A remote clear spares local entries."""
        return self.clear_own if local else max(self.clear_own, self.clear_remote)

    def wide_fence(self, tags: tuple[int, ...], local: bool) -> int:
        return max(self.clear_of(local), *map(self.tag_fence_of, tags), 0)

    def conflict(self, key: int, after: int, upto: int) -> bool:
        """Whether an event of this key is in (after, upto]; what was overwritten counts as one."""
        records = (self.read(position) for position in range(upto, after, -1))
        return any(record is None or record.concerns(key) for record in records)

    # The guard: a plain set yields to a remote write of the last second

    def mark(self) -> None:
        now = self.now_ms()
        if not self.marks or now - self.marks[0][1] >= MARK_EVERY_MS:
            self.marks = [(self.tail, now), *self.marks[: MARKS - 1]]

    def _covers(self, mark: tuple[int, int], position: int) -> bool:
        return self.now_ms() - mark[1] < GUARD_MS + MARK_EVERY_MS and position > mark[0]

    def _recent_mark(self, position: int) -> tuple[int, int] | None:
        """The newest that shows that a record is recent."""
        return next((mark for mark in self.marks if self._covers(mark, position)), None)

    def _guarding(self, key: int, digest: int, known: int) -> tuple[int, int] | None:
        """The mark of the event that a set of this digest gives way to. `known`: the bits of the digest that
        are known."""
        fence = self.fence_of(key)
        recent, record = self._recent_mark(fence), self.read(fence)
        if recent is None or record is None:
            return None
        if record.kind == GUARDED:
            same = record.hash == key and not (record.digest ^ digest) & known & (SOME_BITS - 1)
            gave_way = self.gave_way_to[fence]
            if record.source != 0 and not same:
                return recent
            return gave_way if gave_way is not None and self._covers(gave_way, fence) else None
        if record.own or record.source == 0:
            return None
        return recent if record.hash != key or not record.digest or (record.digest ^ digest) & known else None

    def append_guarded(self, key: int, digest: int, source: int = 0) -> int:
        """The record of a value that is not stored: bits of its digest, and what it gives way to."""
        gives_way_to = self._guarding(key, digest, SOME_BITS - 1)
        position = self.append(GUARDED, key, not source, source, digest & (SOME_BITS - 1))
        self.gave_way_to[position] = gives_way_to
        return position

    def guards(self, key: int, digest: int) -> bool:
        return self._guarding(key, digest, 0xFFFF) is not None

    def draw_line(self) -> int:
        """A position of no key."""
        return self.append(LOCAL, EVERY_KEY)

    def evict_before(self, position: int) -> None:
        if position > self.tail:
            raise ValueError(f"no record has position {position} yet")
        self.clear_remote = max(self.clear_remote, position)

    def announce_done(self, source: int = 0) -> int:
        """For those who follow the ring: all that a map lists is gone."""
        return self.append(KEY, EVERY_KEY, source=source, digest=1)
