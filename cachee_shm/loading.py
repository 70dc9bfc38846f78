"""Loading from the origin: one load per host, fenced fills, and writes that cannot leave a stale value.

A fill carries a token, the ring's position read before the origin is asked; the core refuses it if the key's
fence has moved since. The right to load is a lease in the segment (``core/lease.h``). It is taken and given
back within one call of the core (``core/module_loading.c``), which calls the loader. So no exception, at any
moment, leaves a lease behind. The code here only waits, and holds nothing.

A caller waits for a load that began at or after the last event of its key that the caller may know of. It
takes the result of that load, even if the key is written meanwhile, because its own read is concurrent with
that write. If the load fails, the waiters of the same process get its exception. Of the waiters in other
processes, one loads next, and the others wait for that load.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeVar

from cachee_shm._core import Writing
from cachee_shm.waiting import Call, await_flight, wait_for_flight

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["ANY", "DEFAULT_TTL", "TTL", "Options", "Writing", "aload", "arefresh", "load", "refresh"]

T = TypeVar("T")
TTL = float | timedelta | EllipsisType | None  # seconds; None: never expires; ...: the namespace's default

MISS, FRESH, EARLY = 0, 1, 3  # of _find and _find_early
LOADED, FAILED, UNSHARED = 1, 2, 4  # of Flight.outcome
ANY = (1 << 64) - 1  # as EARLY_OF_ANY in core/module_loading.h: load even if a value is there
STACK_LEVEL = 5  # of a warning: the caller of get_or_load

DEFAULT_TTL = ...  # the namespace's own lifetime
ON_ERROR = ("stale", "raise")
EARLY_MAX = 100


class Options:
    """How long a loaded value is kept, in seconds, and when it is reloaded."""

    __slots__ = ("early", "kept", "raises")

    def __init__(
        self,
        segment: Segment,
        ttl: TTL = DEFAULT_TTL,
        stale: float | timedelta = 0,
        negative_ttl: float | timedelta | None = None,
        tags: Sequence[str] = (),
        local: bool = False,
        on_error: str = "stale",
        early: float = False,
        jitter: float | None = None,
        sliding: float | timedelta = 0,
    ) -> None:
        """Raises ``InvalidTTL``, ``InvalidKey`` and ``KeyTooLong`` (of tags), ``ValueError``, ``Closed``."""
        self.early = 0.0 if early is False else _number("early", early, EARLY_MAX)
        share = segment.jitter if jitter is None else _number("jitter", jitter, 1)
        if on_error not in ON_ERROR:
            raise ValueError(
                f'on_error is "stale" or "raise", not {on_error!r}. Nothing was read or written.'
            )
        self.raises = on_error == "raise"
        self.kept = segment._judge(
            ttl, stale, negative_ttl, tags, local, self.raises, share, sliding, self.early
        )


def _number(name: str, value: object, most: float) -> float:
    """``ValueError`` for anything but a number from 0 to ``most``; True is 1."""
    if isinstance(value, (int, float)) and 0 <= value <= most:
        return float(value)
    raise ValueError(f"{name} is a number from 0 to {most:g}, not {value!r}. Nothing was read or written.")


class Asking:
    """One caller of ``get_or_load``, whose value another caller may load."""

    __slots__ = ("alone", "call", "early_of")

    def __init__(self, segment: Segment, key: str | bytes, options: Options, early_of: int = 0) -> None:
        kept = options.kept
        self.call = Call(segment, key, kept, *segment._arrive(key, kept[3], kept[4]))
        self.alone = False  # do not wait for other loads
        self.early_of = early_of  # the end of the present value, if it is to be reloaded before that; else 0

    def answered_by(self, flight: Flight | None) -> tuple[bool, Any]:
        """Whether the load that was waited for answers this caller, and with what. Raises what it raised."""
        if flight is None or flight.running:
            return False, None
        state, value = flight.outcome()
        if state == FAILED:
            raise value
        self.alone = state == UNSHARED  # a value that cannot be shared: each caller loads its own
        return state == LOADED, value


def find(segment: Segment, key: str | bytes, options: Options) -> tuple[int, Any, int]:
    """What is cached: state, value, and its end if it should be reloaded before that, else 0.

    Early loading is XFetch (Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic Cache Stampede
    Prevention", 2015): with a chance that grows as the end comes near, a caller loads the value that is still
    fresh, the earlier, the longer its last load took. The others have the old value meanwhile.
    """
    if not options.early:
        return *segment._find(key, True), 0
    from random import expovariate

    state, value, ends = segment._find_early(key, options.early * expovariate(1))
    return state, value, ends if state == EARLY else 0


def complain(
    segment: Segment, key: str | bytes, value: object, why: Exception | None, level: int = STACK_LEVEL
) -> None:
    """Warn once per cache, error and type of value about a value that cannot be cached."""
    if why is None:
        return
    kind = (type(why), type(value))
    if kind not in segment.uncacheable:
        segment.uncacheable.add(kind)
        warnings.warn(f"loaded, returned, not cached: {key!r}: {why}", RuntimeWarning, stacklevel=level)


def load(
    segment: Segment, key: str | bytes, options: Options, loader: Callable[..., T], args: tuple[Any, ...]
) -> T:
    """The value of ``key``: cached, or from ``loader(*args)``; see ``Cache.get_or_load``."""
    state, value, early_of = find(segment, key, options)
    if state == FRESH:
        return value  # type: ignore[no-any-return]
    return fill_missing(segment, key, options, early_of, loader, args)


def fill_missing(
    segment: Segment,
    key: str | bytes,
    options: Options,
    early_of: int,
    loader: Callable[..., T],
    args: tuple[Any, ...],
) -> T:
    """The part of ``load`` after a lookup that found nothing fresh, or a value that ends at ``early_of``."""
    if segment.peer_fill_s:
        from cachee_shm.fetching import from_peers  # few namespaces have it

        loader = from_peers(segment, key, loader)
    asking = Asking(segment, key, options, early_of)
    _, _, kept, since, asked_ms = asking.call
    while True:
        ended, result, why = segment._load(
            key, loader, args, kept, since, asked_ms, asking.alone, asking.early_of
        )
        if ended:
            complain(segment, key, result, why)
            return result  # type: ignore[no-any-return]
        wait_for_flight(asking.call, result)
        segment._woke(key, result)
        answered, value = asking.answered_by(result)
        if answered:
            return value  # type: ignore[no-any-return]


def refresh(
    segment: Segment, key: str | bytes, options: Options, loader: Callable[..., T], args: tuple[Any, ...]
) -> T:
    """Load by ``loader(*args)`` now; the result replaces the present value, and is announced."""
    kept = options.kept
    arrived = segment._arrive(key, kept[3], kept[4])
    _, result, why = segment._load(key, loader, args, kept, *arrived, True, ANY)
    complain(segment, key, result, why)
    return result  # type: ignore[no-any-return]


async def aload(
    segment: Segment,
    key: str | bytes,
    options: Options,
    loader: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
) -> T:
    """``load`` for a coroutine function."""
    state, value, early_of = find(segment, key, options)
    if state == FRESH:
        return value  # type: ignore[no-any-return]
    return await afill_missing(segment, key, options, early_of, loader, args)


async def afill_missing(
    segment: Segment,
    key: str | bytes,
    options: Options,
    early_of: int,
    loader: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
) -> T:
    """``fill_missing`` for a coroutine function."""
    if segment.peer_fill_s:
        from cachee_shm.fetching import afrom_peers

        loader = afrom_peers(segment, key, loader)
    asking = Asking(segment, key, options, early_of)
    _, _, kept, since, asked_ms = asking.call
    while True:
        ended, result, why = await segment._aload(
            key, loader, args, kept, since, asked_ms, asking.alone, asking.early_of
        )
        if ended:
            complain(segment, key, result, why)
            return result  # type: ignore[no-any-return]
        await await_flight(asking.call, result)
        segment._woke(key, result)
        answered, value = asking.answered_by(result)
        if answered:
            return value  # type: ignore[no-any-return]


async def arefresh(
    segment: Segment,
    key: str | bytes,
    options: Options,
    loader: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
) -> T:
    """``refresh`` for a coroutine function."""
    kept = options.kept
    arrived = segment._arrive(key, kept[3], kept[4])
    _, result, why = await segment._aload(key, loader, args, kept, *arrived, True, ANY)
    complain(segment, key, result, why)
    return result  # type: ignore[no-any-return]
