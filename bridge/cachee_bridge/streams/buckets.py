"""Maps of buckets: sent to a lapped peer in place of the records that the ring no longer has.

    map        tag_bits | key_bits | a bit for each tag slot | a bit for each bucket    core/relay_buckets.h
    in pieces  |- - - - - - 256 KiB - - - - - -|- - - - - - - - -|- - -|
    payload    6 | piece u8 | pieces u8 | the piece, deflated
               9: no write of unknown outcome is among what it stands for (wire 3)

All pieces of a map come in frames of one range, one after another. The source reads each from its tables
when the link has room for it, and holds none: a piece may list buckets of newer records than the range, which
is safe, because evicting more is allowed. Deflated, a sparse map is small: 65,536 keys in the million buckets
of 256 MiB take 48 KiB.

The receiver keeps the pieces until it has all of them; then come the fences, then the evictions, some words
of the index at a time so that the bridge does other work meanwhile, then the cursor. If anything ends before
that, the cursor has not moved, and the whole range is asked for again.
"""

from __future__ import annotations

import struct
import zlib
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

BUCKETS, BUCKETS_KNOWN = 6, 9
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
    return payload[:1] in (b"\x06", b"\x09")


def pieces_of(map_bytes: int) -> int:
    """In how many pieces a map travels."""
    return -(-map_bytes // PIECE_BYTES)


def read_piece(store: Store, cursor: int, piece: int) -> bytes:
    """The payload of one, 1 being the first: of all that the store's host announced after `cursor`."""
    # Only runs of bytes repeat in a map; looking for other repetitions takes ten times as long and gains
    # nothing.
    deflate = zlib.compressobj(level=1, memLevel=9, strategy=zlib.Z_RLE)
    data = deflate.compress(store.map_piece(cursor, (piece - 1) * PIECE_BYTES, PIECE_BYTES))
    kind = BUCKETS if store.in_doubt else BUCKETS_KNOWN  # read after the tables: raised before a record
    return HEADER.pack(kind, piece, pieces_of(store.map_bytes)) + data + deflate.flush()


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
        self.known = True
        """Each of its pieces says that no write of unknown outcome is among what the map stands for."""
        self._of = (0, 0, 0)
        self._taken = 0

    def take(self, first: int, last: int, payload: bytes) -> Taken:
        """One piece of the map that stands for first..last. ValueError: it is none; nothing has changed."""
        if len(payload) < HEADER.size:
            raise ValueError("a piece of a map without its header")
        kind, piece, pieces = HEADER.unpack_from(payload)
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
        self.known = kind == BUCKETS_KNOWN and (self.known or piece == 1)
        return Taken.WHOLE if piece == pieces else Taken.MORE

    def drop(self) -> None:
        """Drop the pieces that have come: no more of this map will come."""
        self.map = bytearray()
        self._of, self._taken = (0, 0, 0), 0


class MapApplication:
    """A whole map on its way into a segment: first its fences, then the evictions, some at a time."""

    def __init__(self, store: Store, source: int, last: int, map_: bytes, known: bool) -> None:
        """The first fences. `last`: the cursor in the end; `known`: no write of unknown outcome is among what
        the map stands for. ValueError: not a map; nothing was done."""
        self._store, self._source, self._map, self._known = store, source, map_, known
        self.last = last
        self.evicted = 0
        self._version = self._at = 0
        self._fenced = False
        self._fence()

    def _fence(self) -> None:
        self._version, self._at = self._store.fence_map(
            self._source, self._map, self._version, self._at, FENCE_STEPS, self._known
        )
        self._fenced = self._at == 0

    def go_on(self) -> bool:
        """Raise some more fences, or evict some more. Returns whether that was the end."""
        if not self._fenced:
            self._fence()
            return False
        self._at, evicted = self._store.evict_map(
            self._source, self._map, self._version, self._at, EVICT_WORDS
        )
        self.evicted += evicted
        return self._at == 0
