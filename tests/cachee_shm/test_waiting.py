"""One load per host: who waits for whom, for how long, and what they get."""

import asyncio
import gc
import sys
import threading
import time
from functools import partial

import pytest
import trio

from cachee_shm import loading, waiting
from tests.cachee_shm.loaders import Origin, held, running
from tests.cachee_shm.processes import child, children, until


@pytest.fixture(params=["def", "async def"])
def load(request, cache):
    """``get_or_load`` and ``aget_or_load``, called alike."""
    if request.param == "def":
        return cache.get_or_load

    def run(key, loader, *args, **options):
        async def aloader(*given):
            return loader(*given)

        return asyncio.run(cache.aget_or_load(key, aloader, *args, **options))

    return run


def test_many_processes_that_miss_at_once_load_once(cache, config, tmp_path):
    code = """
def loader():
    with open(arguments['log'], 'a') as log:
        log.write('load\\n')
    time.sleep(0.2)
    return 'loaded'
say('ready'); wait()
say(cache.get_or_load('a', loader))
"""
    log = tmp_path / "log"
    with children(code, 8, config=config, log=str(log)) as callers:
        for caller in callers:
            caller.line()
        for caller in callers:
            caller.tell()
        assert [caller.line() for caller in callers] == ["loaded"] * 8
    assert log.read_text() == "load\n"


def test_many_threads_that_miss_at_once_load_once(cache):
    origin = Origin()
    got = []

    def loader():
        time.sleep(0.05)
        return origin()

    with running(*[lambda: got.append(cache.get_or_load("a", loader))] * 16):
        pass
    assert (got, origin.calls) == (["loaded"] * 16, 1)


def test_many_coroutines_that_miss_at_once_load_once(cache):
    calls = []

    async def loader(number):
        calls.append(number)
        await asyncio.sleep(0.05)
        return "loaded"

    async def main():
        return await asyncio.gather(*(cache.aget_or_load("a", loader, i) for i in range(200)))

    assert asyncio.run(main()) == ["loaded"] * 200
    assert len(calls) == 1


def test_waiting_for_another_s_load_does_not_block_the_event_loop(cache):
    async def main():
        event = asyncio.Event()

        async def slow():
            await event.wait()
            return "loaded"

        callers = [asyncio.create_task(cache.aget_or_load("a", slow)) for _ in range(2)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, event.set)
        return await asyncio.gather(*callers)

    assert asyncio.run(main()) == ["loaded"] * 2


def test_a_cancelled_loader_leaves_its_lease_to_the_next(cache):
    async def main():
        started = asyncio.Event()

        async def hangs():
            started.set()
            await asyncio.Event().wait()

        async def loads():
            return "loaded"

        first = asyncio.create_task(cache.aget_or_load("a", hangs))
        await started.wait()
        second = asyncio.create_task(cache.aget_or_load("a", loads))
        await asyncio.sleep(0.01)
        first.cancel()
        return await second

    assert asyncio.run(main()) == "loaded"


def test_a_failure_is_told_to_all_who_waited_for_the_load(cache):
    entered = threading.Event()
    go = threading.Event()
    told = []

    def fails():
        entered.set()
        go.wait()
        raise OSError("down")

    def first():
        with pytest.raises(OSError, match="down"):
            cache.get_or_load("a", fails)

    def waits():
        entered.wait()
        try:
            cache.get_or_load("a", lambda: pytest.fail("a second load"))
        except OSError as error:
            told.append(error)

    def release():
        until(lambda: cache.stats()["lease_waits"] == 8)
        go.set()

    with running(first, release, *[waits] * 8):
        pass
    assert len(told) == 8
    assert cache.get_or_load("a", Origin("up")) == "up"


class Abort(BaseException):
    """What is no answer of the origin."""


def test_what_ends_a_loader_without_an_answer_is_not_told_and_a_waiter_loads(cache):
    entered = threading.Event()
    go = threading.Event()
    got = []

    def aborted():
        entered.set()
        go.wait()
        raise Abort

    def first():
        with pytest.raises(Abort):
            cache.get_or_load("a", aborted)

    def waits():
        entered.wait()
        got.append(cache.get_or_load("a", Origin()))

    def release():
        until(lambda: cache.stats()["lease_waits"] == 4)
        go.set()

    with running(first, release, *[waits] * 4):
        pass
    assert got == ["loaded"] * 4
    assert cache.stats()["loads"] == 1


def test_each_waiter_gets_a_copy_of_its_own_as_from_the_cache(cache):
    async def main():
        async def loader():
            await asyncio.sleep(0.02)
            cache.delete("a")
            return {"list": []}

        return await asyncio.gather(*(cache.aget_or_load("a", loader) for _ in range(3)))

    got = asyncio.run(main())
    assert got == [{"list": []}] * 3
    assert len({id(each["list"]) for each in got}) == 3


def test_a_value_that_no_codec_takes_is_never_given_to_two_callers(cache):
    calls = []

    async def main():
        async def loader():
            calls.append(1)
            await asyncio.sleep(0.02)
            return object()

        return await asyncio.gather(*(cache.aget_or_load("a", loader) for _ in range(3)))

    with pytest.warns(RuntimeWarning, match="not cached"):
        got = asyncio.run(main())
    assert len({id(each) for each in got}) == len(calls) == 3


LOADS_FOR_EVER = """
def loader():
    say('loading')
    time.sleep(3600)
cache.get_or_load('a', loader)
"""


def test_a_waiter_takes_over_from_a_loader_that_was_killed(cache, config):
    got = []
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        with running(lambda: got.append(cache.get_or_load("a", Origin()))):
            until(lambda: cache.stats()["lease_waits"] == 1)
            assert got == []
            holder.kill()
    assert got == ["loaded"]


def test_the_lease_of_a_killed_loader_is_free_before_any_sweep(cache, config):
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        assert held(cache, "a")
        holder.kill()
    assert not held(cache, "a")
    assert cache.stats()["swept"] == 0


def test_a_waiter_loads_for_itself_when_the_key_is_written_meanwhile(cache, config):
    got = []
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        with running(lambda: got.append(cache.get_or_load("a", Origin()))):
            until(lambda: cache.stats()["lease_waits"] == 1)
            assert got == []
            cache.delete("a")
        assert got == ["loaded"]
        assert holder.process.poll() is None
    assert cache.stats()["waits_over"] == 0


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (lambda cache: cache.delete("a"), {}),
        (lambda cache: cache.delete_tags("t"), {"tags": ["t"]}),
        (lambda cache: cache.clear(), {}),
    ],
    ids=["key", "tag", "clear"],
)
def test_of_many_waiters_one_loads_after_each_invalidation(cache, event, options):
    calls = []
    go = threading.Event()

    def loader():
        calls.append(1)
        go.wait()
        return len(calls)

    def ask():
        cache.get_or_load("a", loader, **options)

    with running(*[ask] * 8):
        until(lambda: cache.stats()["lease_waits"] == 7)
        event(cache)
        with running(*[ask] * 8):
            until(lambda: cache.stats()["lease_waits"] >= 14)
            assert len(calls) == 2
            go.set()
    assert len(calls) == 2


def test_a_call_that_began_before_a_write_takes_a_value_loaded_before_it_and_a_later_one_does_not(cache):
    go = threading.Event()
    got = []
    origin = ["older"]

    def loader():
        value = origin[0]
        go.wait()
        return value

    with running(*[lambda: got.append(cache.get_or_load("a", loader))] * 3):
        until(lambda: cache.stats()["lease_waits"] == 2)
        origin[0] = "newer"
        cache.delete("a")
        assert cache.get_or_load("a", lambda: origin[0], ttl=0) == "newer"
        go.set()
    assert got == ["older"] * 3
    assert "a" not in cache


def test_no_more_than_two_load_a_key_at_a_time_however_often_it_is_written(cache):
    lock = threading.Lock()
    now, most = [0], [0]

    def loader():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 1

    def ask():
        for _ in range(5):
            cache.get_or_load("a", loader)
            cache.delete("a")

    with running(*[ask] * 8):
        pass
    assert most[0] <= 2
    assert cache.stats()["waits_over"] == 0


def test_of_the_waiters_of_a_late_loader_one_loads(cache, config, load):
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        cache._lateness(50, 50)
        calls = []

        def loader():
            calls.append(1)
            time.sleep(0.02)
            return "loaded"

        got = []
        with running(*[lambda: got.append(cache.get_or_load("a", loader))] * 8):
            pass
        assert (got, len(calls)) == (["loaded"] * 8, 1)
        cache.delete("a")
        waits = cache.stats()["lease_waits"]
        assert load("a", Origin("anew")) == "anew"  # nobody waits for the late one again
        assert cache.stats()["lease_waits"] == waits
        assert cache.stats()["leases_late"] == 1
        assert holder.process.poll() is None


def test_nobody_waits_longer_than_two_load_times(cache, config, load):
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        options = loading.Options(cache)
        since, asked_ms = cache._arrive("a", (), False)
        cache._lateness(60_000, 60_000)
        assert cache._load("a", Origin(), (), options.kept, since, asked_ms, False, 0) == (0, None, None)
        assert cache._load("a", Origin(), (), options.kept, since, asked_ms - 120_001, False, 0)[:2] == (
            1,
            "loaded",
        )
        assert cache.stats()["waits_over"] == 1


def test_a_load_of_known_length_is_late_after_twice_that(cache):
    cache._lateness(1, 60_000)
    cache.get_or_load("a", lambda: time.sleep(0.1), ttl=0)
    entered, go = threading.Event(), threading.Event()

    def hangs():
        entered.set()
        go.wait()

    with running(lambda: cache.get_or_load("a", hangs)):
        entered.wait()
        assert cache.get_or_load("a", Origin()) == "loaded"
        go.set()
    assert cache.stats()["leases_late"] == 1


# Whoever would wait for itself


def test_a_loader_that_asks_for_its_own_key_loads_at_once(cache, load):
    assert load("a", lambda: ["outer", cache.get_or_load("a", lambda: "inner")]) == ["outer", "inner"]
    assert cache.stats()["lease_waits"] == 0


def test_so_does_one_that_asks_through_another_key_a_task_or_a_thread(cache):
    async def inner():
        return "inner"

    def through_another_key():
        return cache.get_or_load("b", lambda: cache.get_or_load("a", lambda: "inner"))

    async def outer():
        task = asyncio.create_task(cache.aget_or_load("a", inner))
        return [
            await task,
            await asyncio.to_thread(cache.get_or_load, "a", lambda: "inner", ttl=0),
            await asyncio.to_thread(through_another_key),
            cache.get_or_load("a", lambda: "inner", ttl=0),
        ]

    async def main():
        return await cache.aget_or_load("a", outer, ttl=0)

    cache.get_or_load("a", lambda: 1, ttl=0)
    assert asyncio.run(main()) == ["inner"] * 4
    assert cache.stats()["lease_waits"] == 0


def test_a_blocking_call_does_not_wait_for_a_task_of_its_own_thread(cache):
    async def main():
        started, go = asyncio.Event(), asyncio.Event()

        async def slow():
            started.set()
            await go.wait()
            return "slow"

        task = asyncio.create_task(cache.aget_or_load("a", slow))
        await started.wait()
        value = cache.get_or_load("a", lambda: "at once")
        go.set()
        return value, await task

    assert asyncio.run(main()) == ("at once", "slow")


def test_a_later_call_of_the_same_task_does_wait(cache):
    async def main():
        async def slow():
            await asyncio.sleep(0.01)
            return "loaded"

        await cache.aget_or_load("b", slow)
        return await asyncio.gather(*(cache.aget_or_load("a", slow) for _ in range(2)))

    assert asyncio.run(main()) == ["loaded"] * 2
    assert cache.stats()["lease_waits"] == 1


CIRCLE = """
def other():
    return cache.get_or_load(arguments['other'], lambda: 'itself')
def loader():
    say('loading'); wait()
    return other()
say(cache.get_or_load(arguments['own'], loader))
"""


def test_two_processes_whose_loaders_ask_for_each_other_s_key_do_not_wait(cache, config):
    with (
        child(CIRCLE, config=config, own="a", other="b") as first,
        child(CIRCLE, config=config, own="b", other="a") as second,
    ):
        assert (first.line(), second.line()) == ("loading", "loading")
        first.tell(), second.tell()
        assert {first.line(), second.line()} == {"itself"}
    stats = cache.stats()
    assert stats["waits_circular"] >= 1
    assert (stats["leases_late"], stats["waits_over"]) == (0, 0)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_threads_whose_loaders_ask_for_each_other_s_keys_do_not_wait(cache, names):
    together, got = threading.Barrier(len(names)), []

    def ask(number):
        def loader():
            together.wait()
            return cache.get_or_load(names[(number + 1) % len(names)], lambda: "itself")

        got.append(cache.get_or_load(names[number], loader))

    with running(*[partial(ask, number) for number in range(len(names))]):
        pass
    assert got == ["itself"] * len(names)
    stats = cache.stats()
    assert stats["waits_circular"] >= 1
    assert (stats["leases_late"], stats["waits_over"]) == (0, 0)


def test_tasks_whose_loaders_ask_for_each_other_s_keys_do_not_wait(cache):
    async def itself():
        return "itself"

    async def main():
        together = [asyncio.Event(), asyncio.Event()]

        async def ask(number):
            async def loader():
                together[number].set()
                await together[1 - number].wait()
                return await asyncio.create_task(cache.aget_or_load("ab"[1 - number], itself))

            return await cache.aget_or_load("ab"[number], loader)

        return await asyncio.gather(ask(0), ask(1))

    assert asyncio.run(main()) == ["itself"] * 2
    stats = cache.stats()
    assert stats["waits_circular"] >= 1
    assert (stats["leases_late"], stats["waits_over"]) == (0, 0)


def test_a_loader_waits_for_another_key_s_load_that_does_not_wait_for_it(cache):
    calls = []

    async def shared():
        calls.append(1)
        await asyncio.sleep(0.02)
        return "shared"

    async def main():
        async def page(number):
            return await cache.aget_or_load("shared", shared)

        return await asyncio.gather(*(cache.aget_or_load(f"page-{n}", page, n) for n in range(50)))

    assert asyncio.run(main()) == ["shared"] * 50
    assert len(calls) == 1
    assert cache.stats()["waits_circular"] == 0


def test_a_loader_that_waits_for_two_keys_loads_the_third_itself_and_waits_again_later(cache):
    async def main():
        go = asyncio.Event()

        async def slow():
            await go.wait()
            return "slow"

        async def itself():
            return "itself"

        later = asyncio.Event()

        async def slower():
            await later.wait()
            return "slower"

        others = [asyncio.create_task(cache.aget_or_load(key, slow)) for key in "bcd"]
        last = asyncio.create_task(cache.aget_or_load("e", slower))
        await asyncio.sleep(0)

        async def loader():
            waits = [asyncio.create_task(cache.aget_or_load(key, itself)) for key in "bc"]
            await asyncio.sleep(0)
            third = await cache.aget_or_load("d", itself, ttl=0)
            asyncio.get_running_loop().call_later(0.02, go.set)
            waited = [await each for each in waits]
            asyncio.get_running_loop().call_later(0.02, later.set)
            return [third, *waited, await cache.aget_or_load("e", itself)]

        got = await cache.aget_or_load("a", loader)
        return got, [await each for each in others], await last

    assert asyncio.run(main()) == (["itself", "slow", "slow", "slower"], ["slow"] * 3, "slower")
    assert cache.stats()["waits_circular"] == 1


def test_more_keys_are_loaded_at_once_than_there_are_leases(cache):
    count = 3000

    async def loader(i):
        await asyncio.sleep(0.01)
        return i

    async def main():
        return await asyncio.gather(*(cache.aget_or_load(f"key-{i}", loader, i) for i in range(count)))

    assert asyncio.run(main()) == list(range(count))
    assert cache.stats()["leases_no_room"] > 0


def test_who_waits_for_long_is_looked_after_as_often_as_ever():
    """Pauses between looks stop growing. Doubled 16 times, one pause alone would be half a minute."""
    looks = []

    def still():
        looks.append(1)
        return len(looks) < 20

    asyncio.run(asyncio.wait_for(waiting.await_while(still), 20))
    assert len(looks) >= 20


def in_asyncio(cache):
    async def load():
        return "mine"

    return asyncio.run(cache.aget_or_load("a", load))


def in_trio(cache):
    async def load():
        return "mine"

    return trio.run(cache.aget_or_load, "a", load)


@pytest.mark.parametrize("ask", [lambda cache: cache.get_or_load("a", Origin("mine")), in_asyncio, in_trio])
def test_a_process_that_can_start_no_thread_waits_for_another_one_all_the_same(
    cache, config, monkeypatch, ask
):
    def start(thread):
        raise RuntimeError("can't start new thread")

    code = """
def loader():
    say('loads'); time.sleep(0.3)
    return 'theirs'
cache.get_or_load('a', loader)
"""
    with child(code, config=config) as other:
        assert other.line() == "loads"
        monkeypatch.setattr(waiting, "poll", waiting.Poll())
        monkeypatch.setattr(threading.Thread, "start", start)
        assert ask(cache) == "theirs"


def test_what_a_signal_handler_raises_as_a_thread_is_started_is_the_callers(cache, config, monkeypatch):
    class Interrupted(RuntimeError):
        pass

    def start(thread):
        raise Interrupted

    with child("cache.get_or_load('a', lambda: (say('loads'), wait()))", config=config) as other:
        assert other.line() == "loads"
        monkeypatch.setattr(waiting, "poll", waiting.Poll())
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(Interrupted):
            cache.get_or_load("a", Origin())


@pytest.mark.parametrize(
    ("thrown", "kind", "text"),
    [
        ((ValueError("a"),), ValueError, "a"),
        ((ValueError,), ValueError, ""),
        ((ValueError, "a"), ValueError, "a"),
        ((ValueError, None), ValueError, ""),
        ((ValueError, KeyError("a")), KeyError, "'a'"),
        ((7,), TypeError, "takes an exception"),
    ],
)
@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")
def test_what_is_thrown_into_a_load_comes_out_of_its_loader_and_gives_everything_back(
    cache, monkeypatch, thrown, kind, text
):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    class Future:
        def __await__(self):
            yield "a future"

    async def waits():
        await Future()

    running = cache.aget_or_load("a", waits)
    assert running.send(None) == "a future"
    inner = running
    while getattr(inner, "cr_await", None) is not None:
        inner = inner.cr_await
    with pytest.raises(kind, match=text or None):
        inner.throw(*thrown)
    running.close()
    dropped = cache.aget_or_load("b", waits)
    dropped.send(None)
    del dropped, inner, running
    gc.collect()
    assert cache._holds() == (0, 0, 0)
    assert unraisable == []
