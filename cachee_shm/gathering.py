"""Gathering: misses of one process that come within `GATHER_S` of each other are loaded by one call.

This is a data loader (Facebook, DataLoader, 2015), except that each caller has begun its own load before it
joins: it holds its key's lease and fill token, and is inside the loader of ``get_or_load``. So single flight
and fences are those of a load of one key. Only the calls of the origin are gathered.

Threads: the first one opens a batch, waits for `GATHER_S`, and calls the origin; the others wait for it. If
it ends without an answer (an exception from outside, its thread's end), each of them loads by itself. Tasks:
a separate task calls the origin, so cancelling one caller does not affect the others.

While callers wait, this is stored as for callers that wait for another load. So an origin that asks for a key
of its own batch finds that the key's caller waits for it, and loads the key at once.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from cachee_shm._core import flight

if TYPE_CHECKING:
    from cachee_shm._core import Flight, Segment

__all__ = ["GATHER_S", "MANY_MAX", "Tasks", "Threads", "batch_here", "running_loads"]

GATHER_S = 0.001
MANY_MAX = 500  # keys of one call; what comes beyond them begins another
FOLLOW_S = 0.5  # how often a waiting thread checks that the thread that calls is alive
LATE_LOOKS = 4  # after this many, a call that has not begun is given up

Loads = Callable[[list[Any]], list[Any]]
LoadsAsync = Callable[[list[Any]], Awaitable[list[Any]]]


class Together(NamedTuple):
    """The loads that one call of an origin serves, where that call runs."""

    leader: Flight
    """The load in whose context the call runs. In a load within the call, the context has another flight."""
    batch: tuple[Flight, ...]


together: ContextVar[Together | None] = ContextVar("cachee_shm.together", default=None)


def running_loads() -> tuple[Flight, ...]:
    """The loads whose loader runs here; more than one in a call that several share."""
    here = flight.get(None)
    if here is None:
        return ()
    return batch_here(here) or (here,)


def batch_here(here: Flight) -> tuple[Flight, ...] | None:
    """The loads that share the call that runs here, if ``here`` is the load that it runs in."""
    shared = together.get()
    return shared.batch if shared is not None and shared.leader is here else None


def _share(flights: Mapping[Any, Flight | None]) -> None:
    """Store in this context that the call serves all of them."""
    batch = tuple(each for each in flights.values() if each is not None)
    if len(batch) > 1:
        together.set(Together(batch[0], batch))


def _wait_for(leading: Flight | None) -> None:
    """Store that the load of this context waits for the ``leading`` one. It is removed when this load
    ends."""
    here = flight.get(None)
    owner: Segment | None = here.owner if here is not None else None
    if owner is not None and leading is not None:
        owner._will_wait(leading.key)


class Batch:
    """Keys that several threads ask for. The thread that opened the batch calls; the others wait for it."""

    def __init__(self) -> None:
        self.leader = threading.current_thread()
        self.flights: dict[Any, Flight | None] = {}
        self.full = threading.Event()
        self.ended = threading.Event()
        self.values: dict[Any, Any] | None = None
        self.error: Exception | None = None

    @property
    def leading(self) -> Flight | None:
        return next(iter(self.flights.values()))

    def wait(self) -> None:
        """Wait until it has ended, or until no thread will call for it. An exception between two bytecodes
        may have thrown the leader out before it began, and code that keeps the exception keeps its frames and
        its `Lead`."""
        looks = 0
        while not self.ended.wait(FOLLOW_S):
            looks += 1
            is_late = looks >= LATE_LOOKS and not self.full.is_set()
            if is_late or not self.leader.is_alive():
                self.full.set()  # no other thread may join it
                return

    def answer(self, key: Any) -> tuple[bool, Any]:
        """Whether there is a value, and it. Raises what the call raised."""
        if self.error is not None:
            raise self.error
        return (False, None) if self.values is None else (True, self.values[key])


class Lead:
    """Held by the thread that calls. When it is freed, also by an exception between two bytecodes, the batch
    ends."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __del__(self) -> None:
        self.batch.full.set()
        self.batch.ended.set()


class Meeting:
    """The place where the threads of a process find the batch that they may join."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._open: Batch | None = None

    def join(self, key: Any) -> tuple[Batch, Lead | None]:
        """A batch that has the key now, and its `Lead`, if the caller must call for it."""
        lead = None
        with self._lock:
            batch = self._open
            if batch is None or batch.full.is_set() or key in batch.flights:
                batch = Batch()
                lead = Lead(batch)
                self._open = batch
            batch.flights[key] = flight.get(None)
            if len(batch.flights) >= MANY_MAX:
                batch.full.set()
        return batch, lead

    def close(self, batch: Batch) -> list[Any]:
        """No thread joins the batch from here on. Returns its keys."""
        with self._lock:
            batch.full.set()
            if self._open is batch:
                self._open = None
        return list(batch.flights)


class Threads:
    """Misses in several threads."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._meeting = Meeting()

    def asked(self, key: Any) -> Any:
        """What ``loads`` returns for the key. Raises what it raises."""
        meeting = self._meeting
        if os.getpid() != meeting.pid:  # forked: the threads of the meeting are the parent's
            # in one step, because another thread of the child must not see half of it
            meeting = self._meeting = Meeting()
        if threading.active_count() == 1:  # nobody to gather with
            return self._loads([key])[0]
        batch, lead = meeting.join(key)
        if lead is not None:
            self._call(meeting, batch)
        else:
            _wait_for(batch.leading)
            batch.wait()
        answered, value = batch.answer(key)
        return value if answered else self._loads([key])[0]

    def _call(self, meeting: Meeting, batch: Batch) -> None:
        try:
            batch.full.wait(GATHER_S)
            keys = meeting.close(batch)
            loaded = contextvars.copy_context().run(self._shared, batch.flights, keys)
            batch.values = dict(zip(keys, loaded, strict=True))
        except Exception as error:
            batch.error = error
        finally:
            batch.full.set()
            batch.ended.set()

    def _shared(self, flights: dict[Any, Flight | None], keys: list[Any]) -> list[Any]:
        _share(flights)
        return self._loads(keys)


class Tasks:
    """Misses in several tasks of one event loop of asyncio."""

    def __init__(self, loads: LoadsAsync) -> None:
        self._loads = loads
        self._open: Asked | None = None
        self._running: set[Any] = set()  # an event loop refers to its tasks weakly

    async def asked(self, key: Any) -> Any:
        """What ``loads`` returns for the key. Raises what it raises."""
        import asyncio

        loop = asyncio.get_running_loop()
        batch = self._open
        if batch is None or batch.loop is not loop or key in batch.flights:
            batch = self._open = Asked(loop)
            loop.call_later(GATHER_S, self._start, batch)
        future = loop.create_future()
        batch.futures[key] = future
        batch.flights[key] = flight.get(None)
        if len(batch.futures) >= MANY_MAX:
            batch.context.copy().run(self._start, batch)
        leading = next(iter(batch.flights.values()))
        if leading is not batch.flights[key]:
            _wait_for(leading)
        return await future

    def _start(self, batch: Asked) -> None:
        if batch.started:
            return
        batch.started = True
        if self._open is batch:
            self._open = None
        task = batch.loop.create_task(self._run(batch), name="cachee-origin")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: Asked) -> None:
        keys = list(batch.futures)
        try:
            _share(batch.flights)
            loaded = await self._loads(keys)
        except BaseException as error:
            batch.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            batch.answer(loaded)


class Asked:
    """Keys that tasks ask for together."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.context = contextvars.copy_context()
        """The context of the task that opened it: the call runs in that task's load, even if another one
        joined last."""
        self.futures: dict[Any, Any] = {}
        self.flights: dict[Any, Flight | None] = {}
        self.started = False

    def answer(self, values: list[Any]) -> None:
        for future, value in zip(self.futures.values(), values, strict=True):
            if not future.done():
                future.set_result(value)

    def fail(self, error: BaseException) -> None:
        for future in self.futures.values():
            if future.done():
                continue
            if isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.cancel()
