"""A cursor over the invalidation ring: what was written, here and on every peer, in ring order."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from cachee_shm.errors import InvalidKey, Lapped

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Event", "Events"]

RECORD = struct.Struct("<QQBBHHxx")
ADD, DELETE, LOCAL = 0, 1, 6
EVERY_KEY, EVERY_KEY_DONE, RANGE = 0, 1, 2
"""Of a map of buckets that is being applied: the hash of its records, and the digest bits of the last."""
KINDS = ("add", "delete", "set", "tag", "clear", "flush", "local", "set")
BATCH = 1024
TRIES = 16  # each means that the segment was replaced meanwhile
POLL_MIN_S = 0.0005
POLL_MAX_S = 0.02


class Event(NamedTuple):
    """One record of the ring.

    ``hash`` is the keyed hash of the key or tag (0 for ``clear`` and ``flush``), ``key`` the key itself
    where the caller named it, ``source`` the name of the host where it began (empty once two others have
    had its place in the table of hosts since), ``sequence`` its position in this host's ring, ``time`` when
    this cursor read it (seconds, ``time.time()``), ``kind`` one of "set", "add", "delete", "local", "tag",
    "clear", "flush" (any key may have been evicted: records of a peer were lost).
    """

    hash: int
    key: str | bytes | None
    source: str
    sequence: int
    time: float
    kind: str


def _listed(keys: Iterable[str | bytes] | None) -> list[str | bytes] | None:
    if isinstance(keys, (str, bytes)):
        raise InvalidKey(
            f"keys is an iterable of str or bytes, not one {type(keys).__name__}. Nothing is followed."
        )
    return None if keys is None else list(keys)


class Events:
    """Iterate over events from now on, in ring order; with ``for`` (blocks) or ``async for``.

    Raises ``Lapped`` once when records were overwritten before they were read, or the segment was replaced:
    the cursor then stands at the present end of the ring and can be iterated further.
    """

    def __init__(self, segment: Segment, keys: Iterable[str | bytes] | None = None) -> None:
        self._segment = segment
        self._keys = _listed(keys)
        self._cursor = self._incarnation = 0
        self._begin()
        self._ready: list[Event] = []

    def poll(self) -> list[Event]:
        """What came since the last call, at most 1,024 records of the ring; does not wait."""
        segment = self._segment
        read = None if self._is_replaced() else segment.read_ring(self._cursor, BATCH)
        replaced = self._is_replaced()  # asked again: else it may be another ring that was read
        if read is None or replaced:
            raise self._lapped(0 if replaced else self._cursor)
        self._cursor, data = read
        now = time.time()
        events = [self._event(now, *fields) for fields in RECORD.iter_unpack(data)]
        return [event for event in events if event is not None]

    def _is_replaced(self) -> bool:
        return self._segment.incarnation != self._incarnation

    def _begin(self) -> None:
        """At the present end of the present segment's ring: the incarnation is read first and last."""
        for _ in range(TRIES):
            self._incarnation = self._segment.incarnation
            self._wanted = self._hashes()  # another segment may hash with another key
            self._cursor = self._segment.tail
            if not self._is_replaced():
                return

    def _hashes(self) -> dict[int, str | bytes] | None:
        return None if self._keys is None else {self._segment._hash(key): key for key in self._keys}

    def _lapped(self, read_so_far: int) -> Lapped:
        """Go on from the present: whoever was lapped must take every key as changed anyway."""
        self._begin()
        return Lapped(read_so_far + 1, max(self._cursor, read_so_far + 1))

    def _event(
        self, now: float, sequence: int, hash_: int, kind: int, own: int, source: int, digest: int
    ) -> Event | None:
        named = "local" if kind == ADD and not own and not source else KINDS[kind]
        if kind == DELETE and own and digest == RANGE:
            return None  # all keys whose hash begins as this one; a record of EVERY_KEY follows
        if kind in (DELETE, LOCAL) and hash_ == EVERY_KEY:
            if kind == LOCAL or digest != EVERY_KEY_DONE:
                return None  # a line, which is about no key; or what it stands for is not evicted yet
            named = "flush"
        key = None
        if self._wanted is not None:
            everything = named in ("clear", "flush")
            if not everything and (named == "tag" or hash_ not in self._wanted):
                return None
            key = self._wanted.get(hash_)
        return Event(hash_, key, self._source(source, sequence), sequence, now, named)

    def _source(self, index: int, sequence: int) -> str:
        """Asked for each record: a slot of the table of hosts may be given to another at any time."""
        return self._segment._source_name(index, sequence) if index else self._segment.spec.host

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        wait = POLL_MIN_S
        while not self._ready:
            self._ready = self.poll()[::-1]
            if not self._ready:
                time.sleep(wait)
                wait = min(wait * 2, POLL_MAX_S)
        return self._ready.pop()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        import asyncio

        wait = POLL_MIN_S
        while not self._ready:
            self._ready = self.poll()[::-1]
            if not self._ready:
                await asyncio.sleep(wait)
                wait = min(wait * 2, POLL_MAX_S)
        return self._ready.pop()
