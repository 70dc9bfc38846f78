"""Loads whose callers wait for a bounded time: ``soft_timeout`` and ``hard_timeout`` of ``get_or_load``.

When its caller's time is over, the load goes on, with its lease and its token, and its value is stored. So a
loader needs its own time-out, for the query or the request.

A blocking loader runs in its own thread, with a copy of the caller's context. A process has at most
`THREADS_MAX` such threads; when all are in use, a caller waits for one. A load that is called inside such a
thread does not wait for another thread: if none is free, it runs in the same one. So threads that wait for
each other cannot use them all up. A load whose caller has no limit (``soft_timeout`` without an older value)
needs no thread. A coroutine function runs in its own task.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cachee_shm import _core
from cachee_shm.errors import LoadTimeout
from cachee_shm.loading import FRESH, MISS, Options, afill_missing, fill_missing, find
from cachee_shm.many import Missing, afill_many, fill_many, looked_up
from cachee_shm.segment import warn
from cachee_shm.waiting import is_without_threads, library

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = [
    "THREADS_MAX",
    "Limits",
    "aload_many_within",
    "aload_within",
    "load_many_within",
    "load_within",
]

T = TypeVar("T")
Duration = float | timedelta | None

THREADS_MAX = 32
SECONDS_MAX = threading.TIMEOUT_MAX


class Limits(NamedTuple):
    """Seconds."""

    soft: float | None
    """How long a caller waits if there is an older value."""
    hard: float | None
    """How long any caller waits."""

    @classmethod
    def judged(cls, soft: Duration, hard: Duration) -> Limits | None:
        """None if there is neither. ``ValueError`` for a value that is not a time."""
        if soft is None and hard is None:
            return None
        return cls(_seconds("soft_timeout", soft), _seconds("hard_timeout", hard))

    def of(self, has_value: bool) -> float | None:
        soft = self.soft if has_value else None
        both = [limit for limit in (soft, self.hard) if limit is not None]
        return min(both, default=None)


def _seconds(name: str, limit: Duration) -> float | None:
    if limit is None:
        return None
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    if isinstance(seconds, (int, float)) and 0 <= seconds <= SECONDS_MAX:
        return float(seconds)
    raise ValueError(
        f"{name} is a number of seconds from 0 on, a timedelta, or None; not {limit!r}. "
        "Nothing was read or written."
    )


def load_within(
    segment: Segment,
    key: str | bytes,
    options: Options,
    limits: Limits,
    loader: Callable[..., T],
    args: tuple[Any, ...],
) -> T:
    """``loading.load``, whose caller waits no longer than `limits` say."""
    _require_no_transaction()
    state, value, early_of = find(segment, key, options)
    if state == FRESH:
        return value  # type: ignore[no-any-return]
    run = partial(fill_missing, segment, key, options, early_of, loader, args)
    ended, result = _run_within(segment, key, limits.of(state != MISS), run)
    if ended:
        return result  # type: ignore[no-any-return]
    return _instead(segment, key, options, limits, state != MISS, result)  # type: ignore[no-any-return]


async def aload_within(
    segment: Segment,
    key: str | bytes,
    options: Options,
    limits: Limits,
    loader: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
) -> T:
    """``loading.aload``, whose caller waits no longer than `limits` say."""
    _require_asyncio()
    state, value, early_of = find(segment, key, options)
    if state == FRESH:
        return value  # type: ignore[no-any-return]
    limit = limits.of(state != MISS)
    task = Task(segment, key, afill_missing(segment, key, options, early_of, loader, args))
    if await task.ended_within(limit):
        return task.result()  # type: ignore[no-any-return]
    text = NOT_ENDED.format(key=key, limit=limit)
    return _instead(segment, key, options, limits, state != MISS, text)  # type: ignore[no-any-return]


def load_many_within(
    segment: Segment,
    keys: tuple[Any, ...],
    options: Options,
    limits: Limits,
    loader: Callable[..., Any],
    args: tuple[Any, ...],
) -> dict[Any, Any]:
    """``many.load_many``, whose caller waits no longer than `limits` say."""
    _require_no_transaction()
    found, missing = looked_up(segment, keys, options)
    if not missing:
        return found
    had_value = _has_value(segment, missing)
    run = partial(fill_many, segment, missing, options, loader, args)
    ended, result = _run_within(segment, _first(missing), limits.of(all(had_value.values())), run)
    found |= result if ended else _instead_of_each(segment, options, limits, had_value, result)
    return {key: found[key] for key in keys}


async def aload_many_within(
    segment: Segment,
    keys: tuple[Any, ...],
    options: Options,
    limits: Limits,
    loader: Callable[..., Any],
    args: tuple[Any, ...],
) -> dict[Any, Any]:
    """``many.aload_many``, whose caller waits no longer than `limits` say."""
    _require_asyncio()
    found, missing = looked_up(segment, keys, options)
    if not missing:
        return found
    had_value = _has_value(segment, missing)
    task = Task(segment, _first(missing), afill_many(segment, missing, options, loader, args))
    limit = limits.of(all(had_value.values()))
    if await task.ended_within(limit):
        found |= task.result()
    else:
        text = NOT_ENDED.format(key=_first(missing), limit=limit)
        found |= _instead_of_each(segment, options, limits, had_value, text)
    return {key: found[key] for key in keys}


def _has_value(segment: Segment, missing: list[Missing]) -> dict[Any, bool]:
    """Whether there is an older value, by key."""
    return {each.key: segment._find(each.key, False)[0] != MISS for each in missing}


def _first(missing: list[Missing]) -> Any:
    """The key that a warning names."""
    return missing[0].key if len(missing) == 1 else (missing[0].key, f"and {len(missing) - 1} more")


def _instead_of_each(
    segment: Segment, options: Options, limits: Limits, had_value: dict[Any, bool], text: str
) -> dict[Any, Any]:
    return {key: _instead(segment, key, options, limits, had, text) for key, had in had_value.items()}


NOT_ENDED = (
    "The load of {key!r} has not ended within {limit:g} s. It goes on, and what it loads will be cached. Try "
    "again later, or give the loader's own query a time-out that is shorter."
)
NO_THREAD = (
    "The load of {key!r} has not begun within {limit:g} s: all threads for loads with a time-out are taken, "
    "or this process can start no thread. Nothing was loaded. Try again later, or give the loaders' own "
    "queries a time-out that is shorter."
)


def _run_within(segment: Segment, key: Any, limit: float | None, run: Callable[[], Any]) -> tuple[bool, Any]:
    """Whether it ended in time, and then what it returned, else a message."""
    if limit is None:
        return True, run()
    load = Load(segment, key, run)
    if not load.start(limit):
        return (True, run()) if pooled.is_within else (False, NO_THREAD.format(key=key, limit=limit))
    if load.ended_within(limit):
        return True, load.result()
    return False, NOT_ENDED.format(key=key, limit=limit)


def _instead(
    segment: Segment, key: str | bytes, options: Options, limits: Limits, had_value: bool, text: str
) -> Any:
    """For a load that takes too long: the older value, if it may be used and was not invalidated
    meanwhile."""
    state, value = segment._find(key, False) if had_value else (MISS, None)
    if state == FRESH or (state != MISS and (limits.soft is not None or not options.raises)):
        return value
    raise LoadTimeout(text)


def _require_asyncio() -> None:
    if library() != "asyncio":
        raise ValueError(
            "soft_timeout and hard_timeout need asyncio: in trio no caller ends before its task. Nothing was "
            "loaded. Leave them out, and set a time-out around the call (trio.fail_after)."
        )


def _require_no_transaction() -> None:
    if any(each() is not None and each().is_open for each in _core.transactions.get(())):
        raise ValueError(
            "soft_timeout and hard_timeout run the loader in another thread, outside of the database "
            "transaction that is open here. Nothing was loaded. Leave them out in a transaction."
        )


class Load:
    """One load in its own thread."""

    def __init__(self, segment: Segment, key: str | bytes, run: Callable[[], Any]) -> None:
        self._segment, self._key, self._run = segment, key, run
        self._ended = threading.Event()
        self._given_up = False
        self._value: Any = None
        self._error: BaseException | None = None

    def start(self, limit: float | None) -> bool:
        """False: no thread became free within the limit, or this process can start none."""
        slot = slots
        if not slot.acquire(timeout=0 if pooled.is_within else limit):
            return False
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._work, slot), name="cachee-load", daemon=True
        )
        try:
            thread.start()
        except BaseException as error:
            slot.release()
            if not is_without_threads(error):
                raise
            return False
        return True

    def ended_within(self, limit: float | None) -> bool:
        if self._ended.wait(limit):
            return True
        self._given_up = True
        return self._ended.is_set()  # asked again: an error goes either to the caller or to the log

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def _work(self, slot: threading.Semaphore) -> None:
        pooled.is_within = True
        try:
            self._value = self._run()
        except BaseException as error:  # goes to the caller if it still waits, otherwise to the log
            self._error = error
        finally:
            slot.release()
            self._ended.set()
        if self._given_up and self._error is not None:
            _say_that_it_failed(self._segment, self._key, self._error)


class Pooled(threading.local):
    is_within = False
    """Is the current thread one of those for loads?"""


pooled = Pooled()
slots = threading.Semaphore(THREADS_MAX)


def _in_a_forked_child() -> None:
    """The parent's threads do not exist here."""
    global slots
    slots = threading.Semaphore(THREADS_MAX)


os.register_at_fork(after_in_child=_in_a_forked_child)

tasks: set[Any] = set()
"""Referenced until they end: an event loop refers to its tasks weakly."""


class Task:
    """A load in its own task, which is not cancelled when its caller is."""

    def __init__(self, segment: Segment, key: str | bytes, run: Coroutine[Any, Any, Any]) -> None:
        import asyncio

        self._segment, self._key, self._given_up = segment, key, False
        self._task = asyncio.get_running_loop().create_task(run, name="cachee-load")
        tasks.add(self._task)
        self._task.add_done_callback(self._done)

    async def ended_within(self, limit: float | None) -> bool:
        import asyncio

        self._given_up = True  # also if this is cancelled
        done, _ = await asyncio.wait({self._task}, timeout=limit)
        self._given_up = not done
        return bool(done)

    def result(self) -> Any:
        return self._task.result()

    def _done(self, task: Any) -> None:
        tasks.discard(task)
        if self._given_up and not task.cancelled() and task.exception() is not None:
            _say_that_it_failed(self._segment, self._key, task.exception())


def _say_that_it_failed(segment: Segment, key: str | bytes, error: BaseException) -> None:
    warn(
        "namespace %s: the load of %r, which its caller had given up, failed: %r",
        segment.namespace,
        key,
        error,
    )
