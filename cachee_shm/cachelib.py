"""Cachelib's cache: ``CacheeCache``, one for all processes of a host, coherent with the other hosts.

    from cachee_shm.cachelib import CacheeCache

    cache = CacheeCache(default_timeout=300)
    cache.set("user:42", {"name": "Ann"})

Semantics are those of cachelib's own caches. A bare ``set`` cannot know whether it follows a write of the
origin: it is announced, and other hosts drop values that differ. Values never leave a host, so ``add``,
``inc`` and ``dec`` agree among the processes of one host only.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Literal

from cachelib.base import BaseCache
from cachelib.serializers import SimpleSerializer

from cachee_shm.backing import Backing, Misses, count, fitting, lasting, unpicklable
from cachee_shm.errors import Unserializable, ValueTooLarge

if TYPE_CHECKING:
    from cachelib.serializers import BaseSerializer

    from cachee_shm.backing import Source
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health

__all__ = ["CacheeCache"]

CODECS = SimpleSerializer()
"""Stands for Cachee's own codecs, which need no pickle. A cache that has it as its serializer does not call
it."""


class CacheeCache(BaseCache):
    """A ``cachelib.BaseCache`` in the shared segment of a namespace.

    ``default_timeout``: seconds or a timedelta; 0 is for ever. ``key_prefix``: of all keys; ``clear()`` drops
    what has it, and nothing else of the namespace. ``ignore_delete_many_errors``: as of cachelib.
    ``namespace``, ``config``: as of ``cachee_shm.attach``, which is called at the first use.
    ``set_after_miss_fills``: a ``set`` after a ``get`` of its own that found nothing is a fill. It is off: a
    row that is written in between would be announced to no host: the guide in examples/django has more.

    Where the namespace cannot be attached, this is a cache that misses: ``get`` is None, ``set`` is False,
    and ``health()`` says why. Raises ``InvalidKey`` for a key that is no str, ``Unserializable`` for a
    value that no codec takes; the error names ``pickle = true``.
    """

    serializer: BaseSerializer = CODECS
    """Values are stored by Cachee's codecs; where another one of cachelib's is set, as what that one
    dumps."""

    def __init__(
        self,
        default_timeout: int | dt.timedelta = 300,
        key_prefix: str | None = None,
        ignore_delete_many_errors: bool = True,
        *,
        namespace: str | None = None,
        config: Source = None,
        set_after_miss_fills: bool = False,
    ) -> None:
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors=ignore_delete_many_errors)
        self.key_prefix = key_prefix or ""
        self._tags: tuple[str, ...] = (f"cachelib:{self.key_prefix}",) if key_prefix else ()
        self._backing = Backing(namespace, config)
        self._misses = Misses() if set_after_miss_fills else None

    @property
    def shm(self) -> Cache:
        """The ``cachee_shm.Cache`` below, for verbs that cachelib does not have."""
        return self._backing.cache

    def health(self) -> Health:
        """``cachee_shm.Cache.health``; not ``ok`` while the namespace cannot be attached."""
        return self._backing.health()

    def close(self) -> None:
        """Detach from the segment. A later use attaches again."""
        self._backing.close()

    # Reading

    def get(self, key: str) -> Any:
        name, cache = self._key(key), self._backing.cache
        stored = cache.get(name)
        if stored is not None:
            self._known(name)
        elif self._misses is not None:
            self._misses.remember(cache, name)
        return self._value(stored)

    def get_many(self, *keys: str) -> list[Any]:
        names = [self._key(key) for key in keys]
        found = self._backing.cache.get_many(names)
        if self._misses is not None:
            self._misses.forget(self._backing.cache, found)
        return [self._value(found.get(name)) for name in names]

    def has(self, key: str) -> bool:
        return self._key(key) in self._backing.cache

    # Writing

    def set(self, key: str, value: Any, timeout: int | dt.timedelta | None = None) -> bool | None:
        ttl, name, cache = self._ttl(timeout), self._key(key), self._backing.cache
        miss = self._misses.taken(cache, name) if self._misses is not None else None
        try:
            if miss is not None and ttl != 0:
                return cache._fill(name, self._stored(value), *miss, ttl, 0, self._tags, False)
            return cache.set(name, self._stored(value), ttl, self._tags) or ttl == 0
        except (Unserializable, ValueTooLarge) as error:
            return self._refused(error)

    def add(self, key: str, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        name = self._known(self._key(key))
        try:
            return self._backing.cache.add(name, self._stored(value), self._ttl(timeout), self._tags)
        except (Unserializable, ValueTooLarge) as error:
            return self._refused(error)

    def set_many(self, mapping: dict[str, Any], timeout: int | dt.timedelta | None = None) -> list[Any]:
        return [key for key, value in mapping.items() if self.set(key, value, timeout)]

    def delete(self, key: str) -> bool:
        return self._backing.cache.delete(self._known(self._key(key)))

    def clear(self) -> bool:
        if self._misses is not None:
            self._misses.forget_all()
        if self._tags:
            self._backing.cache.delete_tags(*self._tags)
        else:
            self._backing.cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        name = self._known(self._key(key))
        if self.serializer is not CODECS or type(delta) is not int:
            return super().inc(key, delta)
        total: int = count(self._backing.cache, name, delta, 0, self._ttl(None), self._tags)
        return total

    def dec(self, key: str, delta: int = 1) -> int | None:
        return self.inc(key, -delta)

    # What is stored, and under which name

    def _key(self, key: str) -> str:
        return fitting(self.key_prefix + key) if type(key) is str else key

    def _known(self, name: str) -> str:
        """It was found, or is written: a ``set`` that follows is no fill."""
        if self._misses is not None:
            self._misses.forget(self._backing.cache, (name,))
        return name

    def _ttl(self, timeout: int | dt.timedelta | None) -> float | None:
        """Cachelib's 0 is Cachee's None, for ever; what is over already is Cachee's 0."""
        s = self._normalize_timeout(timeout)
        return None if s == 0 else lasting(max(0, s))

    def _stored(self, value: Any) -> Any:
        return value if self.serializer is CODECS else self.serializer.dumps(value)

    def _value(self, stored: Any) -> Any:
        if stored is None or self.serializer is CODECS:
            return stored
        return self.serializer.loads(stored)

    def _refused(self, error: Unserializable | ValueTooLarge) -> Literal[False]:
        """What is too large is not stored, as by memcached; a value that needs pickle is the caller's
        error."""
        if isinstance(error, Unserializable):
            raise unpicklable(error, self._backing.cache) from error
        return False
