"""Kinds of records, in the ring and on the wire; see layout.h and relay.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgpack

ADD, KEY, SET, TAG, CLEAR, ALL, LOCAL, GUARDED = range(8)
"""Kinds in the ring."""
WIRE_KEY, WIRE_SET, WIRE_TAG, WIRE_CLEAR, WIRE_ALL, WIRE_BUCKETS, WIRE_UNKNOWN = range(1, 8)
WIRE_ALL_KNOWN, WIRE_BUCKETS_KNOWN = 8, 9
"""Kinds on the wire; WIRE_BUCKETS and WIRE_BUCKETS_KNOWN announce a map and are no records."""
SIZES = {
    WIRE_KEY: 9,
    WIRE_SET: 17,
    WIRE_TAG: 9,
    WIRE_CLEAR: 1,
    WIRE_ALL: 1,
    WIRE_UNKNOWN: 9,
    WIRE_ALL_KNOWN: 1,
}
RECORD_BYTES_MAX = 17
APPLIED_AS = {
    WIRE_KEY: KEY,
    WIRE_SET: SET,
    WIRE_TAG: TAG,
    WIRE_CLEAR: CLEAR,
    WIRE_ALL: ALL,
    WIRE_ALL_KNOWN: ALL,
    WIRE_UNKNOWN: KEY,
}
KEY_KINDS = (KEY, SET, LOCAL, GUARDED)
"""Kinds that evict older values of their key."""
FENCED_KINDS = (ADD, *KEY_KINDS)
"""Kinds that raise the fence of their key's bucket."""
EVERY_KEY, EVERY_KEY_DONE = 0, 1
"""The hash of a KEY that may be about any key, and its digest bits when all was evicted."""
RANGE, RANGE_BITS = 2, 9
"""The digest bits of an own KEY that is about all keys with the same leading bits, and how many bits."""
UNKNOWN = 3
"""The digest bits of a KEY whose outcome is unknown."""


def range_of(key: int) -> int:
    """The number of its range of hashes."""
    return key >> (64 - RANGE_BITS)


@dataclass(frozen=True)
class Record:
    """One record of the ring."""

    position: int
    kind: int
    hash: int = 0
    own: bool = False
    """This host's own announcement: peers are sent it."""
    source: int = 0
    digest: int = 0
    """16 bits."""

    @property
    def is_range(self) -> bool:
        return self.own and self.kind == KEY and self.digest == RANGE

    def concerns(self, key: int) -> bool:
        """Whether it is an event of this key: an add is none."""
        if self.is_range:
            return range_of(self.hash) == range_of(key)
        if self.hash == EVERY_KEY:
            return self.kind == KEY
        return self.hash == key and self.kind in KEY_KINDS


def digest_bits(digest: int) -> int:
    """What of a digest fits into a record; 0 means "none"."""
    return digest & 0xFFFF or 1


SOME_BITS = 1 << 11
"""Set in a digest of which only the bits below are known."""


def some_bits(digest: int) -> int:
    """For the wire: what a record knows of the digest of a value that is not stored."""
    return SOME_BITS | digest & (SOME_BITS - 1)


def is_partly_known(digest: int) -> bool:
    return digest & ~(SOME_BITS - 1) == SOME_BITS


def emit(kind: int, key: int = 0, digest: int = 0) -> bytes:
    return struct.pack("<BQQ", kind, key, digest)[: SIZES[kind]]


def framed(head: bytes, first: int, last: int, payload: bytes) -> bytes:
    """The message FRAME: `head` is the first half of its body, see frame_layout.h."""
    body = head + b"".join(map(msgpack.packb, (first, last, payload)))
    return struct.pack("<IB", len(body) + 1, 5) + body


def parse(payload: bytes) -> list[tuple[int, int, int]]:
    """(kind, hash, digest) of each record. ValueError: malformed."""
    records, at = [], 0
    while at < len(payload):
        size = SIZES.get(payload[at], 0)
        if not size or at + size > len(payload):
            raise ValueError(f"record of kind {payload[at]} at {at}; nothing was applied")
        records.append(struct.unpack("<BQQ", payload[at : at + size].ljust(RECORD_BYTES_MAX, b"\0")))
        at += size
    return records
