"""``CacheeCache``: Django's ``BaseCache`` in a shared segment."""

from __future__ import annotations

import hashlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse

from cachee_shm import _core
from cachee_shm.backing import Backing, Misses
from cachee_shm.cache import Cache
from cachee_shm.codec import Encoded
from cachee_shm.django import checks, fills, transactions
from cachee_shm.django.pages import Page
from cachee_shm.errors import NotACounter, SegmentError, Unserializable, ValueTooLarge
from cachee_shm.health import Health
from cachee_shm.loads import Unchanged

__all__ = ["CacheeCache"]

MISSING: Any = object()
CHARACTERS_MAX = 250  # of a key that memcached takes, and that needs no closer look
TTL_MAX_S = 1e10  # three centuries: longer is for ever

misses = Misses()  # of all backends: a task may get by one object, and set by another
backings: dict[str, Backing] = {}
"""Of this process, by what they attach: Django makes a backend for each thread and task."""


class CacheeCache(BaseCache):  # type: ignore[misc]  # django has no types
    """A namespace as Django's cache; see the package. Verbs, arguments and errors are Django's.

    Beyond Django's: ``shm`` is the ``cachee_shm.Cache`` below, for tags and events. ``health()`` tells how it
    fares. A value that only pickle takes raises ``Unserializable`` (a ``TypeError``) unless the namespace has
    ``pickle = true``. A value that is larger than the memory allows is not stored, and no older one is left.
    """

    shm: Cache

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = params.get("OPTIONS") or {}
        unknown = options.keys() - checks.ACCEPTED
        if unknown:
            raise ImproperlyConfigured(
                f"OPTIONS of {type(self).__name__} has {', '.join(sorted(unknown))}; it may have "
                f"{', '.join(sorted(checks.ACCEPTED))}. Nothing was attached."
            )
        self._arguments = (
            checks.namespace_of(location, options),
            options.get("config"),
            bool(options.get("private")),
            options.get("service"),
        )
        self._misses = misses if options.get("set_after_miss_fills") else None
        self._makes_plain_keys = (
            type(self).make_key is BaseCache.make_key
            and type(self).validate_key is BaseCache.validate_key
            and type(self).make_and_validate_key is BaseCache.make_and_validate_key
        )
        transactions.watch()
        checks.register()

    def __getattr__(self, name: str) -> Any:
        """``shm``, until there is one. It is attached at its first use: in a worker, not in manage.py."""
        if name != "shm":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.shm = shared(*self._arguments)
        return self.shm

    def health(self) -> Health:
        """How the segment, the bridge and the peers fare: as ``cachee_shm.Cache.health`` says it."""
        return self.shm.health()

    # Keys and lifetimes

    def _key(self, key: Any, version: int | None) -> Any:
        if self._makes_plain_keys and self.key_func is default_key_func:
            full = f"{self.key_prefix}:{self.version if version is None else version}:{key}"
            if len(full) <= CHARACTERS_MAX and full.isprintable() and " " not in full:
                return full
            self.validate_key(full)
        else:
            full = self.make_and_validate_key(key, version)
        return fitting(full) if isinstance(full, str) else full

    def _keys(self, keys: Iterable[Any], version: int | None) -> dict[Any, Any]:
        """The caller's key of each full one. They are looked at together, which costs half as much."""
        if not self._makes_plain_keys or self.key_func is not default_key_func:
            return {self._key(key, version): key for key in keys}
        head = f"{self.key_prefix}:{self.version if version is None else version}:"
        full = {f"{head}{key}": key for key in keys}
        text = "".join(full)
        if text.isprintable() and " " not in text and max(map(len, full), default=0) <= CHARACTERS_MAX:
            return full
        return {self._key(key, version): key for key in full.values()}

    def _known(self, full: Any) -> Any:
        """It was found, or is stored: a ``set`` that follows is no fill."""
        self._know((full,))
        return full

    def _know(self, keys: Iterable[Any]) -> None:
        if self._misses is not None:
            self._misses.forget(self.shm, keys)

    def _ttl(self, timeout: Any) -> Any:
        """As Django has it: None is for ever, and what is not above 0 is over at once."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        if timeout <= 0:
            return 0
        return timeout if timeout < TTL_MAX_S else None

    # Verbs

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        full = self._key(key, version)
        value = self.shm.get(full, MISSING)
        if value is MISSING:
            if type(key) is str and key.startswith(fills.SPACES):
                fills.missed(self.shm, key, sys._getframe(1))
            elif self._misses is not None:
                self._misses.remember(self.shm, full)
            return default
        if self._misses is not None:
            self._misses.forget(self.shm, (full,))
        return value.response if type(value) is Page else value

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        full, ttl = self._key(key, version), self._ttl(timeout)
        if type(key) is str and key.startswith(fills.SPACES):
            self._set_of_django(key, full, value, ttl, sys._getframe(1))
        elif type(value) is list and fills.is_throttle(sys._getframe(1)):
            self._store(self.shm.set, full, value, ttl, (), True)
        else:
            self._set_of_anybody(full, value, ttl)

    def _set_of_anybody(self, full: Any, value: Any, ttl: Any) -> None:
        """A write; a fill where the option says so, and this task has missed the key."""
        miss = self._misses.taken(self.shm, full) if self._misses is not None else None
        if miss is None or ttl == 0:
            self._store(self.shm.set, full, value, ttl)
        else:
            self._store(self.shm._fill, full, value, *miss, ttl, 0, (), False)

    def _set_of_django(self, key: str, full: Any, value: Any, ttl: Any, caller: FrameType) -> None:
        miss = fills.since(self.shm, key, caller)
        if miss is None:
            self._store(self.shm.set, full, value, ttl)
        elif miss is not fills.NEVER:
            self._store(self.shm._fill, full, value, *miss, ttl, 0, (), False)

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full, ttl = self._known(self._key(key, version)), self._ttl(timeout)
        if ttl == 0:
            return full not in self.shm
        return self._store(self.shm.add, full, value, ttl)

    def _store(self, verb: Callable[..., bool], full: Any, value: Any, *arguments: Any) -> bool:
        try:
            return verb(full, Page(value) if isinstance(value, HttpResponse) else value, *arguments)
        except Unserializable as error:
            raise explained(error, self.shm) from error
        except ValueTooLarge as error:
            warnings.warn(f"not cached: {error}", RuntimeWarning, stacklevel=3)
            return False

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full, ttl = self._known(self._key(key, version)), self._ttl(timeout)
        return self.shm.delete(full) if ttl == 0 else self.shm.touch(full, ttl)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self.shm.delete(self._known(self._key(key, version)))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._key(key, version) in self.shm

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        full = self._keys(keys, version)
        found = self.shm.get_many(full)
        self._know(found)
        return {full[each]: value.response if type(value) is Page else value for each, value in found.items()}

    def set_many(
        self, data: dict[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        ttl = self._ttl(timeout)
        full = self._keys(data, version)
        self._know(full)
        values = {
            each: Page(data[key]) if isinstance(data[key], HttpResponse) else data[key]
            for each, key in full.items()
        }
        failed = self.shm.set_many(values, ttl)
        if ttl == 0:
            return []  # what is over at once has not failed
        try:
            for each in failed:
                self.shm._codec.encode(values[each])  # why it has failed, if that is the value's fault
        except Unserializable as error:
            raise explained(error, self.shm) from error
        return [full[each] for each in failed]

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        full = self._keys(keys, version)
        self._know(full)
        self.shm.delete_many(full)

    def clear(self) -> None:
        self.close()
        self.shm.clear()

    def close(self, **_: Any) -> None:
        """Django calls this as a request ends."""
        if self._misses is not None:
            self._misses.forget_all()

    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        """Add to a number on this host: other hosts have counts of their own. Its lifetime stays."""
        full = self._known(self._key(key, version))
        try:
            total = self.shm._incr(full, delta, True) if type(delta) is int else MISSING
        except NotACounter:
            total = MISSING
        except SegmentError:
            if not self.shm.detached:
                raise
            total = None  # there is no segment at present: as if there were no count
        if total is MISSING:
            return super().incr(key, delta, version=version)
        if total is None:
            raise ValueError(f"Key '{key}' not found")
        return total

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """What is there; else ``default``, or what it returns, as a fill: one caller of a host makes it."""
        full, ttl = self._known(self._key(key, version)), self._ttl(timeout)
        value = self.shm.get(full, MISSING)
        if value is MISSING:
            value = self.shm.get_or_load(full, self._made, default, ttl=ttl)
        return value.response if type(value) is Page else value

    def _made(self, default: Any) -> Any:
        return self._storable(default() if callable(default) else default)

    async def _amade(self, default: Any) -> Any:
        value = default() if callable(default) else default
        return self._storable(await value if inspect.isawaitable(value) else value)

    def _storable(self, value: Any) -> Any:
        """For a load: encoded once, here, so that a value without an encoding is the caller's error."""
        value = Page(value) if isinstance(value, HttpResponse) else value
        running = _core.flight.get(None)
        if running is not None and running.owner is self.shm:  # not another cache's load around this one
            try:
                running.stores = Unchanged(value, Encoded(*self.shm._codec.encode(value)), None)
            except Unserializable as error:
                raise explained(error, self.shm) from error
        return value

    # The same in a coroutine. Nothing here waits, so nothing needs a thread.

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        full = self._key(key, version)
        value = self.shm.get(full, MISSING)
        if value is MISSING:
            if type(key) is str and key.startswith(fills.SPACES):
                fills.missed(self.shm, key, sys._getframe(1))
            elif self._misses is not None:
                self._misses.remember(self.shm, full)
            return default
        if self._misses is not None:
            self._misses.forget(self.shm, (full,))
        return value.response if type(value) is Page else value

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        full, ttl = self._key(key, version), self._ttl(timeout)
        if type(key) is str and key.startswith(fills.SPACES):
            self._set_of_django(key, full, value, ttl, sys._getframe(1))
        else:
            self._set_of_anybody(full, value, ttl)

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return self.add(key, value, timeout, version)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self.touch(key, timeout, version)

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return self.delete(key, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return self.has_key(key, version)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return self.get_many(keys, version)

    async def aset_many(
        self, data: dict[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        return self.set_many(data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self.delete_many(keys, version)

    async def aclear(self) -> None:
        self.clear()

    async def aincr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return self.incr(key, delta, version)

    async def adecr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return self.decr(key, delta, version)

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.incr_version(key, delta, version)  # type: ignore[no-any-return]

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.decr_version(key, delta, version)  # type: ignore[no-any-return]

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """``get_or_set``; ``default`` may be a coroutine function too."""
        full, ttl = self._known(self._key(key, version)), self._ttl(timeout)
        value = self.shm.get(full, MISSING)
        if value is MISSING:
            value = await self.shm.aget_or_load(full, self._amade, default, ttl=ttl)
        return value.response if type(value) is Page else value


def fitting(full: str) -> str | bytes:
    """A key of any length and any characters as one that the segment takes: a long one is a digest's."""
    data = full.encode("utf-8", "surrogatepass")
    if len(data) <= _core.KEY_BYTES_MAX:
        return data
    return data[:CHARACTERS_MAX] + b"~" + hashlib.blake2b(data, digest_size=20).hexdigest().encode()


def explained(error: Unserializable, cache: Cache) -> Unserializable:
    """What would take the value."""
    if cache.spec.pickle:
        return error
    return Unserializable(
        f"{error}. Django's other backends pickle it. `pickle = true` in [namespaces.{cache.namespace}] of "
        "the configuration does so here; whoever may write the namespace's segment may then run code in "
        "every process that reads it."
    )


def shared(namespace: str | None, config: Any, private: bool, service: str | None) -> Cache:
    """This process's cache of a namespace. What cannot be attached misses, and the log says why, once."""
    name = repr((namespace, config, private, service))
    backing = backings.setdefault(name, Backing(namespace, config, private=private, service=service))
    if backing.cache.closed:
        backing.close()
    return backing.cache
