"""The verbs, one by one: what they return, and what the next reader sees."""

import datetime as dt
import struct
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachee_shm
from cachee_shm.errors import Closed, ValueTooLarge
from tests.cachee_shm.processes import child
from tests.cachee_shm.test_codec import VALUES, same

WIRE_KEY, WIRE_KEY_SET, WIRE_TAG, WIRE_CLEAR, WIRE_ALL, WIRE_KEY_UNKNOWN = 1, 2, 3, 4, 5, 7
FOR_EVER = 2**63


@pytest.fixture(scope="module")
def private():
    with cachee_shm.attach(private=True) as cache:
        yield cache


@pytest.fixture
def bridged(config):
    """A cache of a host that has a bridge in its configuration, which is not running; its clock stands."""
    config["bridge"] = {"listen": "127.0.0.1:7946"}
    with cachee_shm.attach(config=config) as cache:
        cache._freeze(cache.now_ms())
        yield cache


def announced(cache, since=0):
    """What peers would be sent of this host's announcements: payload bytes."""
    return cache.pack(since, 1000, 65536)[1]


# Values


@pytest.mark.fuzz
@given(VALUES)
def test_every_value_comes_back_equal_and_of_the_same_type(private, value):
    assert private.set("value", value)
    assert same(private.get("value"), value)


@pytest.mark.fuzz
@given(st.binary(max_size=1024) | st.text(st.characters(exclude_categories=["Cs"]), max_size=256))
def test_every_key_finds_its_value(private, key):
    assert private.set(key, key)
    assert private.get(key) == key
    assert key in private
    assert private.delete(key)
    assert private.get(key) is None


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 60_000, 65_535, 65_536, 65_537, 300_000])
def test_a_value_of_any_size_comes_back_whole(cache, size):
    value = bytes(i % 251 for i in range(size))
    assert cache.set("large", value)
    assert cache.get("large") == value
    assert cache.set("large", "x" * size)
    assert cache.get("large") == "x" * size


def test_a_key_is_its_bytes_whether_str_or_bytes(cache):
    cache.set("ü", 1)
    assert cache.get("ü".encode()) == 1
    cache.set(b"", 2)
    assert cache.get("") == 2


def test_a_reader_without_the_class_counts_a_miss(cache, config, tmp_path):
    (tmp_path / "models.py").write_text("import pydantic\nclass User(pydantic.BaseModel):\n    id: int\n")
    code = """
sys.path.insert(0, arguments['folder'])
import models
cache.set('user', models.User(id=7))
say(cache.get('user') == models.User(id=7))
"""
    with child(code, config=config, folder=str(tmp_path)) as writer:
        assert writer.end() == ["True"]
    before = cache.stats()
    assert cache.lookup("user") == (None, False)
    after = cache.stats()
    assert after["undecodable"] == before["undecodable"] + 1
    assert after["misses"] == before["misses"] + 1


# Reading


def test_a_miss_is_none_or_the_default(cache):
    assert cache.get("a") is None
    assert cache.get("a", 7) == 7
    assert cache.get("a", default=7) == 7


def test_lookup_tells_a_stored_none_from_a_miss(cache):
    assert cache.lookup("a") == (None, False)
    cache.set("a", None)
    assert cache.lookup("a") == (None, True)
    assert cache.get("a", 7) is None


def test_get_many_gives_the_hits_under_the_keys_asked_for(cache):
    cache.set_many({"a": 1, "b": None})
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": None}
    assert cache.get_many(key for key in (b"a", "x")) == {b"a": 1}
    assert cache.get_many([]) == {}


def test_get_many_survives_a_list_that_shrinks_while_it_decodes(cache):
    keys = [f"key-{i}" for i in range(50)]
    cache.set_many({key: (i,) for i, key in enumerate(keys)})

    def shrinking(decode):
        def shrink(data):
            keys.clear()
            return decode(data)

        return shrink

    with closing(cachee_shm.Cache(cache.spec)) as other:
        other._codec.decoders = tuple(map(shrinking, other._codec.decoders))
        other._open()
        asked = {key: (i,) for i, key in enumerate(keys)}
        assert other.get_many(keys) == asked  # as the list was when the verb began


def test_mapping_access_is_get_set_delete_and_in(cache):
    cache["a"] = [1]
    assert cache["a"] == [1]
    assert "a" in cache
    del cache["a"]
    assert "a" not in cache
    with pytest.raises(KeyError, match="a"):
        cache["a"]
    with pytest.raises(KeyError, match="a"):
        del cache["a"]


def test_len_counts_and_iteration_is_refused(cache):
    cache.set_many({f"key-{i}": i for i in range(100)})
    assert len(cache) == 100
    with pytest.raises(TypeError):
        iter(cache)


# Writing


def test_set_replaces_and_says_that_it_stored(cache):
    assert cache.set("a", 1) is True
    assert cache.set("a", 2) is True
    assert cache.get("a") == 2


def test_delete_says_whether_there_was_something(cache):
    cache.set("a", 1)
    assert cache.delete("a") is True
    assert cache.delete("a") is False
    assert cache.get("a") is None


def test_set_many_stores_all_and_names_what_it_could_not(cache):
    cache.set("bad", "old")
    assert cache.set_many({"a": 1, "bad": object(), "b": 2, "big": b"x" * (1 << 20)}) == ["bad", "big"]
    assert cache.get_many(["a", "b", "bad", "big"]) == {"a": 1, "b": 2}


def test_set_many_with_a_ttl_of_zero_has_done_what_was_asked(cache):
    cache.set("a", 1)
    assert cache.set_many({"a": 2}, ttl=0) == []
    assert "a" not in cache


def test_set_many_gives_its_options_to_each(cache):
    cache.set_many({"a": 1, "b": 2}, ttl=60, tags=(tag for tag in ["t"]), local=True)
    assert announced(cache) == b""
    cache.delete_tags("t")
    assert cache.get_many(["a", "b"]) == {}


def test_delete_many_deletes_each(cache):
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.delete_many(["a", "b", "x"])
    assert cache.get_many(["a", "b", "c"]) == {"c": 3}


# Lifetimes


@pytest.mark.parametrize(
    ("ttl", "lives_ms"),
    [
        (60, 60_000),
        (0.25, 250),
        (0.0001, 1),
        (dt.timedelta(minutes=2), 120_000),
        (dt.timedelta(milliseconds=5), 5),
        (True, 1000),
    ],
)
def test_a_value_lives_as_long_as_its_ttl_and_not_longer(cache, ttl, lives_ms):
    cache._freeze(1_000_000)
    for store in (cache.set, cache.add):
        cache.delete("a")
        store("a", 1, ttl=ttl)
        cache._freeze(1_000_000 + lives_ms - 1)
        assert cache.get("a") == 1
        cache._freeze(1_000_000 + lives_ms)
        assert cache.get("a") is None
        assert "a" not in cache
        cache._freeze(1_000_000)


def test_an_expired_value_is_counted(cache):
    cache._freeze(1_000_000)
    cache.set("a", 1, ttl=1)
    cache._freeze(1_001_000)
    before = cache.stats()["expired"]
    assert cache.get("a") is None
    assert cache.stats()["expired"] == before + 1


def test_without_a_default_ttl_a_value_lives_for_ever(cache):
    cache._freeze(1_000_000)
    cache.set("a", 1)
    cache.set("b", 1, ttl=None)
    cache._freeze(1_000_000 + 100 * 365 * 86_400_000)
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 1}


def test_an_omitted_ttl_is_the_namespace_s_and_none_is_for_ever(config):
    config["namespaces"]["shop"]["default_ttl"] = "5s"
    with cachee_shm.attach(config=config) as cache:
        cache._freeze(1_000_000)
        cache.set("a", 1)
        cache.set("b", 1, ttl=None)
        cache.set("c", 1, ttl=...)
        cache["d"] = 1
        cache.get_or_load("e", lambda: 1)
        cache.add("f", 1)
        cache._freeze(1_004_999)
        assert len(cache.get_many(list("abcdef"))) == 6
        cache._freeze(1_005_000)
        assert cache.get_many(list("abcdef")) == {"b": 1}


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, dt.timedelta(0)])
def test_a_ttl_of_zero_announces_and_stores_nothing(cache, zero):
    cache.set("a", 1)
    since = cache.tail
    assert cache.set("a", 2, ttl=zero) is False
    assert cache.lookup("a") == (None, False)
    assert announced(cache, since) == struct.pack("<BQ", WIRE_KEY, cache._hash("a"))


def test_touch_gives_a_new_lifetime_and_keeps_the_value(cache):
    cache._freeze(1_000_000)
    cache.set("a", [1], ttl=1, tags=["t"])
    assert cache.touch("a", ttl=60) is True
    cache._freeze(1_059_999)
    assert cache.get("a") == [1]
    assert cache.touch("a", ttl=None) is True
    cache._freeze(9_000_000)
    assert cache.get("a") == [1]
    cache.delete_tags("t")
    assert cache.get("a") is None


def test_touch_without_a_ttl_gives_the_default_one_and_zero_ends_it(cache):
    cache._freeze(1_000_000)
    cache.set("a", 1, ttl=1)
    assert cache.touch("a")
    cache._freeze(2_000_000)
    assert cache.touch("a", ttl=0)
    cache._freeze(2_000_001)
    assert "a" not in cache


def test_a_touched_local_value_stays_this_hosts_own(cache):
    cache.set("a", 1, local=True)
    since = cache.tail
    assert cache.touch("a", ttl=60)
    cache.apply(cache.source_open("p"), struct.pack("<BQ", WIRE_KEY, cache._hash("a")) + bytes([WIRE_CLEAR]))
    assert cache.get("a") == 1
    assert announced(cache, since) == b""


def test_a_touched_value_that_was_not_local_is_evicted_by_a_peer(cache):
    cache.set("a", 1)
    assert cache.touch("a", ttl=60)
    cache.apply(cache.source_open("p"), struct.pack("<BQ", WIRE_KEY, cache._hash("a")))
    assert cache.get("a") is None


def test_touch_finds_nothing_where_nothing_is(cache):
    assert cache.touch("a", ttl=60) is False
    cache._freeze(1_000_000)
    cache.set("a", 1, ttl=1)
    cache._freeze(1_001_000)
    assert cache.touch("a", ttl=60) is False
    assert cache.get("a") is None


# Tags, clear, local


def test_delete_tags_evicts_every_entry_that_carries_one(cache):
    cache.set("a", 1, tags=["red", "round"])
    cache.set("b", 2, tags=["blue"])
    cache.set("c", 3, tags=("green",))
    cache.set("red", 4)
    cache.delete_tags("red", "blue")
    assert cache.get_many(["a", "b", "c", "red"]) == {"c": 3, "red": 4}


def test_a_value_set_after_its_tag_was_deleted_stands(cache):
    cache.set("a", 1, tags=["t"])
    cache.delete_tags("t")
    cache.set("a", 2, tags=["t"])
    assert cache.get("a") == 2


def test_an_entry_takes_sixteen_tags(cache):
    tags = [f"tag-{i}" for i in range(16)]
    for tag in tags:
        assert cache.set("a", 1, tags=tags)
        cache.delete_tags(tag)
        assert cache.get("a") is None


def test_clear_evicts_everything_of_the_namespace_and_no_more(config):
    config["namespaces"]["other"] = {"memory": "4MiB"}
    with cachee_shm.attach("shop", config=config) as shop, cachee_shm.attach("other", config=config) as other:
        shop.set("a", 1)
        shop.set("b", 2, local=True)
        other.set("a", 1)
        shop.clear()
        assert shop.get_many(["a", "b"]) == {}
        assert other.get("a") == 1
        shop.set("a", 3)
        assert shop.get("a") == 3


def test_a_local_value_is_never_announced(cache, config):
    cache.set("draft", 1, local=True)
    cache.set("draft", 2, local=True)
    cache.add("other", 1, local=True)
    cache.get_or_load("third", lambda: 1, local=True)
    assert announced(cache) == b""
    with cachee_shm.attach(config=config) as second:
        assert second.get("draft") == 2


def test_remote_records_spare_local_values_and_no_others(cache):
    source = cache.source_open("web-2")
    for payload in (
        struct.pack("<BQ", WIRE_KEY, cache._hash("a")) + struct.pack("<BQ", WIRE_KEY, cache._hash("b")),
        struct.pack("<BQ", WIRE_KEY_UNKNOWN, cache._hash("a"))
        + struct.pack("<BQ", WIRE_KEY_UNKNOWN, cache._hash("b")),
        struct.pack("<B", WIRE_CLEAR),
        struct.pack("<B", WIRE_ALL),
    ):
        cache.set("a", 1, local=True)
        cache.set("b", 1)
        cache.apply(source, payload)
        assert cache.get_many(["a", "b"]) == {"a": 1}


def test_deleting_a_local_value_is_announced_since_peers_may_hold_the_key(cache):
    cache.set("a", 1, local=True)
    cache.delete("a")
    assert announced(cache) == struct.pack("<BQ", WIRE_KEY, cache._hash("a"))


# Isolation


def test_with_a_bridge_configured_and_none_running_only_young_values_are_served(bridged):
    start = bridged.now_ms()
    bridged.set("a", 1)
    bridged.set("mine", 1, local=True)
    bridged._freeze(start + 9_000)
    assert bridged.get("a") == 1
    bridged._freeze(start + 10_001)
    assert bridged.get_many(["a", "mine"]) == {"mine": 1}
    assert "a" not in bridged
    assert bridged.stats()["isolated"] == 2


def test_nothing_was_evicted_when_isolation_ends(bridged):
    start = bridged.now_ms()
    bridged.set("a", 1)
    bridged._freeze(start + 3_600_000)
    assert bridged.get("a") is None
    bridged.set_serve_until(FOR_EVER)
    assert bridged.get("a") == 1
    bridged.set_serve_until(start + 3_599_999)
    assert bridged.get("a") is None


def test_the_age_of_a_loaded_value_counts_from_the_start_of_its_load(bridged):
    start = bridged.now_ms()

    def slow():
        bridged._freeze(start + 8_000)
        return 1

    assert bridged.get_or_load("a", slow) == 1
    bridged._freeze(start + 9_000)
    assert bridged.get("a") == 1
    bridged._freeze(start + 11_000)
    assert bridged.get("a") is None


def test_isolation_ends_stale_values_too(bridged):
    start = bridged.now_ms()
    bridged.get_or_load("a", lambda: "old", ttl=1, stale=3600)
    bridged._freeze(start + 5_000)

    def fail():
        raise OSError("origin")

    assert bridged.get_or_load("a", fail, stale=3600) == "old"
    bridged._freeze(start + 11_000)
    with pytest.raises(OSError, match="origin"):
        bridged.get_or_load("a", fail, stale=3600)


def test_without_a_bridge_or_in_a_private_segment_there_is_no_isolation(cache, config):
    with_bridge = {**config, "bridge": {"listen": "127.0.0.1:7946"}}
    with cachee_shm.attach(config=with_bridge, private=True) as private:
        for one in (cache, private):
            one._freeze(1_000_000)
            one.set("a", 1)
            one._freeze(100_000_000)
            assert one.get("a") == 1


# Statistics and the end


def test_statistics_count_what_every_process_did_also_those_that_ended(cache, config):
    with child(
        "cache.set('a', 1); cache.get('a'); cache.get('b'); cache.delete('a')", config=config
    ) as other:
        other.end()
    cache.get("x")
    stats = cache.stats()
    assert {name: stats[name] for name in ("sets", "hits", "misses", "deletes")} == {
        "sets": 1,
        "hits": 1,
        "misses": 2,
        "deletes": 1,
    }
    assert (stats["memory_bytes"], stats["attached"], stats["entries"]) == (4 << 20, 1, 0)
    assert 0.5 * stats["memory_bytes"] < stats["value_bytes"] < stats["memory_bytes"]
    assert stats["value_bytes"] % stats["page_bytes"] == 0


def test_a_value_that_is_too_large_says_how_much_the_segment_takes(cache):
    with pytest.raises(ValueTooLarge, match=r"1048576 bytes encoded; this segment takes at most \d+"):
        cache.set("a", b"x" * (1 << 20))


VERBS = {
    "get": lambda cache: cache.get("a"),
    "lookup": lambda cache: cache.lookup("a"),
    "set": lambda cache: cache.set("a", 1),
    "set with a ttl": lambda cache: cache.set("a", 1, ttl=5, tags=["t"]),
    "add": lambda cache: cache.add("a", 1),
    "delete": lambda cache: cache.delete("a"),
    "touch": lambda cache: cache.touch("a"),
    "incr": lambda cache: cache.host.incr("a", initial=0),
    "get_many": lambda cache: cache.get_many(["a"]),
    "set_many": lambda cache: cache.set_many({"a": 1}),
    "delete_many": lambda cache: cache.delete_many(["a"]),
    "delete_tags": lambda cache: cache.delete_tags("t"),
    "clear": lambda cache: cache.clear(),
    "[]": lambda cache: cache["a"],
    "[] =": lambda cache: cache.__setitem__("a", 1),
    "del []": lambda cache: cache.__delitem__("a"),
    "in": lambda cache: "a" in cache,
    "len": len,
    "stats": lambda cache: cache.stats(),
    "roster": lambda cache: cache.roster(),
    "get_or_load": lambda cache: cache.get_or_load("a", lambda: 1),
    "writing": lambda cache: cache.writing("a").__enter__(),
    "events": lambda cache: cache.events(),
    "tail": lambda cache: cache.tail,
    "incarnation": lambda cache: cache.incarnation,
    "sweep": lambda cache: cache.sweep(),
    "heal": lambda cache: cache.heal(0, 1, 0, b""),
    "pack": lambda cache: cache.pack(0, 1, 100),
    "apply": lambda cache: cache.apply(1, b""),
    "missed": lambda cache: cache.missed(0),
    "map_piece": lambda cache: cache.map_piece(0, 0, 1),
    "fence_map": lambda cache: cache.fence_map(1, b"\x03\x03\x00\x00", 0, 0, 1),
    "evict_map": lambda cache: cache.evict_map(1, b"\x03\x03\x00\x00", 0, 0, 1),
    "read_ring": lambda cache: cache.read_ring(0, 1),
    "sources": lambda cache: cache.sources(),
    "forgotten": lambda cache: cache.forgotten(),
    "draw_line": lambda cache: cache.draw_line(),
    "evict_before": lambda cache: cache.evict_before(0),
    "retire": lambda cache: cache.retire(),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_after_close_every_verb_says_closed(config, verb):
    cache = cachee_shm.attach(config=config)
    cache.close()
    assert cache.closed
    with pytest.raises(Closed, match="closed"):
        verb(cache)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_an_object_that_never_attached_is_closed_too(verb):
    with pytest.raises(Closed):
        verb(cachee_shm.Cache.__new__(cachee_shm.Cache))


def test_closing_twice_or_by_a_with_block_leaves_the_values_to_the_others(cache, config):
    with cachee_shm.attach(config=config) as other:
        other.set("a", 1)
        assert other.stats()["attached"] == 2
    other.close()
    assert "closed" in repr(other)
    assert cache.get("a") == 1
    assert cache.stats()["attached"] == 1


def test_a_cache_that_nobody_refers_to_leaves_the_segment(cache, config):
    other = cachee_shm.attach(config=config)
    assert cache.stats()["attached"] == 2
    del other
    assert cache.stats()["attached"] == 1


def test_what_the_memory_cannot_hold_is_evicted_and_what_is_read_stays_longer(cache):
    for i in range(20_000):
        cache.set(f"key-{i}", b"x" * 500)
        cache.get("key-0")
    stats = cache.stats()
    assert stats["evicted"] > 10_000
    assert stats["no_room"] == 0
    assert cache.get("key-0") == b"x" * 500
    assert cache.get("key-1") is None
    assert cache.get("key-19999") == b"x" * 500


def test_a_line_is_no_event(cache):
    events = cache.events()
    cache.draw_line()
    cache.set("a", 1)
    assert [event.kind for event in events.poll()] == ["set"]


def test_a_value_past_its_life_may_be_served_for_months(cache):
    day_s, month_s = 86_400, 30 * 86_400
    cache._freeze(1_000_000)
    assert cache.get_or_load("a", lambda: "old", ttl=1, stale=6 * month_s) == "old"
    cache._freeze(1_000_000 + 1000 * (6 * month_s - day_s))

    def failing():
        raise OSError

    assert cache.get_or_load("a", failing, ttl=1, stale=6 * month_s) == "old"
    cache._freeze(1_000_000 + 1000 * (6 * month_s + day_s))
    with pytest.raises(OSError):
        cache.get_or_load("a", failing, ttl=1, stale=6 * month_s)
