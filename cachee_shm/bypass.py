"""A cache that holds nothing: what ``attach()`` returns under ``CACHEE_DISABLE=1``.

Every get misses and every write is announced as a deletion, so the other hosts stay coherent while this
process works without its cache (to find out whether a fault is the cache's, or to take it out of a release).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from cachee_shm.cache import Cache
from cachee_shm.host import Host
from cachee_shm.loading import DEFAULT_TTL, TTL

__all__ = ["Bypass"]

LOADED = 1  # what _load says: waiting for nobody


class CountsNothing(Host):
    """Every count begins anew."""

    def incr(
        self, key: str | bytes, delta: int = 1, *, initial: int | None = None, ttl: object = None
    ) -> int:
        if initial is None:
            raise KeyError(key)
        return initial + delta


class Bypass(Cache):
    """A ``Cache`` that stores and finds nothing, and announces every write."""

    def get(self, key: str | bytes, default: Any = None) -> Any:
        return default

    def lookup(self, key: str | bytes) -> tuple[Any, bool]:
        return None, False

    def get_many(self, keys: Iterable[str | bytes]) -> dict[Any, Any]:
        return {}

    def __contains__(self, key: str | bytes) -> bool:
        return False

    def __getitem__(self, key: str | bytes) -> Any:
        raise KeyError(key)

    def __setitem__(self, key: str | bytes, value: object) -> None:
        self.delete(key)

    def set(
        self,
        key: str | bytes,
        value: object,
        ttl: TTL = DEFAULT_TTL,
        tags: Sequence[str] = (),
        local: bool = False,
    ) -> bool:
        super().set(key, None, 0, (), local)  # announced, unless it is local; nothing is stored
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
        super().set_many(dict.fromkeys(mapping.keys()), 0, (), local)
        return list(mapping)

    def touch(self, key: str | bytes, *args: Any, **options: Any) -> bool:
        return False

    @property
    def host(self) -> Host:
        return CountsNothing(self)

    def _find(self, key: str | bytes, counted: bool, /) -> tuple[int, Any]:
        return 0, None

    def _load(
        self, key: str | bytes, loader: Callable[..., Any], args: tuple[Any, ...], *_: Any
    ) -> tuple[int, Any, None]:
        return LOADED, loader(*args), None

    async def _aload(
        self, key: str | bytes, loader: Callable[..., Awaitable[Any]], args: tuple[Any, ...], *_: Any
    ) -> tuple[int, Any, None]:
        return LOADED, await loader(*args), None

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
        self.delete(key)
        return False
