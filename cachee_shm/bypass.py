"""A cache that holds nothing: what ``attach()`` returns under ``CACHEE_DISABLE=1``.

Every get misses and every write is announced as a deletion, so the other hosts stay coherent while this
process works without its cache (to find out whether a fault is the cache's, or to take it out of a release).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from cachee_shm._core import flight
from cachee_shm.cache import Cache
from cachee_shm.host import Host, begun
from cachee_shm.loading import ANY, DEFAULT_TTL, TTL
from cachee_shm.loads import Unstored

__all__ = ["Bypass"]

LOADED = 1  # what _load says: waiting for nobody


class CountsNothing(Host):
    """Every count begins anew."""

    def incr(self, key: str | bytes, delta: int = 1, *, initial: int | None = None, ttl: TTL = None) -> int:
        self._segment._hash(key)
        first = begun(key, 0 if initial is None else initial, delta)
        if initial is None:
            raise KeyError(key)
        self._segment._judge_ttl(ttl)
        return first

    def gets(self, key: str | bytes) -> tuple[Any, bytes | None]:
        self._segment._hash(key)
        return None, None

    def cas(self, key: str | bytes, value: object, token: bytes | None, ttl: TTL = DEFAULT_TTL) -> bool:
        """True for the token None, as if there were no value: a loop that retries until it stores ends."""
        self._segment.add(key, value, ttl=ttl, local=True)
        return token is None


class Bypass(Cache):
    """A ``Cache`` that stores and finds nothing, and announces every write.

    Arguments are judged as a ``Cache`` judges them: the same mistakes are the same errors.
    """

    def get(self, key: str | bytes, default: Any = None) -> Any:
        self._hash(key)
        return default

    def lookup(self, key: str | bytes) -> tuple[Any, bool]:
        self._hash(key)
        return None, False

    def get_many(self, keys: Iterable[str | bytes]) -> dict[Any, Any]:
        super().get_many(keys)
        return {}

    def __contains__(self, key: str | bytes) -> bool:
        self._hash(key)
        return False

    def __getitem__(self, key: str | bytes) -> Any:
        self._hash(key)
        raise KeyError(key)

    def __setitem__(self, key: str | bytes, value: object) -> None:
        self.set(key, value)

    def set(
        self,
        key: str | bytes,
        value: object,
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        local: bool = False,
    ) -> bool:
        self._judge_ttl(ttl, local)
        super().set(key, value, 0, tags, local)  # announced, unless it is local; nothing is stored
        return False

    def add(
        self,
        key: str | bytes,
        value: object,
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        local: bool = False,
    ) -> bool:
        return self.set(key, value, ttl, tags, local)

    def set_many(
        self,
        mapping: Mapping[Any, Any],
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        local: bool = False,
    ) -> list[Any]:
        self._judge_ttl(ttl, local)
        super().set_many(mapping, 0, tags, local)
        return [key for key, _ in mapping.items()]

    def touch(self, key: str | bytes, ttl: TTL = DEFAULT_TTL) -> bool:
        self._judge_ttl(ttl)
        self._hash(key)
        return False

    @property
    def host(self) -> Host:
        return CountsNothing(self)

    def _find(self, key: str | bytes, counted: bool, /) -> tuple[int, Any]:
        self._hash(key)
        return 0, None

    def _find_early(self, key: str | bytes, times: float, /) -> tuple[int, Any, int]:
        return *self._find(key, True), 0

    def _stored(self, key: str | bytes, /) -> tuple[int, int, bytes]:
        self._hash(key)
        return 0, 0, b""

    def _load(
        self,
        key: str | bytes,
        loader: Callable[..., Any],
        args: tuple[Any, ...],
        kept: tuple[Any, ...],
        *how: Any,
    ) -> tuple[int, Any, None]:
        load = Unstored(key, kept)
        before = flight.set(cast(Any, load))
        try:
            value = loader(*args)
        finally:
            load.running = False
            flight.reset(before)
        self._refreshed(key, *how)
        return LOADED, value, None

    async def _aload(
        self,
        key: str | bytes,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kept: tuple[Any, ...],
        *how: Any,
    ) -> tuple[int, Any, None]:
        load = Unstored(key, kept)
        before = flight.set(cast(Any, load))
        try:
            value = await loader(*args)
        finally:
            load.running = False
            flight.reset(before)
        self._refreshed(key, *how)
        return LOADED, value, None

    def _refreshed(self, key: str | bytes, since: int, asked_ms: int, alone: bool, early_of: int) -> None:
        """What a refresh loads is announced."""
        if early_of == ANY:
            self.delete(key)

    def _load_many(
        self,
        asks: list[tuple[Any, int, int, bool, int]],
        loader: Callable[[list[Any]], list[Any]],
        kept: tuple[Any, ...],
        /,
    ) -> list[tuple[int, Any, Exception | None]]:
        keys = [ask[0] for ask in asks]
        load = Unstored.of_many(keys, kept)
        before = flight.set(cast(Any, load))
        try:
            return [(LOADED, value, None) for value in loader(keys)]
        finally:
            load.running = False
            flight.reset(before)

    async def _aload_many(
        self,
        asks: list[tuple[Any, int, int, bool, int]],
        loader: Callable[[list[Any]], Awaitable[list[Any]]],
        kept: tuple[Any, ...],
        /,
    ) -> list[tuple[int, Any, Exception | None]]:
        keys = [ask[0] for ask in asks]
        load = Unstored.of_many(keys, kept)
        before = flight.set(cast(Any, load))
        try:
            return [(LOADED, value, None) for value in await loader(keys)]
        finally:
            load.running = False
            flight.reset(before)

    def _fill(self, *args: Any) -> bool:
        return False

    def _set_fenced(
        self,
        key: str | bytes,
        value: object,
        token: int,
        started_ms: int,
        ttl: object,
        tags: Sequence[str],
        /,
    ) -> bool:
        self._judge_ttl(cast(TTL, ttl))
        super()._set_fenced(key, value, token, started_ms, 0, tags)
        return False
