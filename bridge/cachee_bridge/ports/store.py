"""What the protocol core asks of a segment."""

from __future__ import annotations

from typing import Protocol


class OwnRing(Protocol):
    """This host's own ring of one namespace: what is sent to peers."""

    @property
    def incarnation(self) -> int:
        """u64, one life of the segment; a later life is higher."""
        ...

    def raise_incarnation(self, incarnation: int, /) -> None:
        """Go on under this one, which is higher: what peers acknowledged before counts no more."""
        ...

    @property
    def tail(self) -> int:
        """The last position given, whoever wrote it. Read anew at each use."""
        ...

    @property
    def pump_cursor(self) -> int:
        """The last position healed at home, by `heal`. Nothing above it is ever sent."""
        ...

    def heal(self, cursor: int, max_records: int, after: int, head: bytes, /) -> tuple[int, int, bytes]:
        """Applies this host's own records after `cursor` at home, at most `max_records` of them, so that no
        half-done write is served; and frames them, since most often all peers lack the same.

        (healed, to, frame): the new pump_cursor; how far the frame reaches; an encoded FRAME of after+1..to,
        whose body begins with `head`, b"" if this host announced nothing in cursor+1..to. `after` is at most
        `cursor`. `to` is `cursor` if no frame could be made, and may be below `healed`: then `pack` has the
        rest, or says why.
        """
        ...

    @property
    def hash_key_fingerprint(self) -> int:
        """u64; two hosts whose keyed hashes differ must not talk about keys."""
        ...

    def pack(self, cursor: int, max_records: int, max_bytes: int, /) -> tuple[int, bytes] | None:
        """(to, payload): this host's own announcements in cursor+1..to, coalesced.

        At most `max_records` POSITIONS are read, so to <= cursor + max_records. (cursor, b"") when there is
        nothing new. None when records after `cursor` have been overwritten (lapped).
        """
        ...

    def missed(self, cursor: int, /) -> bytes:
        """What stands for all that this host announced after `cursor`, when `pack` says None.

        b"": nothing was; a payload, CLEAR or ALL; or the byte 6: the map that `map_piece` gives. It may evict
        more than that, never less.
        """
        ...

    @property
    def map_bytes(self) -> int:
        """The size of this segment's map of buckets."""
        ...

    def map_piece(self, cursor: int, at: int, max_bytes: int, /) -> bytes:
        """Bytes at.. of the map of all that this host announced after `cursor`, as its tables are now."""
        ...


class Applying(Protocol):
    """What peers announced, applied here."""

    def fence_map(
        self, source: int, buckets: bytes, version: int, at: int, max_steps: int, /
    ) -> tuple[int, int]:
        """Raises some of the fences that a whole map lists: (version, at) for the next call.

        The first call gets 0 and 0. `at` 0 in the answer: all are raised, and `version` is the one for
        `evict_map`. ValueError: malformed, none raised.
        """
        ...

    def evict_map(
        self, source: int, buckets: bytes, version: int, at: int, max_words: int, /
    ) -> tuple[int, int]:
        """Evicts what the map lists among `max_words` words of the index, from `at` on.

        (the word to go on with, 0 at the end; how many).
        """
        ...

    def apply(self, source: int, payload: bytes, /) -> int:
        """Fences, then evictions, of a whole payload; how many. ValueError: malformed, none applied."""
        ...

    def receive(
        self,
        source: int,
        incarnation: int,
        cursor: int,
        head: bytes,
        data: bytes | bytearray,
        sealed: bool,
        frames_max: int,
        /,
    ) -> tuple[int, int, int, int] | None:
        """Applies the ordinary frames with which `data` begins, as `apply` and `source_store` would.

        A frame is ordinary if it begins with `head` (frames.head_of), is in order behind `cursor`, is whole
        (`sealed`: with its seal, which is not checked here), and nothing about it is malformed, rare or to be
        told to anybody. It stops before the first message that is anything else, and leaves that untouched.
        (how many bytes, the last position of the last frame, how many frames, how many of them with records);
        None: the first message is no such frame.
        """
        ...

    def draw_line(self) -> int:
        """A position of its own; what is asked of the origin from now on is not below it."""
        ...

    def evict_before(self, position: int, /) -> None:
        """All that was stored or asked for before a line."""
        ...


class SourceTable(Protocol):
    """The sources of one namespace, kept in the segment: they outlive a bridge."""

    def sources(self) -> list[tuple[int, str, int, int]]:
        """(index, name, incarnation, cursor) of every source met and not forgotten."""
        ...

    def source_open(self, name: str, /) -> int:
        """The index of `name`, new: incarnation 0, cursor 0. SegmentError: the table is full."""
        ...

    def source_store(self, index: int, incarnation: int, cursor: int, /) -> None:
        """Keep how far `index` has been applied."""
        ...

    def source_forget(self, index: int, /) -> None:
        """Free the slot."""
        ...

    def source_set_aside(self, index: int, /) -> None:
        """No member any more, but kept for its return, while there is room. 0: there was none."""
        ...

    def forgotten(self) -> list[tuple[int, str, int, int]]:
        """Like `sources`, of those set aside; index 0, without a name, for all whom there was no room for."""
        ...


class Readers(Protocol):
    """What workers read: until when they may serve, and how their peers are."""

    @property
    def serve_until(self) -> int:
        """Until when readers may serve, as it was last told; ms of the mesh's `now` clock."""
        ...

    @property
    def on_isolation(self) -> str:
        """What readers do beyond that: "cap" | "flush" | "serve"."""
        ...

    @property
    def isolation_ttl_s(self) -> float:
        """The age up to which they serve then."""
        ...

    def source_acked(self, index: int, position: int, /) -> None:
        """For workers: `index` says that it has applied this host's ring up to `position`."""
        ...

    def source_tell(self, index: int, reachable: bool, fresh_ms: int, /) -> None:
        """For workers: whether it can be reached, and how fresh its word is; 0 = nothing came yet."""
        ...

    def bridge_vouch(self, until_ms: int, /) -> None:
        """For workers: what they were told of every source counts so long."""
        ...

    def sync_asked(self) -> int:
        """Up to where some worker waits for the peers to have applied this ring; 0 = none ever did."""
        ...


class Store(OwnRing, Applying, SourceTable, Readers, Protocol):
    """The port to one namespace: a structural subset of `cachee_shm._core.Segment`. No method blocks.

    Positions are those of this segment's ring: 1 is the first record, 0 means "nothing yet".
    """
