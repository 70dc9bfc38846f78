"""cashews' backend: one cache for all processes of a host, coherent with the other hosts.

    import cachee_shm.cashews                 # makes the scheme known
    from cashews import cache

    cache.setup("cachee://?namespace=shop")

    @cache(ttl="1m", key="user:{uid}", tags=["team:{team}"])
    async def user(uid, team): ...

Fills and writes. What cashews' decorators and ``get_or_set`` store was made after a miss of theirs: it is a
fill. It carries the position of the ring at that miss, is refused if the key was invalidated since, and is
announced to nobody. Any other ``set`` is a write, and is announced.

A tag of cashews is one of Cachee's: ``delete_tags`` drops what any host has cached with it.

Keys are not listed: ``scan`` and ``get_match`` raise. ``delete_match("user:7:*")`` drops what has that
beginning, up to the third colon; with a wildcard elsewhere it drops what has the beginning before it, which
is more than was asked for, never less.

Counters, locks, sets and bits are of this host alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cashews.backends.interface import NOT_EXIST, UNLIMITED, Backend
from cashews.utils import Bitarray
from cashews.wrapper.backend_settings import register_backend

from cachee_shm.backing import Backing, changed, count, fitting, lasting, remaining_s, unpicklable
from cachee_shm.bypass import Bypass
from cachee_shm.errors import NotLocal, SegmentError, Unserializable, ValueTooLarge
from cachee_shm.segment import warn

if TYPE_CHECKING:
    from cachee_shm.backing import Source
    from cachee_shm.cache import Cache
    from cachee_shm.health import Health

__all__ = ["CacheeBackend"]

CALLS_MAX = 24  # between a decorator and the backend: cashews' wrapper, and its middlewares
TOKENS_MAX = 64  # of one task: keys that it has looked for, and may store
VERBS = {"get", "set", "get_many", "set_many"}
BEGINNINGS_MAX = 3
TAGS_MAX = 16  # of an entry: beginnings of its key, and cashews' tags
ALL = "cashews:"
TAG = "_tag:"  # what cashews puts before a tag to make it the key of a set

tokens: ContextVar[dict[str, tuple[int, int]]] = ContextVar("cachee_shm.cashews.tokens")
"""Where the ring was when a decorator of cashews looked for a key, in this task."""

NOT_LISTED = (
    "Cachee does not list keys: {verb}({pattern!r}) is not to be had. Nothing was read. Use tags, "
    "delete_match() with a beginning, or keep the keys elsewhere."
)


class CacheeBackend(Backend):
    """A backend of cashews in the shared segment of a namespace: ``cache.setup("cachee://?namespace=shop")``.

    ``namespace``, ``config``: as of ``cachee_shm.attach``, which is called at the first use. The other
    options of ``setup`` are cashews'. Values are stored by Cachee's codecs, or as ``pickle_type`` says.

    Where the namespace cannot be attached, nothing is found, ``set`` is False, and ``health()`` says why.
    """

    def __init__(self, namespace: str | None = None, config: Source = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._backing = Backing(namespace, config)
        self._is_init = False

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
        value, found = self._backing.cache.lookup(fitting(key))
        return await self._decoded(key, value, default) if found else default

    async def get_raw(self, key: str) -> Any:
        return self._backing.cache.get(fitting(key))

    async def get_many(self, *keys: str, default: Any = None) -> tuple[Any, ...]:
        if _call_site(sys._getframe(1))[0]:
            for key in keys:
                _remember(key, self.shm)
        found = self._backing.cache.get_many([fitting(key) for key in keys])
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
        raise NotImplementedError(NOT_LISTED.format(verb="scan", pattern=pattern))
        yield ""

    async def get_match(self, pattern: str, batch_size: int = 100) -> AsyncIterator[tuple[str, Any]]:
        raise NotImplementedError(NOT_LISTED.format(verb="get_match", pattern=pattern))
        yield "", None

    # Writing

    async def set(self, key: str, value: Any, expire: float | None = None, exist: bool | None = None) -> bool:
        is_fill, tags = _call_site(sys._getframe(1))
        token = tokens.get({}).get(key) if is_fill else None
        return await self._set(key, value, expire, exist, tags, token)

    async def set_many(self, pairs: Mapping[str, Any], expire: float | None = None) -> None:
        is_fill, tags = _call_site(sys._getframe(1))
        known = tokens.get({}) if is_fill else {}
        for key, value in pairs.items():
            await self._set(key, value, expire, None, tags, known.get(key))

    async def set_raw(self, key: str, value: Any, **kwargs: Any) -> None:
        self._backing.cache.set(fitting(key), value, _lifetime(kwargs.get("expire")), _beginnings(key))

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
        is_deleted = self._backing.cache.delete(fitting(key))
        if is_deleted:
            await self._call_on_remove_callbacks(key)
        return is_deleted

    async def delete_many(self, *keys: str) -> None:
        for key in keys:
            await self.delete(key)

    async def delete_match(self, pattern: str) -> None:
        beginning, wildcard, _ = pattern.partition("*")
        if wildcard:
            self._backing.cache.delete_tags(_beginnings(beginning)[-1])
        else:
            await self.delete(pattern)

    async def clear(self) -> None:
        self._backing.cache.clear()

    async def _decoded(self, key: str, value: Any, default: Any) -> Any:
        if not self._serializer:
            return value
        return await self._serializer.decode(self, key=key, value=value, default=default)

    # Of this host alone

    async def incr(self, key: str, value: int = 1, expire: float | None = None) -> int:
        total: int = count(self._backing.cache, fitting(key), value, 0, _lifetime(expire), _beginnings(key))
        return total

    async def set_lock(self, key: str, value: Any, expire: float) -> bool:
        """Where nothing can be stored, whoever asks has the lock: cashews would ask again without end."""
        cache = self._backing.cache
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

        total: int = changed(self._backing.cache, fitting(key), add, _lifetime(expire))
        return total

    async def set_add(self, key: str, *values: str, expire: float | None = None) -> None:
        self._change_set(key, lambda members: members.update(values), expire)

    async def set_remove(self, key: str, *values: str) -> None:
        self._change_set(key, lambda members: members.difference_update(values), None)

    async def set_pop(self, key: str, count: int = 100) -> Iterable[str]:
        if key.startswith(TAG):
            self._backing.cache.delete_tags(ALL + key)  # also what other hosts have cached with it

        def pop(members: list[str] | None) -> tuple[list[str], list[str]]:
            return (members or [])[count:], (members or [])[:count]

        popped: list[str] = changed(self._backing.cache, fitting(key), pop, None)
        return popped

    def _change_set(self, key: str, change: Callable[[Any], None], expire: float | None) -> None:
        def apply(stored: list[str] | None) -> tuple[list[str], None]:
            members = set(stored or ())
            change(members)
            return sorted(members), None

        changed(self._backing.cache, fitting(key), apply, _lifetime(expire))


def _lifetime(expire: float | None) -> float | None:
    """No lifetime, and one of 0, is for ever; what is over already is Cachee's 0."""
    return lasting(max(0.0, expire)) if expire else None


def _bits_of(key: str) -> str:
    return fitting("\0bits:" + key)


def _bits(stored: str | None) -> Any:
    made: Any = Bitarray
    return made(stored or "0", base=16)


def _beginnings(key: str) -> tuple[str, ...]:
    """Tags of a key's beginnings: up to each of its first colons, the empty one first."""
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
