"""get_or_load, the real one (cachee_shm/loading.py), over the modelled segment: tokens, leases, stale
values.

Each caller is a process of its own. What it waits for, when it loads and what it returns is checked here:

I8  An expired value is not served. Within its grace it is served while another caller loads, or when the load
    has failed.
I9  At most one caller loads a key per fence, and at most two in all. Callers that have waited for two load
    times do not count.
I10 No caller waits for a dead or late loader, for a load that is too old by the key's fence, or for longer
    than two load times.

The core's part, core/module_loading.c, is modelled by Caller._aload.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from cachee_shm import loading
from cachee_shm.waiting import Call
from tests.simulation.leases import LOADS_MAX, Lease
from tests.simulation.truth import Broken
from tests.stand_in.entries import FRESH, MISS, STALE, Entry

if TYPE_CHECKING:
    from tests.simulation.host import Host, Steps
    from tests.simulation.watched import Watched


class OriginDown(Exception):
    """The origin does not answer."""


class WorkerDied(BaseException):
    """In the middle of loading."""


@types.coroutine
def pause(seconds: float) -> Generator[float, None, None]:
    """What asyncio.sleep is here: the caller's driver is told how long."""
    yield seconds


async def poll(call: Call, flight: None) -> None:
    """What waiting.await_flight is here: nobody is woken, each looks by itself."""
    while call.held():
        await pause(POLL_S)


POLL_S = 0.02


class Caller:
    """A segment as one caller uses it."""

    def __init__(self, host: Host, segment: Watched, key: int) -> None:
        self.host, self.world, self.segment, self.key = host, host.world, segment, key
        self.closed = False
        """It is dead: whatever would be done on the way out is not."""
        self.began = host.world.now
        self.leads = self.waits = self.loads = self.failed = False
        self.state, self.entry = MISS, Entry(0, 0, 0, 0)
        self.uncacheable: set[tuple[type, type]] = set()
        self.peer_fill_s = 0.0

    # What loading.py calls

    def _judge(
        self, ttl: Any, stale: Any, negative_ttl: Any, tags: Any, local: bool, *_: Any
    ) -> tuple[Any, ...]:
        return ttl, int(stale * 1000), negative_ttl, self.world.tags_of(self.key), local

    def _find(self, key: int, counted: bool) -> tuple[int, int]:
        self.state, entry = self.segment.find(key)
        self.entry = entry or self.entry
        return self.state, self.entry.value

    def _arrive(self, key: int, tags: Any, local: bool) -> tuple[int, float]:
        return self._fence(), self.world.now

    def _fence(self) -> int:
        wide = self.segment.wide_fence(self.world.tags_of(self.key), local=False)
        return max(self.segment.fence_of(self.key), wide)

    def _waits(self, key: int, kept: Any, since: int, asked: float) -> bool:
        state, _ = self.segment.find(key)
        return not self._waited() and state != FRESH and self._held()

    def _woke(self, key: int, flight: object) -> None:
        """In the core, others follow what a waiting loader waits for. Here nobody loads two keys."""

    def _held(self) -> bool:
        late_s = self.world.lease_wait_s
        return self.segment.leases.held(self.key, self._fence(), self.world.now, late_s)

    async def _aload(
        self, key: int, loader: Callable[..., Awaitable[int]], args: Any, kept: Any, *_: Any
    ) -> tuple[int, int | None, None]:
        if self._find(key, False)[0] == FRESH:
            return loading.LOADED, self.entry.value, None
        if not self._waited() and not self._take():
            self.waits = True
            return (loading.LOADED, self.entry.value, None) if self.state == STALE else (0, None, None)
        try:
            if self._find(key, False)[0] == FRESH:
                return loading.LOADED, self.entry.value, None
            token, started, stale = self.segment.tail, self.segment.now_ms(), self.state == STALE
            try:
                value = await loader(*args)
            except OriginDown:
                if stale and self._falls_back():
                    return loading.LOADED, self.entry.value, None
                raise
            self._fill(value, token, started, kept)
            return loading.LOADED, value, None
        finally:
            if not self.closed:
                self.leads = False
                self.segment.leases.release(key, self)

    def _take(self) -> bool:
        """The token first: a load is as old as what it may have read."""
        lease = Lease(self, self.segment.tail, self.world.now)
        self.leads = self.segment.leases.take(lease, self.key, self._fence(), self.world.lease_wait_s)
        return self.leads

    def _falls_back(self) -> bool:
        """Is the stale value still there, and not invalidated meanwhile?"""
        return self._find(self.key, False)[0] != MISS

    def _fill(self, value: int, token: int, started_ms: int, kept: tuple[Any, ...]) -> None:
        ttl_ms, grace_ms, _, tags, _ = kept
        if self.segment.fill(self.key, value, token, started_ms, ttl_ms, grace_ms, tags):
            self.world.truth.at_least_floor(self.segment, self.key, value)

    # What it does

    def run(self) -> Steps:
        """One step of the caller for each sleep of its."""
        segment: Any = self
        options: Any = loading.Options(segment, self.world.ttl_ms(), self.world.stale_s, jitter=0)
        key: Any = self.key
        flight: Coroutine[float, None, int] = loading.aload(segment, key, options, self._load, ())
        try:
            while True:
                seconds = flight.send(None)
                self._may_wait()
                yield seconds
        except StopIteration as done:
            self._returned(done.value)
        except (OriginDown, WorkerDied):
            pass
        finally:
            self.segment.loaders.discard(self)

    async def _load(self) -> int:
        """The origin is asked, and answers; or not."""
        self.waits, self.loads = False, True
        self._may_load()
        self.segment.loaders.add(self)
        dies, fails = self.world.more.random(), self.world.more.random()
        await pause(self.host._load_time())
        if dies < self.world.deaths:
            self.closed = True
            raise WorkerDied
        if fails < self.world.load_fails:
            self.failed = True
            raise OriginDown
        value = self.world.truth.current(self.key)
        await pause(self.host._load_time())
        return value

    # The invariants

    def _waited(self) -> bool:
        return self.world.now > self.began + 2 * self.world.lease_wait_s

    def _may_load(self) -> None:
        """I9. A load that is too old for this caller by the key's fence does not keep it from loading."""
        self.world.truth.counts["loads"] += 1
        if self._waited():
            return
        leases = self.segment.leases
        others = [each for each in leases.by_key.get(self.key, []) if each.holder is not self]
        others = [each for each in others if leases.counts(each)]
        if len(others) >= LOADS_MAX or any(each.token >= self._fence() for each in others):
            raise Broken(f"I9 {self.host.name}: key {self.key:x} is loaded twice at a time")

    def _may_wait(self) -> None:
        """I10."""
        if not self.waits:
            return
        self.world.truth.counts["waits"] += 1
        late_s = self.world.lease_wait_s
        living = [
            each
            for each in self.segment.leases.by_key.get(self.key, [])
            if not each.holder.closed and self.world.now - each.began <= late_s
        ]
        serving = [each for each in living if each.token >= self._fence()]
        if self._waited() or not (serving or len(living) >= LOADS_MAX):
            raise Broken(f"I10 {self.host.name}: key {self.key:x} is waited for in vain")

    def _returned(self, value: int) -> None:
        """I8, and I1 and I2 of whatever came out of the cache."""
        if self.loads and not self.failed:
            return
        truth, segment = self.world.truth, self.segment
        truth.served(segment, self.key, value)
        if self.state == STALE:
            truth.counts["served stale"] += 1
            late = (segment.now_ms() - self.entry.expires_ms) / 1000
            if late >= self.world.stale_s or not (self.failed or self.waits):
                raise Broken(f"I8 {self.host.name}: key {self.key:x} is served {late:.3f} s after its end")
        else:
            truth.lives(segment, self.key, self.entry.expires_ms)
