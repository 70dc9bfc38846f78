"""Waiting for what happens in the segment: all of a process that wait share one poll.

A load of this process wakes its waiters when it ends. What another process does (a load, a write, the word
of a bridge) must be looked for in the segment: one thread of this process looks, for all that somebody
waits for, and ends when nobody waits. The thread wakes a waiting thread by a lock, a task by its event
loop's thread-safe call. So 1,000 waiting tasks cost what one costs, and no event loop's clock, which a test
may have frozen, has to move.

No waiting thread depends on the poll for its end: it asks `Call.held` by itself as well, which is False once
the caller has waited for two load times (`core/lease.h`).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["Call", "await_flight", "await_while", "library", "wait_for_flight"]

Wake = Callable[[], object]

POLL_MIN_S = 0.0005
POLL_MAX_S = 0.02
POLL_PER_KEY_S = 0.00005  # so that many keys cost a few percent of a core at most
WAKES_MAX = 100  # two seconds of them: so often a waiter is woken that does not say it is awake
SLICE_S = 0.5  # a waiting thread looks by itself that often, whatever becomes of the poll


class Question(Protocol):
    """What somebody waits for."""

    @property
    def name(self) -> Hashable:
        """Those of the same name are looked for once."""

    def held(self) -> bool:
        """Is there still something to wait for?"""

    def joined(self, other: Any) -> Any:
        """One question in the place of two of the same name."""


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

    @property
    def name(self) -> Hashable:
        return id(self.segment), self.key

    def joined(self, other: Call) -> Call:
        """Who began last is the first whom a load does not serve; who began first is the first to give up."""
        last = self if self.since >= other.since else other
        return last._replace(asked_ms=min(self.asked_ms, other.asked_ms))


class While:
    """Waiting as long as ``looks()`` is true; what it raises is for the waiter to meet."""

    def __init__(self, looks: Callable[[], bool]) -> None:
        self.looks = looks

    def held(self) -> bool:
        return self.looks()

    @property
    def name(self) -> Hashable:
        return id(self)

    def joined(self, other: While) -> While:
        return self


class Watched:
    """What callers of this process wait for."""

    __slots__ = ("polls", "question", "wakes", "woken")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.polls = 0
        self.woken = False
        self.wakes: dict[Wake, int] = {}  # how often each was called

    def join(self, question: Question) -> None:
        self.question = self.question.joined(question)
        if self.woken:
            self.woken, self.polls = False, 0

    def held(self) -> bool:
        """An error is for the waiters to meet: they are woken."""
        try:
            return self.question.held()
        except Exception:
            return False

    def wake(self) -> None:
        """Who was woken forgets itself. An exception from outside may have come between, on either side."""
        self.woken = True
        for each, calls in list(self.wakes.items()):
            self.wakes[each] = calls + 1
            try:
                each()
            except RuntimeError:  # it was woken before, or its event loop is closed
                calls = WAKES_MAX
            if calls >= WAKES_MAX:
                self.wakes.pop(each, None)


class Poll:
    """The thread that looks, and what it looks at."""

    def __init__(self) -> None:
        self.watched: dict[Hashable, Watched] = {}
        self.bell = threading.Event()
        self.thread: threading.Thread | None = None

    def watch(self, question: Question, wake: Wake) -> None:
        watched = self.watched.get(question.name)
        if watched is None:
            watched = self.watched.setdefault(question.name, Watched(question))
        else:
            watched.join(question)
        watched.wakes[wake] = 0
        if self.thread is None or not self.thread.is_alive():  # an exception may have come before it began
            self.thread = threading.Thread(target=self.run, name="cachee-waits", daemon=True)
            self.thread.start()
        self.bell.set()

    def forget(self, question: Question, wake: Wake) -> None:
        watched = self.watched.get(question.name)
        if watched is not None:
            watched.wakes.pop(wake, None)

    def run(self) -> None:
        """Until nobody waits. Who comes as it ends finds no thread, or is found by the second look."""
        me = threading.current_thread()
        while self.watched:
            self.thread = self.thread or me
            while self.watched and self.thread is me:
                self.bell.clear()
                self.look()
                self.bell.wait(self.interval())
            if self.thread is not me:
                return  # two came at once, and began one each
            self.thread = None

    def look(self) -> None:
        for name, watched in list(self.watched.items()):
            watched.polls += 1
            if not watched.wakes:
                self.watched.pop(name, None)
            elif not watched.held():
                watched.wake()

    def interval(self) -> float:
        """The pause before the next look: longer each time, up to ``POLL_MAX_S``, or longer for many keys."""
        waits = [POLL_MIN_S * 2.0 ** min(each.polls, 16) for each in list(self.watched.values())]
        return max(min([POLL_MAX_S, *waits]), len(waits) * POLL_PER_KEY_S)


poll = Poll()


def _in_a_forked_child() -> None:
    """The thread is the parent's, and so are those who wait."""
    global poll
    poll = Poll()


os.register_at_fork(after_in_child=_in_a_forked_child)


def _watch(question: Question, flight: Flight | None, wake: Wake) -> bool:
    """False: the load ended in between, so there is nothing to wait for."""
    if flight is not None:
        flight.waiters.add(wake)
        if not flight.running:
            return False
    poll.watch(question, wake)
    return True


def _forget(question: Question, flight: Flight | None, wake: Wake) -> None:
    poll.forget(question, wake)
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


async def await_flight(question: Question, flight: Flight | None) -> None:
    """``wait_for_flight`` for a task of asyncio, uvloop or trio."""
    if library() == "trio":
        await _await_in_trio(question, flight)
    else:
        await _await_in_asyncio(question, flight)


async def await_while(looks: Callable[[], bool]) -> None:
    """As long as ``looks()`` is true. The poll calls it in its thread, a task that is woken in its own."""
    while looks():
        await await_flight(While(looks), None)


def library() -> str:
    """Whose task this is. trio tells sniffio, which it brings along."""
    sniffio = sys.modules.get("sniffio")
    if sniffio is None or "trio" not in sys.modules:
        return "asyncio"
    try:
        return str(sniffio.current_async_library())
    except sniffio.AsyncLibraryNotFoundError:
        return "asyncio"


async def _await_in_asyncio(question: Question, flight: Flight | None) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    wake = partial(loop.call_soon_threadsafe, _set, woken)
    try:
        if _watch(question, flight, wake):
            await woken
    finally:
        _forget(question, flight, wake)


def _set(woken: Any) -> None:
    if not woken.done():
        woken.set_result(None)


async def _await_in_trio(question: Question, flight: Flight | None) -> None:
    trio = sys.modules["trio"]
    woken = trio.Event()
    wake = partial(trio.lowlevel.current_trio_token().run_sync_soon, woken.set)
    try:
        if _watch(question, flight, wake):
            await woken.wait()
    finally:
        _forget(question, flight, wake)
