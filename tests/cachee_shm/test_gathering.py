"""Misses of one process within a millisecond: one call of the origin."""

import asyncio
import os
import threading
import time

import pytest

import cachee_shm
from cachee_shm import gathering
from tests.cachee_shm.test_origins import AsyncUsers, Users

KEYS = [f"user:{number}" for number in range(20)]


@pytest.fixture
def users():
    return Users(**{str(number): number for number in range(1000)})


@pytest.fixture
def slowly(monkeypatch):
    """Threads begin within the window, also on a busy machine."""
    monkeypatch.setattr(gathering, "GATHER_S", 0.3)


def in_threads(function, arguments):
    """What it returned or raised for each, begun together."""
    barrier, found = threading.Barrier(len(arguments)), {}

    def run(argument):
        barrier.wait()
        try:
            found[argument] = function(argument)
        except Exception as error:
            found[argument] = error

    threads = [threading.Thread(target=run, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[argument] for argument in arguments]


def test_threads_share_one_call(cache, users, slowly):
    cache.origin("user:", load_many=users.load_many)
    assert in_threads(cache.get_or_load, KEYS) == list(range(20))
    assert users.calls == [sorted(KEYS)]
    assert cache.get_many(KEYS) == dict(zip(KEYS, range(20), strict=True))


def test_tasks_share_one_call(cache):
    users = AsyncUsers(**{str(number): number for number in range(20)})
    cache.origin("user:", users)

    async def main():
        return await asyncio.gather(*map(cache.aget_or_load, KEYS))

    assert asyncio.run(main()) == list(range(20))
    assert asyncio.run(main()) == list(range(20))
    assert users.calls == [sorted(KEYS)]


def test_a_thread_alone_in_its_process_does_not_wait_for_others(cache, users, monkeypatch):
    monkeypatch.setattr(gathering, "GATHER_S", 60)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    cache.origin("user:", load_many=users.load_many)
    assert cache.get_or_load("user:1") == 1


def test_a_call_has_a_bounded_number_of_keys(cache, users, slowly, monkeypatch):
    monkeypatch.setattr(gathering, "MANY_MAX", 8)
    cache.origin("user:", load_many=users.load_many)
    assert in_threads(cache.get_or_load, KEYS) == list(range(20))
    assert sorted(map(len, users.calls)) == [4, 8, 8]


def test_each_key_is_fenced_by_itself(cache, slowly):
    def load_many(keys):
        cache.delete("user:3")
        return {key: key for key in keys}

    cache.origin("user:", load_many=load_many)
    in_threads(cache.get_or_load, KEYS)
    assert set(cache.get_many(KEYS)) == {*KEYS} - {"user:3"}


def test_its_failure_is_told_to_all_who_share_it(cache, slowly):
    def load_many(keys):
        raise OSError("down")

    cache.origin("user:", load_many=load_many)
    assert {type(error) for error in in_threads(cache.get_or_load, KEYS)} == {OSError}


def test_a_key_that_is_left_out_fails_for_those_alone_who_asked_for_it(cache, slowly):
    cache.origin("user:", load_many=lambda keys: {key: 1 for key in keys if key != "user:3"}, missing="error")
    found = in_threads(cache.get_or_load, KEYS)
    assert isinstance(found[3], KeyError) and found[:3] + found[4:] == [1] * 19


def test_the_loader_sees_the_load_of_each_key(cache, slowly):
    def load_many(keys):
        load = cachee_shm.current_load()
        for key in keys:
            load.of(key).tags = [f"tag {key}"]
        return {key: sorted(load.keys) for key in keys}

    cache.origin("user:", load_many=load_many)
    assert in_threads(cache.get_or_load, KEYS) == [sorted(KEYS)] * 20
    cache.delete_tags("tag user:3")
    assert set(cache.get_many(KEYS)) == {*KEYS} - {"user:3"}


def test_a_load_within_the_call_is_a_load_of_its_own(cache, slowly):
    def load_many(keys):
        inner = cache.get_or_load("inner", lambda: type(cachee_shm.current_load()).__name__)
        return {key: (inner, type(cachee_shm.current_load()).__name__) for key in keys}

    cache.origin("user:", load_many=load_many)
    assert in_threads(cache.get_or_load, ["user:1", "user:2"]) == [("Load", "BatchLoad")] * 2


def test_a_call_that_asks_for_a_key_of_its_own_batch_loads_it_at_once(cache, slowly):
    asked = []

    def load_many(keys):
        asked.append(sorted(keys))
        if len(keys) > 1:
            return {key: (key, cache.get_or_load(keys[1], lambda: "inner")) for key in keys}
        return {key: key for key in keys}

    cache._lateness(10**7, 10**7)  # whoever waits for the other's load waits until the test's time is over
    cache.origin("user:", load_many=load_many)
    found = in_threads(cache.get_or_load, ["user:1", "user:2"])
    assert all(inner == "inner" for _, inner in found)


def test_a_statement_that_writes_in_the_call_stores_none_of_its_keys(cache, slowly):
    from cachee_shm.transactions import Transaction

    def load_many(keys):
        with_write = Transaction()
        with_write.statement("UPDATE users SET name = 'x'")
        found = dict.fromkeys(keys, 1)
        with_write.rolled_back()
        return found

    cache.origin("user:", load_many=load_many)
    in_threads(cache.get_or_load, KEYS)
    assert cache.get_many(KEYS) == {}


def test_a_task_that_is_cancelled_takes_nobody_along(cache):
    async def load_many(keys):
        await asyncio.sleep(0.05)
        return {key: key for key in keys}

    cache.origin("user:", load_many=load_many)

    async def main():
        tasks = [asyncio.ensure_future(cache.aget_or_load(key)) for key in KEYS]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    assert isinstance(found[0], asyncio.CancelledError) and found[1:] == KEYS[1:]


def test_if_the_thread_that_calls_is_interrupted_the_others_load_by_themselves(cache, slowly):
    class Interrupt(BaseException):
        """As Celery's soft time limit might come."""

    calls = []

    def load_many(keys):
        calls.append(sorted(keys))
        if len(keys) > 1:
            raise Interrupt
        return {key: key for key in keys}

    def read(key):
        try:
            return cache.get_or_load(key)
        except Interrupt:
            return "interrupted"

    cache.origin("user:", load_many=load_many)
    found = in_threads(read, KEYS[:4])
    assert found.count("interrupted") == 1 and {*found} - {"interrupted"} < {*KEYS}
    assert cache._holds() == (0, 0, 0)


def test_a_forked_child_gathers_anew(cache, users, slowly):
    cache.origin("user:", load_many=users.load_many)
    leader = threading.Thread(target=cache.get_or_load, args=("user:1",))
    leader.start()
    time.sleep(0.05)  # it waits for others, and the child has it not
    child = os.fork()
    if not child:
        ended = cache.get_or_load("user:2") == 2
        os._exit(not ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    leader.join()


def test_threads_of_a_forked_child_share_no_lock_with_the_parent(monkeypatch):
    """The child's first thread is stopped between any two steps of what it does anew."""
    gathered = gathering.Threads(lambda keys: keys)
    forked = os.getpid() + 1
    held = gathered._meeting
    monkeypatch.setattr(os, "getpid", lambda: forked)
    with held._lock:  # by a thread that the child has not
        assert in_threads(gathered.asked, KEYS) == KEYS
    assert gathered._meeting.pid == forked


def test_no_thread_waits_for_one_that_was_interrupted_before_it_called(cache, users, monkeypatch):
    monkeypatch.setattr(gathering, "FOLLOW_S", 0.05)
    cache.origin("user:", load_many=users.load_many)
    kept, thrown = [], threading.Event()
    call = gathering.Threads._call

    def interrupted(self, *args):
        monkeypatch.setattr(gathering.Threads, "_call", call)
        raise KeyboardInterrupt

    monkeypatch.setattr(gathering.Threads, "_call", interrupted)

    def lead():
        try:
            cache.get_or_load("user:1")
        except KeyboardInterrupt as error:
            kept.append(error)  # as a future of concurrent.futures does, and with it the frames
            thrown.set()
            end.wait()

    end = threading.Event()
    leader = threading.Thread(target=lead)
    leader.start()
    assert thrown.wait(10)
    late = threading.Thread(target=cache.get_or_load, args=("user:2",), daemon=True)
    late.start()
    late.join(10)
    waits = late.is_alive()
    end.set()
    leader.join()
    assert not waits and cache["user:2"] == 2


def test_a_full_batch_of_tasks_runs_in_the_load_of_the_one_that_opened_it(cache, monkeypatch):
    monkeypatch.setattr(gathering, "MANY_MAX", 4)

    async def load_many(keys):
        if len(keys) == 1:
            return dict.fromkeys(keys, "alone")
        inner = await asyncio.wait_for(cache.aget_or_load(keys[0]), 5)
        return {key: (inner, type(cachee_shm.current_load()).__name__) for key in keys}

    cache.origin("user:", load_many=load_many)

    async def main():
        return await asyncio.gather(*map(cache.aget_or_load, KEYS[:4]))

    assert asyncio.run(main()) == [("alone", "BatchLoad")] * 4


@pytest.mark.parametrize("loops", [2])
def test_each_event_loop_gathers_by_itself(cache, loops):
    async def load_many(keys):
        await asyncio.sleep(0.01)
        return {key: key for key in keys}

    cache.origin("user:", load_many=load_many)

    async def main(number):
        return await asyncio.gather(*(cache.aget_or_load(f"user:{number}:{each}") for each in range(5)))

    found = in_threads(lambda number: asyncio.run(main(number)), list(range(loops)))
    assert found == [[f"user:{number}:{each}" for each in range(5)] for number in range(loops)]


def test_a_key_that_two_callers_load_at_once_is_in_no_call_twice(cache, slowly):
    """Of callers that wait for nobody, each has a call of its own for the key: their tokens differ."""
    calls = []

    def load_many(keys):
        calls.append(list(keys))
        return {key: len(calls) for key in keys}

    cache.origin("user:", load_many=load_many)
    origin = cache._origins.find("user:1")
    assert sorted(in_threads(lambda number: origin.load("user:1"), [1, 2])) == [1, 2]
    assert calls == [["user:1"], ["user:1"]]
