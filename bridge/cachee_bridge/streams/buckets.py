"""Maps of buckets: what a peer that was lapped is sent in place of the records that the ring has lost.

    map        tag_bits | key_bits | a bit for each tag slot | a bit for each bucket    core/relay_buckets.h
    in pieces  |- - - - - - 256 KiB - - - - - -|- - - - - - - - -|- - -|
    payload    6 | piece u8 | pieces u8 | the piece, deflated

All pieces of a map come in frames of one range, one after another. The source reads each from its tables
when the link has room for it, and holds none: a piece may list what is newer than the range, which is right,
since more may be evicted, never less. Deflated, a map is as small as it is sparse: 65,536 keys in the million
buckets of 256 MiB take 48 KiB.

The receiver keeps the pieces until it has all of them; then come the fences, then the evictions, some words
of the index at a time so that the bridge does other work meanwhile, then the cursor. Whatever ends before
that has moved no cursor: the whole range is asked for again.
"""

from __future__ import annotations

import struct
import zlib
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

BUCKETS = 6
"""First byte of such a payload, and what `Store.missed` says where one is needed."""
PIECE_BYTES = 256 * 1024
"""Before it is deflated: some milliseconds of work, and a frame that is no larger than a link's allowance."""
MAP_BYTES_MAX = 2 + (1 << 20) // 8 + (1 << 24) // 8
"""That of the largest ring: what one source can make this host hold in a namespace."""
FENCE_STEPS = 1 << 16
"""Bits or fences that are looked at, at a time: some milliseconds, if each cache line is far away."""
EVICT_WORDS = 1 << 18
"""Of the index at a time: 5 ms, if every word names an entry."""
HEADER = struct.Struct("<BBB")


def is_piece(payload: bytes) -> bool:
    return payload[:1] == bytes((BUCKETS,))


def pieces_of(map_bytes: int) -> int:
    """In how many pieces a map travels."""
    return -(-map_bytes // PIECE_BYTES)


def read_piece(store: Store, cursor: int, piece: int) -> bytes:
    """The payload of one, 1 being the first: of all that the store's host announced after `cursor`."""
    # Runs of bytes are all that repeats in a map; to look for more costs ten times as long and gains nothing.
    deflate = zlib.compressobj(level=1, memLevel=9, strategy=zlib.Z_RLE)
    data = deflate.compress(store.map_piece(cursor, (piece - 1) * PIECE_BYTES, PIECE_BYTES))
    return HEADER.pack(BUCKETS, piece, pieces_of(store.map_bytes)) + data + deflate.flush()


def _inflated(data: bytes, room: int) -> bytes:
    """ValueError: this is not deflated, or to more than `room` bytes."""
    inflate = zlib.decompressobj()
    try:
        piece = inflate.decompress(data, room + 1)
    except zlib.error as error:
        raise ValueError(f"a piece of a map: {error}") from None
    if len(piece) > room or not inflate.eof or inflate.unused_data:
        raise ValueError(f"a piece of a map of more than {room} bytes, or cut short")
    return piece


class Taken(Enum):
    WHOLE = auto()
    MORE = auto()
    """Kept; others must follow."""
    REPEATED = auto()
    TORN = auto()
    """One before it is missing: the map must be asked for again."""


class Arriving:
    """The pieces of one map at a time, as they come in."""

    def __init__(self) -> None:
        self.map = bytearray()
        self._of = (0, 0, 0)
        self._taken = 0

    def take(self, first: int, last: int, payload: bytes) -> Taken:
        """One piece of the map that stands for first..last. ValueError: it is none; nothing has changed."""
        if len(payload) < HEADER.size:
            raise ValueError("a piece of a map without its header")
        _, piece, pieces = HEADER.unpack_from(payload)
        if not 1 <= piece <= pieces:
            raise ValueError(f"piece {piece} of {pieces}")
        of = (first, last, pieces)
        if of == self._of and piece <= self._taken and piece > 1:
            return Taken.REPEATED
        if piece > 1 and (of != self._of or piece != self._taken + 1):
            return Taken.TORN
        held = self.map if piece > 1 else bytearray()
        self.map = held + _inflated(payload[HEADER.size :], MAP_BYTES_MAX - len(held))
        self._of, self._taken = of, piece
        return Taken.WHOLE if piece == pieces else Taken.MORE

    def drop(self) -> None:
        """Whatever has come, nothing more of it will."""
        self.map = bytearray()
        self._of, self._taken = (0, 0, 0), 0


class MapApplication:
    """A whole map on its way into a segment: first its fences, then the evictions, some at a time."""

    def __init__(self, store: Store, source: int, last: int, map_: bytes) -> None:
        """The first fences. `last`: the cursor in the end. ValueError: not a map; nothing was done."""
        self._store, self._source, self._map = store, source, map_
        self.last = last
        self.evicted = 0
        self._version = self._at = 0
        self._fenced = False
        self._fence()

    def _fence(self) -> None:
        self._version, self._at = self._store.fence_map(
            self._source, self._map, self._version, self._at, FENCE_STEPS
        )
        self._fenced = self._at == 0

    def go_on(self) -> bool:
        """Raises some more fences, or evicts some more; whether that was the last of it."""
        if not self._fenced:
            self._fence()
            return False
        self._at, evicted = self._store.evict_map(
            self._source, self._map, self._version, self._at, EVICT_WORDS
        )
        self.evicted += evicted
        return self._at == 0
