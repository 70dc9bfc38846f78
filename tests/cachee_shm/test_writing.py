"""`with cache.writing(key)`: writes of the origin that leave no stale value behind."""

import asyncio
import struct
from contextlib import AsyncExitStack, ExitStack

import pytest

import cachee_shm
from cachee_shm.errors import Closed, InvalidKey, InvalidTTL, KeyTooLong, Unserializable, ValueTooLarge
from tests.cachee_shm.processes import child, until

WIRE_KEY = 1


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


@pytest.mark.parametrize("options", [{"ttl": -1}, {"ttl": "5"}, {"tags": "team:7"}, {"tags": [7]}])
def test_what_is_wrong_with_a_lifetime_or_tag_is_found_as_it_is_given(cache, options):
    with cache.writing("a") as w:
        w.set("first", ttl=60)
        with pytest.raises((InvalidTTL, InvalidKey)):
            w.set("second", **options)
    assert cache.get("a") == "first"


def test_a_writing_object_that_is_used_again_forgets_its_first_block(cache):
    writing = cache.writing("a")
    with writing as w:
        w.set("first")
    with writing:
        pass
    assert (w.stored, writing.stored) == (True, False)
    assert "a" not in cache
    with writing:
        writing.set("third")
    assert (writing.stored, cache.get("a")) == (True, "third")


def test_a_writing_object_cannot_be_entered_while_it_is_open(cache):
    writing = cache.writing("a")
    with writing as w:
        with pytest.raises(RuntimeError, match="open already"):
            writing.__enter__()

        async def main():
            async with writing:
                pytest.fail("entered")

        with pytest.raises(RuntimeError, match="open already"):
            asyncio.run(main())
        w.set("stored")
    assert cache.get("a") == "stored"


def test_a_value_is_set_within_the_block_alone(cache):
    writing = cache.writing("a")
    with pytest.raises(RuntimeError, match="not entered"):
        writing.set(1)
    with writing as w:
        pass
    with pytest.raises(RuntimeError, match="ended"):
        w.set(1)
    with pytest.raises(RuntimeError, match="not open"):
        writing.__exit__(None, None, None)
    assert "a" not in cache


def test_a_writing_block_can_be_left_to_an_exit_stack(cache):
    with ExitStack() as stack:
        stack.enter_context(cache.writing("a")).set(1)
        assert cache._holds()[2] == 1
    assert (cache.get("a"), cache._holds()[2]) == (1, 0)

    async def main():
        async with AsyncExitStack() as stack:
            (await stack.enter_async_context(cache.writing("a"))).set(2)

    asyncio.run(main())
    assert (cache.get("a"), cache._holds()[2]) == (2, 0)


def test_of_two_tasks_that_enter_one_writing_object_the_second_leaves_the_first_s_block_open(cache):
    async def main():
        w = cache.writing("a")
        await w.__aenter__()
        with pytest.raises(RuntimeError, match="open already"):
            async with w:
                pass
        assert cache._holds()[2] == 1
        await w.__aexit__(None, None, None)
        assert cache._holds()[2] == 0

    asyncio.run(main())


def test_a_block_that_is_entered_by_hand_is_left_by_hand(cache):
    cache.set("a", "old")
    w = cache.writing("a").__enter__()
    w.set("new")
    assert cache.get("a") == "old"
    w.__exit__(None, None, None)
    assert (w.stored, cache.get("a")) == (True, "new")


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


def test_blocks_that_found_no_intent_free_cost_their_neighbours_and_peers_are_sent_a_map(config):
    """A segment of 8 MiB has 1,024 intents; one process holds half. Then 1/512 of all keys is a bucket."""
    config["namespaces"]["shop"]["memory"] = "8MiB"
    with cachee_shm.attach(config=config) as cache:
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
        assert 1 <= [event.kind for event in events.poll()].count("flush") <= 8
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
