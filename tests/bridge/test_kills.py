"""Workers and bridges of two linked hosts, killed at random while all work; `make torture` kills on."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from cachee_shm import Cache
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.nursery import (
    COUNTS,
    HOSTS,
    KEYS,
    SLOTS,
    WRITING,
    Truth,
    cursor,
    fault_of,
    kind,
    name,
    written_at,
)
from tests.bridge.test_two_bridges import isolated, meet
from tests.cachee_shm.processes import Child, children
from tests.cachee_shm.test_death import assert_all_memory_is_usable

KILLS = int(os.environ.get("CACHEE_KILLS", "120"))  # of workers; what a bridge holds is tried with a tenth
BATCH = 60  # of each host, between two rests
MEMORY = "16MiB"  # written over once and more in a batch; its ring is not lapped while a bridge begins
GUARD_MS = 2000  # a plain set gives way to what another host wrote within the last second
SLOTS_MAX = 64  # of 256: who comes takes the place of one who died; some dead are not known as such yet
AS_IT_BEGINS = 0.3  # of the deaths of bridges; the others come later:
KNOWN = 100  # when, with the link up, so many reads were held against what the other host had announced
LOOK_S = 0.2
HEAP_SLACK_BYTES = 1 << 20
ROOT = Path(__file__).resolve().parents[2]


class Campaign:
    """Two hosts, their workers' nurseries, and what has happened so far."""

    def __init__(self, pair: list[Host], nurseries: list[Child], truth: Truth) -> None:
        self.pair, self.nurseries, self.truth = pair, nurseries, truth
        self.caches = [host.attach() for host in pair]
        self.draw = random.Random(11)
        self.workers_killed = self.bridges_killed = self.found_at_rest = 0

    def run(self, kills: int, bridges: list[Host]) -> None:
        """At least so many workers; after each batch all comes to rest, and must be well."""
        end = self.workers_killed + kills
        while self.workers_killed < end:
            self.kill(bridges)
            self.settle()
            self.check()
            print(self)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts().items())
        return f"{self.workers_killed:,} workers and {self.bridges_killed:,} bridges killed; {counts}"

    def kill(self, bridges: list[Host]) -> None:
        """Workers of both hosts, and these bridges, until both nurseries have had their deaths."""
        known = 0
        for nursery in self.nurseries:
            nursery.tell(str(BATCH))
        waiting = list(self.nurseries)
        while waiting:
            streams = [nursery.process.stdout for nursery in waiting]
            spoke, _, _ = select.select(streams, [], [], self.draw.random() * LOOK_S)
            for nursery in [nursery for nursery in waiting if nursery.process.stdout in spoke]:
                assert nursery.line() == "done"
                waiting.remove(nursery)
                self.workers_killed += BATCH
            if self.count("known") >= known:
                self.kill_a_bridge(self.draw.choice(bridges))
                known = 0 if self.draw.random() < AS_IT_BEGINS else self.count("known") + KNOWN

    def kill_a_bridge(self, host: Host) -> None:
        """And begin another, that may be killed before it has begun."""
        assert runs(host), host.log
        host.kill()
        host.process = host.run()
        self.bridges_killed += 1

    def settle(self) -> None:
        """Until all that the dead owed is paid and known to both."""
        for cache in self.caches:
            until(lambda cache=cache: not isolated(cache))
            cache.sweep()
            assert cache.sweep() == 0
        until(self.is_settled, f"{self.pair[0].log}\n{self.pair[1].log}")
        assert all(map(runs, self.pair))

    def is_settled(self) -> bool:
        a, b = self.caches
        return (
            all(cache.pump_cursor >= cache.tail for cache in self.caches)
            and cursor(a, self.pair[1].name) >= b.tail
            and cursor(b, self.pair[0].name) >= a.tail
        )

    def check(self) -> None:
        """At rest no value is older than its announcement, nor, where its writer was in `writing`, than the
        origin; nobody is attached but this process, and the bridge found a slot among the first."""
        for cache in self.caches:
            found = {key: value for key in KEYS if (value := cache.get(name(key))) is not None}
            self.found_at_rest += len(found)
            assert [fault for key, value in found.items() if (fault := self.fault(cache, key, value))] == []
            stats = cache.stats()
            assert (stats["attached"], stats["corrupt"], stats["no_room"]) == (1, 0, 0)
            assert max(slot for slot, *_ in cache.roster()) < SLOTS_MAX

    def fault(self, cache: Cache, key: int, found: object) -> str:
        least = self.truth.origin(key) if kind(key) == WRITING else self.truth.newest(key)[0]
        fault = fault_of(found, least)
        return f"{cache.name}: {name(key)} of host {written_at(key)}: {fault}" if fault else ""

    def counts(self) -> dict[str, int]:
        return {what: self.count(what) for what in COUNTS} | {"found at rest": self.found_at_rest}

    def count(self, what: str) -> int:
        return sum(self.truth.count(host, slot, what) for host in range(HOSTS) for slot in range(SLOTS))


def runs(host: Host) -> bool:
    return host.process is not None and host.process.poll() is None


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    (tmp_path / "truth").write_bytes(bytes(Truth.size()))
    with hosts(tmp_path, memory=MEMORY) as pair, ExitStack() as stack:
        meet(*pair)
        for host in pair:
            host.detach()
        nurseries = [stack.enter_context(nursery(tmp_path, pair, number)) for number in range(HOSTS)]
        assert [one.line() for one in nurseries] == ["ready"] * HOSTS
        yield Campaign(pair, nurseries, Truth(str(tmp_path / "truth")))


@contextmanager
def nursery(folder: Path, pair: list[Host], number: int) -> Iterator[Child]:
    code = "sys.path.insert(0, arguments['root'])\nfrom tests.bridge import nursery\nnursery.serve(arguments)"
    with children(
        code,
        root=str(ROOT),
        truth=str(folder / "truth"),
        file=str(pair[number].config),
        host=number,
        others=pair[1 - number].name,
    ) as (one,):
        yield one


def test_deaths_of_workers_and_bridges_under_load_leave_nothing_stale_torn_lost_or_hung(
    campaign: Campaign,
) -> None:
    campaign.run(KILLS, campaign.pair)
    assert all(campaign.counts().values()), campaign
    for host in campaign.pair:
        host.kill()
    for cache in campaign.caches:
        cache._freeze(cache.now_ms() + GUARD_MS)
        assert_all_memory_is_usable(cache)


def test_a_bridge_around_which_all_others_die_holds_no_more_than_before(campaign: Campaign) -> None:
    lives, dies = campaign.pair
    assert lives.process is not None
    process = psutil.Process(lives.process.pid)
    campaign.run(1, [dies])  # what is held for good is held by now
    files, memory = process.num_fds(), process.memory_full_info().uss
    campaign.run(KILLS // 10, [dies])
    until(lambda: process.num_fds() <= files, "the descriptors of dead links")
    assert process.memory_full_info().uss <= memory + HEAP_SLACK_BYTES
