"""Loading many keys by one call of the loader: ``get_or_load_many``.

The keys that no other caller loads are claimed together, loaded by one call, stored one by one, and released
(``core/module_many.c``). Only then does the caller wait for the keys that other callers load, one after the
other. So a waiting caller holds no lease, and two callers with the same keys in opposite orders cannot wait
for each other. Keys that are still missing after the waiting are loaded by a further call.

For each key, the wait counts from the beginning of the call: a key is waited for as long as ``get_or_load``
would wait for it alone, however many others come before it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cachee_shm.errors import InvalidKey
from cachee_shm.loading import FRESH, Asking, Options, complain, find
from cachee_shm.waiting import await_flight, wait_for_flight

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["Missing", "afill_many", "aload_many", "fill_many", "judged", "load_many", "looked_up"]

K = TypeVar("K", bound=str | bytes)
T = TypeVar("T")
Answer = tuple[int, Any, Exception | None]  # of one key: as _load returns it
SHOWN = 3  # of the keys that an error names
STACK_LEVEL = 6  # of a warning: the caller of get_or_load_many


class Missing(NamedTuple):
    """A key whose value is missing, or is to be reloaded before it ends."""

    key: Any
    early_of: int


def judged(segment: Segment, keys: Iterable[K]) -> tuple[K, ...]:
    """The keys. ``InvalidKey`` for anything but an iterable of different keys, ``KeyTooLong``, ``Closed``."""
    asked = segment._keys(keys)
    seen: set[int] = set()
    for key in asked:
        number = segment._hash(key)
        if number in seen:
            raise InvalidKey(
                f"{key!r} is named twice among the keys (a str and its UTF-8 bytes are one key). Nothing was "
                "read or written. Name each key once, as dict.fromkeys(keys) does."
            )
        seen.add(number)
    return asked


def looked_up(
    segment: Segment, keys: tuple[Any, ...], options: Options
) -> tuple[dict[Any, Any], list[Missing]]:
    """The values that are cached, and the keys that must be loaded."""
    if not options.early:
        found = segment.get_many(keys)
        return found, [Missing(key, 0) for key in keys if key not in found]
    found, missing = {}, []
    for key in keys:
        state, value, early_of = find(segment, key, options)
        if state == FRESH:
            found[key] = value
        else:
            missing.append(Missing(key, early_of))
    return found, missing


def load_many(
    segment: Segment,
    keys: tuple[K, ...],
    options: Options,
    loader: Callable[..., Mapping[K, T]],
    args: tuple[Any, ...],
) -> dict[K, T | None]:
    """The value of each key: cached, or from one call of ``loader``; see ``Cache.get_or_load_many``."""
    found, missing = looked_up(segment, keys, options)
    if not missing:
        return found
    found |= fill_many(segment, missing, options, loader, args)
    return {key: found[key] for key in keys}


def fill_many(
    segment: Segment,
    missing: list[Missing],
    options: Options,
    loader: Callable[..., Mapping[Any, Any]],
    args: tuple[Any, ...],
) -> dict[Any, Any]:
    """The values of keys that were missing."""

    def values(keys: list[Any]) -> list[Any]:
        return in_order(keys, unless_awaitable(loader(keys, *args)))

    askings = _askings(segment, missing, options)
    found: dict[Any, Any] = {}
    while askings:
        answers = segment._load_many(_asks(askings), values, options.kept)
        held = _answered(segment, askings, answers, found)
        askings = []
        for asking, flight in held:
            if _may_wait(asking):
                wait_for_flight(asking.call, flight)
                segment._woke(asking.call.key, flight)
            _take(asking, flight, found, askings)
    return found


async def aload_many(
    segment: Segment,
    keys: tuple[K, ...],
    options: Options,
    loader: Callable[..., Awaitable[Mapping[K, T]]],
    args: tuple[Any, ...],
) -> dict[K, T | None]:
    """``load_many`` for a coroutine function."""
    found, missing = looked_up(segment, keys, options)
    if not missing:
        return found
    found |= await afill_many(segment, missing, options, loader, args)
    return {key: found[key] for key in keys}


async def afill_many(
    segment: Segment,
    missing: list[Missing],
    options: Options,
    loader: Callable[..., Awaitable[Mapping[Any, Any]]],
    args: tuple[Any, ...],
) -> dict[Any, Any]:
    """``fill_many`` for a coroutine function."""

    async def values(keys: list[Any]) -> list[Any]:
        return in_order(keys, await only_awaitable(loader(keys, *args)))

    askings = _askings(segment, missing, options)
    found: dict[Any, Any] = {}
    while askings:
        answers = await segment._aload_many(_asks(askings), values, options.kept)
        held = _answered(segment, askings, answers, found)
        askings = []
        for asking, flight in held:
            if _may_wait(asking):
                await await_flight(asking.call, flight)
                segment._woke(asking.call.key, flight)
            _take(asking, flight, found, askings)
    return found


def in_order(keys: list[Any], loaded: Any) -> list[Any]:
    """The value of each key, None for what the loader left out. Mistakes: ``TypeError``, ``ValueError``."""
    if not isinstance(loaded, Mapping):
        raise TypeError(
            f"load_many returned {type(loaded).__name__}, not a mapping from key to value. Nothing was "
            "cached. Return a dict; a key that it does not have is cached as None."
        )
    values = [loaded.get(key) for key in keys]
    if len(loaded) and not any(key in loaded for key in keys):
        raise ValueError(
            f"load_many was asked for {_some(keys)} and returned a mapping that has none of them, but "
            f"{_some(loaded)}. Nothing was cached. Name each value by the key that was asked for."
        )
    return values


def _some(keys: Iterable[Any]) -> str:
    listed = list(keys)
    return ", ".join(map(repr, listed[:SHOWN])) + (", ..." if len(listed) > SHOWN else "")


def unless_awaitable(loaded: Any) -> Any:
    """``TypeError`` if a coroutine function was given to the verb that does not await."""
    if not hasattr(type(loaded), "__await__"):
        return loaded
    if hasattr(loaded, "close"):
        loaded.close()
    raise TypeError(
        f"the loader of get_or_load_many returned {type(loaded).__name__}, which has to be awaited. Nothing "
        "was cached. Use aget_or_load_many."
    )


def only_awaitable(loaded: Any) -> Any:
    """``TypeError`` if a plain function was given to the verb that awaits."""
    if hasattr(type(loaded), "__await__"):
        return loaded
    raise TypeError(
        f"the loader of aget_or_load_many returned {type(loaded).__name__}, which cannot be awaited. Nothing "
        "was cached. Give it a coroutine function, or use get_or_load_many."
    )


def _askings(segment: Segment, missing: list[Missing], options: Options) -> list[Asking]:
    return [Asking(segment, each.key, options, each.early_of) for each in missing]


def _asks(askings: list[Asking]) -> list[tuple[Any, int, int, bool, int]]:
    return [
        (each.call.key, each.call.since, each.call.asked_ms, each.alone, each.early_of) for each in askings
    ]


def _answered(
    segment: Segment, askings: list[Asking], answers: list[Answer], found: dict[Any, Any]
) -> list[tuple[Asking, Flight | None]]:
    """Callers that are answered have a value in ``found``. The others are returned: another caller loads
    their key."""
    held = []
    for asking, (ended, result, why) in zip(askings, answers, strict=True):
        key = asking.call.key
        if ended:
            complain(segment, key, result, why, STACK_LEVEL)
            found[key] = result
        else:
            held.append((asking, result))
    return held


def _may_wait(asking: Asking) -> bool:
    """False: the caller would wait for itself, so it must load the key without waiting."""
    asking.alone = not asking.call.segment._will_wait(asking.call.key)
    return not asking.alone


def _take(asking: Asking, flight: Flight | None, found: dict[Any, Any], again: list[Asking]) -> None:
    """The result of the wait: a value, an exception, or another try for the key."""
    answered, value = (False, None) if asking.alone else asking.answered_by(flight)
    if answered:
        found[asking.call.key] = value
    else:
        again.append(asking)
