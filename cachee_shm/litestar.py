"""Litestar's store: ``CacheeStore``, one for all processes of a host, coherent with the other hosts.

    from cachee_shm.litestar import CacheeStore

    app = Litestar([...], stores={"response_cache": CacheeStore(namespace="pages")})

Fills and writes. Litestar's response cache stores a page after it has missed it, so that ``set`` is a fill.
It carries the position of the ring at that miss, is refused if the key was invalidated since, and is not
announced. The counts of Litestar's rate limits are local, so each host has limits of its own: an announced
count would evict the counts of the other hosts. Any other ``set`` is a write, and is announced.

Values never leave a host. So a session that is stored on one host is missing on the others.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from litestar.stores.base import NamespacedStore

from cachee_shm.backing import Backing, Misses, fitting, lasting, remaining_s, seconds_of
from cachee_shm.errors import ValueTooLarge

if TYPE_CHECKING:
    from types import TracebackType

    from cachee_shm.backing import Source
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health

__all__ = ["CacheeStore"]

RESPONSE_CACHE = {
    ("litestar.routes.http", "_get_cached_response"),
    ("litestar.middleware.response_cache", "wrapped_send"),
}
RATE_LIMIT = {("litestar.middleware.rate_limit", "set_cached_history")}
WRAPPERS_MAX = 6  # frames between them and the store
UNLIMITED = -1
NO_PAGE = ("", 0, 0)

looked_for: ContextVar[tuple[str, int, int]] = ContextVar("cachee_shm.litestar.looked_for")
"""The page that this request has missed, the ring's position then, and the time."""


class CacheeStore(NamespacedStore):
    """A ``litestar.stores.base.NamespacedStore`` in the shared segment of a namespace.

    ``namespace``: Litestar's, a prefix of keys. ``delete_all()`` deletes the keys with this prefix, also of
    stores below this one; without a ``namespace``, all keys of the segment. ``segment``: the namespace of
    Cachee. ``config``: as of ``cachee_shm.attach``, which is called at the first use.
    ``set_after_miss_fills``: a ``set`` after a ``get`` that found nothing is a fill. It is off by default,
    because it is wrong where a caller writes the row between the two: no other host would be told. The guide
    in examples/django has more.

    If the segment cannot be attached, nothing is found, and ``health()`` says why.
    """

    __slots__ = ("_backing", "_misses", "_tags")

    def __init__(
        self,
        namespace: str | None = None,
        *,
        segment: str | None = None,
        config: Source = None,
        backing: Backing | None = None,
        set_after_miss_fills: bool = False,
    ) -> None:
        self.namespace = namespace
        self._misses = Misses() if set_after_miss_fills else None
        self._backing = Backing(segment, config) if backing is None else backing
        self._tags: tuple[str, ...] = ("litestar:" + namespace,) if namespace else ()

    @property
    def shm(self) -> Cache:
        """The ``cachee_shm.Cache`` below."""
        return self._backing.cache

    def health(self) -> Health:
        """``cachee_shm.Cache.health``; not ``ok`` while the segment cannot be attached."""
        return self._backing.health()

    def with_namespace(self, namespace: str) -> CacheeStore:
        """A store below this one: ``delete_all()`` of this one reaches it."""
        name = f"{self.namespace}_{namespace}" if self.namespace else namespace
        child = CacheeStore(name, backing=self._backing)
        child._misses = self._misses
        child._tags = (*self._tags, *child._tags)
        return child

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        name, data = self._name(key), value.encode() if isinstance(value, str) else value
        lifetime = lasting(max(0.0, seconds_of(expires_in))) if expires_in else None
        cache, place = self._backing.cache, _place(sys._getframe(1))
        page, position, asked_ms = looked_for.get(NO_PAGE) if place in RESPONSE_CACHE else NO_PAGE
        token = (position, asked_ms) if page == name else None
        if self._misses is not None:
            missed = self._misses.taken(cache, name)  # in every case: the miss counts for one set only
            token = token or (missed if lifetime != 0 and place not in RATE_LIMIT else None)
        try:
            if token is not None:
                cache._fill(name, data, *token, lifetime, 0, self._tags, False)
            else:
                cache.set(name, data, lifetime, self._tags, place in RATE_LIMIT)
        except ValueTooLarge:
            return

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        name, cache = self._name(key), self._backing.cache
        if _place(sys._getframe(1)) in RESPONSE_CACHE:
            looked_for.set((name, *cache._token()))
        value: bytes | None = cache.get(name)
        if self._misses is not None:
            self._misses.looked(cache, name, value is not None)
        if renew_for and value is not None and remaining_s(cache, name) is not None:
            cache.touch(name, lasting(seconds_of(renew_for)))
        return value

    async def delete(self, key: str) -> None:
        name, cache = self._name(key), self._backing.cache
        if self._misses is not None:
            self._misses.forget(cache, (name,))
        cache.delete(name)

    async def delete_all(self) -> None:
        if self._misses is not None:
            self._misses.forget_all()
        if self._tags:
            self._backing.cache.delete_tags(self._tags[-1])
        else:
            self._backing.cache.clear()

    async def exists(self, key: str) -> bool:
        return self._name(key) in self._backing.cache

    async def expires_in(self, key: str) -> int | None:
        try:
            left_s = remaining_s(self._backing.cache, self._name(key))
        except KeyError:
            return None
        return UNLIMITED if left_s is None else int(left_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach from the segment, as the application ends. A later use attaches again."""
        self._backing.close()

    def _name(self, key: str) -> str:
        return fitting(f"{self.namespace}:{key}" if self.namespace else key)


def _place(frame: Any) -> tuple[Any, str]:
    """The nearest function of Litestar: subclasses and tracers wrap the verbs."""
    for _ in range(WRAPPERS_MAX):
        if frame is None or str(frame.f_globals.get("__name__")).startswith("litestar."):
            break
        frame = frame.f_back
    return ("", "") if frame is None else (frame.f_globals.get("__name__"), frame.f_code.co_name)
