"""A segment as one bridge holds it: what is refused to a bridge whose place another has taken.

The kernel keeps a bridge's lock while its process lives, so a bridge that only hangs keeps others out. Here
the lock is lost, as when a process is checkpointed and restored elsewhere: it goes on with the cursors that
it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachee_shm.errors import BridgeRunning

if TYPE_CHECKING:
    from tests.simulation.watched import Watched

REFUSED = frozenset(
    (
        *("heal", "apply", "receive", "fence_map", "evict_map", "draw_line", "evict_before"),
        *("source_open", "source_store", "source_forget", "source_set_aside"),
        *(
            "raise_incarnation",
            "source_acked",
            "source_tell",
            "bridge_vouch",
            "bridge_leave",
            "set_serve_until",
            "bridge_sleep",
        ),
    )
)
"""What the bridge alone writes; tests/cachee_shm/test_zombies.py holds the real segment to the same list."""


class Held:
    """A mesh's store."""

    def __init__(self, segment: Watched) -> None:
        segment.bridge_generation += 1
        self._segment, self._generation = segment, segment.bridge_generation

    @property
    def is_ousted(self) -> bool:
        return self._generation != self._segment.bridge_generation

    def check(self) -> None:
        """Before each verb that writes."""
        if self.is_ousted:
            raise BridgeRunning(f"another bridge serves namespace {self._segment.namespace}")

    def _mine(self) -> Watched:
        self.check()
        return self._segment

    # What the bridge alone writes

    def heal(self, cursor: int, max_records: int, after: int, head: bytes) -> tuple[int, int, bytes]:
        return self._mine().heal(cursor, max_records, after, head)

    def apply(self, source: int, payload: bytes) -> int:
        return self._mine().apply(source, payload)

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
        return self._mine().receive(source, incarnation, cursor, head, data, sealed, frames_max)

    def fence_map(
        self, source: int, map_: bytes, version: int, at: int, max_steps: int, known: bool = False
    ) -> tuple[int, int]:
        return self._mine().fence_map(source, map_, version, at, max_steps, known)

    @property
    def in_doubt(self) -> bool:
        return self._segment.in_doubt

    def evict_map(self, source: int, map_: bytes, version: int, at: int, max_words: int) -> tuple[int, int]:
        return self._mine().evict_map(source, map_, version, at, max_words)

    def draw_line(self) -> int:
        return self._mine().draw_line()

    def evict_before(self, position: int) -> None:
        self._mine().evict_before(position)

    def source_open(self, name: str) -> int:
        return self._mine().source_open(name)

    def source_store(self, index: int, incarnation: int, cursor: int) -> None:
        self._mine().source_store(index, incarnation, cursor)

    def source_forget(self, index: int) -> None:
        self._mine().source_forget(index)

    def source_set_aside(self, index: int) -> None:
        self._mine().source_set_aside(index)

    def raise_incarnation(self, incarnation: int) -> None:
        self._mine().raise_incarnation(incarnation)

    def source_acked(self, index: int, position: int) -> None:
        self._mine().source_acked(index, position)

    def source_tell(self, index: int, reachable: bool, fresh_ms: int) -> None:
        self._mine().source_tell(index, reachable, fresh_ms)

    def arm(self, key: int, seconds: float) -> bool:
        return self._mine().arm(key, seconds)

    def canary_fill(self, key: int, value: bytes, token: int) -> bool:
        return self._mine().canary_fill(key, value, token)

    def bridge_vouch(self, until_ms: int) -> None:
        self._mine().bridge_vouch(until_ms)

    def bridge_leave(self, left: bool) -> None:
        self._mine().bridge_leave(left)

    def set_serve_until(self, ms: int) -> None:
        self._mine().set_serve_until(ms)

    # What it reads

    def pack(self, cursor: int, max_records: int, max_bytes: int) -> tuple[int, bytes] | None:
        return self._segment.pack(cursor, max_records, max_bytes)

    def missed(self, cursor: int) -> bytes:
        return self._segment.missed(cursor)

    def map_piece(self, cursor: int, at: int, max_bytes: int) -> bytes:
        return self._segment.map_piece(cursor, at, max_bytes)

    def sources(self) -> list[tuple[int, str, int, int]]:
        return self._segment.sources()

    def source_cursor(self, index: int) -> tuple[int, int]:
        return self._segment.source_cursor(index)

    def forgotten(self) -> list[tuple[int, str, int, int]]:
        return self._segment.forgotten()

    def sync_asked(self) -> int:
        return self._segment.sync_asked()

    @property
    def incarnation(self) -> int:
        return self._segment.incarnation

    @property
    def tail(self) -> int:
        return self._segment.tail

    @property
    def pump_cursor(self) -> int:
        return self._segment.pump_cursor

    @property
    def hash_key_fingerprint(self) -> int:
        return self._segment.hash_key_fingerprint

    @property
    def map_bytes(self) -> int:
        return self._segment.map_bytes

    def holding(self, key: int) -> tuple[int, int, int, int, int, bytes]:
        return self._segment.holding(key)

    def journal(self, key: int) -> list[dict[str, Any]]:
        return self._segment.journal(key)

    def fetch(
        self, key: bytes, bytes_max: int
    ) -> tuple[int, bool, tuple[int, int, int, tuple[int, ...], bytes] | None]:
        return self._segment.fetch(key, bytes_max)

    @property
    def serve_until(self) -> int:
        return self._segment.serve_until

    @property
    def on_isolation(self) -> str:
        return self._segment.on_isolation

    @property
    def isolation_ttl_s(self) -> float:
        return self._segment.isolation_ttl_s
