"""What the bridge calls: announcements out of the ring, a peer's announcements into it. See relay.c,
relay_buckets.c."""

from __future__ import annotations

from dataclasses import dataclass

from tests.stand_in.entries import Entry
from tests.stand_in.ring import Shape
from tests.stand_in.sources import Sources
from tests.stand_in.stream_in import ordinary, whole_frame
from tests.stand_in.wire import (
    ADD,
    APPLIED_AS,
    CLEAR,
    EVERY_KEY,
    GUARDED,
    KEY,
    KEY_KINDS,
    RECORD_BYTES_MAX,
    SET,
    SOME_BITS,
    TAG,
    UNKNOWN,
    WIRE_ALL,
    WIRE_ALL_KNOWN,
    WIRE_BUCKETS,
    WIRE_BUCKETS_KNOWN,
    WIRE_CLEAR,
    WIRE_KEY,
    WIRE_SET,
    WIRE_TAG,
    WIRE_UNKNOWN,
    Record,
    digest_bits,
    emit,
    framed,
    is_partly_known,
    parse,
    some_bits,
)

PACK_RECORDS_MAX = 2048
PACK_BYTES_MAX = PACK_RECORDS_MAX * RECORD_BYTES_MAX
SOURCE_MAX = 4095
MAP_BITS = range(3, 29)
MAP_HEADER_BYTES = 2
BACK_MAX = 1 << 31


@dataclass(frozen=True)
class Bits:
    """One of the two tables of a map: 2**log2 bits."""

    data: bytes
    log2: int

    def __getitem__(self, number: int) -> int:
        return self.data[number // 8] >> number % 8 & 1


def read_map(data: bytes) -> tuple[Bits, Bits]:
    """Tags, keys. ValueError: these are not the bytes of a map."""
    if len(data) < MAP_HEADER_BYTES or data[0] not in MAP_BITS or data[1] not in MAP_BITS:
        raise ValueError("malformed map of buckets; nothing of it was applied")
    tag_bytes, key_bytes = (1 << log2 >> 3 for log2 in data[:MAP_HEADER_BYTES])
    if len(data) != MAP_HEADER_BYTES + tag_bytes + key_bytes:
        raise ValueError("malformed map of buckets; nothing of it was applied")
    at = MAP_HEADER_BYTES + tag_bytes
    return Bits(data[MAP_HEADER_BYTES:at], data[0]), Bits(data[at:], data[1])


class Segment(Sources):
    """The whole model: `cachee_bridge.ports.store.Store`, and the verbs of workers."""

    def __init__(self, shape: Shape | None = None, incarnation: int = 1) -> None:
        super().__init__(shape or Shape(), incarnation)
        self.pump_cursor = 0
        self.hash_key_fingerprint = 7
        self.takes_frames = True
        """False: `receive` takes none, so that the mesh looks at each."""

    def step(self) -> None:
        """The bridge is between two steps of a verb. A test may kill it here."""

    # Out

    def pack(self, cursor: int, max_records: int, max_bytes: int) -> tuple[int, bytes] | None:
        if max_bytes < RECORD_BYTES_MAX or max_records < 1:
            raise ValueError(f"pack needs room for one record: {RECORD_BYTES_MAX} bytes")
        if self.lapped(cursor):
            return None
        keys_max = min(max_bytes // RECORD_BYTES_MAX, PACK_RECORDS_MAX)
        kept: dict[tuple[int, int], tuple[int, int, int]] = {}
        end = min(self.tail, cursor + max_records)
        while cursor < end and len(kept) < keys_max:
            record = self.records[cursor + 1]
            if record.own and record.is_range:
                return None  # it has no form on the wire: a map stands for it
            if record.own:
                self.coalesce(kept, record)
            cursor += 1
        return cursor, b"".join(emit(*each) for each in kept.values())

    def coalesce(self, kept: dict[tuple[int, int], tuple[int, int, int]], record: Record) -> None:
        """Each key once. Records of unequal kind or digest merge into an unconditional eviction."""
        new = self.on_the_wire(record)
        kind = WIRE_KEY if new[0] == WIRE_SET else new[0]
        if kept.setdefault((kind, new[1]), new) != new:
            kept[kind, new[1]] = (kind, new[1], 0)

    def on_the_wire(self, record: Record) -> tuple[int, int, int]:
        """Of a set whose value is not there any more, some bits say which it was."""
        if record.kind in (TAG, CLEAR):
            return (WIRE_TAG, record.hash, 0) if record.kind == TAG else (WIRE_CLEAR, 0, 0)
        if record.kind == KEY and record.digest == UNKNOWN:
            return WIRE_UNKNOWN, record.hash, 0
        if record.kind != GUARDED and (record.kind not in (SET, ADD) or not record.digest):
            return WIRE_KEY, record.hash, 0
        entry = self.entries.get(record.hash)
        if entry is not None and self._tells(entry, record):
            return WIRE_SET, record.hash, self.digest(entry)
        return WIRE_SET, record.hash, some_bits(record.digest)

    def _tells(self, entry: Entry, record: Record) -> bool:
        """Whether the entry says which value the record announced: a later set of the same bits does too."""
        known = SOME_BITS - 1 if record.kind == GUARDED else 0xFFFF
        later_set = entry.version > record.position << 1 and not entry.version & 1 and not entry.local
        same = not (digest_bits(self.digest(entry)) ^ record.digest) & known
        return entry.version == record.position << 1 or (later_set and same)

    def missed(self, cursor: int) -> bytes:
        all_ = WIRE_ALL if self.in_doubt else WIRE_ALL_KNOWN
        if cursor > self.tail or self.tail - cursor > BACK_MAX:
            return bytes((all_,))
        if self.clear_own > cursor:
            return bytes((all_ if self.in_doubt else WIRE_CLEAR,))
        after = any(own > cursor for table in (self.own_tags, self.own_writes) for own in table.values())
        return bytes((WIRE_BUCKETS if self.in_doubt else WIRE_BUCKETS_KNOWN,)) if after else b""

    @property
    def map_bytes(self) -> int:
        return MAP_HEADER_BYTES + (1 << self.shape.tag_bits >> 3) + (1 << self.shape.key_bits >> 3)

    def map_piece(self, cursor: int, at: int, max_bytes: int) -> bytes:
        return self.map_after(cursor)[at : at + max_bytes]

    def map_after(self, cursor: int) -> bytes:
        """A bit for each bucket in which this host announced after `cursor`."""
        tags = self._bits(self.own_tags, self.shape.tag_bits, cursor)
        keys = self._bits(self.own_writes, self.shape.key_bits, cursor)
        return bytes((self.shape.tag_bits, self.shape.key_bits)) + tags + keys

    def _bits(self, own: dict[int, int], log2: int, cursor: int) -> bytes:
        if cursor > self.tail:
            return b"\xff" * (1 << log2 >> 3)
        number = sum(1 << bucket for bucket, position in own.items() if position > cursor)
        return number.to_bytes(1 << log2 >> 3, "little")

    # At home

    def heal(self, cursor: int, max_records: int, after: int, head: bytes) -> tuple[int, int, bytes]:
        """Evict what this host's records should have evicted, and frame them for the peers. Lapped, it evicts
        nothing: what a dead writer owed stands in its roster slot, and the sweep pays it."""
        healed = self.healed(cursor, max_records)
        packed = self.pack(cursor, healed - cursor, PACK_BYTES_MAX) if healed > cursor else (cursor, b"")
        if packed is None:
            return healed, cursor, b""
        to, payload = packed
        return healed, to, framed(head, after + 1, to, payload) if payload else b""

    def healed(self, cursor: int, max_records: int) -> int:
        if self.lapped(cursor):
            cursor = self.tail
        end = min(self.tail, cursor + max_records)
        for position in range(cursor + 1, end + 1):
            record = self.records[position]
            if record.source == 0 and not record.is_range and record.kind in KEY_KINDS:
                self.kill_lower(record.hash, position << 1)
        self.pump_cursor = end
        return end

    # In

    def apply(self, source: int, payload: bytes) -> int:
        if source > SOURCE_MAX:
            raise ValueError("malformed payload; nothing of it was applied")
        records = parse(payload)
        self.mark()
        for kind, key, digest in records:
            self.step()
            self.apply_one(source, kind, key, digest)
        return len(records)

    def receive(
        self,
        source: int,
        incarnation: int,
        cursor: int,
        head: bytes,
        data: bytes | bytearray,
        sealed: bool,
        frames_max: int,
    ) -> tuple[int, int, int, int] | None:
        self._at(source)
        at = frames = payloads = 0
        while self.takes_frames and frames < frames_max:
            whole = whole_frame(bytes(data[at:]), head, sealed)
            if whole is None or not ordinary(whole.frame, cursor):
                break
            try:
                if whole.frame.payload:
                    self.apply(source, whole.frame.payload)
            except ValueError:
                break
            cursor = whole.frame.last
            self.source_store(source, incarnation, cursor)
            at, frames, payloads = at + whole.bytes, frames + 1, payloads + bool(whole.frame.payload)
        return (at, cursor, frames, payloads) if frames else None

    def apply_one(self, source: int, kind: int, key: int, digest: int) -> None:
        """A fresh position, its fence, then the eviction."""
        bits = digest_bits(digest) if kind == WIRE_SET else UNKNOWN if kind == WIRE_UNKNOWN else 0
        if kind == WIRE_UNKNOWN:
            self.doubt(key)
        elif kind == WIRE_ALL:
            self.doubt_all()
        if kind == WIRE_SET and is_partly_known(digest):
            position = self.append_guarded(key, digest, source=source)
        else:
            position = self.append(APPLIED_AS[kind], key, source=source, digest=bits)
        entry = self.entries.get(key)
        kept = kind == WIRE_SET and entry is not None and self.digest(entry) == digest
        if APPLIED_AS[kind] in (KEY, SET) and not kept:
            self.kill_lower(key, position << 1, spare_local=True)

    def fence_map(
        self, source: int, buckets: bytes, version: int, at: int, steps: int, known: bool = False
    ) -> tuple[int, int]:
        """Two passes over the tables, each to a record of its own."""
        if source > SOURCE_MAX:
            raise ValueError("malformed map of buckets; nothing of it was applied")
        tables = self._tables(buckets)
        cells = [1 << max(bits.log2, log2) for bits, log2, _ in tables]
        whole = sum(cells)
        at = at if at < 2 * whole else 0
        first = 0 if at < whole else whole
        if at == first:
            self.step()
            self.mark()
            if not known:
                self.doubt_all()
            version = self.append(KEY, EVERY_KEY, source=source)
        left = _Steps(max(steps, 1))
        at -= first
        if at < cells[0]:
            at = self._raise_some(*tables[0], version, at, left)
        if at >= cells[0]:
            at = cells[0] + self._raise_some(*tables[1], version, at - cells[0], left)
        at += first
        return (version << 1, 0) if at == 2 * whole else (version, at)

    def _tables(self, buckets: bytes) -> list[tuple[Bits, int, dict[int, int]]]:
        tags, keys = read_map(buckets)
        return [(tags, self.shape.tag_bits, self.tag_fences), (keys, self.shape.key_bits, self.fences)]

    def _raise_some(
        self, bits: Bits, log2: int, fences: dict[int, int], version: int, at: int, left: _Steps
    ) -> int:
        """The cell to go on with. Cells divide the finer of map and table."""
        cells = max(bits.log2, log2)
        bit_shift, fence_shift = cells - bits.log2, cells - log2
        while at < 1 << cells and left.take():
            number = at >> bit_shift
            if not bits.data[number // 8]:
                at = (number // 8 + 1) * 8 << bit_shift
            elif not bits[number]:
                at = (number + 1) << bit_shift
            else:
                bucket = at >> fence_shift
                fences[bucket] = max(fences[bucket], version)
                at = (bucket + 1) << fence_shift
        return min(at, 1 << cells)

    def evict_map(self, source: int, buckets: bytes, version: int, at: int, words: int) -> tuple[int, int]:
        if source > SOURCE_MAX:
            raise ValueError("malformed map of buckets; nothing of it was applied")
        _, keys = read_map(buckets)
        self.step()
        end = min(self.shape.words, at + max(words, 1)) if at < self.shape.words else self.shape.words
        here = [each for each in self.entries.values() if at <= self._word(each.key) < end]
        listed = [each.key for each in here if keys[self.shape.leading(each.key) >> (64 - keys.log2)]]
        evicted = sum(self.kill_lower(key, version, spare_local=True) for key in listed)
        if end < self.shape.words:
            return end, evicted
        self.announce_done(source)
        return 0, evicted

    def _word(self, key: int) -> int:
        return self.shape.word_of(key) % self.shape.words


@dataclass
class _Steps:
    left: int

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0
