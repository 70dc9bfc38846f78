"""get_or_load, the real one (cachee_shm/loading.py), over the modelled segment: tokens, leases, stale
values.

Each caller is a process of its own. What it waits for, when it loads and what it returns is checked here:

I8  what expired is not served; in its grace it is, while another loads or when the load has failed
I9  a key is loaded once at a time, but for who waited long enough, or in vain since the key was written
I10 nobody waits for the dead, for a load that is too late by the key's fence, or longer than LEASE_WAIT_S
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from cachee_shm import loading
from tests.simulation.segment import FENCE_BUCKETS, Entry, Segment
from tests.simulation.truth import Broken

if TYPE_CHECKING:
    from tests.simulation.host import Host, Steps


class OriginDown(Exception):
    """The origin does not answer."""


class WorkerDied(BaseException):
    """In the middle of loading."""


@types.coroutine
def pause(seconds: float) -> Generator[float, None, None]:
    """What asyncio.sleep is here: the caller's driver is told how long."""
    yield seconds


class Caller:
    """A segment as one caller's Flight uses it."""

    def __init__(self, host: Host, segment: Segment, key: int) -> None:
        self.host, self.world, self.segment, self.key = host, host.world, segment, key
        self.closed = False
        """It is dead: whatever would be done on the way out is not."""
        self.began, self.fence = host.world.now, self._fence(key)
        self.leads = self.waits = self.loads = self.failed = False
        self.state, self.entry = loading.MISS, Entry(0, 0, 0.0)

    # What Flight calls

    def _find(self, key: int, counted: bool) -> tuple[int, int]:
        self.state, entry = self.segment.find(key, self.host.clock())
        self.entry = entry or self.entry
        return self.state, self.entry.value

    def _fence(self, key: int) -> int:
        return self.segment.fences.get(key % FENCE_BUCKETS, 0)

    def _token(self) -> tuple[int, float]:
        return self.segment.tail, self.host.clock()

    def _lease(self, key: int) -> int:
        taken = self.segment.lease_take(key, self)
        self.leads, self.waits = taken, not taken
        return loading.TAKEN if taken else loading.HELD

    def _release(self, key: int) -> None:
        self.leads = False
        self.segment.lease_release(key, self)

    def _fill(
        self, key: int, value: int, token: int, started: float, ttl: float | None, grace_ms: int, *_: Any
    ) -> bool:
        tags, now = self.world.tags_of(key), self.host.clock()
        stored = self.segment.fill(key, value, tags, token, started, ttl, now, grace_ms / 1000)
        if stored:
            self.world.truth.at_least_floor(self.segment, key, value)
        return stored

    # What it does

    def run(self) -> Steps:
        """One step of the caller for each sleep of its."""
        options: Any = loading.Options(self.world.ttl(), self.world.stale_s, None, (), False)
        segment: Any = self
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
        return self.world.now >= self.began + loading.LEASE_WAIT_S

    def _overtaken(self) -> bool:
        return self.segment.fences.get(self.key % FENCE_BUCKETS, 0) != self.fence

    def _may_load(self) -> None:
        """I9."""
        self.world.truth.counts["loads"] += 1
        others = [each for each in self.segment.loaders if each.key == self.key and each.leads]
        if any(not each.closed for each in others) and not self._waited() and not self._overtaken():
            raise Broken(f"I9 {self.host.name}: key {self.key:x} is loaded twice at a time")

    def _may_wait(self) -> None:
        """I10."""
        if not self.waits:
            return
        self.world.truth.counts["waits"] += 1
        leader = self.segment.leases.get(self.key)
        if leader is None or leader.closed or self._overtaken() or self._waited():
            raise Broken(f"I10 {self.host.name}: key {self.key:x} is waited for in vain")

    def _returned(self, value: int) -> None:
        """I8, and I1 and I2 of whatever came out of the cache."""
        if self.loads and not self.failed:
            return
        truth = self.world.truth
        truth.served(self.segment, self.key, value)
        if self.state == loading.STALE:
            truth.counts["served stale"] += 1
            late = self.host.clock() - self.entry.expires
            if late >= self.world.stale_s or not (self.failed or self.waits):
                raise Broken(f"I8 {self.host.name}: key {self.key:x} is served {late:.3f} s after its end")
        else:
            truth.lives(self.segment, self.key, self.entry.expires, self.host.clock())
