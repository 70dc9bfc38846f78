"""Loading ahead: by one process of a host, which gives way to all else."""

import asyncio
import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

import cachee_shm
from cachee_shm import prewarm

names = (f"prewarm-{os.getpid()}-{number}" for number in itertools.count())


class Host:
    """A cache with an origin that counts, and a peer that writes."""

    def __init__(self, load=None, private=True, **options):
        table = {"prewarm": True, "memory": "2MiB", "prewarm_budget": 0.0} | options
        self.config = {"host": {"name": next(names)}, "namespaces": {"shop": table}}
        self.cache = cachee_shm.attach("shop", config=self.config, private=private)
        self.peer = self.cache.source_open("peer")
        self.loaded = []
        if load is None:
            self.cache.origin("user:", load=self.load)

    def load(self, key):
        self.loaded.append((key, threading.current_thread().name))
        return f"value {len(self.loaded)}"

    def written_elsewhere(self, *keys):
        for key in keys:
            self.cache.apply(self.peer, b"\x01" + struct.pack("<Q", self.cache._hash(key)))

    def state(self, key):
        return (self.cache.warm_explain(self.cache._hash(key)) or {}).get("state")


def until(condition, what):
    """Waits for it, as long as a slow machine may take."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError(f"never: {what}")


@pytest.fixture
def host():
    made = Host()
    yield made
    made.cache.close()


@pytest.fixture
def warmer(host):
    made = prewarm.start(host.cache)
    until(lambda: made.loads_here, "it loads here")
    yield made
    made.stop()


def test_what_a_peer_writes_is_back_before_it_is_read(host, warmer):
    assert host.cache.get_or_load("user:1") == "value 1"
    host.written_elsewhere("user:1")
    until(lambda: host.state("user:1") == "warm", "it is back")
    assert host.cache.get("user:1") == "value 2"
    assert host.cache.warm_stats() == (1, 1, 0)
    assert host.loaded[1][1] != threading.current_thread().name


def test_what_has_tags_is_not_loaded_ahead_without_them(host, warmer):
    host.cache.get_or_load("user:1", tags=["team:7"])
    host.cache.get_or_load("user:2")
    host.written_elsewhere("user:1", "user:2")
    until(lambda: host.state("user:2") == "warm", "the one without tags is back")
    assert host.state("user:1") == "wait" and "user:1" not in host.cache
    host.cache.get_or_load("user:1", tags=["team:7"])
    host.cache.delete_tags("team:7")
    assert "user:1" not in host.cache


def test_a_loader_that_ends_its_thread_does_not_end_loading_ahead():
    def load(key):
        if threading.current_thread().name.startswith("cachee") and key == "user:bad":
            raise SystemExit
        return key

    host = Host(load=load)
    host.cache.origin("user:", load=load)
    warmer = prewarm.start(host.cache, concurrency=1)
    until(lambda: warmer.loads_here, "it loads here")
    for key in ("user:bad", "user:good"):
        host.cache.get_or_load(key)
    host.written_elsewhere("user:bad")
    until(lambda: host.cache.warm_stats()[0] == 1, "the first has begun")
    host.written_elsewhere("user:good")
    until(lambda: host.state("user:good") == "warm", "the second is back")
    warmer.stop()


def test_a_key_without_an_origin_is_left_to_its_reader(host, warmer):
    host.cache.get_or_load("other:1", lambda: 1)
    host.cache.get_or_load("user:1")
    host.written_elsewhere("other:1", "user:1")
    until(lambda: host.state("user:1") == "warm", "the one with an origin is back")
    assert "other:1" not in host.cache
    assert host.cache.warm_stats()[0] == 1, "and only that one was paid for"


def test_a_reader_that_comes_during_a_load_ahead_waits_for_it():
    began, goes_on = threading.Event(), threading.Event()
    loads = []

    def load(key):
        loads.append(key)
        if len(loads) > 1:
            began.set()
            goes_on.wait(20)
        return len(loads)

    host = Host(load=load)
    host.cache.origin("user:", load=load)
    host.cache.get_or_load("user:1")
    warmer = prewarm.start(host.cache)
    host.written_elsewhere("user:1")
    assert began.wait(20)
    read = []
    reader = threading.Thread(target=lambda: read.append(host.cache.get_or_load("user:1")))
    reader.start()
    until(lambda: host.cache.stats()["lease_waits"] > 0, "the reader waits")
    goes_on.set()
    reader.join(20)
    assert read == [2]
    assert loads == ["user:1", "user:1"]
    warmer.stop()


def test_a_loader_that_raises_is_told_of_once_and_readers_go_on(host, warmer, caplog):
    def load_badly(key):
        raise OSError("the origin is down")

    host.cache.origin("bad:", load=load_badly)
    for number in range(5):
        host.cache.set(f"bad:{number}", number)
        host.written_elsewhere(f"bad:{number}")
    until(lambda: "the origin is down" in caplog.text, "it is told of")
    host.cache.get_or_load("user:1")
    host.written_elsewhere("user:1")
    until(lambda: host.state("user:1") == "warm", "others are loaded")
    assert caplog.text.count("failed") == 1
    with pytest.raises(OSError, match="down"):
        host.cache.get_or_load("bad:1")


def test_one_of_two_threads_of_a_host_loads(host, warmer):
    second = prewarm.start(host.cache)
    host.cache.get_or_load("user:1")
    host.written_elsewhere("user:1")
    until(lambda: host.state("user:1") == "warm", "it is back")
    assert warmer.loads_here
    assert not second.loads_here
    second.stop()


WORKER = """
import sys, threading
import cachee_shm
from cachee_shm import prewarm
cache = cachee_shm.attach("shop", config={config!r})
cache.origin("user:", load=lambda key: {answer!r})
warmer = prewarm.start(cache)
while not warmer.loads_here:
    threading.Event().wait(0.01)
print("loads", flush=True)
threading.Event().wait()
"""


def worker_of(host, answer):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(config=host.config, answer=answer)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_another_process_takes_over_from_one_that_is_killed():
    host = Host(private=False)
    first = worker_of(host, "first")
    try:
        assert first.stdout.readline() == "loads\n"
        second = worker_of(host, "second")
        try:
            host.cache.set("user:1", 0)
            host.written_elsewhere("user:1")
            until(lambda: host.state("user:1") == "warm", "the first has loaded it")
            assert host.cache.get("user:1") == "first"
            first.send_signal(signal.SIGKILL)
            first.wait()
            assert second.stdout.readline() == "loads\n"
            host.written_elsewhere("user:1")
            until(lambda: host.state("user:1") == "warm", "the second has loaded it")
            assert host.cache.get("user:1") == "second"
        finally:
            second.kill()
            second.wait()
            second.stdout.close()
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
        host.cache.retire()
        host.cache.close()


def test_closing_the_cache_ends_the_thread(host):
    warmer = prewarm.start(host.cache)
    until(lambda: warmer.loads_here, "it loads here")
    host.cache.close()
    warmer._thread.join(20)
    assert not warmer._thread.is_alive()


def test_a_namespace_without_prewarm_says_so_and_harms_nobody(caplog):
    host = Host(prewarm=False)
    warmer = prewarm.start(host.cache)
    assert "prewarm = true" in caplog.text
    host.cache.get_or_load("user:1")
    host.written_elsewhere("user:1")
    warmer.stop()
    assert len(host.loaded) == 1


def test_tasks_load_ahead_by_coroutine_functions():
    async def scenario():
        loads = []

        async def load(key):
            loads.append(key)
            await asyncio.sleep(0)
            return len(loads)

        host = Host(load=load)
        host.cache.origin("user:", load=load)
        host.cache.origin("plain:", load=host.load)
        task = asyncio.create_task(prewarm.run(host.cache))
        await host.cache.aget_or_load("user:1")
        host.cache.set("plain:1", 0)
        host.written_elsewhere("user:1", "plain:1")
        for _ in range(4000):
            if host.state("user:1") == host.state("plain:1") == "warm":
                break
            await asyncio.sleep(0.005)
        assert host.cache.get("user:1") == 2
        assert host.cache.get("plain:1") == "value 1"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        host.cache.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"rate": 0}, {"rate": -1.0}])
def test_senseless_bounds_are_refused(host, options):
    with pytest.raises(ValueError, match="Nothing was begun"):
        prewarm.start(host.cache, **options)


def test_there_are_never_more_loads_at_once_than_allowed():
    under_way, most, guard = [0], [0], threading.Lock()

    def load(key):
        with guard:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.002)
        with guard:
            under_way[0] -= 1
        return key

    host = Host(load=load)
    host.cache.origin("user:", load=load)
    keys = [f"user:{number}" for number in range(40)]
    for key in keys:
        host.cache.set(key, 0)
    warmer = prewarm.start(host.cache, concurrency=3)
    host.written_elsewhere(*keys)
    until(lambda: all(host.state(key) == "warm" for key in keys), "all are back")
    warmer.stop()
    assert 1 <= most[0] <= 3


def test_the_pace_is_halved_when_loads_take_twice_as_long_and_recovers():
    pace = prewarm.Pace(8)
    for _ in range(prewarm.WINDOW):
        pace.ended(0.010)
    assert pace.allowed == 8
    for _ in range(prewarm.WINDOW):
        pace.ended(0.025)
    assert pace.allowed == 4
    for _ in range(4 * prewarm.WINDOW):
        pace.ended(0.025)
    assert pace.allowed == 1
    for _ in range(3 * prewarm.WINDOW):
        pace.ended(0.011)
    assert pace.allowed == 4


def test_an_origin_that_stays_slow_is_not_taken_for_overloaded_for_ever():
    pace = prewarm.Pace(8)
    for _ in range(prewarm.WINDOW):
        pace.ended(0.010)
    for _ in range((prewarm.WINDOWS_KEPT + 8) * prewarm.WINDOW):
        pace.ended(0.1)
    assert pace.allowed == 8


def test_a_key_that_is_written_faster_than_it_loads_is_passed_over_more_and_more_often():
    refusals = prewarm.Refusals()
    passed = []
    for _ in range(5):
        refusals.ended(1, stored=False)
        count = 0
        while refusals.passes(1):
            count += 1
        passed.append(count)
    assert passed == [1, 2, 4, 8, 16]
    assert not refusals.passes(2)
    refusals.ended(1, stored=True)
    refusals.ended(1, stored=False)
    assert refusals.passes(1)
    assert not refusals.passes(1)


def test_refusals_are_bounded():
    refusals = prewarm.Refusals()
    for hash in range(2 * prewarm.REFUSALS_MAX):
        refusals.ended(hash, stored=False)
    assert len(refusals._skips) <= prewarm.REFUSALS_MAX


def test_one_slow_load_of_a_window_does_not_halve_the_pace_and_two_do():
    pace = prewarm.Pace(8)
    for slow, allowed in ((0, 8), (1, 8), (2, 4)):
        for seconds in [1.0] * slow + [0.001] * (prewarm.WINDOW - slow):
            pace.ended(seconds)
        assert pace.allowed == allowed


def test_there_are_never_more_tasks_at_once_than_allowed():
    under_way, most = [0], [0]

    async def load(key):
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        await asyncio.sleep(0.05)  # longer than it takes to find the next
        under_way[0] -= 1
        return key

    async def scenario():
        host = Host(load=load)
        host.cache.origin("user:", load=load)
        keys = [f"user:{number}" for number in range(40)]
        for key in keys:
            host.cache.set(key, 0)
        task = asyncio.create_task(prewarm.run(host.cache, concurrency=3))
        host.written_elsewhere(*keys)
        for _ in range(4000):
            if all(host.state(key) == "warm" for key in keys):
                break
            await asyncio.sleep(0.005)
        assert all(host.state(key) == "warm" for key in keys) and 1 <= most[0] <= 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        host.cache.close()

    asyncio.run(scenario())


def test_a_loader_that_ends_its_thread_does_not_end_the_loop_of_an_application():
    async def scenario():
        async def load(key):
            if key == "user:bad":
                raise SystemExit
            return key

        host = Host(load=load)
        host.cache.origin("user:", load=load)
        started = []
        task = asyncio.create_task(prewarm.run(host.cache, began=lambda: started.append(1)))
        for key in ("user:bad", "user:good"):
            host.cache.set(key, 0)
            host.written_elsewhere(key)
            while host.cache.warm_stats()[0] < (1 if key == "user:bad" else 2):
                await asyncio.sleep(0.005)
        while host.state("user:good") != "warm":
            await asyncio.sleep(0.005)
        assert started == [1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        host.cache.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_under_the_bypass_nothing_is_loaded_and_another_worker_is_not_kept_from_it(monkeypatch, caplog):
    host = Host(private=False)
    host.cache.get_or_load("user:1")
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypassed = cachee_shm.attach("shop", config=host.config)
    monkeypatch.delenv("CACHEE_DISABLE")
    bypassed.origin("user:", load=lambda key: host.loaded.append((key, "for nobody")))
    idle = prewarm.start(bypassed)
    idle._thread.join(20)
    assert not idle._thread.is_alive() and not idle.loads_here

    async def scenario():
        began = []
        task = asyncio.create_task(prewarm.run(bypassed, began=lambda: began.append(1)))
        await asyncio.sleep(0)  # what it does at all, it has done now
        warmer = prewarm.start(host.cache)
        await asyncio.to_thread(until, lambda: warmer.loads_here, "the other worker loads ahead")
        host.written_elsewhere("user:1")
        await asyncio.to_thread(until, lambda: host.state("user:1") == "warm", "it is back")
        warmer.stop()
        assert began == [] and not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    idle.stop()
    said = [record.message for record in caplog.records if "CACHEE_DISABLE" in record.message]
    assert len(said) == 2, "once by each"
    assert len(host.loaded) == 2 and "for nobody" not in dict(host.loaded).values()
    for cache in (host.cache, bypassed):
        cache.close()
    os.unlink(f"/dev/shm/cachee.{host.config['host']['name']}.shop.{cachee_shm._core.LAYOUT}")


def test_a_cancelled_run_of_a_cache_that_was_closed_meanwhile_ends_as_cancelled():
    async def scenario():
        host, began = Host(), asyncio.Event()
        task = asyncio.create_task(prewarm.run(host.cache, began=began.set))
        await began.wait()
        host.cache.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_load_that_is_under_way_when_a_run_is_cancelled_is_no_failure(caplog):
    async def scenario():
        begun = asyncio.Event()

        async def load(key):
            begun.set()
            await asyncio.sleep(3600)

        host = Host(load=load)
        host.cache.origin("user:", load=load)
        task = asyncio.create_task(prewarm.run(host.cache))
        host.cache.set("user:1", 0)
        host.written_elsewhere("user:1")
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        host.cache.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "failed" not in caplog.text
