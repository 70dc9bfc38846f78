"""A fill by hand: for what cannot be loaded by a function, such as a response that is being streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachee_shm.loading import DEFAULT_TTL, TTL, Options

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Filling"]


class Filling:
    """The right to store what is read from the origin from now on. ``Cache.filling()`` makes one.

        filling = cache.filling()                       # before the origin is asked
        page = render()
        filling.set("page:/", page, ttl=60, tags=["product:7"])

    What it stores is not announced, since a fill changes nothing. It holds no lease: nobody waits for it, and
    one that is dropped owes nothing. For one load a host, use ``get_or_load``.
    """

    __slots__ = ("_segment", "_started_ms", "_token")

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._token, self._started_ms = segment._token()

    @property
    def started_ms(self) -> int:
        """When it was made, in milliseconds of the cache's clock (``Cache.now_ms``)."""
        return self._started_ms

    def set(
        self,
        key: str | bytes,
        value: object,
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        local: bool = False,
    ) -> bool:
        """Store it, and say whether it was stored.

        It is refused if ``key``, one of ``tags`` (at most 16) or everything was invalidated since this object
        was made, if a transaction that may write is open, and if there is no room. ``ttl``: seconds, a
        timedelta, None for ever; left out, the namespace's. ``local``: it was not read from a shared origin.

        Raises ``InvalidKey``, ``KeyTooLong``, ``InvalidTTL``, ``Closed``; ``Unserializable`` and
        ``ValueTooLarge``, with which nothing changes.
        """
        kept = Options(self._segment, ttl, tags=tags, local=local, jitter=0).kept
        return self._segment._fill(key, value, self._token, self._started_ms, kept[0], 0, kept[3], local)
