"""A cursor over the invalidation ring: what was written, here and on every peer, in ring order."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cachee_shm.errors import InvalidKey, Lapped
from cachee_shm.waiting import await_while

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Event", "Events"]

RECORD = struct.Struct("<QQBBHHxx")
ADD, DELETE, LOCAL = 0, 1, 6
EVERY_KEY, EVERY_KEY_DONE, RANGE = 0, 1, 2
"""The hash of the records of a map of buckets that is being applied, and the digest bits of the last one."""
HASH_FREE = 0xFFC00000FFC00000
"""The free bits of reserved hashes, which no key has: core/hash.h."""
KINDS = ("add", "delete", "set", "tag", "clear", "flush", "local", "set")
BATCH = 1024
TRIES = 16  # each means that the segment was replaced meanwhile
POLL_MIN_S = 0.0005
POLL_MAX_S = 0.02


class Event(NamedTuple):
    """One record of the ring.

    ``hash`` is the keyed hash of the key or tag (0 for ``clear`` and ``flush``), ``key`` the key itself
    where the caller named it, ``source`` the name of the host where it began (empty if its slot in the table
    of hosts was reused twice since), ``sequence`` its position in this host's ring, ``time`` when this cursor
    read it (seconds, ``time.time()``), ``kind`` one of "set", "add", "delete", "local", "tag", "clear",
    "flush" (any key may have been evicted: records of a peer were lost).
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


class Place(NamedTuple):
    """The position of a cursor. It is replaced as a whole, so an exception cannot leave half a step
    behind."""

    incarnation: int
    wanted: dict[int, str | bytes] | None
    cursor: int
    ready: Sequence[Event] = ()  # events that were read and not yet all returned
    given: int = 0  # how many of `ready` were returned


class Events:
    """Iterate over events from now on, in ring order; with ``for`` (blocks) or ``async for``.

    Raises ``Lapped`` once when records were overwritten before they were read, or the segment was replaced:
    the cursor then stands at the present end of the ring and can be iterated further. An exception that comes
    from outside (a signal handler's, a task's cancellation) loses no event: iterate further. On Python
    3.10, a signal handler may raise at the very byte code that returns an event; that event is lost.
    """

    def __init__(self, segment: Segment, keys: Iterable[str | bytes] | None = None) -> None:
        self._segment = segment
        self._keys = _listed(keys)
        self._place = self._present()

    def poll(self) -> list[Event]:
        """What came since the last call, at most 1,024 records of the ring; does not wait.

        Raises ``Lapped`` (see ``Events``) and ``Closed``.
        """
        before = place = self._place
        if place.given >= len(place.ready):
            place = self._read(place)
        events, emptied = list(place.ready[place.given :]), place._replace(ready=(), given=0)
        try:
            self._place = emptied
            return events
        except BaseException:
            self._place = before
            raise

    def _is_replaced(self, place: Place) -> bool:
        return self._segment.incarnation != place.incarnation

    def _present(self) -> Place:
        """The present end of the present segment's ring: the incarnation is read first and last."""
        for _ in range(TRIES):
            incarnation, wanted = (
                self._segment.incarnation,
                self._hashes(),
            )  # each hashes with a key of its own
            place = Place(incarnation, wanted, self._segment.tail)
            if not self._is_replaced(place):
                break
        return place

    def _hashes(self) -> dict[int, str | bytes] | None:
        return None if self._keys is None else {self._segment._hash(key): key for key in self._keys}

    def _read(self, place: Place) -> Place:
        """The place after the new records. Raises ``Lapped``."""
        read = None if self._is_replaced(place) else self._segment.read_ring(place.cursor, BATCH)
        replaced = self._is_replaced(place)  # asked again, because another ring may have been read
        if read is None or replaced:
            self._lapped(place, 0 if replaced else place.cursor)
        cursor, data = read
        now = time.time()
        events = [self._event(place.wanted, now, *fields) for fields in RECORD.iter_unpack(data)]
        return place._replace(cursor=cursor, ready=[each for each in events if each is not None], given=0)

    def _lapped(self, place: Place, read_so_far: int) -> NoReturn:
        """Continue at the present end: a lapped reader must treat every key as changed anyway."""
        present = self._present()
        lapped = Lapped(read_so_far + 1, max(present.cursor, read_so_far + 1))
        try:
            self._place = present
            raise lapped
        except BaseException as error:
            if error is not lapped:
                self._place = place
            raise

    def _event(
        self,
        wanted: dict[int, str | bytes] | None,
        now: float,
        sequence: int,
        hash_: int,
        kind: int,
        own: int,
        source: int,
        digest: int,
    ) -> Event | None:
        named = "local" if kind == ADD and not own and not source else KINDS[kind]
        if kind == DELETE and own and digest == RANGE:
            hash_, named = 0, "flush"  # all keys whose hash begins as this one
        elif kind in (DELETE, LOCAL) and hash_ == EVERY_KEY:
            if kind == LOCAL or digest != EVERY_KEY_DONE:
                return None  # a line, which is about no key; or an event that is not applied yet
            named = "flush"
        elif hash_ and not hash_ & ~HASH_FREE:
            return None  # a canary, which is about no key
        key = None
        if wanted is not None:
            everything = named in ("clear", "flush")
            if not everything and (named == "tag" or hash_ not in wanted):
                return None
            key = wanted.get(hash_)
        return Event(hash_, key, self._source(source, sequence), sequence, now, named)

    def _source(self, index: int, sequence: int) -> str:
        """Looked up for each record, because a slot of the table of hosts may be reused at any time."""
        return self._segment._source_name(index, sequence) if index else self._segment.spec.host

    def _is_ready(self) -> bool:
        """Whether an event is ready; reads further records if none is. Raises ``Lapped``."""
        if self._place.given >= len(self._place.ready):
            self._place = self._read(self._place)
        return self._place.given < len(self._place.ready)

    def _is_at_the_end(self) -> bool:
        place = self._place
        return self._segment.tail == place.cursor and not self._is_replaced(place)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        wait = POLL_MIN_S
        while not self._is_ready():
            time.sleep(wait)
            wait = min(wait * 2, POLL_MAX_S)
        place = self._place
        event, after = place.ready[place.given], place._replace(given=place.given + 1)
        try:  # here, in the frame that returns it
            self._place = after
            return event
        except BaseException:
            self._place = place
            raise

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._is_ready():
            await await_while(self._is_at_the_end)
        place = self._place
        event, after = place.ready[place.given], place._replace(given=place.given + 1)
        try:
            self._place = after
            return event
        except BaseException:
            self._place = place
            raise
