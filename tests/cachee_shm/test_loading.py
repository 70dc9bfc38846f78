"""One load per host, fenced fills, and writes of the origin that leave no stale value behind."""

import asyncio
import struct
import threading
import time
from contextlib import contextmanager

import pytest

import cachee_shm
from cachee_shm import loading
from cachee_shm.errors import Closed, InvalidKey, InvalidTTL, KeyTooLong, Unserializable, ValueTooLarge
from tests.cachee_shm.processes import MINUTE_S, child, children, until

WIRE_KEY = 1


class Origin:
    """A loader that counts its calls."""

    def __init__(self, value="loaded"):
        self.value = value
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


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


@contextmanager
def running(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


# Loading


def test_the_loader_gets_its_arguments_and_is_called_once(cache, load):
    calls = []

    def loader(*args):
        calls.append(args)
        return {"id": args[0]}

    assert load("user:42", loader, 42, "x") == {"id": 42}
    assert load("user:42", loader, 42, "x") == {"id": 42}
    assert calls == [(42, "x")]
    assert cache.get("user:42") == {"id": 42}
    assert cache.stats()["loads"] == 1


def test_a_call_that_loads_counts_as_one_miss_and_one_that_does_not_as_one_hit(cache, load):
    for _ in range(2):
        assert load("k", lambda: 7) == 7
    numbers = cache.stats()
    assert (numbers["misses"], numbers["loads"], numbers["hits"]) == (1, 1, 1)


def test_a_loaded_value_is_not_announced(cache, load):
    tail = cache.tail
    load("a", Origin())
    assert cache.tail == tail


def test_a_loaded_value_lives_as_long_as_its_ttl(cache, load):
    cache._freeze(1_000_000)
    origin = Origin()
    load("a", origin, ttl=60)
    cache._freeze(1_059_999)
    load("a", origin, ttl=60)
    assert origin.calls == 1
    cache._freeze(1_060_000)
    load("a", origin, ttl=60)
    assert origin.calls == 2


def test_a_loaded_none_is_a_value_with_a_lifetime_of_its_own(cache, load):
    cache._freeze(1_000_000)
    origin = Origin(None)
    assert load("a", origin, ttl=60, negative_ttl=5) is None
    cache._freeze(1_004_999)
    assert load("a", origin, ttl=60, negative_ttl=5) is None
    assert origin.calls == 1
    cache._freeze(1_005_000)
    origin.value = "there now"
    assert load("a", origin, ttl=60, negative_ttl=5) == "there now"
    cache._freeze(1_064_999)
    assert cache.get("a") == "there now"


def test_with_a_ttl_of_zero_every_call_loads(cache, load):
    origin = Origin()
    assert load("a", origin, ttl=0) == load("a", origin, ttl=0) == "loaded"
    assert origin.calls == 2
    assert "a" not in cache


def test_an_exception_of_the_loader_is_the_caller_s_and_nothing_is_kept(cache, load):
    origin = Origin(OSError("origin down"))
    for _ in range(2):
        with pytest.raises(OSError, match="origin down"):
            load("a", origin)
    assert origin.calls == 2
    origin.value = "up"
    assert load("a", origin) == "up"


def test_tags_and_local_are_given_to_what_was_loaded(cache, load):
    load("a", Origin(), tags=["t"])
    cache.delete_tags("t")
    assert "a" not in cache
    load("a", Origin(), local=True)
    cache.apply(cache.source_open("web-2"), struct.pack("<BQ", WIRE_KEY, cache._hash("a")))
    assert "a" in cache


def test_a_loaded_value_that_is_too_large_is_returned_with_a_warning(cache, load):
    value = b"x" * (1 << 20)
    with pytest.warns(RuntimeWarning, match="not cached"):
        assert load("a", Origin(value)) == value
    assert "a" not in cache


def test_a_loaded_value_that_no_codec_takes_is_an_error_also_beside_a_stale_one(cache, load):
    cache._freeze(1_000_000)
    load("a", Origin("old"), ttl=1, stale=60)
    cache._freeze(1_002_000)
    with pytest.raises(Unserializable):
        load("a", Origin(object()), stale=60)
    with pytest.raises(InvalidTTL):
        load("a", Origin("new"), ttl=-1, stale=60)
    assert load("a", Origin("new"), stale=60) == "new"


# Promise 3: no stale fill


@pytest.mark.parametrize(
    "event",
    [
        lambda cache: cache.delete("a"),
        lambda cache: cache.set("a", "newer"),
        lambda cache: cache.delete_tags("t"),
        lambda cache: cache.clear(),
        lambda cache: cache.apply(1, struct.pack("<BQ", 1, cache._hash("a"))),
        lambda cache: cache.apply(1, struct.pack("<BQQ", 2, cache._hash("a"), 99)),
        lambda cache: cache.apply(1, struct.pack("<B", 4)),
        lambda cache: cache.apply(1, struct.pack("<B", 5)),
        lambda cache: cache.retire(),
    ],
    ids=["delete", "set", "tag", "clear", "peer", "peer's set", "peer's clear", "flush", "a new segment"],
)
def test_what_was_loaded_before_an_invalidation_is_returned_and_never_stored_after_it(cache, load, event):
    def loader():
        event(cache)
        return "older"

    assert load("a", loader, tags=["t"]) == "older"
    assert cache.get("a") in (None, "newer")


def test_an_invalidation_of_something_else_lets_a_fill_in(cache, load):
    def loader():
        cache.delete("b")
        cache.delete_tags("u")
        return "loaded"

    load("a", loader, tags=["t"])
    assert cache.get("a") == "loaded"


def test_a_peer_s_clear_during_a_load_spares_a_local_value(cache, load):
    def loader():
        cache.apply(1, struct.pack("<B", 4))
        return "loaded"

    load("a", loader, local=True)
    assert cache.get("a") == "loaded"


# Stale values


@pytest.fixture
def stale(cache):
    """The key "a" is past its lifetime of a second and within its grace of a minute."""
    cache._freeze(1_000_000)
    cache.get_or_load("a", Origin("old"), ttl=1, stale=60)
    cache._freeze(1_002_000)
    assert cache.get("a") is None


def test_a_loader_that_raises_leaves_the_stale_value(cache, load, stale):
    assert load("a", Origin(OSError("down")), stale=60) == "old"
    cache._freeze(1_061_000)
    with pytest.raises(OSError, match="down"):
        load("a", Origin(OSError("down")), stale=60)


def test_one_caller_reloads_a_stale_value_and_the_others_get_it_at_once(cache, load, stale):
    def loader():
        assert cache.get_or_load("a", Origin("nobody asks"), ttl=1, stale=60) == "old"
        return "new"

    assert load("a", loader, ttl=1, stale=60) == "new"
    assert cache.get("a") == "new"


@pytest.mark.parametrize(
    "event", [lambda cache: cache.delete("a"), lambda cache: cache.clear()], ids=["delete", "clear"]
)
def test_a_value_invalidated_while_its_loader_fails_is_not_served_stale(cache, load, stale, event):
    def loader():
        event(cache)
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        load("a", loader, stale=60)


def test_a_value_invalidated_before_is_never_served_stale(cache, load, stale):
    cache.delete("a")
    with pytest.raises(OSError, match="down"):
        load("a", Origin(OSError("down")), stale=60)


# Single flight


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


def test_a_waiter_takes_over_from_a_loader_that_raised(cache):
    entered = threading.Event()
    go = threading.Event()
    got = []

    def fails():
        entered.set()
        go.wait()
        raise OSError("down")

    def first():
        with pytest.raises(OSError, match="down"):
            cache.get_or_load("a", fails)

    def second():
        entered.wait()
        threading.Timer(0.02, go.set).start()
        got.append(cache.get_or_load("a", Origin()))

    with running(first, second):
        pass
    assert got == ["loaded"]


LOADS_FOR_EVER = """
def loader():
    say('loading')
    time.sleep(3600)
cache.get_or_load('a', loader)
"""


def test_a_waiter_takes_over_from_a_loader_that_was_killed(cache, config, monkeypatch):
    monkeypatch.setattr(loading, "LEASE_WAIT_S", 10 * MINUTE_S)
    got = []
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        with running(lambda: got.append(cache.get_or_load("a", Origin()))):
            until(lambda: cache.stats()["lease_waits"] > 5)
            assert got == []
            holder.kill()
    assert got == ["loaded"]


def test_the_lease_of_a_killed_loader_is_free_before_any_sweep(cache, config):
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        assert cache._lease("a") == loading.HELD
        holder.kill()
    assert cache._lease("a") == loading.TAKEN
    assert cache.stats()["swept"] == 0


def test_a_waiter_loads_for_itself_when_the_key_is_written_meanwhile(cache, config, monkeypatch):
    monkeypatch.setattr(loading, "LEASE_WAIT_S", 10 * MINUTE_S)
    got = []
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        with running(lambda: got.append(cache.get_or_load("a", Origin()))):
            until(lambda: cache.stats()["lease_waits"] > 5)
            assert got == []
            cache.delete("a")
        assert got == ["loaded"]
        assert holder.process.poll() is None


def test_a_waiter_loads_for_itself_when_the_load_takes_too_long(cache, config, load, monkeypatch):
    monkeypatch.setattr(loading, "LEASE_WAIT_S", 0.05)
    with child(LOADS_FOR_EVER, config=config) as holder:
        holder.line()
        assert load("a", Origin()) == "loaded"
        assert holder.process.poll() is None
    assert cache.get("a") == "loaded"


def test_more_keys_are_loaded_at_once_than_there_are_leases(cache):
    count = 3000

    async def loader(i):
        await asyncio.sleep(0.01)
        return i

    async def main():
        return await asyncio.gather(*(cache.aget_or_load(f"key-{i}", loader, i) for i in range(count)))

    assert asyncio.run(main()) == list(range(count))


# Writing


def kinds(events):
    return [event.kind for event in events.poll()]


def test_what_is_set_in_a_writing_block_is_announced_and_stored_at_its_end(cache):
    cache.set("a", "old")
    events = cache.events()
    with cache.writing("a") as w:
        w.set("ignored")
        w.set("new", ttl=60, tags=["t"])
        assert cache.get("a") == "old"
        assert events.poll() == []
    assert w.stored is True
    assert kinds(events) == ["set"]
    assert cache.get("a") == "new"
    cache.delete_tags("t")
    assert cache.get("a") is None


def test_without_a_set_the_key_is_deleted(cache):
    cache.set("a", "old")
    events = cache.events()
    with cache.writing("a") as w:
        pass
    assert w.stored is False
    assert kinds(events) == ["delete"]
    assert "a" not in cache


def test_an_exception_deletes_the_key_and_goes_on(cache):
    cache.set("a", "old")
    with pytest.raises(OSError, match="commit"), cache.writing("a") as w:
        w.set("new")
        raise OSError("commit failed")
    assert w.stored is False
    assert "a" not in cache


def test_a_writing_block_works_in_a_coroutine(cache):
    async def main():
        async with cache.writing("a") as w:
            await asyncio.sleep(0)
            w.set("new")
        return w.stored

    assert asyncio.run(main()) is True
    assert cache.get("a") == "new"


@pytest.mark.parametrize(
    "event",
    [
        lambda cache: cache.set("a", "theirs"),
        lambda cache: cache.set("a", "theirs", local=True),
        lambda cache: cache.delete("a"),
        lambda cache: cache.delete_tags("t"),
        lambda cache: cache.clear(),
        lambda cache: cache.apply(1, struct.pack("<BQ", 1, cache._hash("a"))),
        lambda cache: cache.apply(1, struct.pack("<BQQ", 2, cache._hash("a"), 99)),
        lambda cache: cache.apply(1, struct.pack("<B", 5)),
    ],
    ids=["set", "local set", "delete", "tag", "clear", "peer's delete", "peer's set", "flush"],
)
def test_when_somebody_else_wrote_in_between_the_value_is_announced_and_not_stored(cache, event):
    cache.set("a", "old")
    events = cache.events(keys=["a"])
    with cache.writing("a") as w:
        event(cache)
        events.poll()
        w.set("mine", tags=["t"])
    assert w.stored is False
    assert kinds(events) == ["set"]
    assert cache.get("a") is None


def test_a_write_of_another_key_in_between_does_not_matter(cache):
    with cache.writing("a") as w:
        for i in range(200):
            cache.set(f"other-{i}", i, tags=["u"])
        cache.delete_tags("u")
        w.set("mine", tags=["t"])
    assert w.stored is True
    assert cache.get("a") == "mine"


def test_a_value_that_another_reader_loaded_in_between_is_replaced(cache):
    with cache.writing("a") as w:
        assert cache.get_or_load("a", lambda: "before the commit") == "before the commit"
        w.set("new")
    assert (w.stored, cache.get("a")) == (True, "new")


def test_a_load_that_began_before_a_writing_block_ended_is_not_stored_after_it(cache):
    def loader():
        with cache.writing("a"):
            pass
        return "read before the commit"

    cache.get_or_load("a", loader)
    assert "a" not in cache


def test_blocks_of_several_keys_nest(cache):
    with cache.writing("a") as one, cache.writing("b") as two:
        one.set(1)
        two.set(2)
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}


def test_of_nested_blocks_of_one_key_the_outer_finds_it_written(cache):
    with cache.writing("a") as outer:
        with cache.writing("a") as inner:
            inner.set("inner")
        outer.set("outer")
    assert (inner.stored, outer.stored) == (True, False)
    assert "a" not in cache


@pytest.mark.parametrize(
    ("value", "options", "error"),
    [
        (object(), {}, Unserializable),
        (b"x" * (1 << 20), {}, ValueTooLarge),
        (1, {"ttl": -1}, InvalidTTL),
        (1, {"tags": "abc"}, InvalidKey),
        (1, {"tags": [7]}, InvalidKey),
        (1, {"tags": 7}, InvalidKey),
        (1, {"tags": ["x" * 2000]}, KeyTooLong),
        (1, {"tags": ["t"] * 17}, InvalidKey),
    ],
    ids=["value", "size", "ttl", "tags as str", "a tag of int", "tags of int", "long tag", "many tags"],
)
def test_whatever_is_wrong_with_the_value_the_origin_was_written_and_the_key_is_deleted(
    cache, value, options, error
):
    cache.set("a", "old")
    events = cache.events()
    with pytest.raises(error), cache.writing("a") as w:
        w.set(value, **options)
    assert w.stored is False
    assert kinds(events)[0] == "delete"
    assert "a" not in cache


def test_a_bad_key_is_an_error_before_the_origin_is_written(cache):
    with pytest.raises(InvalidKey), cache.writing(7):
        pytest.fail("the block was entered")


def test_a_cache_closed_within_a_block_has_announced_its_key(cache, config):
    cache.set("a", "old")
    other = cachee_shm.attach(config=config)
    with pytest.raises(Closed), other.writing("a"):
        other.close()
    assert "a" not in cache


@pytest.mark.parametrize("blocks", [1, 8])
def test_a_writer_killed_inside_its_blocks_has_left_intents_that_the_sweep_announces(cache, config, blocks):
    keys = [f"key-{i}" for i in range(blocks)]
    cache.set_many(dict.fromkeys([*keys, "other"], "old"))
    events = cache.events()
    code = """
for key in arguments['keys']:
    cache.writing(key).__enter__()
die()
"""
    cache._freeze(cache.now_ms())  # it sweeps when it is told to
    with child(code, config=config, keys=keys) as writer:
        writer.died()
    assert cache.get(keys[0]) == "old"
    assert cache.sweep() == 1
    announced = [(event.kind, event.hash) for event in events.poll()]
    assert sorted(announced) == sorted(("delete", cache._hash(key)) for key in keys)
    assert cache.get_many([*keys, "other"]) == {"other": "old"}
    payload = cache.pack(cache.tail - blocks, 100, 4096)[1]
    assert payload == b"".join(struct.pack("<BQ", WIRE_KEY, hash_) for _, hash_ in announced)
    assert cache.stats()["intents_swept"] == blocks
    assert cache.sweep() == 0


def test_a_writer_killed_inside_hundreds_of_blocks_costs_their_keys_and_no_other(cache, config):
    owed = [f"key-{i}" for i in range(400)]
    others = {f"other-{i}": "old" for i in range(400)}
    cache.set_many(dict.fromkeys(owed, "old") | others)
    with child(
        "[cache.writing(k).__enter__() for k in arguments['keys']]; die()", config=config, keys=owed
    ) as one:
        one.died()
    assert cache.sweep() == 1
    assert cache.get_many(owed) == {}
    assert cache.get_many(others) == others


def test_blocks_that_found_no_intent_free_cost_their_neighbours_and_peers_are_sent_a_map(cache, config):
    """A segment of 4 MiB has 1,024 intents; one process holds half. Then 1/512 of all keys is a bucket."""
    blocks = [f"key-{i}" for i in range(520)]
    others = [f"other-{i}" for i in range(1000)]
    cache.set_many(dict.fromkeys([*blocks, *others], "old"))
    cache.set("local", "stays", local=True)
    events, before = cache.events(), cache.tail
    with child(
        "[cache.writing(k).__enter__() for k in arguments['keys']]; die()", config=config, keys=blocks
    ) as one:
        one.died()
    assert cache.sweep() == 1
    assert cache.get_many(blocks) == {}
    assert len(cache.get_many(others)) > 900
    assert cache.get("local") == "stays"
    assert [event.kind for event in events.poll()].count("flush") == 1
    assert cache.pack(before, 2048, 1 << 16) is None
    assert cache.missed(before)[:1] == bytes((6,))


def test_hundreds_of_blocks_that_end_leave_all_that_is_stored(cache, config):
    names = [f"key-{i}" for i in range(600)]
    others = dict.fromkeys([f"other-{i}" for i in range(500)], "old")
    cache.set_many(others)
    code = """
blocks = [cache.writing(k) for k in arguments['keys']]
for block in blocks: block.__enter__()
for block in blocks: block.set('new'); block.__exit__(None, None, None)
say(sum(block.stored for block in blocks))
"""
    for ending in ("die()", "cache.close()"):
        with child(code + ending, config=config, keys=names) as writer:
            stored = int(writer.line())
            writer.process.wait()
        cache.sweep()
        assert len(cache.get_many(names)) == stored > 500
        assert cache.get_many(others) == others


def test_a_fill_whose_load_began_before_a_shared_block_s_writer_died_is_refused(cache, config):
    blocks = [f"key-{i}" for i in range(520)]
    code = "[cache.writing(k).__enter__() for k in arguments['keys']]; say('in'); wait(); die()"
    with child(code, config=config, keys=blocks) as writer:
        writer.line()
        token, started = cache._token()
        writer.tell()
        writer.died()
    assert cache.sweep() == 1
    for key in blocks:
        cache._fill(key, "old", token, started, None, 0, (), False)
    assert cache.get_many(blocks) == {}


def test_blocks_that_ended_leave_nothing_to_announce(cache, config):
    code = """
from contextlib import ExitStack
for _ in range(3):
    with ExitStack() as stack:
        for i in range(12):
            stack.enter_context(cache.writing(f'key-{i}'))
cache.set('key-0', 'last')
die()
"""
    with child(code, config=config) as writer:
        writer.died()
    tail = cache.tail
    assert cache.sweep() == 1
    assert cache.tail == tail
    assert cache.get("key-0") == "last"


def test_the_sweep_comes_by_itself(cache, config):
    cache.set("a", "old")
    with child("cache.writing('a').__enter__(); die()", config=config) as writer:
        writer.died()
    until(lambda: cache.get("a") is None)
