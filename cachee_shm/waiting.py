"""Waiting for events in the segment: all waiters of a process share one poll.

A load of this process wakes its waiters when it ends. What other processes do (a load, a write, an
acknowledgement from the bridge) must be polled in the segment. One thread of this process polls for all
waiters, and ends when there are none. It wakes a waiting thread by a lock, and a task by its event loop's
thread-safe call. So 1,000 waiting tasks cost as much as one, and waiting does not depend on the event loop's
clock, which a test may have frozen.

No waiter depends on the poll. A waiting thread also looks every `SLICE_S`, and a task does so where there is
no poll. So in a process that can start no thread (a limit of its user or its container, an interpreter that
is ending), a waiter only notices later. No wait is endless: `Call.held` is False once the caller has waited
for two load times (`core/lease.h`).
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["Call", "await_flight", "await_while", "is_without_threads", "library", "wait_for_flight"]

Wake = Callable[[], object]

POLL_MIN_S = 0.0005
POLL_MAX_S = 0.02
POLL_PER_KEY_S = 0.00005  # so that many keys cost a few percent of a core at most
WAKES_MAX = 100  # two seconds of them: how often a waiter is woken that does not confirm it
SLICE_S = 0.5  # a waiter looks by itself that often where there is no poll; a waiting thread always does


class Question(Protocol):
    """What a waiter waits for."""

    @property
    def name(self) -> Hashable:
        """Questions with the same name are polled once."""

    def held(self) -> bool:
        """Must the waiter still wait?"""

    def joined(self, other: Any) -> Any:
        """One question for two of the same name."""


class Call(NamedTuple):
    """One caller's question: which key, how it would keep it, and when it began."""

    segment: Segment
    key: str | bytes
    kept: tuple[Any, ...]
    since: int
    asked_ms: int

    def held(self) -> bool:
        """Does another caller load the key, and should this one wait for it? Raises ``Closed``."""
        return self.segment._waits(self.key, self.kept, self.since, self.asked_ms)

    @property
    def name(self) -> Hashable:
        return id(self.segment), self.key

    def joined(self, other: Call) -> Call:
        """The later beginning decides whether a load serves all; the earlier one decides when the first gives
        up."""
        last = self if self.since >= other.since else other
        return last._replace(asked_ms=min(self.asked_ms, other.asked_ms))


class While:
    """Waiting while ``looks()`` is true; the waiter gets what it raises."""

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
    """One question that callers of this process wait for, and how to wake them."""

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
        """False on an error too: each woken waiter asks again, and gets the error itself."""
        try:
            return self.question.held()
        except Exception:
            return False

    def wake(self) -> None:
        """A woken waiter removes itself. It is woken repeatedly, because an exception from outside may
        interrupt either side."""
        self.woken = True
        for each, calls in list(self.wakes.items()):
            self.wakes[each] = calls + 1
            try:
                each()
            except RuntimeError:  # it was woken before, or its event loop is closed
                calls = WAKES_MAX
            if calls >= WAKES_MAX:
                self.wakes.pop(each, None)


def is_without_threads(error: BaseException) -> bool:
    """Whether ``Thread.start`` says that no thread is to be had. A signal handler raises another class."""
    return type(error) is RuntimeError


class Poll:
    """The polling thread, and the questions that it polls."""

    def __init__(self) -> None:
        self.watched: dict[Hashable, Watched] = {}
        self.bell = threading.Event()
        self.thread: threading.Thread | None = None

    def watch(self, question: Question, wake: Wake) -> bool:
        """False: this process can start no thread, so the waiter must look itself."""
        watched = None
        while watched is None or self.watched.get(question.name) is not watched:  # dropped meanwhile
            watched = self.watched.setdefault(question.name, Watched(question))
            watched.join(question)
            watched.wakes[wake] = 0
        if (
            self.thread is None or not self.thread.is_alive()
        ):  # an exception may have ended it before it began
            self.thread = threading.Thread(target=self.run, name="cachee-waits", daemon=True)
            try:
                self.thread.start()
            except RuntimeError as error:
                if not is_without_threads(error):
                    raise
                self.thread = None
                return False
        self.bell.set()
        return True

    def forget(self, question: Question, wake: Wake) -> None:
        watched = self.watched.get(question.name)
        if watched is not None:
            watched.wakes.pop(wake, None)

    def run(self) -> None:
        """Poll until there are no waiters. A waiter that comes as the thread ends either finds no thread, or
        is found by the second look."""
        me = threading.current_thread()
        while self.watched:
            self.thread = self.thread or me
            while self.watched and self.thread is me:
                self.bell.clear()
                self.look()
                self.bell.wait(self.interval())
            if self.thread is not me:
                return  # two waiters came at once, and each began a thread
            self.thread = None

    def look(self) -> None:
        for name, watched in list(self.watched.items()):
            watched.polls += 1
            if not watched.wakes:
                self.drop(name)
            elif not watched.held():
                watched.wake()

    def drop(self, name: Hashable) -> None:
        """No caller seems to wait for it any more. There is no lock, so one may join at any moment. If it has
        joined by the second look at `wakes`, it is kept here. If it joins later, it sees in `watch` that what
        it joined was dropped, and joins again."""
        dropped = self.watched.pop(name, None)
        if dropped is not None and dropped.wakes:
            kept = self.watched.setdefault(name, dropped)
            kept.join(dropped.question)
            kept.wakes.update(dropped.wakes)

    def interval(self) -> float:
        """The pause before the next look: longer each time, up to ``POLL_MAX_S``, or longer for many keys."""
        waits = [POLL_MIN_S * 2.0 ** min(each.polls, 16) for each in list(self.watched.values())]
        return max(min([POLL_MAX_S, *waits]), len(waits) * POLL_PER_KEY_S)


poll = Poll()


def _in_a_forked_child() -> None:
    """The thread and the waiters are the parent's."""
    global poll
    poll = Poll()


os.register_at_fork(after_in_child=_in_a_forked_child)


def _watch(question: Question, flight: Flight | None, wake: Wake) -> float | None:
    """How long to wait before looking again. None: until woken. 0: the load has ended already."""
    if flight is not None:
        flight.waiters.add(wake)
        if not flight.running:
            return 0
    return None if poll.watch(question, wake) else SLICE_S


def _forget(question: Question, flight: Flight | None, wake: Wake) -> None:
    poll.forget(question, wake)
    if flight is not None:
        flight.waiters.discard(wake)


def wait_for_flight(call: Call, flight: Flight | None) -> None:
    """Block until the load has ended, or until this caller should not wait for it any longer."""
    lock = threading.Lock()  # under gevent, one that lets the other greenlets run
    lock.acquire()
    wake = lock.release
    try:
        if _watch(call, flight, wake) == 0:
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
    """Wait while ``looks()`` is true. The poll calls it in its thread, and a woken task in its own."""
    while looks():
        await await_flight(While(looks), None)


def library() -> str:
    """The async library of this task. trio sets sniffio's variable."""
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
    timer = None
    try:
        wait_s = _watch(question, flight, wake)
        if wait_s == 0:
            return
        if wait_s is not None:
            timer = loop.call_later(wait_s, _set, woken)
        await woken
    finally:
        _forget(question, flight, wake)
        if timer is not None:
            timer.cancel()


def _set(woken: Any) -> None:
    if not woken.done():
        woken.set_result(None)


async def _await_in_trio(question: Question, flight: Flight | None) -> None:
    trio = sys.modules["trio"]
    woken = trio.Event()
    wake = partial(trio.lowlevel.current_trio_token().run_sync_soon, woken.set)
    try:
        wait_s = _watch(question, flight, wake)
        with trio.move_on_after(math.inf if wait_s is None else wait_s):
            await woken.wait()
    finally:
        _forget(question, flight, wake)
