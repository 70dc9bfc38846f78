"""Loading ahead: one process of a host loads invalidated keys before they are read.

    from cachee_shm import prewarm

    cache.origin("user:", load=load_user)
    ahead = prewarm.start(cache)                       # in each worker; one of them loads, in threads
    ...
    ahead.stop()

    task = asyncio.create_task(prewarm.run(cache))     # or in tasks, for coroutine functions too

The segment says which key is worth a load, and when (``core/prewarm.h``; it needs ``prewarm = true`` in the
namespace's configuration). The key's origin loads it. Of the processes of a host that call this, one holds a
lock and does the work. If it dies, another takes the lock within a second. The orders of the dead process are
lost, and readers load those keys, as without pre-warming.

A load ahead is a load like any other: it holds the key's lease, so a reader that comes meanwhile waits for
it. Its value is refused if the key was invalidated since the load began. The number of loads ahead is
limited: at most ``concurrency`` at the same time, at most ``rate`` a second, and fewer while the origin
answers slower than usual (`Pace`). A key that is written again before its load ends is passed over for a
while (`Refusals`). If the host has a bridge, each load is delayed by a random time up to `JITTER_MS`, so that
not all hosts ask the origin at the same time.
With ``peer_fill = true`` it asks the other hosts before the origin (``fetching.py``), as a load on demand
does.

Under ``CACHEE_DISABLE=1`` a process loads nothing ahead, because its cache would not keep the values. It says
so in the log, and leaves the lock to other processes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from cachee_shm import _core
from cachee_shm.bypass import Bypass
from cachee_shm.errors import CacheeError
from cachee_shm.orders import Orders
from cachee_shm.segment import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachee_shm.cache import Cache
    from cachee_shm.origins import Origin

__all__ = ["Pace", "Refusals", "Warmer", "run", "start"]

LOCK = "cachee:prewarm"
TAKEN = 0  # of Hold.take
NOBODY_ASKED = (1 << 64) - 2  # as EARLY_OF_NONE in core/module_loading.h
JITTER_MS = 10
PAUSE_S_MIN, PAUSE_S_MAX = 0.001, 0.01  # between two looks at the mailbox; doubled while it is empty
RETRY_S = 1.0  # how often a process that does not hold the lock tries to take it
COMPLAIN_S = 60.0
WINDOW = 32  # loads; then the pace is set anew
WINDOWS_KEPT = 16
SLOWER = 2.0  # times as slow as usual: the origin is overloaded
SKIPS_MAX = 64
REFUSALS_MAX = 4096


class Pace:
    """How many loads ahead may run at the same time. Halved if the slowest loads of a window take more than
    twice as long as usual; otherwise one more after each window. Nothing here reads a clock."""

    def __init__(self, most: int) -> None:
        self.most, self.allowed = most, most
        self._window: list[float] = []
        self._slowest: list[float] = []  # of each of the last windows

    def ended(self, seconds: float) -> None:
        """A load has taken so long."""
        self._window.append(seconds)
        if len(self._window) < WINDOW:
            return
        slowest = sorted(self._window)[-2]  # a single slow load says nothing about the origin
        self._window.clear()
        usual = min(self._slowest, default=slowest)
        is_overloaded = slowest > SLOWER * usual
        self.allowed = max(1, self.allowed // 2) if is_overloaded else min(self.most, self.allowed + 1)
        self._slowest = [*self._slowest[1 - WINDOWS_KEPT :], slowest]


class Refusals:
    """Keys whose loads ahead were not stored: the key was written again meanwhile, or its load failed. Each
    further failure doubles the number of orders of the key that are passed over."""

    def __init__(self) -> None:
        self._skips: dict[int, tuple[int, int]] = {}  # by hash: orders to pass over, and how many are left

    def passes(self, hash: int) -> bool:
        """Is this order of the key to be passed over?"""
        skipped, left = self._skips.get(hash, (0, 0))
        if left:
            self._skips[hash] = (skipped, left - 1)
        return left > 0

    def ended(self, hash: int, stored: bool) -> None:
        """A load of the key has ended."""
        skipped, _ = self._skips.pop(hash, (0, 0))
        if stored:
            return
        skips = min(SKIPS_MAX, 2 * skipped or 1)
        self._skips[hash] = (skips, skips)
        if len(self._skips) > REFUSALS_MAX:
            del self._skips[next(iter(self._skips))]


def _as_given(raw: bytes) -> str | bytes:
    """The key as a str, as most callers give it. The cache keeps a str as its UTF-8 bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class Job(NamedTuple):
    """A load ahead, which is paid for."""

    hash: int
    key: str | bytes
    origin: Origin


class Ahead:
    """What both kinds of worker share: which loads begin now, and what comes of them."""

    def __init__(self, cache: Cache, concurrency: int, rate: float) -> None:
        if concurrency < 1 or not rate > 0:
            raise ValueError(
                f"concurrency is at least 1 and rate above 0, not {concurrency!r} and {rate!r}. Nothing was "
                "begun."
            )
        self.cache = cache
        self.is_bypassed = isinstance(cache, Bypass)
        if self.is_bypassed:
            warn(
                "namespace %s: nothing is loaded ahead by this process, since its cache holds nothing "
                "(CACHEE_DISABLE is set)",
                cache.namespace,
            )
        elif cache.warm_stats() is None:
            warn(
                "namespace %s: nothing is loaded ahead, since its segment was not made with prewarm = true",
                cache.namespace,
            )
        self.begin()
        self.pace, self.refusals = Pace(concurrency), Refusals()
        self.running = 0
        self._took: deque[float] = deque()  # seconds of calls of an origin that ended since the last look
        self._rate, self._tokens, self._refilled = rate, 1.0, time.monotonic()
        self._complained = -COMPLAIN_S

    def begin(self) -> None:
        """This process is the one that loads ahead from now on."""
        self.orders = Orders(self.cache, JITTER_MS if self.cache.spec.has_bridge else 0)

    def due(self, awaited: bool) -> Iterator[Job]:
        """The loads to begin now. ``awaited``: also keys whose origins are coroutine functions."""
        now, now_ms = time.monotonic(), self.cache.now_ms()
        self._tokens = min(max(1.0, self._rate / 10), self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        self.orders.take(now_ms)
        most = min(int(self._tokens), self.pace.allowed - self.running)

        def wanted(hash: int, raw: bytes) -> bool:
            origin = self._origin(raw)
            useful = origin is not None and origin.loads and (awaited or not origin.is_async)
            return useful and not self.refusals.passes(hash)

        for hash, raw in self.orders.due(now_ms, most, wanted) if most > 0 else ():
            origin = self._origin(raw)
            if origin is not None:
                self._tokens -= 1
                self.running += 1
                yield Job(hash, _as_given(raw), origin)

    def _origin(self, raw: bytes) -> Origin | None:
        return self.cache._origins.find(_as_given(raw)) if self.cache._origins else None

    def arguments(self, job: Job) -> tuple[Any, ...]:
        """The arguments of ``_load`` or ``_aload`` for a load that no reader has asked for."""
        options, _ = job.origin.kept.judged(self.cache)
        kept = options.kept
        since, asked_ms = self.cache._arrive(job.key, kept[3], kept[4])
        return job.key, self._loader(job), (job.key,), kept, since, asked_ms, False, NOBODY_ASKED

    def _loader(self, job: Job) -> Callable[[Any], Any]:
        """The origin's loader, which also notes how long it takes, without the time of asking peers."""
        origin, took = job.origin, self._took

        def load(key: Any) -> Any:
            began = time.monotonic()
            try:
                return origin.load(key)
            finally:
                took.append(time.monotonic() - began)

        async def aload(key: Any) -> Any:
            began = time.monotonic()
            try:
                return await origin.aload(key)
            finally:
                took.append(time.monotonic() - began)

        if not self.cache.peer_fill_s:
            return aload if origin.is_async else load
        from cachee_shm.fetching import afrom_peers, from_peers

        if origin.is_async:
            return afrom_peers(self.cache, job.key, aload)
        return from_peers(self.cache, job.key, load)

    def pause_s(self, last_s: float) -> float:
        """How long to pause before the next look, if the last pause was ``last_s``: at most until the next
        order is due."""
        next_ms = self.orders.next_ms()
        pause_s = min(PAUSE_S_MAX, 2 * last_s)
        if next_ms is None or next_ms <= self.cache.now_ms():  # what is due already waits for its turn
            return pause_s
        return min(pause_s, max(PAUSE_S_MIN, (next_ms - self.cache.now_ms()) / 1000))

    def ended(self, job: Job, error: BaseException | None) -> None:
        """A load has ended."""
        self.running -= 1
        while self._took:
            self.pace.ended(self._took.popleft())
        known = None if error else self.cache.warm_explain(job.hash)
        self.refusals.ended(job.hash, known is not None and known["state"] in ("warm", "idle"))
        if error is None or isinstance(error, asyncio.CancelledError):
            return
        if time.monotonic() - self._complained >= COMPLAIN_S:
            self._complained = time.monotonic()
            warn("namespace %s: a load ahead of %r failed: %r", self.cache.namespace, job.key, error)


class Warmer:
    """The threads of a process that may load ahead. ``start`` makes one."""

    def __init__(self, cache: Cache, concurrency: int, rate: float) -> None:
        self._ahead = Ahead(cache, concurrency, rate)
        self._concurrency = concurrency
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._ends: SimpleQueue[tuple[Job, BaseException | None]] = SimpleQueue()
        self._stopped = threading.Event()
        self._holds = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cachee-prewarm", daemon=True)
        self._thread.start()

    @property
    def loads_here(self) -> bool:
        """Does this process load ahead for its host?"""
        return self._holds.is_set()

    def stop(self, timeout: float | None = 5.0) -> None:
        """Begin no further load, and wait for the thread; loads that are under way end by themselves."""
        self._stopped.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        if self._ahead.is_bypassed:
            return
        hold = _core.Hold(self._ahead.cache, LOCK, None)
        try:
            while not self._stopped.is_set():
                if hold.take() == TAKEN:
                    self._load_while_held(hold)
                self._stopped.wait(RETRY_S)
        except CacheeError as error:  # closed, or its segment cannot be attached any more
            if not self._ahead.cache.closed:
                warn("namespace %s: loading ahead ends: %s", self._ahead.cache.namespace, error)
        finally:
            self._holds.clear()
            hold.release()

    def _load_while_held(self, hold: _core.Hold) -> None:
        self._ahead.begin()
        self._holds.set()
        threads = [threading.Thread(target=self._work, name="cachee-ahead", daemon=True)]
        threads += [threading.Thread(target=self._work, daemon=True) for _ in range(self._concurrency - 1)]
        for thread in threads:
            thread.start()
        pause_s = PAUSE_S_MIN
        try:
            while not self._stopped.wait(pause_s) and hold.held():
                while not self._ends.empty():
                    self._ahead.ended(*self._ends.get())
                for job in self._ahead.due(awaited=False):
                    self._jobs.put(job)
                    pause_s = PAUSE_S_MIN
                pause_s = self._ahead.pause_s(pause_s)
        finally:
            self._holds.clear()
            for _ in threads:
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            failed = None
            try:
                self._ahead.cache._load(*self._ahead.arguments(job))
            except BaseException as error:  # SystemExit of a loader, too, ends the load and not this thread
                failed = error
            self._ends.put((job, failed))


def start(cache: Cache, *, concurrency: int = 8, rate: float = 1000.0) -> Warmer:
    """Load ahead in threads of this process, as long as no other process of the host does.

    ``concurrency``: how many loads may run at the same time. ``rate``: how many may begin in a second. Call
    it in each worker, after ``fork()``: a forked child has no threads of its parent. Origins of coroutine
    functions need ``run``. Under ``CACHEE_DISABLE=1`` it only writes a line in the log.

    Raises ``ValueError``, ``Closed``.
    """
    return Warmer(cache, concurrency, rate)


async def run(
    cache: Cache,
    *,
    concurrency: int = 8,
    rate: float = 1000.0,
    began: Callable[[], object] | None = None,
) -> None:
    """Load ahead in tasks of this asyncio loop, until it is cancelled; plain functions run in threads. Under
    ``CACHEE_DISABLE=1`` it writes a line in the log, and then only waits.

    ``began`` is called each time this process becomes the one that loads ahead. Raises what ``start`` raises.
    """
    ahead = Ahead(cache, concurrency, rate)
    if ahead.is_bypassed:
        await asyncio.Event().wait()  # until it is cancelled
    hold = _core.Hold(cache, LOCK, None)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            if hold.take() == TAKEN:
                if began is not None:
                    began()
                await _run_while_held(ahead, hold, tasks)
            await asyncio.sleep(RETRY_S)
    finally:
        for task in tasks:
            task.cancel()
        hold.release()


async def _run_while_held(ahead: Ahead, hold: _core.Hold, tasks: set[asyncio.Task[None]]) -> None:
    pause_s = PAUSE_S_MIN
    ahead.begin()
    while hold.held():
        for job in ahead.due(awaited=True):
            task = asyncio.create_task(_load(ahead, job))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            pause_s = PAUSE_S_MIN
        pause_s = ahead.pause_s(pause_s)
        await asyncio.sleep(pause_s)


async def _load(ahead: Ahead, job: Job) -> None:
    failed = None
    try:
        if job.origin.is_async:
            await ahead.cache._aload(*ahead.arguments(job))
        else:
            await asyncio.to_thread(ahead.cache._load, *ahead.arguments(job))
    except BaseException as error:  # SystemExit of a loader ends the load, not the application
        failed = error
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
            raise
    finally:
        ahead.ended(job, failed)
