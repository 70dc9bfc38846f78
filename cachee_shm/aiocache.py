"""aiocache's cache: ``CacheeCache``, one for all processes of a host, coherent with the other hosts.

    from cachee_shm.aiocache import CacheeCache

    cache = CacheeCache(namespace="shop:")
    await cache.set("a", 1, ttl=60)

    @aiocache.cached(cache=CacheeCache, ttl=60)
    async def user(uid): ...

Semantics are those of aiocache's memory backend, except that values are copies: they are stored by Cachee's
codecs, or by a serializer of aiocache. No verb waits, so ``timeout`` has no effect.

Fills and writes. What ``cached``, ``cached_stampede`` and ``multi_cached`` store was computed after a miss,
so it is a fill: it carries the position of the ring at that miss, is refused if the key was invalidated
since, and is not announced. Any other ``set`` is a write, and is announced.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aiocache import AIOCACHE_CACHES
from aiocache.base import API, SENTINEL, BaseCache
from aiocache.lock import RedLock
from aiocache.serializers import NullSerializer

from cachee_shm.backing import Backing, Misses, count, fitting, lasting, unpicklable
from cachee_shm.errors import Unserializable, ValueTooLarge

if TYPE_CHECKING:
    from cachee_shm.backing import Source
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health

__all__ = ["CacheeCache"]

Verb = Callable[..., Coroutine[Any, Any, Any]]
Token = tuple[int, int]

WRAPPERS_MAX = 6  # frames between aiocache's decorators and the backend
TOKENS_MAX = 64  # of one task: keys that it has looked for, and may store
POLL_S, POLL_MAX_S = 0.0005, 0.02
LEASE_MAX_S = 60.0

tokens: ContextVar[dict[str, Token]] = ContextVar("cachee_shm.aiocache.tokens")
"""The position of the ring when aiocache's decorators looked up a key, in this task."""
filling: ContextVar[dict[str, Token]] = ContextVar("cachee_shm.aiocache.filling")
"""The tokens of the keys that a decorator is storing now; empty: it is a write."""


def verb(fake_return: Any = None, of_keys: Callable[..., Any] | None = None) -> Callable[[Verb], Verb]:
    """aiocache's decoration of a public verb: it may be disabled, and plugins see it.

    A time-out needs a task of its own. It is set where plugins run, which alone can wait. ``of_keys``: of the
    verb's first argument, when it reads or stores for a decorator.
    """

    def decorate(function: Verb) -> Verb:
        slow = API.timeout(API.plugins(function))

        @functools.wraps(function)
        async def call(self: CacheeCache, *args: Any, timeout: Any = SENTINEL, **kwargs: Any) -> Any:
            if os.environ.get("AIOCACHE_DISABLE") == "1":
                return fake_return
            if of_keys is not None:
                self._watch(sys._getframe(1), lambda: of_keys(args[0]), kwargs.get("namespace"))
            if not self._plugins:
                return await function(self, *args, **kwargs)
            if timeout is not SENTINEL:
                kwargs["timeout"] = timeout
            return await slow(self, *args, **kwargs)

        return call

    return decorate


def one(key: Any) -> tuple[Any]:
    return (key,)


def firsts(pairs: Any) -> Any:
    return [pair[0] for pair in pairs]


class CacheeCache(BaseCache):  # type: ignore[misc]
    """An ``aiocache.BaseCache`` in the shared segment of a namespace.

    ``serializer``, ``plugins``, ``namespace``, ``key_builder``, ``timeout``, ``ttl``: as of aiocache; its
    ``namespace`` is a prefix of keys. ``segment``: the namespace of Cachee; ``config``: as of
    ``cachee_shm.attach``, which is called at the first use. ``clear(namespace=...)`` drops what was stored
    with that namespace; ``clear()`` drops all of the segment's. ``set_after_miss_fills``: a ``set`` after a
    ``get`` of its own that found nothing is a fill. It is off: a row that is written in between would be
    announced to no host: the guide in examples/django has more. With plugins, verbs run in tasks of their
    own, and every such ``set`` is a write.

    Where the segment cannot be attached, nothing is found, ``set`` is False, and ``health()`` says why.
    """

    NAME = "cachee"

    def __init__(
        self,
        serializer: Any = None,
        plugins: Any = None,
        namespace: Any = None,
        key_builder: Any = None,
        timeout: Any = 5,
        ttl: Any = None,
        *,
        segment: str | None = None,
        config: Source = None,
        set_after_miss_fills: bool = False,
    ) -> None:
        super().__init__(serializer or NullSerializer(), plugins, namespace, key_builder, timeout, ttl)
        self._backing = Backing(segment, config)
        self._misses = Misses() if set_after_miss_fills else None

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, str]:
        """``Cache.from_url("cachee:///shop")``: the namespace of Cachee."""
        return {"segment": path.strip("/")} if path.strip("/") else {}

    @property
    def shm(self) -> Cache:
        """The ``cachee_shm.Cache`` below."""
        return self._backing.cache

    def health(self) -> Health:
        """``cachee_shm.Cache.health``; not ``ok`` while the segment cannot be attached."""
        return self._backing.health()

    # Reading

    @verb(None, one)
    async def get(
        self, key: Any, default: Any = None, loads_fn: Any = None, namespace: Any = None, _conn: Any = None
    ) -> Any:
        loads, name, cache = (
            loads_fn or self._serializer.loads,
            self._name(key, namespace),
            self._backing.cache,
        )
        stored = cache.get(name)
        if self._misses is not None:
            self._misses.looked(cache, name, stored is not None)
        value = loads(stored)
        return default if value is None else value

    @verb([], list)
    async def multi_get(
        self, keys: Any, loads_fn: Any = None, namespace: Any = None, _conn: Any = None
    ) -> list[Any]:
        loads = loads_fn or self._serializer.loads
        names = [self._name(key, namespace) for key in keys]
        found = self._backing.cache.get_many(names)
        self._known(*found)
        return [loads(found.get(name)) for name in names]

    @verb(False)
    async def exists(self, key: Any, namespace: Any = None, _conn: Any = None) -> bool:
        return self._name(key, namespace) in self._backing.cache

    # Writing

    @verb(True, one)
    async def set(
        self,
        key: Any,
        value: Any,
        ttl: Any = SENTINEL,
        dumps_fn: Any = None,
        namespace: Any = None,
        _cas_token: Any = None,
        _conn: Any = None,
    ) -> Any:
        stored = (dumps_fn or self._serializer.dumps)(value)
        name = self._name(key, namespace)
        if _cas_token is not None:
            return self._set_if(name, stored, self._lifetime(ttl), namespace, _cas_token)
        return self._store(name, stored, self._lifetime(ttl), self._tags(namespace))

    @verb(True, firsts)
    async def multi_set(
        self, pairs: Any, ttl: Any = SENTINEL, dumps_fn: Any = None, namespace: Any = None, _conn: Any = None
    ) -> bool:
        dumps, lifetime, tags = dumps_fn or self._serializer.dumps, self._lifetime(ttl), self._tags(namespace)
        for key, value in pairs:
            self._store(self._name(key, namespace), dumps(value), lifetime, tags)
        return True

    @verb(True)
    async def add(
        self,
        key: Any,
        value: Any,
        ttl: Any = SENTINEL,
        dumps_fn: Any = None,
        namespace: Any = None,
        _conn: Any = None,
    ) -> bool:
        name, stored = self._name(key, namespace), (dumps_fn or self._serializer.dumps)(value)
        cache = self._known(name)
        try:
            is_new = cache.add(name, stored, self._lifetime(ttl), self._tags(namespace))
        except ValueTooLarge as error:
            return _not_cached(error)
        except Unserializable as error:
            raise unpicklable(error, cache) from error
        if not is_new and name in cache:
            raise ValueError(f"Key {name} already exists, use .set to update the value")
        return True

    @verb(1)
    async def increment(self, key: Any, delta: int = 1, namespace: Any = None, _conn: Any = None) -> int:
        name = self._name(key, namespace)
        cache = self._known(name)
        value = cache.get(name)
        if value is not None and type(value) is not int:
            cache.set(name, _integer(value), self._lifetime(SENTINEL), self._tags(namespace), True)
        total: int = count(cache, name, delta, 0, None, self._tags(namespace))
        return total

    @verb(False)
    async def expire(self, key: Any, ttl: Any, namespace: Any = None, _conn: Any = None) -> bool:
        return self._backing.cache.touch(self._name(key, namespace), self._lifetime(ttl))

    @verb(0)
    async def delete(self, key: Any, namespace: Any = None, _conn: Any = None) -> int:
        name = self._name(key, namespace)
        return int(self._known(name).delete(name))

    @verb(True)
    async def clear(self, namespace: Any = None, _conn: Any = None) -> bool:
        if self._misses is not None:
            self._misses.forget_all()
        if namespace:
            self._backing.cache.delete_tags(*self._tags(namespace))
        else:
            self._backing.cache.clear()
        return True

    @verb(None)
    async def raw(self, command: str, *args: Any, _conn: Any = None, **kwargs: Any) -> Any:
        """A verb of ``cachee_shm.Cache``, by its name."""
        found = getattr(self._backing.cache, command)(*args, **kwargs)
        return await found if asyncio.iscoroutine(found) else found

    async def close(self, *args: Any, _conn: Any = None, timeout: Any = None, **kwargs: Any) -> None:
        """Detach from the segment. A later use attaches again."""
        self._backing.close()

    # What aiocache's locks ask of a backend. Their keys are this host's alone: another host has locks of
    # its own

    async def _gets(self, key: Any, encoding: Any = None, _conn: Any = None) -> Any:
        return self._backing.cache.get(_plain(key))

    async def _add(self, key: Any, value: Any, ttl: Any = None, _conn: Any = None) -> bool:
        name, lifetime = _plain(key), self._lifetime(ttl)
        if self._backing.cache.add(name, value, lifetime, local=True):
            return True
        if key not in RedLock._EVENTS:  # another process holds it; those of this one are woken by an event
            await self._gone(name, min(lifetime or LEASE_MAX_S, LEASE_MAX_S))
        raise ValueError(f"Key {key} already exists, use .set to update the value")

    async def _gone(self, name: str, seconds: float) -> None:
        loop, pause = asyncio.get_running_loop(), POLL_S
        end = loop.time() + seconds
        while name in self._backing.cache and loop.time() < end:
            await asyncio.sleep(pause)
            pause = min(2 * pause, POLL_MAX_S)

    async def _redlock_release(self, key: Any, value: Any) -> int:
        name = _plain(key)
        if self._backing.cache.get(name) != value:
            return 0
        self._backing.cache.set(name, None, 0, local=True)
        return 1

    # What is stored, and how

    def _name(self, key: Any, namespace: Any) -> str:
        return _plain(self.build_key(key, namespace=self.namespace if namespace is None else namespace))

    def _tags(self, namespace: Any) -> tuple[str, ...]:
        name = self.namespace if namespace is None else namespace
        return (f"aiocache:{name}",) if name else ()

    def _lifetime(self, ttl: Any) -> float | None:
        """No lifetime, and one of 0, is for ever; what is over already is Cachee's 0."""
        s = self.ttl if ttl is SENTINEL else ttl
        return lasting(max(0.0, s)) if s else None

    def _store(self, name: str, stored: Any, lifetime: float | None, tags: tuple[str, ...]) -> bool:
        cache, token = self._backing.cache, filling.get({}).get(name)
        if self._misses is not None:
            missed = self._misses.taken(cache, name)  # in every case: the miss counts for one set only
            token = token or (missed if lifetime != 0 else None)
        try:
            if token is not None:
                return cache._fill(name, stored, *token, lifetime, 0, tags, False)
            return cache.set(name, stored, lifetime, tags) or lifetime == 0
        except ValueTooLarge as error:
            return _not_cached(error)
        except Unserializable as error:
            raise unpicklable(error, cache) from error

    def _known(self, *names: str) -> Cache:
        """They were found, or are written: a ``set`` that follows is no fill. The cache."""
        if self._misses is not None:
            self._misses.forget(self._backing.cache, names)
        return self._backing.cache

    def _set_if(self, name: str, stored: Any, lifetime: float | None, namespace: Any, expected: Any) -> Any:
        cache = self._known(name)
        token = cache._token()
        if cache.get(name) != expected:
            return 0
        return cache._set_fenced(name, stored, *token, lifetime, self._tags(namespace))

    # Fills

    def _watch(self, caller: Any, keys: Callable[[], Any], namespace: Any) -> None:
        """Whether a decorator of aiocache reads or stores: it remembers, or knows, where the ring was."""
        for _ in range(WRAPPERS_MAX):  # subclasses and tracers wrap the verbs
            if caller.f_back is None or str(caller.f_globals.get("__name__")).startswith("aiocache."):
                break
            caller = caller.f_back
        is_decorator = caller.f_globals.get("__name__") == "aiocache.decorators"
        does = caller.f_code.co_name if is_decorator else ""
        if does == "get_from_cache":
            taken, names = self.shm._token(), [self._name(key, namespace) for key in keys()]
            kept = {**tokens.get({}), **dict.fromkeys(names, taken)}
            tokens.set(dict(list(kept.items())[-max(TOKENS_MAX, len(names)) :]))
        elif does == "set_in_cache":
            known, names = tokens.get({}), [self._name(key, namespace) for key in keys()]
            filling.set({name: known[name] for name in names if name in known})
        elif filling.get({}):
            filling.set({})


def _not_cached(error: ValueTooLarge) -> bool:
    logging.getLogger(__name__).warning("not cached: %s", error)
    return False


def _plain(key: Any) -> str:
    """A name for what aiocache takes as a key: a str, an enumeration's member, a number."""
    if type(key) is str:
        return fitting(key)
    return fitting(str.__str__(key) if isinstance(key, str) else str(key))


def _integer(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise TypeError("Value is not an integer") from None


AIOCACHE_CACHES.setdefault(CacheeCache.NAME, CacheeCache)
