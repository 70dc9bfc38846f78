"""dogpile.cache's backend ``cachee_shm``: a region that all processes of a host share, coherent with the
other hosts.

    region = dogpile.cache.make_region().configure("cachee_shm", expiration_time=60)

    @region.cache_on_arguments()
    def user(uid): ...

What a creator returns is a fill: it carries the position of the ring at which the creation began, is refused
if the key was invalidated since, and is not announced. ``region.set`` is a write, and is announced; so is
what an ``async_creation_runner`` stores, for it calls ``region.set``. ``region.delete`` reaches all hosts;
``region.invalidate`` is a time that dogpile keeps in one process.

Values are stored by Cachee's codecs. A region with a serializer of its own stores the bytes that it makes.

One creator of a key runs on a host at a time. The mutex is ``Cache.host.lock``: when its holder dies, the
next process gets it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from dogpile.cache.api import NO_VALUE, CachedValue, CacheMutex
from dogpile.cache.api import CacheBackend as DogpileBackend

from cachee_shm._core import Hold
from cachee_shm.backing import Backing, Misses, fitting, unpicklable
from cachee_shm.errors import LockTimeout, SegmentError, Unserializable, ValueTooLarge

if TYPE_CHECKING:
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health
    from cachee_shm.locks import Lock

__all__ = ["CacheeBackend"]

Token: TypeAlias = tuple[int, int]
CALL_SITES = {"gen_value", "get_or_create_multi"}
"""Functions of dogpile.cache.region that store what a creator has returned."""
CALLS_MAX = 12  # between them and the backend: the region's own two, and proxies
LOOK_S = 0.25  # how often a waiter checks whether there is a lock


class CacheeBackend(DogpileBackend):
    """``arguments``: ``namespace`` and ``config`` as of ``cachee_shm.attach``; ``ttl``, the seconds that a
    value is kept whatever the region says (left out: the namespace's ``default_ttl``; None: until it is
    evicted); ``set_after_miss_fills``: a ``region.set`` after a ``region.get`` of its own that found nothing
    is a fill. It is off: a row that is written in between would be announced to no host: the guide in
    examples/django has more.

    Where the namespace cannot be attached, nothing is found, creators run, and ``health()`` says why. Raises
    ``Unserializable`` for a value that no codec takes: the error names ``pickle = true``.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._ttl = arguments.get("ttl", ...)
        self._backing = Backing(arguments.get("namespace"), arguments.get("config"))
        self._misses = Misses() if arguments.get("set_after_miss_fills") else None
        self.tokens: dict[str, Token] = {}
        """Tokens of the creations under way in this process, by key."""

    @property
    def shm(self) -> Cache:
        """The ``cachee_shm.Cache`` below."""
        return self._backing.cache

    def health(self) -> Health:
        """``cachee_shm.Cache.health``; not ``ok`` while the namespace cannot be attached."""
        return self._backing.health()

    def get_mutex(self, key: str) -> CacheMutex:
        return Mutex(self, key)

    # Reading

    def get(self, key: str) -> Any:
        cache, name = self._backing.cache, fitting(key)
        stored = cache.get(name, NO_VALUE)
        if self._misses is not None:
            self._misses.looked(cache, name, stored is not NO_VALUE)
        return _value(stored)

    def get_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        names, cache = [fitting(key) for key in keys], self._backing.cache
        found = cache.get_many(names)
        self._known(found)
        return [_value(found.get(name, NO_VALUE)) for name in names]

    # Writing

    def set(self, key: str, value: Any) -> None:
        token = self.tokens.get(key)
        if token is None or not _of_a_creator(sys._getframe(1)):
            self._store(key, value, None)
        else:
            self._store(key, value, token)

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        tokens = self.tokens if self.tokens and _of_a_creator(sys._getframe(1)) else {}
        for key, value in mapping.items():
            self._store(key, value, tokens.get(key))

    def _store(self, key: str, value: Any, token: Token | None) -> None:
        """A value that is too large is not stored, as by memcached."""
        cache, name = self._backing.cache, fitting(key)
        if self._misses is not None:
            missed = self._misses.taken(cache, name)  # in every case: the miss counts for one set only
            token = token or missed
        try:
            with suppress(ValueTooLarge):
                if token is None:
                    cache.set(name, _stored(value), self._ttl)
                else:
                    cache._fill(name, _stored(value), *token, self._ttl, 0, (), False)
        except Unserializable as error:
            raise unpicklable(error, cache) from error

    def delete(self, key: str) -> None:
        self.delete_multi((key,))

    def delete_multi(self, keys: Iterable[str]) -> None:
        names = [fitting(key) for key in keys]
        self._known(names)
        self._backing.cache.delete_many(names)

    def _known(self, names: Iterable[str]) -> None:
        """They were found, or are written: a ``set`` that follows is no fill."""
        if self._misses is not None:
            self._misses.forget(self._backing.cache, names)


def _stored(value: Any) -> Any:
    """The stored form: a list is the shortest one that keeps payload and time; bytes come from a region's
    serializer."""
    if type(value) is not CachedValue:
        return value
    metadata = value.metadata
    if metadata.keys() == {"ct", "v"}:
        return [value.payload, metadata["ct"], metadata["v"]]
    return [value.payload, dict(metadata)]


def _value(stored: Any) -> Any:
    if type(stored) is not list:
        return stored
    if len(stored) == 2:
        return CachedValue(*stored)
    return CachedValue(stored[0], {"ct": stored[1], "v": stored[2]})


def _of_a_creator(frame: Any) -> bool:
    for _ in range(CALLS_MAX):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") == "dogpile.cache.region":
            if frame.f_code.co_name in CALL_SITES:
                return True
            if frame.f_code.co_name in ("set", "set_multi"):
                return False
        frame = frame.f_back
    return False


class Mutex(CacheMutex):
    """One key's, among the threads and processes of this host: ``Cache.host.lock``, which a death frees.

    It may be released by another thread than the one that took it. Where there is no segment, or no room for
    one more lock in it, it is one of this process's threads.
    """

    def __init__(self, backend: CacheeBackend, key: str) -> None:
        self._backend, self._key = backend, key
        self._threads = threading.Lock()
        self._lock: Lock | None = None

    def acquire(self, wait: bool = True) -> bool:
        if not self._threads.acquire(wait):
            return False
        cache = self._backend.shm
        try:
            self._lock = self._taken(cache, wait)
            self._backend.tokens[self._key] = cache._token()
        except LockTimeout:
            self._threads.release()
            return False
        except BaseException:
            self.release()
            raise
        return True

    def _taken(self, cache: Cache, wait: bool) -> Lock | None:
        """The lock of all processes; None: there is nowhere to keep it. ``LockTimeout``: another has it."""
        while not cache.detached:
            try:
                return cache.host.lock(self._name(), ttl=None, wait=LOOK_S if wait else 0).__enter__()
            except SegmentError:
                return None
            except LockTimeout:
                if not wait:
                    raise
        return None

    def release(self) -> None:
        self._backend.tokens.pop(self._key, None)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
        self._threads.release()

    def locked(self) -> bool:
        cache = self._backend.shm
        return self._threads.locked() or not (cache.detached or Hold(cache, self._name(), None).free())

    def _name(self) -> str:
        return "dogpile:" + fitting(self._key)
