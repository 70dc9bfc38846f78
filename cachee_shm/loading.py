"""Loading from the origin: one load per host, fenced fills, and writes that cannot leave a stale value.

A fill carries a token, the ring's position read before the origin is asked; the core refuses it if the key's
fence has moved since. The right to load is a lease in the segment, taken over when its holder dies; a waiter
gives up waiting and loads for itself when the key is written meanwhile, or after ``LEASE_WAIT_S``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import timedelta
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cachee_shm.errors import InvalidTTL, ValueTooLarge

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["DEFAULT_TTL", "LEASE_WAIT_S", "TTL", "Options", "Writing", "aload", "load"]

T = TypeVar("T")
TTL = float | timedelta | EllipsisType | None  # seconds; None: never expires; ...: the namespace's default

LEASE_WAIT_S = 5.0
POLL_MIN_S = 0.0005
POLL_MAX_S = 0.02
SECONDS_MAX = 1e11  # as of any lifetime
MISS, FRESH, STALE = 0, 1, 2
TAKEN, HELD = 0, 1


DEFAULT_TTL = ...  # the namespace's own lifetime


class Options:
    """How a loaded value is kept: seconds."""

    __slots__ = ("local", "negative_ttl", "stale", "tags", "ttl")

    def __init__(
        self,
        ttl: TTL,
        stale: float,
        negative_ttl: float | timedelta | None,
        tags: Sequence[str],
        local: bool,
    ) -> None:
        """Raises ``InvalidTTL``."""
        if not isinstance(stale, (int, float)) or not 0 <= stale <= SECONDS_MAX:
            raise InvalidTTL(
                f"stale is a number of seconds from 0 to 1e11; not {stale!r}. Nothing was read or set."
            )
        self.ttl = ttl
        self.stale = stale
        self.negative_ttl = negative_ttl
        self.tags = tags
        self.local = local

    def lifetime(self, value: object) -> TTL:
        """``negative_ttl`` for a loaded None, where one is given; else ``ttl``."""
        return self.negative_ttl if value is None and self.negative_ttl is not None else self.ttl


class Flight(Generic[T]):
    """One caller on its way to a value: what it found, and whether it holds the lease."""

    def __init__(self, segment: Segment, key: str | bytes, options: Options) -> None:
        self.segment = segment
        self.key = key
        self.options = options
        self.holds_lease = False
        self.found = False
        self.value: Any = None
        self.has_stale = False
        self.token = 0
        self.started_ms = 0

    def look(self, counted: bool = False) -> bool:
        """Is a value there to be returned at once? ``counted``: as a hit or a miss of the statistics."""
        state, value = self.segment._find(self.key, counted)
        self.found = state == FRESH
        self.has_stale = state == STALE
        if state != MISS:
            self.value = value
        return self.found

    def approach(self) -> Generator[float, None, None]:
        """Until a value is found or this caller is to load: yields the seconds to sleep."""
        if self.look(counted=True):
            return
        fence, deadline, wait = self.segment._fence(self.key), time.monotonic() + LEASE_WAIT_S, POLL_MIN_S
        while True:
            lease = self.segment._lease(self.key)
            self.holds_lease = lease == TAKEN
            if self.look() or lease != HELD:
                break
            if self.has_stale:
                self.found = True  # somebody else reloads it
                return
            if time.monotonic() >= deadline or self.segment._fence(self.key) != fence:
                break
            yield wait
            wait = min(wait * 2, POLL_MAX_S)
        if self.found:
            self.release()
        else:
            self.token, self.started_ms = self.segment._token()

    def fill(self, value: T) -> None:
        """Store what was loaded; one too large for the segment is returned to the caller all the same."""
        options = self.options
        ttl = options.lifetime(value)
        grace_ms = round(options.stale * 1000)
        try:
            self.segment._fill(
                self.key,
                value,
                self.token,
                self.started_ms,
                ttl,
                grace_ms,
                options.tags,
                options.local,
            )
        except ValueTooLarge as error:
            warnings.warn(f"loaded, returned, not cached: {error}", RuntimeWarning, stacklevel=4)

    def falls_back(self) -> bool:
        """After a failed load: is the stale value still there, and not invalidated meanwhile?"""
        if self.has_stale and not self.segment.closed:
            return self.look() or self.has_stale
        return False

    def release(self) -> None:
        if self.holds_lease and not self.segment.closed:
            self.segment._release(self.key)
        self.holds_lease = False


def load(
    segment: Segment, key: str | bytes, options: Options, loader: Callable[..., T], args: tuple[Any, ...]
) -> T:
    """The value of ``key``: cached, or from ``loader(*args)``; see ``Cache.get_or_load``."""
    flight: Flight[T] = Flight(segment, key, options)
    for wait in flight.approach():
        time.sleep(wait)
    if flight.found:
        return flight.value  # type: ignore[no-any-return]
    try:
        try:
            value = loader(*args)
        except Exception:
            if flight.falls_back():
                return flight.value  # type: ignore[no-any-return]
            raise
        flight.fill(value)
        return value
    finally:
        flight.release()


async def aload(
    segment: Segment,
    key: str | bytes,
    options: Options,
    loader: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
) -> T:
    """``load`` for a coroutine function."""
    flight: Flight[T] = Flight(segment, key, options)
    for wait in flight.approach():
        import asyncio

        await asyncio.sleep(wait)
    if flight.found:
        return flight.value  # type: ignore[no-any-return]
    try:
        try:
            value = await loader(*args)
        except Exception:
            if flight.falls_back():
                return flight.value  # type: ignore[no-any-return]
            raise
        flight.fill(value)
        return value
    finally:
        flight.release()


class Writing:
    """A write of the origin, with its cache entry: ``with cache.writing(key) as w: db.save(x); w.set(x)``.

    On entering, the key's hash is left in the roster as an intent (if this process dies inside, the sweep
    announces it) and a token is taken. On leaving, the value given to ``set`` is announced and stored, unless
    the key was written by somebody else since: then it is announced only. Without ``set``, or after an
    exception, the key is deleted. Commit the origin's transaction inside the block: the announcement follows
    at its end, and a peer that reloads earlier would find the old row.
    """

    stored: bool | None = None  # after the block: True if the value is cached here

    def __init__(self, segment: Segment, key: str | bytes) -> None:
        self._segment = segment
        self._key = key
        self._value: object = None
        self._has_value = False
        self._ttl: TTL = DEFAULT_TTL
        self._tags: Sequence[str] = ()

    def set(self, value: object, ttl: TTL = DEFAULT_TTL, tags: Sequence[str] = ()) -> None:
        """What the origin holds now; stored when the block ends. The last call counts."""
        self._value, self._has_value = value, True
        self._ttl, self._tags = ttl, tags

    def __enter__(self) -> Writing:
        self._intent = self._segment._intend(self._key)
        self._token, _ = self._segment._token()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        segment, self.stored = self._segment, False
        try:
            if kind is not None or not self._has_value:
                segment.delete(self._key)
            else:
                self.stored = segment._set_fenced(self._key, self._value, self._token, self._ttl, self._tags)
        except Exception:  # of the value, its lifetime or its tags: the origin was written all the same
            segment.delete(self._key)
            raise
        finally:
            segment._settle(self._intent)

    async def __aenter__(self) -> Writing:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
