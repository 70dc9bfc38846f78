"""Origins: loaders that are registered once for a prefix of keys, so that ``get_or_load(key)`` needs none.

    cache.origin("user:", load=load_user, load_many=load_users, store=save_user, ttl=60)

    cache.get_or_load("user:42")                    # load_user("user:42"), or load_users([...]) with others
    with cache.writing("user:42") as w:
        w.store(user)                               # save_user("user:42", user), then cached

The longest registered prefix of a key is its origin. ``get``, ``set``, ``in`` and ``[]`` never call one, so
they never wait.

Misses of one process that come within a millisecond of each other become one ``load_many``: gathering.py.
Under trio, and in a process without other threads, nothing is gathered.

A failed load is tried again where ``retries`` says so: after a random pause (full jitter: Brooker,
"Exponential backoff and jitter", AWS 2015), and within a budget that all keys of the origin share (retry
throttling as in gRPC, gRFC A6): each retry takes a token of `BUDGET`, each load that succeeds gives back a
tenth. So an origin that is down is called little more than once for each load, not ``retries`` times.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, cast

from cachee_shm.errors import InvalidKey, NoOrigin
from cachee_shm.gathering import Tasks, Threads
from cachee_shm.loading import DEFAULT_TTL, TTL, Options, aload, load
from cachee_shm.many import aload_many, in_order, judged, load_many, only_awaitable, unless_awaitable
from cachee_shm.timeouts import Limits, aload_many_within, aload_within, load_many_within, load_within
from cachee_shm.waiting import library

if TYPE_CHECKING:
    from cachee_shm._core import Write
    from cachee_shm.cache import Cache
    from cachee_shm.segment import Segment

__all__ = [
    "Kept",
    "LoadOptions",
    "Origin",
    "Origins",
    "aload_one",
    "aload_several",
    "load_one",
    "load_several",
    "made",
]

BUDGET = 10.0
BUDGET_PER_SUCCESS = 0.1
BACKOFF_S_MAX = 5.0
RETRIES_MAX = 10


class LoadOptions(TypedDict, total=False):
    """The keywords of ``get_or_load``, for type checkers."""

    ttl: TTL
    stale: float | timedelta
    negative_ttl: float | timedelta | None
    tags: Sequence[str]
    local: bool
    on_error: Literal["stale", "raise"]
    early: float
    jitter: float | None
    sliding: float | timedelta
    soft_timeout: float | timedelta | None
    hard_timeout: float | timedelta | None


class Kept(NamedTuple):
    """The options of ``get_or_load``, as an origin, a decorator or a call gives them."""

    ttl: TTL = DEFAULT_TTL
    stale: float | timedelta = 0
    negative_ttl: float | timedelta | None = None
    tags: Sequence[str] = ()
    local: bool = False
    on_error: Literal["stale", "raise"] = "stale"
    early: float = False
    jitter: float | None = None
    sliding: float | timedelta = 0
    soft_timeout: float | timedelta | None = None
    hard_timeout: float | timedelta | None = None

    def under(self, said: Kept) -> Kept:
        """The options of a call; those that it leaves at their defaults are the origin's."""
        each: Any = zip(self, said, LEFT, strict=True)
        return Kept(*(mine if its == left else its for mine, its, left in each))

    def judged(self, segment: Segment) -> tuple[Options, Limits | None]:
        """Raises ``InvalidTTL``, ``InvalidKey``, ``KeyTooLong``, ``ValueError``, ``Closed``."""
        return Options(segment, *self[:9]), Limits.judged(self.soft_timeout, self.hard_timeout)


LEFT = Kept()


class Retries:
    """How often a load that raised is tried again, and when."""

    def __init__(self, most: int, backoff_s: float, on: tuple[type[Exception], ...]) -> None:
        self._most, self._backoff_s, self._on = most, backoff_s, on
        self._budget = BUDGET

    def succeeded(self) -> None:
        self._budget = min(BUDGET, self._budget + BUDGET_PER_SUCCESS)

    def pause(self, failures: int, error: Exception) -> float | None:
        """Seconds until the next try; None: do not try again."""
        if failures > self._most or not isinstance(error, self._on) or self._budget < 1:
            return None
        from random import uniform

        self._budget -= 1
        longest = min(BACKOFF_S_MAX, self._backoff_s * 2.0 ** (failures - 1))
        return uniform(0, longest)


class Origin:
    """What loads and stores the keys of one prefix. Made by ``Cache.origin``."""

    def __init__(
        self,
        prefix: str,
        load: Callable[[Any], Any] | None,
        load_many: Callable[[list[Any]], Any] | None,
        store: Callable[[Any, Any], Any] | None,
        kept: Kept,
        missing: str,
        retries: Retries,
    ) -> None:
        self.prefix, self.kept = prefix, kept
        self._load, self._load_many, self._store = load, load_many, store
        self._missing_is_error = missing == "error"
        self._retries = retries
        self.is_async = any(map(_is_coroutine_function, (load, load_many, store)))
        self._threads, self._tasks = Threads(self.load_now), Tasks(self.aload_now)

    @property
    def loads(self) -> bool:
        return self._load is not None or self._load_many is not None

    # One key, as get_or_load calls it: under the key's own lease.

    def load(self, key: Any) -> Any:
        """The value of ``key``. Raises what the origin raises."""
        self._require("get_or_load", False)
        if self._load_many is None:
            return self._tried(self._one, key)
        return _value_of(self._threads.asked(key))

    async def aload(self, key: Any) -> Any:
        """``load`` of an origin of coroutine functions."""
        self._require("aget_or_load", True)
        if self._load_many is None:
            return await self._atried(self._aone, key)
        if library() != "asyncio":
            return _value_of((await self.aload_now([key]))[0])
        return _value_of(await self._tasks.asked(key))

    # Many keys, as get_or_load_many calls it.

    def load_many(self, keys: list[Any]) -> dict[Any, Any]:
        """A dict from each of ``keys`` to its value. Raises what the origin raises."""
        self._require("get_or_load_many", False)
        return dict(zip(keys, map(_value_of, self.load_now(keys)), strict=True))

    async def aload_many(self, keys: list[Any]) -> dict[Any, Any]:
        """``load_many`` of an origin of coroutine functions."""
        self._require("aget_or_load_many", True)
        return dict(zip(keys, map(_value_of, await self.aload_now(keys)), strict=True))

    def load_now(self, keys: list[Any]) -> list[Any]:
        """The values, in the order of ``keys``; a ``_Left`` for a key that the origin left out."""
        if self._load_many is None or (len(keys) == 1 and self._load is not None):
            return [self._tried(self._one, key) for key in keys]
        return cast("list[Any]", self._tried(self._several, keys))

    async def aload_now(self, keys: list[Any]) -> list[Any]:
        """``load_now`` of an origin of coroutine functions."""
        if self._load_many is None or (len(keys) == 1 and self._load is not None):
            return [await self._atried(self._aone, key) for key in keys]
        return cast("list[Any]", await self._atried(self._aseveral, keys))

    # Writing through.

    def stored(self, write: Write, key: Any, value: Any, ttl: Any, tags: Any) -> Any:
        """Store ``value`` in the origin, then the stored value in the block. Returns a coroutine if it is
        async."""
        if self._store is None:
            raise NoOrigin(
                f"The origin of {self.prefix!r} has no store, so {key!r} was not written. Register it with "
                "store=, or write the origin yourself and call set()."
            )
        if self.is_async:
            return self._astored(write, key, value, ttl, tags)
        return _kept_in(write, value, self._store(key, value), ttl, tags)

    async def _astored(self, write: Write, key: Any, value: Any, ttl: Any, tags: Any) -> Any:
        return _kept_in(write, value, await cast(Any, self._store)(key, value), ttl, tags)

    # How the user's functions are called.

    def _one(self, key: Any) -> Any:
        return unless_awaitable(cast(Any, self._load)(key))

    async def _aone(self, key: Any) -> Any:
        return await only_awaitable(cast(Any, self._load)(key))

    def _several(self, keys: list[Any]) -> list[Any]:
        return self._in_order(keys, unless_awaitable(cast(Any, self._load_many)(list(keys))))

    async def _aseveral(self, keys: list[Any]) -> list[Any]:
        return self._in_order(keys, await only_awaitable(cast(Any, self._load_many)(list(keys))))

    def _in_order(self, keys: list[Any], loaded: Any) -> list[Any]:
        values = in_order(keys, loaded)
        if not self._missing_is_error:
            return values
        return [
            value if key in loaded else _Left(self.prefix, key)
            for key, value in zip(keys, values, strict=True)
        ]

    def _tried(self, call: Callable[[Any], Any], asked: Any) -> Any:
        failures = 0
        while True:
            try:
                value = call(asked)
            except Exception as error:
                failures += 1
                pause = self._retries.pause(failures, error)
                if pause is None:
                    raise
            else:
                self._retries.succeeded()
                return value
            time.sleep(pause)

    async def _atried(self, call: Callable[[Any], Awaitable[Any]], asked: Any) -> Any:
        failures = 0
        while True:
            try:
                value = await call(asked)
            except Exception as error:
                failures += 1
                pause = self._retries.pause(failures, error)
                if pause is None:
                    raise
            else:
                self._retries.succeeded()
                return value
            await _pause(pause)

    def _require(self, verb: str, is_async: bool) -> None:
        if not self.loads:
            raise NoOrigin(
                f"The origin of {self.prefix!r} has no load and no load_many. Nothing was loaded. Register "
                f"it with one, or give {verb} a loader."
            )
        if self.is_async != is_async:
            kind = "coroutine functions" if self.is_async else "plain functions"
            raise TypeError(
                f"The origin of {self.prefix!r} is made of {kind}. Nothing was loaded. Use "
                f"{'a' + verb if self.is_async else verb[1:]}."
            )


def _is_coroutine_function(function: object) -> bool:
    from inspect import iscoroutinefunction  # heavy, and needed only where origins are registered

    return iscoroutinefunction(function)


class _Left:
    """Stands for a value that ``load_many`` left out, if that is an error."""

    def __init__(self, prefix: str, key: Any) -> None:
        self._prefix, self._key = prefix, key

    def error(self) -> KeyError:
        return KeyError(
            f"load_many of the origin of {self._prefix!r} was asked for {self._key!r} and returned no value "
            'of it. Nothing was cached. With missing="negative" it would be cached as None.'
        )


def _value_of(loaded: Any) -> Any:
    if isinstance(loaded, _Left):
        raise loaded.error()
    return loaded


def _kept_in(write: Write, given: Any, stored: Any, ttl: Any, tags: Any) -> Any:
    value = given if stored is None else stored
    write.set(value, ttl, tags)
    return value


async def _pause(seconds: float) -> None:
    if library() == "trio":
        import trio

        await trio.sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)


# The table of a cache.


class Origins:
    """The origins of one cache, by prefix."""

    def __init__(self) -> None:
        self._by_prefix: dict[str | bytes, Origin] = {}
        self._lengths: dict[type, list[int]] = {str: [], bytes: []}

    def add(self, origin: Origin) -> None:
        """Raises ``ValueError`` for a prefix that has one already."""
        if origin.prefix in self._by_prefix:
            raise ValueError(
                f"The prefix {origin.prefix!r} has an origin already, which stays. Nothing was registered. "
                "Register each prefix once, or a longer one for some of its keys: the longest counts."
            )
        for prefix in (origin.prefix, origin.prefix.encode()):  # a str and its UTF-8 bytes are one key
            self._by_prefix[prefix] = origin
            lengths = self._lengths[type(prefix)]
            self._lengths[type(prefix)] = sorted({*lengths, len(prefix)}, reverse=True)

    def __iter__(self) -> Iterator[Origin]:
        return iter({id(origin): origin for origin in self._by_prefix.values()}.values())

    def find(self, key: Any) -> Origin | None:
        """The origin of the longest registered prefix of ``key``."""
        kind = bytes if isinstance(key, bytes) else str
        if not isinstance(key, kind):
            return None  # not a key: the cache itself raises the error
        for length in self._lengths[kind]:
            origin = self._by_prefix.get(key[:length])
            if origin is not None:
                return origin
        return None

    def of(self, key: Any) -> Origin:
        """``find``, or ``NoOrigin``."""
        origin = self.find(key)
        if origin is None:
            known = ", ".join(sorted(repr(each) for each in self._by_prefix if isinstance(each, str)))
            raise NoOrigin(
                f"No origin is registered for {key!r}. Nothing was loaded or written. Give a loader, "
                f"or register one by cache.origin(prefix, load=...). Registered: {known or 'none'}."
            )
        return origin


def made(
    prefix: object,
    functions: object,
    load: Callable[..., Any] | None,
    load_many: Callable[..., Any] | None,
    store: Callable[..., Any] | None,
    kept: Kept,
    missing: str,
    retries: int,
    backoff: float | timedelta,
    retry_on: type[Exception] | tuple[type[Exception], ...],
) -> Origin:
    """Make an origin of the arguments of ``Cache.origin``. Raises ``InvalidKey``, ``TypeError`` and
    ``ValueError``."""
    if not isinstance(prefix, str) or not prefix:
        raise InvalidKey(
            f'An origin needs a prefix of keys, such as "user:", not {prefix!r}. Nothing was registered.'
        )
    if functions is not None:
        if load or load_many or store:
            raise TypeError(
                "An origin is either an object with load, load_many and store, or those as keywords. Nothing "
                "was registered."
            )
        load, load_many, store = (getattr(functions, name, None) for name in ("load", "load_many", "store"))
    _judge_functions(prefix, {"load": load, "load_many": load_many, "store": store})
    if missing not in ("negative", "error"):
        raise ValueError(f'missing is "negative" or "error", not {missing!r}. Nothing was registered.')
    return Origin(prefix, load, load_many, store, kept, missing, _retries(retries, backoff, retry_on))


def _judge_functions(prefix: str, functions: Mapping[str, object]) -> None:
    given = {name: each for name, each in functions.items() if each is not None}
    if not given:
        raise TypeError(
            f"The origin of {prefix!r} has no load, no load_many and no store. Nothing was registered."
        )
    for name, each in given.items():
        if not callable(each):
            raise TypeError(
                f"{name} of the origin of {prefix!r} is {each!r}, no function. Nothing was registered."
            )
    if len({_is_coroutine_function(each) for each in given.values()}) > 1:
        raise TypeError(
            f"The origin of {prefix!r} mixes plain and coroutine functions. Nothing was registered. Make "
            "all of them one kind."
        )


def _retries(
    most: int, backoff: float | timedelta, on: type[Exception] | tuple[type[Exception], ...]
) -> Retries:
    if not isinstance(most, int) or not 0 <= most <= RETRIES_MAX:
        raise ValueError(
            f"retries is a number from 0 to {RETRIES_MAX}, not {most!r}. Nothing was registered."
        )
    seconds = backoff.total_seconds() if isinstance(backoff, timedelta) else backoff
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= BACKOFF_S_MAX:
        raise ValueError(
            f"backoff is a time from 0 to {BACKOFF_S_MAX:g} s, not {backoff!r}. Nothing was registered."
        )
    classes = on if isinstance(on, tuple) else (on,)
    if not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
        raise TypeError(
            f"retry_on is an exception class, or a tuple of them; not {on!r}. Nothing was registered."
        )
    return Retries(most, float(seconds), classes)


# The verbs without a loader.


def load_one(cache: Cache, key: Any, args: tuple[Any, ...], said: Kept) -> Any:
    """``get_or_load(key)``."""
    origin, (options, limits) = _chosen(cache, key, args, said)
    if limits is not None:
        return load_within(cache, key, options, limits, origin.load, (key,))
    return load(cache, key, options, origin.load, (key,))


async def aload_one(cache: Cache, key: Any, args: tuple[Any, ...], said: Kept) -> Any:
    """``aget_or_load(key)``."""
    origin, (options, limits) = _chosen(cache, key, args, said)
    if limits is not None:
        return await aload_within(cache, key, options, limits, origin.aload, (key,))
    return await aload(cache, key, options, origin.aload, (key,))


def load_several(cache: Cache, keys: Iterable[Any], args: tuple[Any, ...], said: Kept) -> dict[Any, Any]:
    """``get_or_load_many(keys)``: one origin after the other."""
    asked, groups = _groups(cache, keys, args)
    found: dict[Any, Any] = {}
    for origin, group in groups:
        options, limits = origin.kept.under(said).judged(cache)
        if limits is not None:
            found |= load_many_within(cache, group, options, limits, origin.load_many, ())
        else:
            found |= load_many(cache, group, options, origin.load_many, ())
    return {key: found[key] for key in asked}


async def aload_several(
    cache: Cache, keys: Iterable[Any], args: tuple[Any, ...], said: Kept
) -> dict[Any, Any]:
    """``aget_or_load_many(keys)``."""
    asked, groups = _groups(cache, keys, args)
    found: dict[Any, Any] = {}
    for origin, group in groups:
        options, limits = origin.kept.under(said).judged(cache)
        if limits is not None:
            found |= await aload_many_within(cache, group, options, limits, origin.aload_many, ())
        else:
            found |= await aload_many(cache, group, options, origin.aload_many, ())
    return {key: found[key] for key in asked}


def _chosen(
    cache: Cache, key: Any, args: tuple[Any, ...], said: Kept
) -> tuple[Origin, tuple[Options, Limits | None]]:
    _refuse(args)
    cache._hash(key)  # an invalid key is reported before a missing origin
    origin = cache._origin_of(key)
    return origin, origin.kept.under(said).judged(cache)


def _groups(
    cache: Cache, keys: Iterable[Any], args: tuple[Any, ...]
) -> tuple[tuple[Any, ...], list[tuple[Origin, tuple[Any, ...]]]]:
    _refuse(args)
    asked = judged(cache, keys)
    groups: dict[int, tuple[Origin, list[Any]]] = {}
    for key in asked:
        origin = cache._origin_of(key)
        groups.setdefault(id(origin), (origin, []))[1].append(key)
    return asked, [(origin, tuple(group)) for origin, group in groups.values()]


def _refuse(args: tuple[Any, ...]) -> None:
    if args:
        raise TypeError("Arguments were given, but no loader that takes them. Nothing was read or written.")
