"""Loads of many keys at once: who waits for whom, in threads, processes and tasks; nothing is leaked."""

import asyncio
import gc
import subprocess
import sys
import threading
import types
import warnings
from contextlib import suppress

import pytest
import trio

import cachee_shm
from tests.cachee_shm.loaders import Origin, held, running
from tests.cachee_shm.processes import child, children, until
from tests.cachee_shm.test_event_loops import LIBRARIES
from tests.cachee_shm.test_interrupted import interrupted, owes_nothing
from tests.cachee_shm.test_many import ABC, Rows, load

__all__ = ["interrupted", "load"]


# Who loads what


def test_keys_that_another_process_loads_are_waited_for_and_not_loaded(cache, config):
    code = """
def loader():
    say('loading'); wait()
    return 'theirs'
cache.get_or_load('b', loader)
"""
    rows = Rows(a="ours", c="ours")
    with child(code, config=config) as holder:
        holder.line()

        def release():
            until(lambda: cache.get("c"))  # what it leads is filled and given back before it waits
            assert cache._holds() == (0, 0, 0)
            holder.tell()

        with running(release):
            assert cache.get_or_load_many(ABC, rows) == {"a": "ours", "b": "theirs", "c": "ours"}
    assert rows.asked == [["a", "c"]]


OPPOSITE = """
keys = [f'k{i}' for i in range(40)]
mine = keys[:20] if arguments['number'] else keys[20:]
calls = []
def load(asked):
    calls.append(asked)
    if len(calls) == 1:
        say(len(asked)); wait()
    return {key: key.upper() for key in asked}
def one():  # this process leads a half, and asks for the other half's keys first
    order = keys if not arguments['number'] else keys[::-1]
    return cache.get_or_load_many(order, load)
cache.get_or_load_many(mine[:1], lambda asked: {key: key.upper() for key in asked})
say('ready'); wait()
got = one()
say(got == {key: key.upper() for key in keys}, sum(map(len, calls)))
"""


def test_two_processes_with_opposite_orders_load_each_key_once_and_do_not_wait_for_each_other(cache, config):
    with children(OPPOSITE, 2, config=config) as callers:
        for caller in callers:
            assert caller.line() == "ready"
        callers[0].tell()
        first = int(callers[0].line())
        callers[1].tell()  # all its keys are led by the other, or here
        callers[0].tell()
        said = [caller.line().split() for caller in callers]
        assert first == 38 and said == [["True", "38"], ["True", "0"]]
    assert cache.stats()["waits_over"] == 0


def test_of_two_threads_with_opposite_orders_each_leads_what_the_other_does_not(cache):
    cache._lateness(60_000, 60_000)
    asked, got = [], []

    def loader(keys):
        asked.append(keys)
        until(lambda: cache.stats()["lease_waits"] >= 2)
        return {key: key.upper() for key in keys}

    def left():
        got.append(cache.get_or_load_many(["a", "c"], loader))

    def right():
        until(lambda: held(cache, "a") and held(cache, "c"))
        got.append(cache.get_or_load_many(["c", "b", "a"], loader))

    with running(left, right):
        pass
    assert {"c": "C", "b": "B", "a": "A"} in got and {"a": "A", "c": "C"} in got
    assert sorted(asked) == [["a", "c"], ["b"]] and cache.stats()["waits_over"] == 0
    owes_nothing(cache)


def test_a_key_that_a_killed_process_was_loading_is_loaded_by_its_waiters(cache, config):
    code = """
def load(keys):
    say('loading'); wait()
say(cache.get_or_load_many(['a', 'b'], load))
"""
    rows = Rows(a=1, b=2, c=3)
    with child(code, config=config) as holder:
        holder.line()

        def kill():
            until(lambda: cache.get("c"))
            holder.kill()

        with running(kill):
            assert cache.get_or_load_many(ABC, rows) == {"a": 1, "b": 2, "c": 3}
    assert rows.asked in ([["c"], ["a", "b"]], [["c"], ["a"], ["b"]])
    owes_nothing(cache)


def test_a_waiter_of_a_single_key_gets_what_the_batch_loads(cache):
    entered, go, got = threading.Event(), threading.Event(), []

    def loader(keys):
        entered.set()
        go.wait(60)
        return {key: [key] for key in keys}

    def waits():
        entered.wait(60)
        got.append(cache.get_or_load("b", lambda: pytest.fail("a second load")))

    def release():
        until(lambda: cache.stats()["lease_waits"] == 1)
        go.set()

    with running(lambda: cache.get_or_load_many(ABC, loader), waits, release):
        pass
    assert got == [["b"]]


def test_nobody_waits_longer_for_a_key_than_a_single_load_would(cache, config):
    code = """
def load(keys):
    say('loading'); wait()
cache.get_or_load_many(['a', 'b'], load)
"""
    rows = Rows(a=1, b=2, c=3)
    with child(code, config=config) as holder:
        holder.line()
        cache._lateness(1, 50)  # the waiting for `a` takes up the time of `b` as well
        assert cache.get_or_load_many(ABC, rows) == {"a": 1, "b": 2, "c": 3}
    assert sorted(key for keys in rows.asked for key in keys) == ABC


def test_a_write_in_the_middle_refuses_that_key_alone(cache, load):
    def loader(keys):
        cache.delete("b")
        return dict.fromkeys(keys, "loaded")

    assert load(ABC, loader) == dict.fromkeys(ABC, "loaded")
    assert cache.get_many(ABC) == {"a": "loaded", "c": "loaded"}


def test_a_loader_that_asks_for_its_own_keys_and_for_others_loads_at_once(cache, load):
    def loader(keys):
        inner = cache.get_or_load_many(["c", "a", "d"], lambda asked: dict.fromkeys(asked, "inner"))
        return dict.fromkeys(keys, inner)

    inner = {"c": "inner", "a": "inner", "d": "inner"}
    assert load(ABC, loader) == dict.fromkeys(ABC, inner)
    assert cache.get("d") == "inner" and cache.stats()["lease_waits"] == 0
    owes_nothing(cache)


def test_loaders_of_many_that_ask_for_each_other_s_keys_do_not_wait(cache):
    both, got = threading.Barrier(2), []

    def one(mine, theirs):
        def loader(keys):
            both.wait(60)
            asked = cache.get_or_load_many(theirs, lambda keys: dict.fromkeys(keys, "inner"))
            return dict.fromkeys(keys, len(asked))

        got.append(cache.get_or_load_many(mine, loader))

    with running(lambda: one(["a", "b"], ["x", "y"]), lambda: one(["x", "y"], ["a", "b"])):
        pass
    assert sorted(map(sorted, got)) == [["a", "b"], ["x", "y"]]
    assert all(set(each.values()) == {2} for each in got)
    assert cache.stats()["waits_over"] == 0 and cache.stats()["waits_circular"] > 0
    owes_nothing(cache)


def test_more_keys_than_there_are_leases_are_one_call(cache, load):
    keys = [f"k{i}" for i in range(5000)]
    asked = []
    got = load(keys, lambda asked_for: asked.append(len(asked_for)) or dict.fromkeys(asked_for, 1))
    assert asked == [5000] and got == dict.fromkeys(keys, 1)
    owes_nothing(cache)


def test_flights_of_a_large_batch_that_a_context_keeps_are_freed_without_recursion(cache):
    kept = []

    def loader(keys):
        kept.append(cachee_shm._core.flight.get())
        return dict.fromkeys(keys, 1)

    def load_and_let_go():
        cache.get_or_load_many([f"k{i}" for i in range(10_000)], loader, ttl=0)
        assert not kept[0].running and kept[0].batch is None
        kept.clear()
        done.append(True)

    done, before = [], threading.stack_size(256 * 1024)
    try:
        with running(load_and_let_go):
            pass
    finally:
        threading.stack_size(before)
    assert done == [True]


# Event loops


def test_tasks_of_every_library_wait_for_one_call(cache):
    for name, run in LIBRARIES.items():
        cache.clear()
        cache._lateness(60_000, 60_000)
        waits = cache.stats()["lease_waits"]
        pause = trio.lowlevel.checkpoint if name == "trio" else lambda: asyncio.sleep(0)
        asked, got = [], []

        async def loader(keys, waits=waits, pause=pause, asked=asked):
            asked.append(keys)
            while cache.stats()["lease_waits"] < waits + 6 and len(asked) == 1:
                await pause()
            return dict.fromkeys(keys, "loaded")

        async def ask(order, got=got, loader=loader):
            got.append(await cache.aget_or_load_many(order, loader))

        async def main(name=name, ask=ask):
            orders = [ABC, ABC[::-1], ABC]
            if name == "trio":
                async with trio.open_nursery() as nursery:
                    for order in orders:
                        nursery.start_soon(ask, order)
            else:
                await asyncio.gather(*map(ask, orders))

        run(main)
        assert got == [dict.fromkeys(ABC, "loaded")] * 3 and len(asked) == 1, name
        owes_nothing(cache)


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, time
import cachee_shm

asked, got = [], []
with cachee_shm.attach(private=True) as cache:
    def load(keys):
        asked.append(keys)
        while cache.stats()["lease_waits"] < 6:
            time.sleep(0.001)
        return dict.fromkeys(keys, 1)

    def ask(*keys):
        got.append(cache.get_or_load_many(keys, load))

    gevent.joinall([gevent.spawn(ask, *keys) for keys in ("abc", "cba", "bca")], raise_error=True)
    print(len(asked), got == [dict.fromkeys("abc", 1)] * 3, cache._holds())
"""


def test_greenlets_wait_for_one_call():
    ran = subprocess.run(
        [sys.executable, "-c", GREENLETS], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout == "1 True (0, 0, 0)\n", ran.stderr


def test_a_blocking_call_does_not_wait_for_a_task_of_its_own_thread(cache):
    async def main():
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow(keys):
            entered.set()
            await go.wait()
            return dict.fromkeys(keys, "later")

        task = asyncio.create_task(cache.aget_or_load_many(["a", "b"], slow))
        await entered.wait()
        at_once = cache.get_or_load_many(["b"], lambda keys: dict.fromkeys(keys, "now"))
        go.set()
        return at_once, await task

    assert asyncio.run(main()) == ({"b": "now"}, {"a": "later", "b": "later"})
    owes_nothing(cache)


@pytest.mark.parametrize("end", ["close", "drop", "throw", "cancel"])
def test_an_awaited_batch_that_is_ended_half_way_gives_everything_back(cache, end):
    async def hangs(keys):
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(cache.aget_or_load_many(ABC, hangs))
        await asyncio.sleep(0)
        assert cache._holds()[:2] == (3, 3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    if end == "cancel":
        asyncio.run(main())
    else:
        one = cache.aget_or_load_many(ABC, forever)
        one.send(None)
        assert cache._holds()[:2] == (3, 3)
        if end == "close":
            one.close()
        elif end == "throw":
            with pytest.raises(OSError):
                one.throw(OSError("down"))
        del one
        gc.collect()
    owes_nothing(cache)
    assert cache.get_or_load_many(ABC, lambda keys: dict.fromkeys(keys, 1)) == dict.fromkeys(ABC, 1)


@types.coroutine
def once():
    yield


async def forever(keys):
    while True:
        await once()


# An exception at every byte code


def test_an_exception_at_any_byte_code_leaves_no_lease_behind(cache, interrupted):
    def case():
        cache.get_or_load_many(ABC, Origin({"a": [1], "b": 2}), tags=["t"], stale=1)

    assert interrupted(lambda: cache.delete_many(ABC), case, lambda: owes_nothing(cache)) > 100


def test_an_exception_at_any_byte_code_of_an_awaited_batch_leaves_no_lease_behind(cache, interrupted):
    async def loader(keys):
        await asyncio.sleep(0)
        return {key: [1] for key in keys}

    async def case():
        await cache.aget_or_load_many(ABC, loader, tags=["t"])

    def run():
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(case())
        finally:
            loop.close()

    assert interrupted(lambda: cache.delete_many(ABC), run, lambda: owes_nothing(cache), step=3) > 100


def test_an_exception_at_any_byte_code_of_a_waiting_call_leaves_no_lease_behind(cache, config, interrupted):
    code = """
def load(keys):
    say('loading'); wait()
cache.get_or_load_many(['a'], load)
"""
    with child(code, config=config) as holder:
        holder.line()
        cache._lateness(1, 1)

        def case():
            cache.get_or_load_many(["a", "b"], Origin({"a": 1, "b": 2}), ttl=0)

        interrupted(lambda: None, case, lambda: owes_nothing(cache), step=7)


def test_each_fill_fails_or_not_by_itself(cache, load):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = load(ABC, lambda keys: {"a": 1, "b": lambda: 1, "c": 3})
    assert len(got) == 3 and cache.get_many(ABC) == {"a": 1, "c": 3}
    owes_nothing(cache)
