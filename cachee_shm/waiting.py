"""Waiting for a load that another caller makes: all callers of a process that wait share one poll.

A load of this process wakes its waiters when it ends. What another process does must be looked for in the
segment: one thread of this process looks, for all keys that somebody waits for, and ends when nobody waits.
The thread wakes a waiting thread by a lock, a task by its event loop's thread-safe call. So 1,000 waiting
tasks cost what one costs, and no event loop's clock, which a test may have frozen, has to move.

No waiter depends on the thread for its end: `Call.held` is asked again whenever a waiter is woken, and it is
False once the caller has waited for two load times (`core/lease.h`).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["Call", "await_flight", "pause", "wait_for_flight"]

Wake = Callable[[], object]

POLL_MIN_S = 0.0005
POLL_MAX_S = 0.02
POLL_PER_KEY_S = 0.00005  # so that many keys cost a few percent of a core at most
SLICE_S = 0.5  # a waiting thread looks by itself that often, whatever becomes of the poll


class Call(NamedTuple):
    """One caller's question: which key, how it would keep it, and when it began."""

    segment: Segment
    key: str | bytes
    kept: tuple[Any, ...]
    since: int
    asked_ms: int

    def held(self) -> bool:
        """Does another caller load the key, and is this one to wait? Raises ``Closed``."""
        return self.segment._waits(self.key, self.kept, self.since, self.asked_ms)


class Watched:
    """A key that callers of this process wait for."""

    __slots__ = ("call", "polls", "wakes")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.polls = 0
        self.wakes: set[Wake] = set()

    def held(self) -> bool:
        """An error is for the waiters to meet: they are woken."""
        try:
            return self.call.held()
        except Exception:
            return False

    def wake(self) -> None:
        for each in list(self.wakes):
            with suppress(RuntimeError):  # woken before, or its event loop is closed
                each()


class Poll:
    """The thread that looks, and what it looks at."""

    def __init__(self) -> None:
        self.keys: dict[tuple[int, str | bytes], Watched] = {}
        self.bell = threading.Event()
        self.runs = False

    def watch(self, call: Call, wake: Wake) -> None:
        name = (id(call.segment), call.key)
        watched = self.keys.get(name)
        if watched is None:
            watched = self.keys.setdefault(name, Watched(call))
        elif call.since > watched.call.since:  # who began last is the first whom a load does not serve
            watched.call = call._replace(asked_ms=watched.call.asked_ms)
        watched.wakes.add(wake)
        if not self.runs:
            self.runs = True
            threading.Thread(target=self.run, name="cachee-waits", daemon=True).start()
        self.bell.set()

    def forget(self, call: Call, wake: Wake) -> None:
        watched = self.keys.get((id(call.segment), call.key))
        if watched is not None:
            watched.wakes.discard(wake)

    def run(self) -> None:
        """Until nobody waits. Who comes as it ends finds `runs` False, or is found by the second look."""
        try:
            while self.keys:
                self.bell.clear()
                self.look()
                self.bell.wait(self.interval())
        finally:
            self.runs = False
        if self.keys:
            self.runs = True
            self.run()

    def look(self) -> None:
        for name, watched in list(self.keys.items()):
            watched.polls += 1
            if not watched.wakes or not watched.held():
                self.keys.pop(name, None)
                watched.wake()

    def interval(self) -> float:
        waits = [POLL_MIN_S * 2 ** min(each.polls, 16) for each in list(self.keys.values())]
        return max(min(waits, default=POLL_MAX_S), len(waits) * POLL_PER_KEY_S)


poll = Poll()


def _in_a_forked_child() -> None:
    """The thread is the parent's, and so are those who wait."""
    global poll
    poll = Poll()


os.register_at_fork(after_in_child=_in_a_forked_child)


def _watch(call: Call, flight: Flight | None, wake: Wake) -> bool:
    """False: the load ended in between, so there is nothing to wait for."""
    if flight is not None:
        flight.waiters.add(wake)
        if not flight.running:
            return False
    poll.watch(call, wake)
    return True


def _forget(call: Call, flight: Flight | None, wake: Wake) -> None:
    poll.forget(call, wake)
    if flight is not None:
        flight.waiters.discard(wake)


def wait_for_flight(call: Call, flight: Flight | None) -> None:
    """Block until the load has ended, or this caller is not to wait for it any longer."""
    lock = threading.Lock()  # under gevent, one that lets the other greenlets run
    lock.acquire()
    wake = lock.release
    try:
        if not _watch(call, flight, wake):
            return
        while not lock.acquire(timeout=SLICE_S):
            if not call.held():
                return
    finally:
        _forget(call, flight, wake)


async def await_flight(call: Call, flight: Flight | None) -> None:
    """``wait_for_flight`` for a task of asyncio, uvloop or trio."""
    if _library() == "trio":
        await _await_in_trio(call, flight)
    else:
        await _await_in_asyncio(call, flight)


def _library() -> str:
    """Whose task this is. trio tells sniffio, which it brings along."""
    sniffio = sys.modules.get("sniffio")
    if sniffio is None or "trio" not in sys.modules:
        return "asyncio"
    try:
        return str(sniffio.current_async_library())
    except sniffio.AsyncLibraryNotFoundError:
        return "asyncio"


async def _await_in_asyncio(call: Call, flight: Flight | None) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    wake = partial(loop.call_soon_threadsafe, _set, woken)
    try:
        if _watch(call, flight, wake):
            await woken
    finally:
        _forget(call, flight, wake)


def _set(woken: Any) -> None:
    if not woken.done():
        woken.set_result(None)


async def _await_in_trio(call: Call, flight: Flight | None) -> None:
    trio = sys.modules["trio"]
    woken = trio.Event()
    wake = partial(trio.lowlevel.current_trio_token().run_sync_soon, woken.set)
    try:
        if _watch(call, flight, wake):
            await woken.wait()
    finally:
        _forget(call, flight, wake)


async def pause(seconds: float) -> None:
    """Sleep, in a task of asyncio, uvloop or trio."""
    if _library() == "trio":
        await sys.modules["trio"].sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)
