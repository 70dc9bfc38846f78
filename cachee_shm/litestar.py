"""Litestar's store: ``CacheeStore``, one for all processes of a host, coherent with the other hosts.

    from cachee_shm.litestar import CacheeStore

    app = Litestar([...], stores={"response_cache": CacheeStore(namespace="pages")})

Fills and writes. What Litestar's response cache stores was rendered after a miss of its: it is a fill. It
carries the position of the ring at that miss, is refused if the key was invalidated since, and is announced
to nobody. Any other ``set`` is a write, and is announced.

Values never leave a host. A store of sessions or of rate limits is one of this host alone.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from litestar.stores.base import NamespacedStore

from cachee_shm.backing import Backing, fitting, lasting, remaining_s, seconds_of
from cachee_shm.errors import ValueTooLarge

if TYPE_CHECKING:
    from types import TracebackType

    from cachee_shm.backing import Source
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health

__all__ = ["CacheeStore"]

CALL_SITES = {
    ("litestar.routes.http", "_get_cached_response"),
    ("litestar.middleware.response_cache", "wrapped_send"),
}
WRAPPERS_MAX = 6  # frames between them and the store
UNLIMITED = -1

looked_for: ContextVar[tuple[str, int, int]] = ContextVar("cachee_shm.litestar.looked_for")
"""The page that this request has looked for, and where the ring was then."""


class CacheeStore(NamespacedStore):
    """A ``litestar.stores.base.NamespacedStore`` in the shared segment of a namespace.

    ``namespace``: Litestar's, a prefix of keys; ``delete_all()`` drops what has it, or one below it, and
    without one all of the segment's. ``segment``: the namespace of Cachee; ``config``: as of
    ``cachee_shm.attach``, which is called at the first use.

    Where the segment cannot be attached, nothing is found, and ``health()`` says why.
    """

    __slots__ = ("_backing", "_tags")

    def __init__(
        self,
        namespace: str | None = None,
        *,
        segment: str | None = None,
        config: Source = None,
        backing: Backing | None = None,
    ) -> None:
        self.namespace = namespace
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
        child._tags = (*self._tags, *child._tags)
        return child

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        name, data = self._name(key), value.encode() if isinstance(value, str) else value
        lifetime = lasting(max(0.0, seconds_of(expires_in))) if expires_in else None
        token = looked_for.get(("", 0, 0)) if _is_response_cache(sys._getframe(1)) else ("", 0, 0)
        try:
            if token[0] == name:
                self.shm._fill(name, data, *token[1:], lifetime, 0, self._tags, False)
            else:
                self.shm.set(name, data, lifetime, self._tags)
        except ValueTooLarge:
            return

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        name, cache = self._name(key), self._backing.cache
        if _is_response_cache(sys._getframe(1)):
            looked_for.set((name, *cache._token()))
        value: bytes | None = cache.get(name)
        if renew_for and value is not None and remaining_s(cache, name) is not None:
            cache.touch(name, lasting(seconds_of(renew_for)))
        return value

    async def delete(self, key: str) -> None:
        self._backing.cache.delete(self._name(key))

    async def delete_all(self) -> None:
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


def _is_response_cache(frame: Any) -> bool:
    """Whether the nearest function of Litestar is one of these: subclasses and tracers wrap the verbs."""
    for _ in range(WRAPPERS_MAX):
        if frame is None or str(frame.f_globals.get("__name__")).startswith("litestar."):
            break
        frame = frame.f_back
    return frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) in CALL_SITES
