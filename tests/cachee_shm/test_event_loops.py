"""What waits works in the tasks of asyncio, uvloop and trio, in greenlets, and under a frozen clock."""

import asyncio
import subprocess
import sys
import threading
import time

import freezegun
import pytest
import trio
import uvloop

from cachee_shm import waiting
from tests.cachee_shm import bridged
from tests.cachee_shm.processes import child, until

SHORT_S = 0.02
LONG_S = 60.0


def in_uvloop(main):
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def in_frozen_time(main):
    """As under ``freezegun``, which freezes the event loop's own clock too."""
    with freezegun.freeze_time("2026-01-01"):
        return asyncio.run(main())


LIBRARIES = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": in_uvloop,
    "trio": trio.run,
    "freezegun": in_frozen_time,
}


@pytest.fixture(params=LIBRARIES.values(), ids=LIBRARIES.keys())
def run(request):
    return request.param


LOADS_UNTIL_TOLD = """
def loader():
    say('loading'); wait()
    return 'loaded'
say(cache.get_or_load('a', loader))
"""


async def never():
    raise AssertionError("a second load")


def test_a_task_waits_for_the_load_of_another_process(cache, config, run):
    with child(LOADS_UNTIL_TOLD, config=config) as holder:
        holder.line()

        def release():
            until(lambda: cache.stats()["lease_waits"] == 1)
            holder.tell()

        other = threading.Thread(target=release)
        other.start()
        assert run(lambda: cache.aget_or_load("a", never)) == "loaded"
        other.join()


def test_tasks_of_one_process_wait_for_one_load(cache, run):
    loads = []

    async def loader():
        loads.append(1)
        while cache.stats()["lease_waits"] < 7:
            await cache.await_synced(0)
            await tick()
        return "loaded"

    async def tick():
        if run is LIBRARIES["trio"]:
            await trio.lowlevel.checkpoint()
        else:
            await asyncio.sleep(0)

    got = []

    async def ask():
        got.append(await cache.aget_or_load("a", loader))

    async def main():
        if run is LIBRARIES["trio"]:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ask)
        else:
            await asyncio.gather(*(ask() for _ in range(8)))

    run(main)
    assert (got, len(loads)) == (["loaded"] * 8, 1)


def test_a_task_waits_for_events(cache, run):
    events = cache.events()

    async def main():
        async for event in events:
            return event.kind

    writer = threading.Timer(SHORT_S, cache.set, ("a", 1))
    writer.start()
    assert run(main) == "set"
    writer.join()


def test_a_task_waits_for_peers(config, run):
    bridge = bridged.Bridge(config)
    with bridged.attach(config) as shop:
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        assert run(lambda: shop.await_synced(SHORT_S)) is False
        told = threading.Timer(SHORT_S, bridge.tell, ("web-2", shop.tail))
        told.start()
        assert run(lambda: shop.await_synced(LONG_S)) is True
        told.join()
    bridge.close()


def test_a_thread_waits_in_frozen_time(cache, config):
    with child(LOADS_UNTIL_TOLD, config=config) as holder, freezegun.freeze_time("2026-01-01"):
        holder.line()
        later = threading.Timer(SHORT_S, holder.tell)
        later.start()
        assert cache.get_or_load("a", lambda: pytest.fail("a second load")) == "loaded"
        later.join()


def test_a_waiter_gives_up_in_frozen_time(config):
    bridge = bridged.Bridge(config)
    with bridged.attach(config) as shop, freezegun.freeze_time("2026-01-01"):
        shop.set("k", 1)
        bridge.tell("web-2", 0)
        assert not shop.wait_synced(SHORT_S)
    bridge.close()


def test_a_cancelled_task_leaves_nothing_to_look_for(cache):
    async def main():
        events = cache.events()
        with trio.move_on_after(SHORT_S):
            await events.__anext__()

    trio.run(main)
    until(lambda: not waiting.poll.watched)


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, time
import cachee_shm

loads, got, ticks = [], [], []
with cachee_shm.attach(private=True) as cache:
    events = cache.events()

    def loader():
        loads.append(1)
        while cache.stats()["lease_waits"] < 7:
            time.sleep(0.001)
        return "loaded"

    def ask():
        got.append(cache.get_or_load("a", loader))

    def follow():
        got.append(next(events).kind)

    def tick():
        while len(got) < 8:
            ticks.append(1)
            time.sleep(0.001)
        cache.set("b", 1)

    gevent.joinall([gevent.spawn(f) for f in [follow, *[ask] * 8, tick]], raise_error=True)
    assert cache.wait_synced(0.01)
    print(sorted(got), len(loads), len(ticks) > 0)
"""


def test_greenlets_wait_without_stopping_the_others():
    ran = subprocess.run(
        [sys.executable, "-c", GREENLETS], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout == f"{['loaded'] * 8 + ['set']} 1 True\n", ran.stderr


def test_many_waiting_tasks_share_one_poll(cache, config):
    """However many wait, the keys that they wait for are looked at once a turn."""
    with child(LOADS_UNTIL_TOLD, config=config) as holder:
        holder.line()

        async def main():
            tasks = [asyncio.create_task(cache.aget_or_load("a", never)) for _ in range(500)]
            while cache.stats()["lease_waits"] < 500:
                await asyncio.sleep(0)
            assert len(waiting.poll.watched) == 1
            assert sum(each.name == "cachee-waits" for each in threading.enumerate()) == 1
            before, began = time.thread_time(), time.monotonic()
            await asyncio.sleep(SHORT_S * 10)
            assert time.thread_time() - before < (time.monotonic() - began) / 2
            holder.tell()
            return await asyncio.gather(*tasks)

        assert asyncio.run(main()) == ["loaded"] * 500
