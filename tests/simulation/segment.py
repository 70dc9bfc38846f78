"""A model of one segment, faithful to the core where the protocol can tell: one ring, one order of all that
moves a fence.

What races in the real one (steps of one verb against another's) is atomic here; a death between record and
entry is not. The verbs that workers call are in host.py; here is what they and the bridge do to the shared
state.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.leases import Leases

if TYPE_CHECKING:
    from tests.simulation.loading import Caller
    from tests.simulation.truth import Truth

MISS, FRESH, STALE = 0, 1, 2
"""What is found of a key; as cachee_shm.loading has them."""
KEY, KEY_SET, TAG, CLEAR, ALL, BUCKETS = 1, 2, 3, 4, 5, 6
KEYS, TAGS = 6, 2
"""Of a namespace: hashes from 1 and from TAG_FIRST on, beside its key_bits. The index has a word for each
key."""
TAG_FIRST = 100
FENCE_BUCKETS = 5
"""So few that keys share them. A map has a byte for each tag, then one for each of these."""
SIZES = {KEY: 9, KEY_SET: 17, TAG: 9, CLEAR: 1, ALL: 1}


def digest_of(value: int, ttl: float | None) -> int:
    """Lifetimes count by their power of two, in ms."""
    return value << 6 | (int(ttl * 1000).bit_length() if ttl is not None else 0)


class BridgeKilled(Exception):
    """The bridge dies here."""


@dataclass
class Record:
    position: int
    own: bool
    kind: int
    hash: int = 0
    digest: int = 0


@dataclass
class Entry:
    value: int
    version: int
    """The position of a set, the token of a fill."""
    started: float
    """When its value was asked for, by this host's clock."""
    tags: tuple[int, ...] = ()
    ttl: float | None = None
    lives_from: float = 0.0
    """When it was stored or touched, by this host's clock."""
    grace: float = 0.0
    """How much longer it may be served while it is loaded anew."""

    @property
    def expires(self) -> float:
        return math.inf if self.ttl is None else self.lives_from + self.ttl

    @property
    def digest(self) -> int:
        return digest_of(self.value, self.ttl)


@dataclass
class Segment:
    truth: Truth
    host: str
    namespace: str
    incarnation: int
    ring_slots: int
    key_bits: int
    """The upper half of every hash of this namespace."""
    hash_key_fingerprint: int = 7
    tail: int = 0
    pump_cursor: int = 0
    ring: dict[int, Record] = field(default_factory=dict)
    fences: dict[int, int] = field(default_factory=dict)
    tag_fences: dict[int, int] = field(default_factory=dict)
    cleared: int = 0
    own_writes: dict[int, int] = field(default_factory=dict)
    own_tags: dict[int, int] = field(default_factory=dict)
    own_cleared: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    table: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    aside: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    intents: list[int] = field(default_factory=list)
    """Hashes of `writing` blocks whose worker died inside."""
    leases: Leases = field(default_factory=Leases)
    loaders: set[Caller] = field(default_factory=set)
    """Who is asking the origin, with a lease or without."""
    serve_until: float = 0.0
    """Milliseconds."""
    bridge_generation: int = 0
    """How many bridges have taken it."""
    on_isolation: str = "cap"
    isolation_ttl_s: float = 0.5
    left: bool = False
    dies_in: int | None = None
    """The adversary: the bridge is killed before it does so many more steps of apply and source_store."""

    def leave(self) -> None:
        """The mark by which workers know that nobody hears them."""
        self.left = True

    def raise_incarnation(self, incarnation: int) -> None:
        assert incarnation > self.incarnation
        self.truth.raised(self, incarnation)
        self.incarnation = incarnation

    # The ring

    def append(self, own: bool, kind: int, key: int = 0, digest: int = 0) -> int:
        """Record, fence, tail."""
        self.tail += 1
        self.ring[self.tail] = Record(self.tail, own, kind, key, digest)
        self.ring.pop(self.tail - self.ring_slots, None)
        if kind in (KEY, KEY_SET):
            self.fences[key % FENCE_BUCKETS] = self.tail
            self.own_writes[key % FENCE_BUCKETS] = self.tail if own else self._own_write(key % FENCE_BUCKETS)
        elif kind == TAG:
            self.tag_fences[key] = self.tail
            self.own_tags[key] = self.tail if own else self.own_tags.get(key, 0)
        elif kind in (CLEAR, ALL):
            self.cleared = self.tail
            self.own_cleared = self.tail if own else self.own_cleared
        return self.tail

    def _own_write(self, bucket: int) -> int:
        return self.own_writes.get(bucket, 0)

    def kill_lower(self, key: int, version: int) -> None:
        entry = self.entries.get(key)
        if entry is not None and entry.version < version:
            del self.entries[key]

    def fence(self, key: int, tags: tuple[int, ...]) -> int:
        """The newest of all that could make an entry of `key` old."""
        fences = [self.tag_fences.get(tag, 0) for tag in tags]
        return max(self.fences.get(key % FENCE_BUCKETS, 0), self.cleared, *fences)

    def announced_since(self, key: int, tags: tuple[int, ...], token: int) -> bool:
        """Whether anything after `token` concerns `key`: another key of its bucket does not."""
        if self.fence(key, tags) <= token:
            return False
        if token < self.tail - self.ring_slots:
            return True
        about = {KEY: (key,), KEY_SET: (key,), TAG: tags, CLEAR: (0,), ALL: (0,), BUCKETS: (0,)}
        records = (self.ring[position] for position in range(token + 1, self.tail + 1))
        return any(record.hash in about[record.kind] for record in records)

    # Reading and storing

    def visible(self, key: int) -> Entry | None:
        entry = self.entries.get(key)
        if entry is None or entry.version < self.cleared:
            return None
        newest = max((self.tag_fences.get(tag, 0) for tag in entry.tags), default=0)
        return None if entry.version < newest else entry

    def get(self, key: int, now: float) -> Entry | None:
        state, entry = self.find(key, now)
        return entry if state == FRESH else None

    def find(self, key: int, now: float) -> tuple[int, Entry | None]:
        """Invalidated, withheld, then expired: in this order."""
        entry = self.visible(key)
        if entry is None or self._withheld(entry, now):
            return MISS, None
        return self._by_age(entry, now)

    def _by_age(self, entry: Entry, now: float) -> tuple[int, Entry | None]:
        if now < entry.expires:
            return FRESH, entry
        return (STALE, entry) if now < entry.expires + entry.grace else (MISS, None)

    def touch(self, key: int, ttl: float | None, now: float) -> None:
        """Another lifetime, under the same version."""
        entry = self.get(key, now)
        if entry is not None:
            entry.ttl, entry.lives_from = ttl, now

    def _withheld(self, entry: Entry, now: float) -> bool:
        if now * 1000 <= self.serve_until or self.on_isolation == "serve":
            return False
        before = self.on_isolation == "flush" and entry.started * 1000 <= self.serve_until
        return before or now - entry.started > self.isolation_ttl_s

    def fill(
        self,
        key: int,
        value: int,
        tags: tuple[int, ...],
        token: int,
        started: float,
        ttl: float | None = None,
        now: float = 0.0,
        grace: float = 0.0,
    ) -> bool:
        """Store what was loaded, unless something was announced since."""
        held = self.visible(key)
        if self.fence(key, tags) > token or (held is not None and held.version > token):
            return False
        self.entries[key] = Entry(value, token, started, tags, ttl, now, grace)
        return True

    # What the bridge uses

    def pack(self, cursor: int, max_records: int, max_bytes: int) -> tuple[int, bytes] | None:
        if cursor < self.tail - self.ring_slots:
            return None
        last = min(self.tail, cursor + max_records)
        kept: dict[tuple[int, int], tuple[int, ...]] = {}
        for position in range(cursor + 1, last + 1):
            record = self.ring[position]
            if record.own:
                self.coalesce(kept, record)
        payload = b"".join(self._wire(*record) for record in kept.values())
        return last, payload

    def missed(self, cursor: int) -> bytes:
        """What stands for own announcements after `cursor` that the ring may have lost."""
        if self.own_cleared > cursor:
            return self._wire(CLEAR)
        return bytes((BUCKETS,)) if any(self._map(cursor)) else b""

    @property
    def map_bytes(self) -> int:
        return TAGS + FENCE_BUCKETS

    def map_piece(self, cursor: int, at: int, max_bytes: int) -> bytes:
        return self._map(cursor)[at : at + max_bytes]

    def _map(self, cursor: int) -> bytes:
        tags = (self.own_tags.get(tag, 0) for tag in self._tags())
        return bytes(own > cursor for own in (*tags, *map(self._own_write, range(FENCE_BUCKETS))))

    def _tags(self) -> list[int]:
        return [self.key_bits << 32 | TAG_FIRST + number for number in range(TAGS)]

    def coalesce(self, kept: dict[tuple[int, int], tuple[int, ...]], record: Record) -> None:
        """Records of unequal kind or digest merge into an unconditional eviction."""
        where = (KEY if record.kind in (KEY, KEY_SET) else record.kind, record.hash)
        entry = self.entries.get(record.hash)
        digest_known = record.kind == KEY_SET and entry is not None and entry.version == record.position
        new = (KEY_SET, record.hash, record.digest) if digest_known else (where[0], record.hash)
        kept[where] = new if kept.get(where, new) == new else where

    def heal(self, cursor: int, max_records: int) -> int:
        if cursor < self.tail - self.ring_slots:
            self.entries.clear()
            self.pump_cursor = self.tail
            return self.tail
        last = min(self.tail, cursor + max_records)
        for position in range(cursor + 1, last + 1):
            record = self.ring[position]
            if record.own and record.kind in (KEY, KEY_SET):
                self.kill_lower(record.hash, record.position)
        self.pump_cursor = last
        return last

    def apply(self, source: int, payload: bytes) -> int:
        records = list(self._parse(payload))
        for kind, key, digest in records:
            self._step()
            self.apply_one(kind, key, digest)
        return len(records)

    def apply_one(self, kind: int, key: int, digest: int) -> None:
        """A fresh position, its fence, then the eviction."""
        position = self.append(False, kind, key, digest)
        entry = self.entries.get(key)
        if kind == KEY or (kind == KEY_SET and entry is not None and entry.digest != digest):
            self.kill_lower(key, position)

    def fence_map(self, source: int, buckets: bytes, version: int, at: int, steps: int) -> tuple[int, int]:
        """A record, then every listed fence. (The real one takes two, in several calls.)"""
        if len(buckets) != self.map_bytes:
            raise ValueError(f"a map of {len(buckets)} bytes")
        self._step()
        position = self.append(False, BUCKETS)
        listed = [bucket for bucket in range(FENCE_BUCKETS) if buckets[TAGS + bucket]]
        self.fences.update(dict.fromkeys(listed, position))
        tags = [tag for number, tag in enumerate(self._tags()) if buckets[number]]
        self.tag_fences.update(dict.fromkeys(tags, position))
        return position, 0

    def evict_map(self, source: int, buckets: bytes, version: int, at: int, words: int) -> tuple[int, int]:
        self._step()
        end, held = min(KEYS, at + words), len(self.entries)
        for number in range(at, end):
            key = self.key_bits << 32 | number + 1
            if buckets[TAGS + key % FENCE_BUCKETS]:
                self.kill_lower(key, version)
        return (end if end < KEYS else 0), held - len(self.entries)

    def sources(self) -> list[tuple[int, str, int, int]]:
        return [(index, *slot) for index, slot in sorted(self.table.items())]

    def forgotten(self) -> list[tuple[int, str, int, int]]:
        return [(index, *slot) for index, slot in sorted(self.aside.items())]

    def source_open(self, name: str) -> int:
        for index in [index for index, slot in self.aside.items() if slot[0] == name]:
            self.table[index] = self.aside.pop(index)
        for index, slot in self.table.items():
            if slot[0] == name:
                return index
        index = next(i for i in range(1, 4096) if i not in self.table and i not in self.aside)
        self.table[index] = (name, 0, 0)
        return index

    def source_store(self, index: int, incarnation: int, cursor: int) -> None:
        self._step()
        name, had_incarnation, had_cursor = self.table[index]
        self.table[index] = (name, incarnation, cursor)
        self.truth.cursor_moved(self, name, (had_incarnation, had_cursor), (incarnation, cursor))

    def source_forget(self, index: int) -> None:
        self.truth.forgotten(self, *self.table.pop(index))

    def source_set_aside(self, index: int) -> None:
        self.aside[index] = self.table.pop(index)
        self.truth.removed(self, *self.aside[index][:2])

    def draw_line(self) -> int:
        self.truth.line_drawn(self)
        return self.append(False, KEY, self.key_bits << 32 | 0xFFFF)

    def evict_before(self, position: int) -> None:
        self._step()
        self.cleared = max(self.cleared, position)

    def source_acked(self, index: int, position: int) -> None:
        self.truth.acked(self, self.table[index][0], position)

    def source_tell(self, index: int, reachable: bool, fresh_ms: int) -> None:
        """For workers, who wait for nobody here."""

    def set_serve_until(self, ms: float) -> None:
        self.serve_until = ms

    def bridge_vouch(self, until_ms: int) -> None:
        """For workers."""

    def sync_asked(self) -> int:
        """Always all: peers are asked out of turn after everything that was written."""
        return self.tail

    def _step(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise BridgeKilled

    # The wire record

    def _wire(self, kind: int, key: int = 0, digest: int = 0) -> bytes:
        return struct.pack("<BQQ", kind, key, digest)[: SIZES[kind]]

    def _parse(self, payload: bytes) -> list[tuple[int, int, int]]:
        records, at = [], 0
        while at < len(payload):
            kind = payload[at]
            size = SIZES.get(kind)
            if size is None or at + size > len(payload):
                raise ValueError(f"record of kind {kind} at {at}")
            _, key, digest = struct.unpack("<BQQ", payload[at : at + size].ljust(17, b"\0"))
            if kind in (KEY, KEY_SET, TAG):
                self.truth.concerns(self, key)
            records.append((kind, key, digest))
            at += size
        return records
