"""The near cache: the object that was decoded before, as long as the segment says that it is the value."""

import gc
import itertools
import mmap
import os
import random
import struct
import sys
import threading
import weakref
from contextlib import closing

import pytest
from pydantic import BaseModel

import cachee_shm
from cachee_shm import codec
from cachee_shm.attaching import spec_for
from tests.cachee_shm.processes import child, forked, in_fork

NEAR_BYTES = 64 * 1024
WIRE_KEY, WIRE_CLEAR, WIRE_ALL = 1, 4, 5


@pytest.fixture
def near_config(config):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": True}
    return config


@pytest.fixture
def near(near_config):
    """A cache with a near cache that nothing falls out of; its clock stands."""
    spec = spec_for("shop", near_config, False)._replace(near_bytes=16 << 20)
    with cachee_shm.Cache(spec) as cache:
        cache._freeze(cache.now_ms())
        yield cache


@pytest.fixture
def plain(near, near_config):
    """The same segment without a near cache."""
    without = {**near_config, "namespaces": {"shop": {"memory": "4MiB", "near_cache": "0"}}}
    with cachee_shm.attach(config=without) as cache:
        cache._freeze(near.now_ms())
        yield cache


class Item(BaseModel):
    name: str
    seen: list[int] = []


def warm(cache, key, value, **options):
    """Set it and read it, so that the next read is a near hit."""
    assert cache.set(key, value, **options)
    assert cache.get(key) == value
    before = cache.stats()["near_hits"]
    assert cache.get(key) == value
    assert cache.stats()["near_hits"] == before + 1


# What it keeps


def test_without_it_every_read_makes_an_object_of_its_own(config):
    config["namespaces"]["shop"]["near_cache"] = "0"
    with cachee_shm.attach(config=config) as cache:
        cache.set("a", {"b": 1})
        assert cache.get("a") == cache.get("a")
        assert cache.get("a") is not cache.get("a")
        assert "near_hits" not in cache.stats()


@pytest.mark.parametrize("value", [{"a": 1}, [1], (1, {2}), {1: 2}, Item(name="x"), 1 << 70], ids=repr)
def test_a_decoded_object_is_returned_again_as_long_as_it_is_the_value(near, value):
    near.set("a", value)
    first = near.get("a")
    assert first == value
    assert near.get("a") is first
    assert near["a"] is first
    assert near.lookup("a") == (first, True)
    assert near.get_many(["a"])["a"] is first
    assert near.get_or_load("a", lambda: "loaded") is first
    assert near.stats()["near_hits"] == 5
    assert near.stats()["hits"] == 6


@pytest.mark.parametrize("objects", [False, True, "copy"])
@pytest.mark.parametrize("value", [b"bytes" * 9, "ascii", "ü", 1 << 40, 1.5, 1 << 80])
def test_what_cannot_change_is_kept_when_it_is_read_again(config, value, objects):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": objects}
    with cachee_shm.attach(config=config) as near:
        near.set("a", value)
        reads = [near.get("a")]
        is_decoded = value == 1 << 80
        assert near.stats()["near_entries"] == is_decoded
        reads += [near.get("a") for _ in range(3)]
        assert reads == [value] * 4 and reads[3] is reads[2]
        assert (near.stats()["near_hits"] > 0, near.stats()["near_entries"]) == (True, 1)
        near.set("a", "new")
        assert near.get("a") == "new"


def test_what_is_neither_is_not_kept(near):
    for value in (True, None):
        near.set("a", value)
        assert [near.get("a") for _ in range(3)] == [value] * 3
    assert (near.stats()["near_hits"], near.stats()["near_entries"]) == (0, 0)


def test_objects_that_can_change_are_kept_only_where_the_configuration_says_so(config):
    config["namespaces"]["shop"]["near_cache"] = "64KiB"
    with cachee_shm.attach(config=config) as near:
        near.set("a", [1])
        assert near.get("a") is not near.get("a")
        assert near.stats()["near_entries"] == 0


@pytest.mark.parametrize("value", [[1, [2, {"a": [3]}]], {"a": {"b": [1, "x"]}, "c": 1.5}])
def test_each_caller_may_change_the_copy_that_it_gets(config, value):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": "copy"}

    def spoil(one):
        for each in list(one.values()) if isinstance(one, dict) else list(one):
            if isinstance(each, (dict, list)):
                spoil(each)
        one.clear()

    with cachee_shm.attach(config=config) as near:
        near.set("a", value)
        for _ in range(4):
            got = near.get("a")
            assert got == value
            spoil(got)
        assert near.stats()["near_hits"] == 3
        near.set("b", Item(name="x"))  # what is no plain dict or list is decoded each time
        assert near.get("b") is not near.get("b") and near.get("b").seen == []


def test_keys_that_are_read_once_each_push_nothing_out(config):
    config["namespaces"]["shop"]["near_cache"] = "64KiB"
    with cachee_shm.attach(config=config) as near:
        near.set_many({f"k{i}": b"x" * 50 for i in range(2000)})
        hot = [near.get("k0") for _ in range(3)][-1]
        before = near.stats()
        for i in range(1, 2000):
            near.get(f"k{i}")
        after = near.stats()
        assert (after["near_entries"], after["near_bytes"]) == (1, before["near_bytes"])
        assert near.get("k0") is hot


def test_a_key_that_is_read_again_and_again_stays_while_others_come_and_go(config):
    config["namespaces"]["shop"]["near_cache"] = "64KiB"
    with cachee_shm.attach(config=config) as near:
        near.set("hot", b"x" * 50)
        hot = [near.get("hot") for _ in range(3)][-1]
        for i in range(2000):
            near.set(f"k{i}", b"x" * 50)
            near.get(f"k{i}"), near.get(f"k{i}")
            assert near.get("hot") is hot


def test_a_value_that_is_too_large_pushes_nothing_out(config):
    config["namespaces"]["shop"]["near_cache"] = "64KiB"
    with cachee_shm.attach(config=config) as near:
        for i in range(1000):  # far more than there are slots
            near.set(f"k{i}", i << 33)
            near.get(f"k{i}"), near.get(f"k{i}")
        before = near.stats()
        near.set_many({f"huge-{i}": b"x" * 40_000 for i in range(20)})
        for i in range(20):
            near.get(f"huge-{i}"), near.get(f"huge-{i}"), near.get(f"huge-{i}")
        after = near.stats()
        assert before["near_entries"] > 50
        for name in ("near_entries", "near_bytes", "near_hits"):
            assert after[name] == before[name]


@pytest.mark.parametrize("size", [10, 300, 3000])
def test_its_bytes_are_counted_and_never_more_than_it_was_told(config, size):
    config["namespaces"]["shop"]["near_cache"] = "64KiB"
    with cachee_shm.attach(config=config) as near:
        empty = near.stats()["near_bytes"]
        assert 0 < empty <= NEAR_BYTES // 2
        near.set("one", b"x" * size)
        near.get("one"), near.get("one")
        assert near.stats()["near_bytes"] - empty == sys.getsizeof("one") + sys.getsizeof(b"x" * size)
        for i in range(1000):
            near.set(f"k{i}", "ü" * size)
            near.get(f"k{i}"), near.get(f"k{i}")
            assert near.stats()["near_bytes"] <= NEAR_BYTES
        assert near.stats()["near_entries"] > 1


def test_a_value_for_which_too_little_room_was_made_is_not_kept(config):
    config["namespaces"]["shop"]["near_cache"] = "64KiB"
    most = 1 << 20
    spec = spec_for("shop", config, False)._replace(near_bytes=most)
    with cachee_shm.Cache(spec) as near:
        for i in range(3000):  # each of them used, so that a pass of the hand frees none
            near.set(f"k{i}", b"x" * 300)
            near.get(f"k{i}"), near.get(f"k{i}"), near.get(f"k{i}")
        for i in range(10):
            near.set(f"large-{i}", b"x" * 100_000)
            near.get(f"large-{i}"), near.get(f"large-{i}")
            assert near.stats()["near_bytes"] <= most


def test_it_is_at_most_a_64th_of_the_namespace_s_memory_and_4_mib_by_default(config):
    config["namespaces"]["shop"]["near_cache"] = "1GiB"
    with cachee_shm.attach(config=config) as near:
        assert near.spec.near_bytes == near.spec.memory_bytes // 64
    del config["namespaces"]["shop"]["near_cache"]
    with cachee_shm.attach(config=config) as cache:
        assert cache.spec.near_bytes == cache.spec.memory_bytes // 64
    config["namespaces"]["shop"]["memory"] = "1GiB"
    assert spec_for("shop", config, False).near_bytes == 4 << 20
    config["namespaces"]["shop"]["memory"] = "4MiB"
    config["namespaces"]["shop"]["near_cache"] = "0"
    with cachee_shm.attach(config=config) as cache:
        assert cache.spec.near_bytes == 0 and "near_bytes" not in cache.stats()


def test_the_object_that_was_set_is_the_caller_s_and_is_not_returned(near):
    mine = {"a": 1}
    near.set("a", mine)
    assert near.get("a") is not mine
    mine["a"] = 2
    assert near.get("a") == {"a": 1}


def test_equal_keys_need_not_be_one_object_and_a_str_is_the_key_that_its_bytes_are(near):
    for key in ("a1", "ü1"):
        near.set(key, [key])
        first = near.get(key)
        assert near.get("".join([key[0], "1"])) is first
        assert near.get(key.encode()) == first
        near.set(key.encode(), ["new"])
        assert near.get(key) == near.get(key.encode()) == ["new"]


def test_a_key_of_another_class_that_hashes_as_it_likes_is_read_all_the_same(near):
    class Key(str):
        def __hash__(self):
            raise AssertionError("asked for")

        __eq__ = None

    near.set("a", [1])
    assert near.get("a") == near.get(Key("a")) == [1]
    assert near.stats()["near_hits"] == 0


def test_it_holds_no_more_than_it_was_told_and_lets_the_others_go(near_config):
    near, kept = cachee_shm.attach(config=near_config), {}
    for number in range(5000):
        near.set(f"key-{number}", Item(name=str(number)))
        kept[number] = weakref.ref(near.get(f"key-{number}"))
    gc.collect()
    alive = [number for number, item in kept.items() if item() is not None]
    assert len(alive) == near.stats()["near_entries"] > 16
    assert near.stats()["near_bytes"] <= NEAR_BYTES
    near.close()
    gc.collect()
    assert [item for item in kept.values() if item() is not None] == []


def test_objects_that_refer_to_the_cache_do_not_keep_it_for_ever(near_config):
    cache = cachee_shm.attach(config=near_config)
    cache.set("a", [1])
    cache.get("a").append(cache)  # nobody should; it costs no more than this
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None


# Whatever changes the value is seen by the next read


def written(cache):
    with cache.writing("a") as block:
        block.set([4])


CHANGES = {
    "a set": (lambda cache: cache.set("a", {"new": 1}), {"new": 1}),
    "a set of the same": (lambda cache: cache.set("a", {"old": 1}), {"old": 1}),
    "a set of another type": (lambda cache: cache.set("a", 5), 5),
    "a local set": (lambda cache: cache.set("a", [2], local=True), [2]),
    "a set that stores nothing": (lambda cache: cache.set("a", 1, ttl=0), None),
    "a delete": (lambda cache: cache.delete("a"), None),
    "a delete and an add": (lambda cache: (cache.delete("a"), cache.add("a", [3])), [3]),
    "a block that writes": (written, [4]),
    "a tag": (lambda cache: cache.delete_tags("tag"), None),
    "clear": (lambda cache: cache.clear(), None),
    "a fill after a delete": (lambda cache: (cache.delete("a"), cache.get_or_load("a", lambda: [5])), [5]),
    "a peer's write": (
        lambda cache: cache.apply(cache.source_open("p"), struct.pack("<BQ", WIRE_KEY, cache._hash("a"))),
        None,
    ),
    "a peer's clear": (
        lambda cache: cache.apply(cache.source_open("p"), struct.pack("<B", WIRE_CLEAR)),
        None,
    ),
    "a peer that was lapped": (
        lambda cache: cache.apply(cache.source_open("p"), struct.pack("<B", WIRE_ALL)),
        None,
    ),
    "another lifetime": (lambda cache: cache.touch("a", ttl=100), {"old": 1}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_this_process_is_seen_by_its_next_read(near, change):
    warm(near, "a", {"old": 1}, tags=["tag"])
    does, expected = CHANGES[change]
    does(near)
    assert near.get("a") == expected


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_another_process_is_seen_by_the_next_read(near, plain, change):
    warm(near, "a", {"old": 1}, tags=["tag"])
    does, expected = CHANGES[change]
    in_fork(lambda: does(plain))
    assert near.get("a") == expected


def test_a_local_value_outlives_a_peer_s_clear(near):
    warm(near, "a", {"old": 1}, local=True)
    first = near.get("a")
    near.apply(near.source_open("p"), struct.pack("<B", WIRE_CLEAR))
    assert near.get("a") is first


def test_its_lifetime_ends_here_too(near):
    start = near.now_ms()
    warm(near, "a", {"old": 1}, ttl=10)
    near._freeze(start + 9_999)
    assert near.get("a") == {"old": 1}
    near._freeze(start + 10_000)
    assert near.get("a") is None
    assert near.stats()["expired"] == 1


def test_a_stale_value_is_still_only_for_those_who_ask_for_it(near):
    start = near.now_ms()

    def failing():
        raise OSError

    near.get_or_load("a", lambda: {"old": 1}, ttl=10, stale=10)
    assert near.get("a") is near.get("a")
    near._freeze(start + 10_001)
    assert near.get("a") is None
    assert near.get_or_load("a", failing, ttl=10, stale=10) == {"old": 1}
    near._freeze(start + 20_001)
    with pytest.raises(OSError):
        near.get_or_load("a", failing, ttl=10, stale=10)


def test_an_isolated_host_serves_young_objects_only(near_config):
    near_config["bridge"] = {"listen": "127.0.0.1:7946"}
    with cachee_shm.attach(config=near_config) as cache:
        start = cache.now_ms()
        cache._freeze(start)
        warm(cache, "a", {"old": 1})
        cache._freeze(start + 9_000)
        assert cache.get("a") == {"old": 1}
        cache._freeze(start + 10_001)
        assert cache.get("a") is None
        assert cache.stats()["isolated"] == 1
        cache.set_serve_until(start + 60_000)
        assert cache.get("a") == {"old": 1}


def test_what_was_evicted_is_gone(near):
    warm(near, "a", {"old": 1})
    warm(near, "large", ["x" * 100_000])
    for number in range(6000):  # each read until it has proven itself: what is not read any more gives way
        near.set(f"key-{number}", bytes(4000))
        for _ in range(3):
            near.get(f"key-{number}")
    assert near.get("a") is None
    assert near.get("large") is None


def test_a_large_value_whose_pieces_are_carried_about_is_whole_or_gone(near, plain):
    """A new lifetime is a new entry, younger than the pieces of the value."""
    warm(near, "large", ["x" * 100_000])
    for number in range(2000):
        near.set(f"key-{number}", bytes(4000))
        near.get(f"key-{number}")
        near.get(f"key-{number}")
        if number == 500:
            assert near.touch("large", ttl=100)
        if number > 500 and number % 10 == 0:
            assert near.get("large") in (["x" * 100_000], None)
            assert near.get("large") == plain.get("large")


def test_reading_it_keeps_it_from_eviction_as_any_hit_does(near):
    warm(near, "a", {"old": 1})
    for number in range(3000):
        near.set(f"key-{number}", bytes(4000))
        assert near.get("a") == {"old": 1}
    assert near.stats()["near_hits"] > 2900


def test_a_near_hit_counts_for_eviction_as_much_as_any_other(near, plain):
    pairs = range(100)
    for number in pairs:
        for name, cache in (("near", near), ("plain", plain)):
            key = f"{name}-{number}"
            plain.set(key, [bytes(500)])  # by one process: its open page is spared as long as it is that
            for _ in range(4):
                cache.get(key)
    assert near.stats()["near_hits"] == 3 * len(pairs)
    alive = []
    for number in range(20_000):
        plain.set(f"other-{number}", bytes(4000))
        for _ in range(3):
            plain.get(f"other-{number}")
        if number % 100 == 0:
            alive.append([sum(f"{name}-{n}" in plain for n in pairs) for name in ("near", "plain")])
    assert alive[0] == [len(pairs), len(pairs)]
    assert alive[-1] == [0, 0]
    assert sum(abs(one - other) for one, other in alive) <= 2 * len(pairs)  # a page's edge lies between them


# The segment under it


@pytest.mark.parametrize(
    "ends", [lambda cache: cache.retire(), lambda cache: os.unlink(f"/dev/shm{cache.name}")]
)
def test_nothing_of_a_segment_that_was_given_up_is_served_from_its_successor(near_config, ends):
    with cachee_shm.attach(config=near_config) as near, cachee_shm.attach(config=near_config) as other:
        warm(near, "a", {"old": 1})
        ends(other)
        while near.get("a") is not None:
            pass
        assert near.stats()["near_entries"] == 0
        assert near.set("a", {"new": 1})
        assert near.get("a") == {"new": 1}
        assert near.get("a") is near.get("a")


def test_a_decoder_that_leaves_the_segment_leaves_nothing_near(near_config):
    def leaving(leave, cache):
        def decode(data):
            leave(cache)
            return codec.decode(codec.PLAIN, data)

        return (*cache._codec.decoders[: codec.PLAIN], decode)

    for leave in (lambda cache: cache.close(), lambda cache: cache._open()):
        with closing(cachee_shm.attach(config=near_config)) as cache:
            cache.set("a", [1])
            cache._codec.decoders = leaving(leave, cache)
            cache._open()
            assert cache.get("a") == [1]
            assert cache.closed or cache.stats()["near_entries"] == 0


class Last(BaseModel):
    """Uses the cache when it is let go."""

    number: int

    def __del__(self):
        last.append(used.get("other"))


def test_an_object_that_uses_the_cache_when_it_is_let_go_does_no_harm(near_config):
    global last, used
    last = []
    used = cachee_shm.attach(config=near_config)
    slots = used.stats()["attached"]
    for turn in range(200):
        used.set("other", [turn])
        used.set(f"key-{turn}", Last(number=turn))
        used.get(f"key-{turn}")
    used.retire()
    assert used.get("a") is None
    assert used.set("a", Last(number=0))
    used.get("a")
    used._open()
    assert used.stats()["attached"] == slots
    in_fork(lambda: used.get("a"))
    used.close()
    gc.collect()
    assert len(last) >= 200


# Processes and threads


def test_parent_and_child_go_on_with_the_objects_and_see_each_other_s_writes(near):
    warm(near, "a", {"by": "parent"})
    warm(near, "b", {"by": "parent"})

    def work():
        hits = near.stats()["near_hits"]
        assert near.get("a") == {"by": "parent"}
        assert near.stats()["near_hits"] == hits + 1
        near.set("a", {"by": "child"})
        assert near.get("a") == {"by": "child"}

    in_fork(work)
    assert near.get("a") == {"by": "child"}
    assert near.get("b") == {"by": "parent"}


def test_two_near_caches_in_lockstep_never_read_what_the_other_has_replaced(near, near_config):
    code = """
number = 0
while wait():
    assert cache.get('turn') == {'number': number}, number
    assert cache.get('turn') is cache.get('turn')
    number += 1
    cache.set('turn', {'number': number})
    number += 1
    say(number)
"""
    near.set("turn", {"number": 0})
    with child(code, config=near_config) as other:
        for turn in range(2000):
            other.tell()
            assert int(other.line()) == 2 * turn + 2
            assert near.get("turn") == {"number": 2 * turn + 1}
            near.set("turn", {"number": 2 * turn + 2})


KEYS = 2
WRITES = 2000


def test_no_read_is_older_than_a_write_that_had_returned(near):
    """Writers note each write once it has returned; a read that begins then must not be older."""
    returned = mmap.mmap(-1, 8 * KEYS)

    def noted(key):
        return int.from_bytes(returned[8 * key : 8 * key + 8], "little")

    def write(key):
        for number in range(1, WRITES):
            if number % 7 == 0:
                near.delete(f"key-{key}")
            else:
                near.set(f"key-{key}", {"number": number, "pad": "x" * (number * 37 % 3000)})
            returned[8 * key : 8 * key + 8] = number.to_bytes(8, "little")
            near.get(f"key-{(key + 1) % KEYS}")

    def read():
        latest = [0] * KEYS
        while min(map(noted, range(KEYS))) < WRITES - 1:
            for key in range(KEYS):
                least = noted(key)
                value = near.get(f"key-{key}")
                if value is not None:
                    assert value["number"] >= max(least, latest[key])
                    latest[key] = value["number"]

    pids = [forked(lambda key=key: write(key)) for key in range(KEYS)] + [forked(read)]
    read()
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    # While all write all the time, a value may never be read twice. At rest it is: and then it hits.
    near.set("key-0", {"number": WRITES})
    assert near.get("key-0") == {"number": WRITES}
    before = near.stats()["near_hits"]
    assert near.get("key-0") == {"number": WRITES}
    assert near.stats()["near_hits"] == before + 1


def test_threads_share_the_objects_and_read_no_older_ones(near):
    numbers = itertools.count(1)
    returned = [0]
    errors = []

    def work():
        try:
            for _ in range(1000):
                least = returned[0]
                value = near.get("a")
                assert value is None or value["number"] >= least
                if value is None or value["number"] < 500:
                    with lock:
                        number = next(numbers)
                        near.set("a", {"number": number})
                        returned[0] = number
                near.delete("b")
        except BaseException as error:
            errors.append(error)

    lock = threading.Lock()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Everything at once, beside a cache that keeps nothing near


def random_key(chance):
    """Of a few that are used again before they could be evicted, or of more than there is room for."""
    return f"key-{chance.randrange(chance.choice([60, 5000]))}"


def random_value(chance):
    size = chance.choice([1, 20, 300, 3000, 40_000])
    return chance.choice(
        [[chance.random()] * (size // 10 + 1), {"text": "x" * size}, (size, "x"), "x" * size]
    )


def random_step(chance, cache, now_ms):
    key = random_key(chance)
    tags = chance.sample(["t1", "t2", "t3"], chance.randrange(3))
    verb = chance.randrange(400) / 4
    if verb < 75:
        cache.set(
            key,
            random_value(chance),
            ttl=chance.choice([None, None, None, 1, 5]),
            tags=tags,
            local=chance.random() < 0.2,
        )
    elif verb < 80:
        cache.delete(key)
    elif verb < 88:
        cache.touch(key, ttl=chance.choice([None, 2]))
    elif verb < 94:
        cache.get_or_load(key, lambda: random_value(chance), ttl=2, stale=2)
    elif verb < 96:
        cache.add(key, random_value(chance))
    elif verb < 98.75:
        cache.apply(cache.source_open("p"), struct.pack("<BQ", WIRE_KEY, cache._hash(key)))
    elif verb < 99.5:
        cache.delete_tags(chance.choice(["t1", "t2", "t3"]))
    elif verb < 99.75:
        cache.apply(cache.source_open("p"), struct.pack("<B", chance.choice([WIRE_CLEAR, WIRE_ALL])))
    else:
        cache.clear()
    return now_ms + chance.choice([0, 0, 0, 1, 50])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_it_reads_what_a_cache_without_it_reads(near, plain, seed):
    chance = random.Random(seed)
    now_ms = near.now_ms()
    for _ in range(10_000):
        now_ms = random_step(chance, chance.choice([near, plain]), now_ms)
        for cache in (near, plain):
            cache._freeze(now_ms)
        for _ in range(3):
            key = random_key(chance)
            first, second = chance.choice([(near, plain), (plain, near)])
            assert first._find(key, False) == second._find(key, False), key
    stats = near.stats()
    assert stats["near_hits"] > 500
    assert stats["evicted"] > 0
