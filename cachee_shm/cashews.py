"""cashews' backend: one cache for all processes of a host, coherent with the other hosts.

    import cachee_shm.cashews                 # makes the scheme known
    from cashews import cache

    cache.setup("cachee://?namespace=shop")

    @cache(ttl="1m", key="user:{uid}", tags=["team:{team}"])
    async def user(uid, team): ...

Fills and writes. What cashews' decorators and ``get_or_set`` store was computed after a miss, so it is a
fill: it carries the position of the ring at that miss, is refused if the key was invalidated since, and is
not announced. Any other ``set`` is a write, and is announced.

A tag of cashews is one of Cachee's: ``delete_tags`` drops what any host has cached with it.

Within ``cache.transaction()``, cashews stores and deletes at the end. What is stored then is a write, and has
its tags. ``delete_match`` takes effect at the end as well.

Keys cannot be listed: ``scan`` and ``get_match`` raise. ``delete_match("user:7:*")`` drops the keys with that
prefix, up to the third colon. With a wildcard elsewhere it drops all keys with the prefix before the
wildcard, which is more than was asked for, never less.

Counters, locks, sets and bits are of this host alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from cashews.backends.interface import NOT_EXIST, UNLIMITED, Backend
from cashews.utils import Bitarray
from cashews.wrapper.backend_settings import register_backend

from cachee_shm.backing import Backing, Misses, changed, count, fitting, lasting, remaining_s, unpicklable
from cachee_shm.bypass import Bypass
from cachee_shm.errors import NotLocal, SegmentError, Unserializable, ValueTooLarge
from cachee_shm.segment import warn

if TYPE_CHECKING:
    from cachee_shm.backing import Source
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health

__all__ = ["CacheeBackend"]

CALLS_MAX = 24  # between a decorator and the backend: cashews' wrapper, and its middlewares
TOKENS_MAX = 64  # of one task: keys that it has looked up and may store
VERBS = {"get", "set", "get_many", "set_many"}
TRANSACTIONS = "cashews.backends.transaction"
BEGINNINGS_MAX = 3
TAGS_MAX = 16  # of an entry: prefixes of its key, and cashews' tags
ALL = "cashews:"
TAG = "_tag:"  # what cashews puts before a tag to make it the key of a set

tokens: ContextVar[dict[str, tuple[int, int]]] = ContextVar("cachee_shm.cashews.tokens")
"""Where the ring was when a decorator of cashews looked for a key, in this task."""

NOT_LISTED = (
    "Cachee cannot list keys: {verb}({pattern!r}) is not supported. Nothing was read. Use tags, "
    "delete_match() with a beginning, or keep the keys elsewhere."
)


class Matching(str):
    """A pattern among the keys that a transaction of cashews deletes as it ends."""

    __slots__ = ()


class CacheeBackend(Backend):
    """A backend of cashews in the shared segment of a namespace: ``cache.setup("cachee://?namespace=shop")``.

    ``namespace``, ``config``: as of ``cachee_shm.attach``, which is called at the first use. The other
    options of ``setup`` are cashews'. Values are stored by Cachee's codecs, or as ``pickle_type`` says.
    ``set_after_miss_fills``: a ``set`` after a ``get`` of its own that found nothing is a fill. It is off: a
    row that is written in between would be announced to no host: the guide in examples/django has more.

    Where the namespace cannot be attached, nothing is found, ``set`` is False, and ``health()`` says why.
    """

    def __init__(
        self,
        namespace: str | None = None,
        config: Source = None,
        set_after_miss_fills: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._backing = Backing(namespace, config)
        self._misses = Misses() if set_after_miss_fills else None
        self._is_init = False
        self._tagged: WeakKeyDictionary[object, dict[str, set[str]]] = WeakKeyDictionary()
        """Of each transaction of cashews: key -> the tags that it will be stored with."""

    @property
    def shm(self) -> Cache:
        """The ``cachee_shm.Cache`` below."""
        return self._backing.cache

    def health(self) -> Health:
        """``cachee_shm.Cache.health``; not ``ok`` while the namespace cannot be attached."""
        return self._backing.health()

    @property
    def is_init(self) -> bool:
        return self._is_init

    async def init(self) -> None:
        self._is_init = True

    async def close(self) -> None:
        """Detach from the segment. A later use attaches again."""
        self._is_init = False
        self._backing.close()

    async def ping(self, message: bytes | None = None) -> bytes:
        return b"PONG" if message in (None, b"PING") else message

    # Reading

    async def get(self, key: str, default: Any = None) -> Any:
        if _call_site(sys._getframe(1))[0]:
            _remember(key, self.shm)
        cache, name = self._backing.cache, fitting(key)
        value, found = cache.lookup(name)
        if self._misses is not None:
            self._misses.looked(cache, name, found)
        return await self._decoded(key, value, default) if found else default

    async def get_raw(self, key: str) -> Any:
        return self._backing.cache.get(fitting(key))

    async def get_many(self, *keys: str, default: Any = None) -> tuple[Any, ...]:
        if _call_site(sys._getframe(1))[0]:
            for key in keys:
                _remember(key, self.shm)
        found = self._backing.cache.get_many([fitting(key) for key in keys])
        self._known(*found)
        return tuple(
            [
                await self._decoded(key, found[fitting(key)], default) if fitting(key) in found else default
                for key in keys
            ]
        )

    async def exists(self, key: str) -> bool:
        return fitting(key) in self._backing.cache

    async def get_expire(self, key: str) -> int:
        try:
            left_s = remaining_s(self._backing.cache, fitting(key))
        except KeyError:
            return NOT_EXIST
        return UNLIMITED if left_s is None else round(left_s)

    async def get_size(self, key: str) -> int:
        return len(self._backing.cache._stored(fitting(key))[2])

    async def get_keys_count(self) -> int:
        return len(self._backing.cache)

    async def scan(self, pattern: str, batch_size: int = 100) -> AsyncIterator[str]:
        """Raises, but for a transaction's ``delete_match``, which gets the pattern to delete as it ends."""
        if _transaction(sys._getframe(1), "delete_match") is not None:
            yield Matching(pattern)
            return
        raise NotImplementedError(NOT_LISTED.format(verb="scan", pattern=pattern))

    async def get_match(self, pattern: str, batch_size: int = 100) -> AsyncIterator[tuple[str, Any]]:
        raise NotImplementedError(NOT_LISTED.format(verb="get_match", pattern=pattern))
        yield "", None

    # Writing

    async def set(self, key: str, value: Any, expire: float | None = None, exist: bool | None = None) -> bool:
        is_fill, tags = _call_site(sys._getframe(1))
        token = tokens.get({}).get(key) if is_fill else None
        return await self._set(key, value, expire, exist, tags, token)

    async def set_many(self, pairs: Mapping[str, Any], expire: float | None = None) -> None:
        caller = sys._getframe(1)
        is_fill, tags = _call_site(caller)
        known = tokens.get({}) if is_fill else {}
        transaction = _transaction(caller, "commit")
        tagged = {} if transaction is None else self._tagged.get(transaction, {})
        for key, value in pairs.items():
            await self._set(key, value, expire, None, tagged.get(key, tags), known.get(key))

    async def set_raw(self, key: str, value: Any, **kwargs: Any) -> None:
        self._known(fitting(key)).set(fitting(key), value, _lifetime(kwargs.get("expire")), _beginnings(key))

    async def _set(
        self,
        key: str,
        value: Any,
        expire: float | None,
        exist: bool | None,
        tags: Iterable[str],
        token: tuple[int, int] | None,
    ) -> bool:
        cache, name, lifetime = self._backing.cache, fitting(key), _lifetime(expire)
        if self._misses is not None:
            missed = self._misses.taken(cache, name)  # in every case: the miss counts for one set only
            token = token or (missed if lifetime != 0 and exist is None else None)
        every = (*_beginnings(key), *(ALL + TAG + tag for tag in tags))
        if len(every) > TAGS_MAX:
            warn("not cached: %r has %d tags, and room for %d", key, len(every), TAGS_MAX)
            if token is None:
                cache.delete(name)
            return False
        if self._serializer:
            value = await self._serializer.encode(self, key=key, value=value, expire=expire)
        try:
            if exist is False:
                return cache.add(name, value, lifetime, every)
            if exist and name not in cache:
                return False
            if token is not None:
                return cache._fill(name, value, *token, lifetime, 0, every, False)
            return cache.set(name, value, lifetime, every)
        except ValueTooLarge:
            return False
        except Unserializable as error:
            raise unpicklable(error, cache) from error

    async def expire(self, key: str, timeout: float) -> None:
        self._backing.cache.touch(fitting(key), _lifetime(timeout))

    async def delete(self, key: str) -> bool:
        is_deleted = self._known(fitting(key)).delete(fitting(key))
        if is_deleted:
            await self._call_on_remove_callbacks(key)
        return is_deleted

    async def delete_many(self, *keys: str) -> None:
        for key in keys:
            if isinstance(key, Matching):
                await self.delete_match(key)
            else:
                await self.delete(key)

    async def delete_match(self, pattern: str) -> None:
        beginning, wildcard, _ = pattern.partition("*")
        if wildcard:
            self._forget_all()
            self._backing.cache.delete_tags(_beginnings(beginning)[-1])
        else:
            await self.delete(pattern)

    async def clear(self) -> None:
        self._forget_all()
        self._backing.cache.clear()

    def _known(self, *names: str) -> Cache:
        """They were found, or are written: a ``set`` that follows is no fill. The cache."""
        if self._misses is not None:
            self._misses.forget(self._backing.cache, names)
        return self._backing.cache

    def _forget_all(self) -> None:
        if self._misses is not None:
            self._misses.forget_all()

    async def _decoded(self, key: str, value: Any, default: Any) -> Any:
        if not self._serializer:
            return value
        return await self._serializer.decode(self, key=key, value=value, default=default)

    # Of this host alone

    async def incr(self, key: str, value: int = 1, expire: float | None = None) -> int:
        cache, name = self._known(fitting(key)), fitting(key)
        total: int = count(cache, name, value, 0, _lifetime(expire), _beginnings(key))
        return total

    async def set_lock(self, key: str, value: Any, expire: float) -> bool:
        """If nothing can be stored, every caller gets the lock, because cashews would ask again without
        end."""
        cache = self._known(fitting(key))
        is_mine = cache.add(fitting(key), value, _lifetime(expire), local=True)
        return is_mine or cache.detached or isinstance(cache, Bypass)

    async def is_locked(self, key: str, wait: float | None = None, step: float = 0.1) -> bool:
        left = wait or 0.0
        while left > 0 and await self.exists(key):
            left -= step
            await asyncio.sleep(step)
        return await self.exists(key)

    async def unlock(self, key: str, value: Any) -> bool:
        host, name = self._backing.cache.host, fitting(key)
        try:
            holder, token = host.gets(name)
            return holder == value and token is not None and host.cas(name, None, token, 0)
        except (NotLocal, SegmentError):  # it is no lock, or this host has no segment at present
            return False

    async def get_bits(self, key: str, *indexes: int, size: int = 1) -> tuple[int, ...]:
        bits = _bits(self._backing.cache.get(_bits_of(key)))
        return tuple(bits.get(index, size) for index in indexes)

    async def incr_bits(self, key: str, *indexes: int, size: int = 1, by: int = 1) -> tuple[int, ...]:
        def add(stored: str | None) -> tuple[str, tuple[int, ...]]:
            bits = _bits(stored)
            counts = tuple(bits.incr(index, size, by).get(index, size) for index in indexes)
            return f"{bits.to_int():x}", counts

        result: tuple[int, ...] = changed(self._backing.cache, _bits_of(key), add, None)
        return result

    async def slice_incr(
        self, key: str, start: float, end: float, maxvalue: int, expire: float | None = None
    ) -> int:
        def add(ends: list[float] | None) -> tuple[list[float], int]:
            within = [each for each in ends or () if start <= each < end]
            within += [end] if len(within) < maxvalue else []
            return within, len(within)

        total: int = changed(self._known(fitting(key)), fitting(key), add, _lifetime(expire))
        return total

    async def set_add(self, key: str, *values: str, expire: float | None = None) -> None:
        transaction = _transaction(sys._getframe(1), "set_add")
        if transaction is not None and key.startswith(TAG):
            kept = self._tagged.setdefault(transaction, {})
            for value in values:
                kept.setdefault(value, set()).add(key.removeprefix(TAG))
        self._change_set(key, lambda members: members.update(values), _lifetime(expire))

    async def set_remove(self, key: str, *values: str) -> None:
        self._change_set(key, lambda members: members.difference_update(values), self._left_s(key))

    async def set_pop(self, key: str, count: int = 100) -> Iterable[str]:
        if key.startswith(TAG):
            self._forget_all()
            self._backing.cache.delete_tags(ALL + key)  # also what other hosts have cached with it

        def pop(members: list[str] | None) -> tuple[list[str], list[str]]:
            return (members or [])[count:], (members or [])[:count]

        popped: list[str] = changed(self._known(fitting(key)), fitting(key), pop, self._left_s(key))
        return popped

    def _left_s(self, key: str) -> float | None:
        """The lifetime that is left, which a change of what is stored does not renew."""
        try:
            return remaining_s(self._backing.cache, fitting(key))
        except KeyError:
            return None

    def _change_set(self, key: str, change: Callable[[Any], None], lifetime: float | None) -> None:
        def apply(stored: list[str] | None) -> tuple[list[str], None]:
            members = set(stored or ())
            change(members)
            return sorted(members), None

        changed(self._known(fitting(key)), fitting(key), apply, lifetime)


def _lifetime(expire: float | None) -> float | None:
    """No lifetime, and a lifetime of 0, mean never; a negative one is Cachee's 0."""
    return lasting(max(0.0, expire)) if expire else None


def _bits_of(key: str) -> str:
    return fitting("\0bits:" + key)


def _bits(stored: str | None) -> Any:
    made: Any = Bitarray
    return made(stored or "0", base=16)


def _beginnings(key: str) -> tuple[str, ...]:
    """Tags for a key's prefixes: up to each of its first colons, the empty prefix first."""
    found, at = [ALL], key.find(":")
    while at >= 0 and len(found) <= BEGINNINGS_MAX:
        found.append(ALL + fitting(key[: at + 1]))
        at = key.find(":", at + 1)
    return tuple(found)


def _remember(key: str, cache: Cache) -> None:
    kept = {**tokens.get({}), key: cache._token()}
    if len(kept) > TOKENS_MAX:
        del kept[next(iter(kept))]
    tokens.set(kept)


def _module_of(frame: Any) -> str:
    return str(frame.f_globals.get("__name__"))


def _transaction(frame: Any, verb: str) -> object:
    """The transaction of cashews whose ``verb`` is calling, past the verbs of a subclass; else None."""
    for _ in range(CALLS_MAX):
        if frame is None or _module_of(frame).startswith("cashews."):
            break
        frame = frame.f_back
    if frame is None or _module_of(frame) != TRANSACTIONS or frame.f_code.co_name != verb:
        return None
    return frame.f_locals["self"]


def _call_site(frame: Any) -> tuple[bool, Iterable[str]]:
    """Whether a decorator of cashews or ``get_or_set`` is calling, and with which tags."""
    tags: Iterable[str] = ()
    for _ in range(CALLS_MAX):
        if frame is None or frame.f_code.co_name not in VERBS or _module_of(frame).startswith("cashews."):
            break
        frame = frame.f_back  # a verb of a subclass, which has called this one
    for _ in range(CALLS_MAX):
        module = "" if frame is None else _module_of(frame)
        if not module.startswith("cashews."):
            return False, tags
        if module.startswith("cashews.decorators.cache.") or frame.f_code.co_name == "get_or_set":
            return True, tags
        if module == "cashews.wrapper.tags" and frame.f_code.co_name == "set":
            tags = frame.f_locals["tags"]
        frame = frame.f_back
    return False, tags


register_backend("cachee", CacheeBackend)
