"""Locks by name: exclusive on a host, freed by a block's end, a process's end or their time, and fenced."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

import cachee_shm
from cachee_shm.errors import Closed, LockTimeout, SegmentError
from tests.cachee_shm.processes import child, children, forked, in_fork
from tests.cachee_shm.test_event_loops import LIBRARIES
from tests.cachee_shm.test_successor import Obstacle, file_of

LONG_S = 60.0


@pytest.fixture
def lock(cache):
    return cache.host.lock


@pytest.fixture(params=LIBRARIES.values(), ids=LIBRARIES.keys())
def run(request):
    return request.param


def test_a_lock_is_held_within_its_block_and_by_nobody_after(lock):
    with lock("a") as held:
        assert held.held()
        with pytest.raises(LockTimeout, match=rf"'a' .* held by process {os.getpid()} "), lock("a", wait=0):
            pytest.fail("two in the block")
        with lock("b", wait=0) as other:
            assert other.held() and held.held()
    assert not held.held()
    with lock("a", wait=0), lock(b"b", wait=timedelta(0)):
        pass


def test_an_exception_in_the_block_frees_the_lock(lock):
    with pytest.raises(KeyError), lock("a"):
        raise KeyError
    with lock("a", wait=0):
        pass


def test_an_object_is_for_one_block_at_a_time(lock):
    one = lock("a")
    with one, pytest.raises(RuntimeError, match=r"is open.*cache\.host\.lock"), one:
        pytest.fail("entered twice")
    with one:
        assert one.held()


def test_what_was_given_back_early_may_be_taken_within_the_block(lock):
    with lock("a") as first:
        assert first.release()
        assert not first.held()
        with lock("a", wait=0) as second:
            assert not first.release()
            assert second.held()


def test_a_block_that_outlives_its_lock_can_notice_that_and_harms_no_other(cache, lock):
    start = cache.now_ms()
    cache._freeze(start)
    with lock("a", ttl=30) as late:
        cache._freeze(start + 29_999)
        assert late.held()
        with pytest.raises(LockTimeout), lock("a", wait=0):
            pass
        cache._freeze(start + 30_000)
        assert not late.held()
        with lock("a", wait=0, ttl=None) as next_one:
            assert next_one.fence > late.fence
            assert late.release() is False
            cache._freeze(start + 10**9)
            assert next_one.held()


def test_each_fencing_number_is_above_all_before_it_also_in_a_new_segment(cache, lock):
    fences = []
    for name in ["a", "b", "a", "b"]:
        with lock(name) as held:
            fences.append(held.fence)
    with lock("a") as before:
        cache.retire()
        assert not before.held()
        with lock("a", wait=0) as after:
            fences += [before.fence, after.fence]
            assert after.held()
        assert before.release() is False
    assert fences == sorted(set(fences))
    assert fences[0] > 0
    assert fences[-1] < 1 << 63


def overwritten(cache, config, number):
    """The last fencing number of the segment is this function of it from now on."""
    with cache.host.lock("a") as held:
        last = held.fence
    with open(file_of(config), "r+b") as file:
        file.seek(file.read(1 << 16).index(last.to_bytes(8, "little")))
        file.write(number(last).to_bytes(8, "little"))
    return number(last)


def with_clock_set_back(cache, config):
    """As if an hour had been taken from the wall clock: the number that the next one must be above."""
    return overwritten(cache, config, lambda last: last + 3600 * 10**9)


def test_the_fences_of_a_successor_are_above_its_predecessor_s_though_the_wall_clock_was_set_back(
    cache, config
):
    with cachee_shm.attach(config=config) as other:
        ahead = with_clock_set_back(cache, config)
        cache.retire()
        with other.host.lock("a") as by_one_that_had_none:
            assert by_one_that_had_none.fence > ahead
        ahead = with_clock_set_back(cache, config)
        cache.retire()
    cache.close()
    with cachee_shm.attach(config=config) as newcomer, newcomer.host.lock("a") as held:
        assert held.fence > ahead


@pytest.mark.parametrize("left", [0, 1, 2, 10])
def test_a_damaged_fencing_number_is_left_behind_with_its_segment(cache, config, lock, left):
    overwritten(cache, config, lambda last: (1 << 62) - left)
    for _ in range(left // 2 + 2):
        with lock("a"):
            pass
    before = cache.incarnation
    with lock("a"):
        assert cache.incarnation == before


def test_a_fencing_number_before_the_first_block_is_an_error(lock):
    with pytest.raises(RuntimeError, match="not taken yet"):
        print(lock("a").fence)


def test_neither_clear_nor_a_key_of_its_name_touches_a_lock(cache, lock):
    with lock("a") as held:
        cache.set("a", 1)
        cache.delete("a")
        cache.clear()
        for n in range(2000):
            cache.set(f"filler:{n}", bytes(4000))
        assert held.held()
        assert "a" not in cache
        with pytest.raises(LockTimeout), lock("a", wait=0):
            pass


def test_a_lock_that_is_dropped_is_free(lock):
    dropped = lock("a", ttl=None)
    dropped.__enter__()
    del dropped
    gc.collect()
    with lock("a", wait=0):
        pass


def test_closing_frees_the_lock_and_ends_its_block_without_an_error(config):
    with cachee_shm.attach(config=config) as other:
        cache = cachee_shm.attach(config=config)
        with cache.host.lock("a") as held:
            cache.close()
            assert not held.held()
            with other.host.lock("a", wait=0):
                pass
        with pytest.raises(Closed), held:
            pass


# Other processes

HOLD = """
with cache.host.lock('a', ttl=None):
    say('held'); wait()
    {}
"""


@pytest.mark.parametrize("end", ["die()", "os._exit(1)", "os.execv('/bin/true', ['true'])"])
def test_the_holders_death_frees_the_lock_without_waiting_for_its_time(config, lock, end):
    with child(HOLD.format(end), config=config) as holder:
        assert holder.line() == "held"
        with pytest.raises(LockTimeout, match=rf"process {holder.pid} "), lock("a", wait=0.01):
            pass
        holder.tell()
        with lock("a", wait=LONG_S) as held:
            assert held.held()


def test_a_stopped_holder_keeps_the_lock_until_its_time_is_over(config, lock):
    code = "with cache.host.lock('a', ttl=0.2) as l:\n  say('held'); wait()\nsay(l.release())"
    with child(code, config=config) as holder:
        assert holder.line() == "held"
        os.kill(holder.pid, signal.SIGSTOP)
        with lock("a", ttl=None, wait=LONG_S) as held:
            os.kill(holder.pid, signal.SIGCONT)
            holder.tell()
            assert holder.line() == "False"
            assert held.held()


def test_a_forked_child_does_not_hold_its_parents_lock(lock):
    with lock("a") as held:

        def as_child():
            assert not held.held()
            assert not held.release()
            with pytest.raises(LockTimeout), lock("a", wait=0):
                pass

        in_fork(as_child)
        assert held.held()


def test_a_child_that_outlives_its_parent_does_not_keep_the_parents_lock(cache, config):
    def holder():
        block = cache.host.lock("a", ttl=None)
        block.__enter__()
        forked(lambda: time.sleep(1))
        os._exit(0)

    os.waitpid(forked(holder), 0)
    with cachee_shm.attach(config=config) as other, other.host.lock("a", wait=LONG_S):
        pass


COUNT = """
for n in range(arguments['counts']):
    with cache.host.lock('counter', wait=60) as held:
        count, fence = cache.get('count', (0, 0))
        assert held.fence > fence
        cache.set('count', (count + 1, held.fence), local=True)
say('counted')
"""


def test_what_processes_count_under_a_lock_adds_up_and_the_fences_grow(config, cache):
    with children(COUNT, 4, config=config, counts=50) as counting:
        for one in counting:
            assert one.line() == "counted"
    assert cache.get("count")[0] == 200


def test_threads_of_a_process_exclude_each_other(lock):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        for _ in range(20):
            with lock("a", wait=LONG_S):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# Tasks


def test_a_waiting_task_lets_the_others_run_and_gets_the_lock(run, config, lock):
    async def main():
        async with lock("a", wait=LONG_S) as held:
            assert held.held()

    with child(HOLD.format(""), config=config) as holder:
        assert holder.line() == "held"
        teller = threading.Timer(0.02, holder.tell)
        teller.start()
        run(main)
        teller.join()


def test_tasks_exclude_each_other_and_a_task_waits_no_longer_than_it_said(lock):
    inside = []

    async def work(n):
        async with lock("a", wait=LONG_S):
            inside.append(n)
            await asyncio.sleep(0.001)
            assert inside[-1] == n

    async def main():
        await asyncio.gather(*map(work, range(10)))
        async with lock("a"):
            with pytest.raises(LockTimeout):
                async with lock("a", wait=0.01):
                    pass
            with pytest.raises(LockTimeout):
                async with lock("a", wait=0):
                    pass

    asyncio.run(main())
    assert sorted(inside) == list(range(10))


def test_a_cancelled_waiter_leaves_nothing_and_its_holder_holds_on(lock):
    async def wait():
        async with lock("a", wait=LONG_S):
            pytest.fail("the lock was held")

    async def main():
        async with lock("a") as held:
            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0.01)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert held.held()

    asyncio.run(main())
    with lock("a", wait=0):
        pass


IN_GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, time, cachee_shm
cache, order = cachee_shm.attach(private=True), []
def work(n):
    with cache.host.lock("a", wait=60):
        order.append(n); time.sleep(0.002); assert order[-1] == n
gevent.joinall([gevent.spawn(work, n) for n in range(8)], raise_error=True)
assert sorted(order) == list(range(8))
"""


def test_greenlets_exclude_each_other_and_none_blocks_the_rest():
    done = subprocess.run([sys.executable, "-c", IN_GREENLETS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Without a segment, and without a cache


def test_without_a_segment_no_lock_is_taken_and_a_waiter_gets_it_once_there_is_one(config, lock):
    obstacle = Obstacle(config)
    time.sleep(0.02)  # another tick of the coarse clock
    with pytest.raises(SegmentError, match="segment is gone"), lock("a", wait=0):
        pass
    remover = threading.Timer(0.05, obstacle.remove)
    remover.start()
    with lock("a", wait=LONG_S) as held:
        assert held.held()
    remover.join()


def test_a_lock_excludes_also_those_for_whom_the_cache_is_disabled(config, lock, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypass = cachee_shm.attach(config=config)
    with bypass, bypass.host.lock("a"), pytest.raises(LockTimeout), lock("a", wait=0):
        pass


def test_a_private_caches_lock_is_its_own(config):
    one, other = cachee_shm.attach(private=True), cachee_shm.attach(private=True)
    with one, other, one.host.lock("a"), other.host.lock("a", wait=0):
        pass


def test_so_many_locks_that_there_is_no_room_is_an_error_that_says_so(cache, lock):
    held = []

    def fill():
        while True:
            held.append(lock(f"filler:{len(held)}", wait=0))
            held[-1].__enter__()

    with pytest.raises(SegmentError, match="too many other locks"):
        fill()
    name = held[-1]._name
    held.pop()

    async def wait():
        async with lock(name, wait=LONG_S):
            pass

    async def main():
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        held.clear()
        await waiter

    assert len(held) > 64
    asyncio.run(main())
