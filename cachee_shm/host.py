"""The keys of this host alone: what its processes count together, and no other host hears of."""

from __future__ import annotations

import operator
from datetime import timedelta
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from cachee_shm.errors import NotACounter, SegmentError
from cachee_shm.locks import Lock

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Host", "begun"]

TRIES = 64  # each means that another process made or evicted the counter in between


class Host:
    """The view of a cache that ``cache.host`` gives: its keys are local, as by ``set(..., local=True)``."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def incr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: float | timedelta | EllipsisType | None = None,
    ) -> int:
        """Add ``delta`` to the integer of ``key`` and return the sum. Of concurrent calls on a host none is
        lost.

        Without a value the count begins at ``initial``, with a lifetime of ``ttl`` seconds (None: for ever;
        0: nothing is kept), which later calls leave as it is. A counter is a cached value: it may be evicted,
        ``clear()`` and ``delete`` reach it, and a restart of the host begins anew.

        Raises ``KeyError`` where there is no value and no ``initial``; ``NotACounter`` for a value that is no
        64-bit integer, was set without ``local=True``, or would grow beyond 64 bits; ``SegmentError`` when
        there is no room for a counter; ``InvalidKey``, ``KeyTooLong``, ``InvalidTTL``, ``Closed``.
        """
        if initial is not None:
            operator.index(initial)  # a mistake is one whether or not there is a count already
        if ttl is not None:
            self._segment._judge_ttl(ttl)
        for _ in range(TRIES):
            total = self._segment._incr(key, delta)
            if total is not None:
                return total
            if initial is None:
                raise KeyError(key)
            first = begun(key, initial, delta)
            if self._segment.add(key, first, ttl=ttl, local=True) or (ttl is not None and not ttl):
                return first
        raise SegmentError(
            f"There is no room for a counter of {key!r}. It was not counted. Give the namespace more memory."
        )

    def decr(
        self,
        key: str | bytes,
        delta: int = 1,
        *,
        initial: int | None = None,
        ttl: float | timedelta | EllipsisType | None = None,
    ) -> int:
        """``incr`` by ``-delta``; unlike memcached's, it goes below zero."""
        return self.incr(key, -delta, initial=initial, ttl=ttl)

    def gets(self, key: str | bytes) -> tuple[Any, bytes | None]:
        """The value of ``key`` and a token for ``cas``; (None, None) where there is no value.

        Raises ``NotLocal`` for a value that was set without ``local=True``; ``SegmentError`` while this host
        has no segment; ``InvalidKey``, ``KeyTooLong``, ``Closed``.
        """
        found = self._segment._gets(key)
        return (None, None) if found is None else found

    def cas(
        self,
        key: str | bytes,
        value: object,
        token: bytes | None,
        ttl: float | timedelta | EllipsisType | None = ...,
    ) -> bool:
        """Store ``value`` for this host alone if nobody has changed ``key`` since ``gets`` gave the token.

            while True:
                names, token = cache.host.gets("names")
                if cache.host.cas("names", [*(names or []), "Ada"], token):
                    break

        True if it was stored: of concurrent calls with one token exactly one is. False if the value was
        changed, deleted, evicted or has expired since, or its entry was moved: get it again. A token of None
        stores only where there is no value. ``ttl``: seconds, a timedelta, None for ever; left out, the
        namespace's; 0: the value is removed. Its tags stay.

        Raises what ``gets`` raises, ``InvalidTTL``, ``ValueTooLarge``, ``Unserializable``, and ``TypeError``
        for another token; the older value is as it was then.
        """
        if token is None:
            self._segment._gets(key)  # says why, where it cannot be
            return self._segment.add(key, value, ttl=ttl, local=True)
        return self._segment._cas(key, value, token, ttl)

    def lock(
        self, name: str | bytes, ttl: float | timedelta | None = 30, wait: float | timedelta = 5
    ) -> Lock:
        """A lock by name between all processes and threads of this host, for ``with`` and ``async with``.

            with cache.host.lock("import", ttl=30, wait=5) as lock:
                rows = fetch()
                if lock.held():
                    store(rows, fence=lock.fence)

        It is free again when the block ends, at once when the holder's process ends in whatever way (a fork
        does not share it), and after ``ttl`` seconds (None: not by time), whatever its holder does then.
        ``wait``: seconds or a timedelta that the caller waits for another holder; 0: one try. Waiters are not
        served in order.

        Like ``threading.Lock``, it does not count: a block within a block of the same name waits for itself,
        and each object is for one block at a time. Names are not keys: no key collides with one, and neither
        eviction nor ``clear()`` touches a lock. A lock does not outlive its segment: when that is removed,
        its holder's ``held()`` is False, and its fencing number is below the next one's.
        ``CACHEE_DISABLE=1`` changes nothing of locks.

        Entering raises ``LockTimeout`` when it is held by another until the end of ``wait``; ``SegmentError``
        when too many other locks are held, or there is no segment at present; ``RuntimeError`` for an object
        whose block is open; ``Closed``. The call itself raises ``InvalidKey``, ``KeyTooLong``,
        ``InvalidTTL``, and ``ValueError`` for ``wait``.
        """
        return Lock(self._segment, name, ttl, wait)


def begun(key: str | bytes, initial: int, delta: int) -> int:
    """What a count begins with. NotACounter: that does not fit 64 bits."""
    first = operator.index(initial) + delta
    if not -(1 << 63) <= first < 1 << 63:
        raise NotACounter(f"The sum for {key!r} does not fit 64 bits. Nothing was stored.")
    return first
