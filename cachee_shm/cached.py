"""``@cache.cached``: a function, or a coroutine function, whose results are cached."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from cachee_shm.errors import InvalidKey
from cachee_shm.keys import Template, call_text, module_name
from cachee_shm.loading import Options, arefresh, refresh
from cachee_shm.loads import current_load

if TYPE_CHECKING:
    from cachee_shm.cache import Cache
    from cachee_shm.origins import Kept

__all__ = ["AsyncCachedFunction", "CacheInfo", "CachedFunction", "Decorator", "decorator"]

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")

Key = str | bytes
MakesKey = str | Callable[..., Key]


class CacheInfo(NamedTuple):
    """Counts of one decorated function, in this process."""

    hits: int  # calls that did not run it
    misses: int  # calls that did


class Signature:
    """A function's name and parameters; it makes keys and tags from a call's arguments."""

    def __init__(self, function: Callable[..., Any], key: MakesKey | None, tags: Sequence[str]) -> None:
        if isinstance(tags, (str, bytes)):
            raise InvalidKey("tags is a sequence of templates, not one str. Nothing was decorated.")
        self.module = module_name(function.__module__)
        self.name = f"{self.module}.{function.__qualname__}"
        self.own_tag = f"cached:{self.name}"
        self.signature = inspect.signature(function)
        self.parameters = tuple(self.signature.parameters)
        kinds = [each.kind for each in self.signature.parameters.values()]
        self.is_of_class = False  # a class method that was decorated as one
        self.is_plain = all(kind == inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
        self.key = Template(key, self.parameters) if isinstance(key, str) else key
        self.tags = [Template(tag, self.parameters) for tag in tags]
        self._require_whole_key(function)

    def _require_whole_key(self, function: Callable[..., Any]) -> None:
        """Refuse a key that would silently leave out something that the result may depend on."""
        if holds_arguments(function) and not callable(self.key):
            raise ValueError(
                f"{self.name} is a bound method or a partial: its result may depend on what it "
                "holds, which is not in the key. Nothing was decorated. Give key= a function."
            )
        if isinstance(self.key, Template) and self.parameters and not self.key.names:
            raise ValueError(
                f"key={self.key.text!r} names no parameter of {self.name}: all calls would have one key. "
                f"Nothing was decorated. It has: {', '.join(self.parameters)}."
            )
        if self.parameters[:1] in (("self",), ("cls",)):
            self.require_owner()
        if self.key is None and "<" in self.name:  # <locals>, <lambda>
            raise ValueError(
                f"{self.name} is a local function or a lambda: others may have the same name and use other "
                "variables, so their keys would be equal. Nothing was decorated. Give it a key=."
            )

    def require_owner(self) -> None:
        """It is a method: its first parameter is the object."""
        owner = self.parameters[0] if self.parameters else "self"
        named = self.key.names if isinstance(self.key, Template) else frozenset()
        if not callable(self.key) and owner not in named:
            raise ValueError(
                f"{self.name} is a method: its result may depend on {owner}. Nothing was decorated. Name it "
                f"in the key ('...{{{owner}.id}}...'), or give key= a function."
            )

    def require_class(self, args: tuple[Any, ...]) -> None:
        """From Python 3.13 on, ``classmethod`` gives its class to calls alone, not to ``A.f.invalidate``."""
        outer = self.name.rpartition(".")[0]
        looks_so = self.parameters[:1] == ("cls",) and outer != self.module and not outer.endswith(">")
        if looks_so and args and not isinstance(args[0], type):
            raise TypeError(
                f"{self.name} is a class method, and this call lacks its class: from Python 3.13 on, "
                "@classmethod above @cache.cached does not pass it on. Nothing was read or written. "
                "Put @cache.cached above @classmethod, or name the class as the first argument."
            )

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """By name, with defaults. ``TypeError`` as a call of the function would raise it."""
        if self.is_plain and not kwargs and len(args) == len(self.parameters):
            return dict(zip(self.parameters, args, strict=True))
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def key_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
        if callable(self.key):
            return self.key(*args, **kwargs)
        arguments = self.arguments(args, kwargs)
        return call_text(self.name, arguments) if self.key is None else self.key.filled(arguments)

    def tags_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        """The function's own first: by it, all its results are dropped."""
        if not self.tags:
            return [self.own_tag]
        arguments = self.arguments(args, kwargs)
        return [self.own_tag, *(tag.filled(arguments) for tag in self.tags)]


class Cached:
    """What the two kinds of cached functions share."""

    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        cache: Cache,
        function: Callable[..., Any],
        signature: Signature,
        kept: Kept,
        condition: Callable[[Any], object] | None,
    ) -> None:
        functools.update_wrapper(cast(Any, self), function)  # first: it copies the function's own attributes
        self._cache, self._signature, self._kept, self._condition = cache, signature, kept, condition
        self._calls = self._misses = 0

    def __repr__(self) -> str:
        return f"<cached {self._signature.name}>"

    def __reduce__(self) -> str:
        """As a function is pickled and copied: by its name."""
        return self.__qualname__  # type: ignore[attr-defined,no-any-return]

    def __set_name__(self, owner: type, name: str) -> None:
        """Below ``@staticmethod`` and ``@classmethod`` this is not called."""
        self._signature.require_owner()

    def _holder(self, instance: Any, owner: type | None) -> Any:
        """The object, or for a class method the class, that a call is bound to; None: neither."""
        return (owner or type(instance)) if self._signature.is_of_class else instance

    def key(self, *args: Any, **kwargs: Any) -> Key:
        """The key of a call with these arguments."""
        self._signature.require_class(args)
        return self._signature.key_of(args, kwargs)

    def cache_info(self) -> CacheInfo:
        """How often it was called in this process, and how often that ran the function."""
        return CacheInfo(max(self._calls - self._misses, 0), self._misses)

    def cache_clear(self) -> None:
        """Drop all its results, on every host. ``cache_info()`` counts from 0 again."""
        self._cache.delete_tags(self._signature.own_tag)
        self._calls = self._misses = 0

    def _stores(self, value: object) -> bool:
        return self._condition is None or bool(self._condition(value))

    def _loaded(self, value: T, refreshes: bool) -> T:
        load = current_load()
        if load is not None and self._signature.own_tag not in load.tags:  # the function has set others
            load.tags = (*load.tags, self._signature.own_tag)
        if load is not None and not self._stores(value):
            load.skip()
            if refreshes:
                self._cache.delete(load.key)
        return value

    def _options(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        self._calls += 1
        return {**self._kept._asdict(), "tags": self._signature.tags_of(args, kwargs)}

    def _refresh_options(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Options:
        options = self._options(args, kwargs)
        del options["soft_timeout"], options["hard_timeout"]
        return Options(self._cache, **options)


class CachedFunction(Cached, Generic[P, T]):
    """A function decorated by ``cache.cached``."""

    __wrapped__: Callable[P, T]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        options = self._options(args, kwargs)
        return self._cache.get_or_load(self.key(*args, **kwargs), self._load, args, kwargs, **options)

    def _load(self, args: Any, kwargs: Any, refreshes: bool = False) -> T:
        self._misses += 1
        return self._loaded(self.__wrapped__(*args, **kwargs), refreshes)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop the result of a call with these arguments, on every host; was it here?"""
        return self._cache.delete(self.key(*args, **kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function now and store its result. Every other host evicts its old result.

        If the function raises, the old result stays. If the key is written or invalidated meanwhile, it is
        dropped on every host, and the next call runs the function. All options and ``current_load()`` apply
        as in a call.
        """
        key = self.key(*args, **kwargs)
        options = self._refresh_options(args, kwargs)
        return refresh(self._cache, key, options, self._load, (args, kwargs, True))

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> CachedFunction[P, T]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = None, /
    ) -> BoundCachedFunction[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        holder = self._holder(instance, owner)
        return self if holder is None else BoundCachedFunction(self, holder)


class AsyncCachedFunction(Cached, Generic[P, T]):
    """A coroutine function decorated by ``cache.cached``."""

    __wrapped__: Callable[P, Awaitable[T]]

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        options = self._options(args, kwargs)
        return await self._cache.aget_or_load(self.key(*args, **kwargs), self._load, args, kwargs, **options)

    async def _load(self, args: Any, kwargs: Any, refreshes: bool = False) -> T:
        self._misses += 1
        return self._loaded(await self.__wrapped__(*args, **kwargs), refreshes)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As of ``CachedFunction``: it waits for nothing."""
        return self._cache.delete(self.key(*args, **kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """As of ``CachedFunction``."""
        key = self.key(*args, **kwargs)
        options = self._refresh_options(args, kwargs)
        return await arefresh(self._cache, key, options, self._load, (args, kwargs, True))

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> AsyncCachedFunction[P, T]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = None, /
    ) -> BoundAsyncCachedFunction[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        holder = self._holder(instance, owner)
        return self if holder is None else BoundAsyncCachedFunction(self, holder)


class Bound:
    """A cached method of one object."""

    def __init__(self, function: Any, instance: object) -> None:
        functools.update_wrapper(cast(Any, self), function)
        self.__func__, self.__self__ = function, instance
        self.__wrapped__ = functools.partial(function.__wrapped__, instance)

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {self.__self__!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__func__.__name__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and (self.__func__, self.__self__) == (other.__func__, other.__self__)

    def __hash__(self) -> int:
        return hash((self.__func__, id(self.__self__)))

    def key(self, *args: Any, **kwargs: Any) -> Key:
        """As of ``CachedFunction``."""
        return self.__func__.key(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def cache_info(self) -> CacheInfo:
        """Of all objects' calls."""
        return self.__func__.cache_info()  # type: ignore[no-any-return]

    def cache_clear(self) -> None:
        """Drop all objects' results, on every host."""
        self.__func__.cache_clear()


class BoundCachedFunction(Bound, Generic[P, T]):
    """A method decorated by ``cache.cached``, of one object."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.__func__(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As of ``CachedFunction``."""
        return self.__func__.invalidate(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """As of ``CachedFunction``."""
        return self.__func__.refresh(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]


class BoundAsyncCachedFunction(Bound, Generic[P, T]):
    """A coroutine method decorated by ``cache.cached``, of one object."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.__func__(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As of ``CachedFunction``."""
        return self.__func__.invalidate(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """As of ``CachedFunction``."""
        return await self.__func__.refresh(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]


class Decorator(Protocol):
    """What ``cache.cached(...)`` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncCachedFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...


def decorator(
    cache: Cache,
    key: MakesKey | None,
    tags: Sequence[str],
    kept: Kept,
    condition: Callable[[Any], object] | None,
) -> Decorator:
    """See ``Cache.cached``."""
    kept.judged(cache)  # now, not at each call

    def decorate(function: Callable[..., Any]) -> Any:
        is_of_class = isinstance(function, classmethod)
        function = function.__func__ if isinstance(function, classmethod) else function
        _require_a_function(function)
        signature = Signature(function, key, tags)
        if is_of_class:
            signature.is_of_class = True
            signature.require_owner()
        if not is_coroutine_function(function):
            return CachedFunction[Any, Any](cache, function, signature, kept, condition)
        cached = AsyncCachedFunction[Any, Any](cache, function, signature, kept, condition)
        _mark_as_coroutine_function(cached)
        return cached

    return cast(Decorator, decorate)


def _require_a_function(function: object) -> None:
    if isinstance(function, staticmethod):
        raise TypeError("@staticmethod stands above @cache.cached, not below it. Nothing was decorated.")
    if not callable(function) or not hasattr(function, "__qualname__") or isinstance(function, type):
        raise TypeError(
            f"cached decorates a function, not {function!r}. Nothing was decorated. Its options have names: "
            "@cache.cached(key=..., ttl=...)."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator function: its items can be read only once. Nothing was "
            "decorated. Return a list."
        )


def holds_arguments(function: object) -> bool:
    """Whether the function holds an object or arguments besides its parameters."""
    owner = getattr(function, "__self__", None)
    return isinstance(function, functools.partial) or not (owner is None or isinstance(owner, ModuleType))


def is_coroutine_function(function: object) -> bool:
    """Whether it is a coroutine function, or marked as one (a cached one, for instance)."""
    if inspect.iscoroutinefunction(function) or sys.version_info >= (3, 12):
        return inspect.iscoroutinefunction(function)
    return getattr(function, "_is_coroutine", None) is _mark()


def _mark() -> object:
    """Of Python before 3.12."""
    from asyncio import coroutines

    return coroutines._is_coroutine  # type: ignore[attr-defined]


def _mark_as_coroutine_function(cached: Any) -> None:
    """So that ``iscoroutinefunction`` of inspect (from 3.12 on) and asyncio recognize it."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(cached)
    else:
        cached._is_coroutine = _mark()
