"""The protocol's interface to a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class OwnRing(Protocol):
    """This host's own ring of one namespace: what is sent to peers."""

    @property
    def incarnation(self) -> int:
        """u64, one life of the segment; a later life is higher."""
        ...

    def raise_incarnation(self, incarnation: int, /) -> None:
        """Continue under this higher one: earlier acknowledgements of peers no longer count."""
        ...

    @property
    def tail(self) -> int:
        """The last position in the ring, of any record. Read it again at each use."""
        ...

    @property
    def pump_cursor(self) -> int:
        """The last position healed at home, by `heal`. Nothing above it is ever sent."""
        ...

    def heal(self, cursor: int, max_records: int, after: int, head: bytes, /) -> tuple[int, int, bytes]:
        """Applies this host's own records after `cursor` to its own segment (at most `max_records`), so that
        no half-done write is served, and makes a frame of them, because usually all peers lack the same
        records.

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
        """A substitute for everything that this host announced after `cursor`, when `pack` returns None.

        b"": nothing was announced; a payload CLEAR, ALL or ALL_KNOWN; or the byte 6 or 9: the map that
        `map_piece` returns. It may evict more than necessary, never less. ALL and 6 may stand for writes of
        unknown outcome.
        """
        ...

    @property
    def in_doubt(self) -> bool:
        """Whether a write that this host has announced may still happen. Read it after the announced
        records."""
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
        self, source: int, buckets: bytes, version: int, at: int, max_steps: int, known: bool, /
    ) -> tuple[int, int]:
        """Raises some of the fences that a whole map lists. Returns (version, at) for the next call. Not
        `known`: the map may stand for writes of unknown outcome, so lifetimes of values that are filled soon
        are capped.

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
        (`sealed`: with its seal, which is not checked here), and nothing about it is malformed, rare or must
        be logged. It stops before the first other message, and leaves that untouched. (how many bytes, the
        last position of the last frame, how many frames, how many of them with records); None: the first
        message is no such frame.
        """
        ...

    def draw_line(self) -> int:
        """Appends a record about no key, and returns its position: loads that begin from now on are not below
        it."""
        ...

    def evict_before(self, position: int, /) -> None:
        """Evicts everything that was stored, or whose load began, before a line."""
        ...


class SourceTable(Protocol):
    """The sources of one namespace, kept in the segment: they outlive a bridge."""

    def sources(self) -> list[tuple[int, str, int, int]]:
        """(index, name, incarnation, cursor) of every source met and not forgotten."""
        ...

    def source_open(self, name: str, /) -> int:
        """The index of `name`, new: incarnation 0, cursor 0. SegmentError: the table is full."""
        ...

    def source_cursor(self, index: int, /) -> tuple[int, int]:
        """(incarnation, cursor) of one source, as the segment has them now."""
        ...

    def source_store(self, index: int, incarnation: int, cursor: int, /) -> None:
        """Stores how far `index` has been applied."""
        ...

    def source_forget(self, index: int, /) -> None:
        """Free the slot."""
        ...

    def source_set_aside(self, index: int, /) -> None:
        """No longer a member, but kept for its return while there is room. 0: there was no room."""
        ...

    def forgotten(self) -> list[tuple[int, str, int, int]]:
        """Like `sources`, for those set aside; index 0, without a name, stands for all for which there was no
        room."""
        ...


class Readers(Protocol):
    """What workers read: until when they may serve, and how their peers are."""

    @property
    def serve_until(self) -> int:
        """Until when readers may serve, as last written; ms of the mesh's `now` clock."""
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
        """For workers: whether it can be reached, and how fresh it is; 0 = nothing came yet."""
        ...

    def bridge_vouch(self, until_ms: int, /) -> None:
        """For workers: until when the state of all sources counts."""
        ...

    def sync_asked(self) -> int:
        """The position up to which a worker waits for the peers to apply this ring; 0 = none ever did."""
        ...


class Inspected(Protocol):
    """What the segment holds of a key, given by its hash, canaries, and its journal."""

    def holding(self, hash: int, /) -> tuple[int, int, int, int, int, bytes]:
        """(held, version, fence, age_ms, digest, value), as Holding has them (wire/messages.py)."""
        ...

    def arm(self, hash: int, seconds: float, /) -> bool:
        """Journals everything that happens to a key for `seconds`, reads too. Returns whether a value is
        here."""
        ...

    def journal(self, hash: int, /) -> Sequence[Mapping[str, Any]]:
        """What happened to a key here: rows with the names of JournalRow, but for `at` and `since`, which are
        seconds of the wall clock (`since` 0: no value)."""
        ...

    def canary_fill(self, hash: int, value: bytes, token: int, /) -> bool:
        """Stores another host's canary, loaded under `token`, unless the token is refused. ValueError: the
        hash is no canary's."""
        ...


class Given(Protocol):
    """What another host may be given of a key."""

    def fetch(
        self, key: bytes, bytes_max: int, /
    ) -> tuple[int, bool, tuple[int, int, int, tuple[int, ...], bytes] | None]:
        """(fence, loading, given): the last event in the key's bucket; whether the key is being loaded
        on this host; None, or what Fetched has from `type` on (wire/messages.py), of a value of at most
        `bytes_max` bytes that was loaded from the origin and may be served."""
        ...


class Store(OwnRing, Applying, SourceTable, Readers, Inspected, Given, Protocol):
    """The port to one namespace: a structural subset of `cachee_shm._core.Segment`. No method blocks.

    Positions are those of this segment's ring: 1 is the first record, 0 means "nothing yet".
    """
