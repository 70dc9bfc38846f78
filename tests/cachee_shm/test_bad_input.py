"""What a caller gets wrong is a clear error of the tree, and the cache is as the error says."""

import asyncio
import copy
import datetime as dt
import decimal
import math
import pickle
import struct

import pytest

import cachee_shm
from cachee_shm.errors import (
    CacheeError,
    ConfigError,
    InvalidKey,
    InvalidTTL,
    KeyTooLong,
    NotACounter,
    UnknownNamespace,
    Unserializable,
    ValueTooLarge,
)

KEYED = {
    "get": lambda cache, key: cache.get(key),
    "lookup": lambda cache, key: cache.lookup(key),
    "set": lambda cache, key: cache.set(key, 1),
    "add": lambda cache, key: cache.add(key, 1),
    "touch": lambda cache, key: cache.touch(key),
    "delete": lambda cache, key: cache.delete(key),
    "[]": lambda cache, key: cache[key],
    "[] =": lambda cache, key: cache.__setitem__(key, 1),
    "del []": lambda cache, key: cache.__delitem__(key),
    "in": lambda cache, key: key in cache,
    "get_many": lambda cache, key: cache.get_many([key]),
    "set_many": lambda cache, key: cache.set_many({key: 1}),
    "delete_many": lambda cache, key: cache.delete_many([key]),
    "delete_tags": lambda cache, key: cache.delete_tags(key),
    "tags": lambda cache, key: cache.set("a", 1, tags=[key]),
    "get_or_load": lambda cache, key: cache.get_or_load(key, lambda: pytest.fail("it was loaded")),
    "writing": lambda cache, key: cache.writing(key).__enter__(),
    "events": lambda cache, key: cache.events(keys=[key]),
}


@pytest.fixture(scope="module")
def private():
    with cachee_shm.attach(private=True) as cache:
        yield cache


@pytest.mark.parametrize("verb", KEYED.values(), ids=KEYED)
@pytest.mark.parametrize(
    ("key", "error"),
    [
        (None, InvalidKey),
        (7, InvalidKey),
        (1.5, InvalidKey),
        (("a",), InvalidKey),
        (frozenset(), InvalidKey),
        ("lone \ud800", InvalidKey),
        ("x" * 1025, KeyTooLong),
        (b"x" * 1025, KeyTooLong),
        ("ü" * 513, KeyTooLong),
    ],
    ids=["None", "int", "float", "tuple", "set", "surrogate", "long str", "long bytes", "long in UTF-8"],
)
def test_an_invalid_key_is_refused_by_every_verb_and_nothing_is_written(private, verb, key, error):
    tail = private.tail
    with pytest.raises(error, match="Nothing was read or written"):
        verb(private, key)
    assert private.tail == tail


def test_a_key_of_the_greatest_length_is_taken(private):
    for key in ("x" * 1024, b"y" * 1024, "ü" * 512):
        assert private.set(key, 1)
        assert private.get(key) == 1


LIVED = {
    "set": lambda cache, ttl: cache.set("a", "new", ttl=ttl),
    "add": lambda cache, ttl: cache.add("b", "new", ttl=ttl),
    "touch": lambda cache, ttl: cache.touch("a", ttl=ttl),
    "set_many": lambda cache, ttl: cache.set_many({"a": "new"}, ttl=ttl),
    "fill": lambda cache, ttl: cache.get_or_load("b", lambda: "new", ttl=ttl),
    "negative": lambda cache, ttl: cache.get_or_load("b", lambda: None, negative_ttl=ttl),
}


class Mute:
    def __repr__(self):
        raise ConnectionError("it does not say what it is")


class MuteKey(str):
    __repr__ = Mute.__repr__


@pytest.mark.parametrize("verb", LIVED.values(), ids=LIVED)
@pytest.mark.parametrize(
    "ttl",
    [
        *(-1, -0.001, math.nan, math.inf, -math.inf, 1e12, 10**400, "60", b"60", [], decimal.Decimal(1)),
        *(dt.timedelta(seconds=-1), dt.timedelta.max, dt.datetime(2030, 1, 1)),
        *(10**5000, Mute()),
    ],
    ids=lambda ttl: type(ttl).__name__,
)
def test_an_invalid_ttl_is_refused_and_the_old_value_stays(private, verb, ttl):
    private.delete("b")
    private.set("a", "old")
    tail = private.tail
    with pytest.raises(InvalidTTL, match="ttl is a number of seconds"):
        verb(private, ttl)
    assert private.tail == tail
    assert (private.get("a"), "b" in private) == ("old", False)


@pytest.mark.parametrize(
    "stale", [-1, math.nan, math.inf, "60", None, 10**5000, Mute()], ids=lambda stale: type(stale).__name__
)
def test_an_invalid_stale_is_refused_before_anything_is_loaded(private, stale):
    with pytest.raises(InvalidTTL, match="stale is"):
        private.get_or_load("none", lambda: pytest.fail("it was loaded"), stale=stale)


def test_an_error_about_a_key_needs_no_repr_of_it(private):
    with pytest.raises(ValueTooLarge, match="MuteKey"):
        private.set(MuteKey("a"), b"x" * (8 << 20))
    private.set("a", "no counter")
    with pytest.raises(NotACounter, match="MuteKey"):
        private.host.incr(MuteKey("a"))


class Flattened(dt.date):
    pass


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), Flattened(2026, 1, 2), lambda: 1, nested(1000), {"a": {1: object()}}, "\ud800", iter(())],
    ids=["object", "subclass", "function", "deep", "inside", "surrogate", "iterator"],
)
def test_a_value_that_no_codec_takes_is_refused_and_the_old_one_is_deleted_everywhere(private, value):
    private.set("a", "old")
    events = private.events()
    with pytest.raises(Unserializable):
        private.set("a", value)
    assert private.lookup("a") == (None, False)
    assert [event.kind for event in events.poll()] == ["delete"]


def test_a_value_that_is_too_large_is_refused_and_the_old_one_is_deleted_everywhere(private):
    private.set("a", "old")
    events = private.events()
    with pytest.raises(ValueTooLarge, match="Store less"):
        private.set("a", bytes(8 << 20))
    assert private.lookup("a") == (None, False)
    assert [event.kind for event in events.poll()] == ["delete"]


@pytest.mark.parametrize("value", [object(), bytes(8 << 20)], ids=["no codec", "too large"])
def test_an_add_that_fails_replaces_nothing(private, value):
    private.set("a", "old")
    private.delete("b")
    events = private.events()
    with pytest.raises((Unserializable, ValueTooLarge)):
        private.add("b", value)
    assert (private.get("a"), "b" in private, events.poll()) == ("old", False, [])


@pytest.mark.parametrize("tags", ["abc", b"abc", 7, 1.5, [7], [None], [["t"]], ["t"] * 17], ids=repr)
def test_invalid_tags_are_refused_and_the_old_value_stays(private, tags):
    private.set("a", "old")
    with pytest.raises(InvalidKey):
        private.set("a", "new", tags=tags)
    assert private.get("a") == "old"


def test_an_error_of_the_caller_s_own_iterator_is_the_caller_s(private):
    def tags():
        yield "t"
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        private.set("a", 1, tags=tags())
    with pytest.raises(OSError, match="mine"):
        private.get_many(tags())


@pytest.mark.parametrize("items", [[1, 2], [["a", 1]], [("a", 1, 2)], ["ab"]], ids=repr)
def test_a_mapping_whose_items_are_no_pairs_is_refused(private, items):
    class Strange:
        def items(self):
            return items

    with pytest.raises(TypeError, match="pairs of key and value"):
        private.set_many(Strange())


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.get(),
        lambda cache: cache.get("a", 1, 2),
        lambda cache: cache.get("a", fallback=1),
        lambda cache: cache.set("a"),
        lambda cache: cache.set("a", 1, key="a"),
        lambda cache: cache.set("a", 1, expires=5),
        lambda cache: cache.set_many(),
        lambda cache: cache.get_many(7),
        lambda cache: cache.delete_many(7),
    ],
)
def test_a_call_with_other_arguments_is_a_type_error(private, call):
    with pytest.raises(TypeError):
        call(private)


# Namespaces and configurations


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "a\0b", "ü", "x" * 65, 7, b"shop"], ids=repr)
@pytest.mark.parametrize("private", [False, True])
def test_a_name_that_is_no_namespace_s_is_refused_with_and_without_a_configuration(
    namespace, config, name, private
):
    with pytest.raises(ConfigError, match="letters, digits"):
        cachee_shm.attach(name, private=private)
    with pytest.raises(ConfigError):
        cachee_shm.attach(name, config=config, private=private)


def test_a_namespace_that_the_configuration_lacks_is_unknown(config):
    with pytest.raises(UnknownNamespace, match=r"namespaces\.stop.*accepted: shop"):
        cachee_shm.attach("stop", config=config)
    config["defaults"] = {"memory": "4MiB"}
    with cachee_shm.attach("stop", config=config) as cache:
        assert cache.namespace == "stop"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"namespaces": {"shop": {"memory": "4 apples"}}}, "namespaces.shop.memory"),
        ({"namespaces": {"shop": {"memory": "1MiB"}}}, "from 2MiB"),
        ({"namespace": {}}, "unknown key"),
        ({"bridge": {"http": "127.0.0.1:9946"}}, "metrics, for Prometheus"),
        ({"host": {"group": "no-such-group"}}, "host.group"),
    ],
)
def test_an_error_of_the_configuration_reaches_the_caller_and_nothing_is_made(config, change, message):
    with pytest.raises(ConfigError, match=message):
        cachee_shm.attach(config={**config, **change})


def test_a_configuration_that_cannot_be_read_is_an_error_by_argument_or_environment(
    namespace, monkeypatch, tmp_path
):
    missing = str(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        cachee_shm.attach(config=missing)
    monkeypatch.setenv("CACHEE_CONFIG", missing)
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        cachee_shm.attach()


@pytest.mark.parametrize("verb", ["get_or_load", "aget_or_load", "get_or_load_many", "aget_or_load_many"])
@pytest.mark.parametrize("loader", [5, "load", {"a": 1}])
def test_a_loader_that_cannot_be_called_is_refused_on_hits_too(private, verb, loader):
    private.set("hit", 1)
    for key in ("hit", "miss"):
        asked = [key] if "many" in verb else key
        with pytest.raises(TypeError, match=rf"^{verb}\(\) takes a loader .* Nothing was read or written"):
            given = getattr(private, verb)(asked, loader)
            asyncio.run(given)
    assert private.get("hit") == 1 and "miss" not in private


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_cache_is_neither_pickled_nor_copied_and_says_what_to_do(private, copied):
    private.set("a", 1)
    with pytest.raises(TypeError, match=r"process's attachment.* Call cachee_shm\.attach\(\)"):
        copied(private)
    assert private.get("a") == 1


def test_every_error_of_a_caller_is_caught_as_one(private):
    for call in (
        lambda: private.get(7),
        lambda: private.set("a", 1, ttl=-1),
        lambda: private.set("a", object()),
        lambda: private.set("a", bytes(8 << 20)),
        lambda: private.get("x" * 2000),
        lambda: cachee_shm.attach(config={"nonsense": 1}),
    ):
        with pytest.raises(CacheeError):
            call()


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",
        b"\x06",
        b"\xff",
        b"\x01",
        b"\x01" + b"x" * 7,
        b"\x02" + b"x" * 15,
        b"\x04\x00",
        b"\x07" + b"x" * 7,
        b"\x08" + b"x" * 8,
    ],
    ids=repr,
)
def test_a_malformed_payload_is_refused_and_nothing_of_it_is_applied(private, payload):
    private.set("a", 1)
    tail = private.tail
    with pytest.raises(ValueError, match="malformed"):
        private.apply(1, b"\x04" + payload)
    assert (private.tail, private.get("a")) == (tail, 1)
    with pytest.raises(ValueError, match="malformed"):
        private.apply(5000, b"\x04")


@pytest.mark.parametrize(
    "map_",
    [b"", b"\x03", b"\x03\x03\x00", b"\x03\x03\x00\x00\x00", b"\x02\x03\x00", b"\x40\x40", b"\xff" * 40],
    ids=repr,
)
def test_a_malformed_map_is_refused_and_nothing_of_it_is_applied(private, map_):
    private.set("a", 1)
    tail = private.tail
    for call in (
        lambda source, map_: private.fence_map(source, map_, 0, 0, 1 << 30),
        lambda source, map_: private.evict_map(source, map_, 1 << 60, 0, 1 << 30),
    ):
        with pytest.raises(ValueError, match="malformed map"):
            call(1, map_)
        with pytest.raises(ValueError, match="malformed map"):
            call(5000, b"\x03\x03\xff\xff")
    assert (private.tail, private.get("a")) == (tail, 1)


def test_a_word_beyond_the_index_ends_the_eviction(private):
    assert private.evict_map(1, b"\x03\x03\xff\xff", 1 << 60, 1 << 63, 100) == (0, 0)


BAD_KEYS = [3, "k" * 1025, "\ud800", ("a",)]


@pytest.mark.parametrize("bad", BAD_KEYS, ids=["int", "long", "surrogate", "tuple"])
def test_a_bulk_verb_with_one_bad_key_changes_nothing(private, bad):
    private.set_many({"a": 1, "b": 2}, tags=["t"])
    tail, stats = private.tail, private.stats()
    for verb in (
        lambda: private.delete_many(["a", "b", bad]),
        lambda: private.get_many(["a", "b", bad]),
        lambda: private.set_many({"a": 3, bad: 4}),
        lambda: private.set_many({"a": 3}, tags=["t", bad]),
        lambda: private.delete_tags("t", bad),
    ):
        with pytest.raises((TypeError, ValueError), match="Nothing was read or written"):
            verb()
    assert (private.tail, private.stats()) == (tail, stats)
    assert private.get_many(["a", "b"]) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "one", ["ab", b"ab", "", type("Text", (str,), {})("ab")], ids=["str", "bytes", "empty", "subclass"]
)
def test_one_str_is_no_iterable_of_keys(private, one):
    private.set_many({"a": 1, "b": 2})
    for verb in (private.delete_many, private.get_many, private.events):
        with pytest.raises(InvalidKey, match="not one"):
            verb(one)
    for mapping in (one, ["a", "b"], [("a", 1)], None, 3):
        with pytest.raises(TypeError, match="takes a mapping"):
            private.set_many(mapping)
    assert private.get_many(["a", "b"]) == {"a": 1, "b": 2}


@pytest.mark.parametrize("keys", [None, 3, object()], ids=["None", "int", "object"])
def test_what_is_no_iterable_is_refused(private, keys):
    for verb in (private.delete_many, private.get_many):
        with pytest.raises(InvalidKey, match="keys is an iterable"):
            verb(keys)


def test_an_iterable_that_raises_changes_nothing_and_its_error_comes_out(private):
    def broken():
        yield "a"
        raise LookupError("mine")

    private.set("a", 1)
    for verb in (private.delete_many, private.get_many):
        with pytest.raises(LookupError, match="mine"):
            verb(broken())
    assert private.get("a") == 1


@pytest.mark.parametrize("value", [object(), b"x" * (4 << 20)], ids=["unserializable", "too large"])
def test_a_failed_local_set_announces_nothing_and_leaves_no_older_value(private, value):
    private.set("a", 1, local=True)
    private.set("b", 1)
    tail = private.tail
    for key in ("a", "b"):
        with pytest.raises((Unserializable, ValueTooLarge)):
            private.set(key, value, local=True)
    assert private.get_many(["a", "b"]) == {}
    assert private.pack(tail, 100, 10_000) == (private.tail, b"")


@pytest.mark.parametrize("value", [object(), b"x" * (4 << 20)], ids=["unserializable", "too large"])
def test_a_failed_set_of_a_key_that_is_not_local_is_announced(private, value):
    private.set("a", 1)
    tail = private.tail
    with pytest.raises((Unserializable, ValueTooLarge)):
        private.set("a", value)
    _, announced = private.pack(tail, 100, 10_000)
    assert announced


def test_an_exception_of_a_signal_while_a_lifetime_is_checked_reaches_the_caller(private):
    class Interrupted:
        def total_seconds(self):
            raise KeyboardInterrupt

    for verb in (
        lambda: private.set("a", 1, ttl=Interrupted()),
        lambda: private.touch("a", ttl=Interrupted()),
    ):
        with pytest.raises(KeyboardInterrupt):
            verb()


def test_the_bytes_of_a_payload_may_be_of_any_kind(private):
    payload = bytes([1]) + struct.pack("<Q", private._hash("a"))
    for kind in (bytes, bytearray, memoryview):
        private.set("a", 1)
        assert private.apply(1, kind(payload)) == 1
        assert private.get("a") is None
    for wrong in ("text", None, [1]):
        with pytest.raises(TypeError, match="bytes-like"):
            private.apply(1, wrong)


def test_a_frame_that_cannot_be_made_of_what_is_healed_is_refused_before_anything_is_healed(private):
    private.set("a", 1)
    for after, head in ((1, b""), (0, bytes(142))):
        with pytest.raises(ValueError, match="up to its cursor, and a head of at most 141 bytes"):
            private.heal(0, 10, after, head)
    for wrong in (bytearray(2), "head", None):
        with pytest.raises(TypeError):
            private.heal(0, 10, 0, wrong)
    assert private.pump_cursor == 0
    private.heal(0, 1000, 0, bytes(141))
    assert private.pump_cursor == private.tail


NUMBERED = {  # verb: its arguments, each number with the largest that is accepted
    "pack": [2**64 - 1, 2**32 - 1, 2**32 - 1],
    "missed": [2**64 - 1],
    "heal": [2**64 - 1, 2**32 - 1, 2**64 - 1, b""],
    "apply": [2**32 - 1, b""],
    "map_piece": [2**64 - 1, 2**32 - 1, 2**32 - 1],
    "fence_map": [2**32 - 1, b"", 2**64 - 1, 2**64 - 1, 2**32 - 1],
    "evict_map": [2**32 - 1, b"", 2**64 - 1, 2**64 - 1, 2**32 - 1],
    "read_ring": [2**64 - 1, 2**32 - 1],
    "source_store": [2**32 - 1, 2**64 - 1, 2**64 - 1],
    "source_forget": [2**32 - 1],
    "source_set_aside": [2**32 - 1],
    "source_acked": [2**32 - 1, 2**64 - 1],
    "source_tell": [2**32 - 1, True, 2**64 - 1],
    "_source_name": [2**32 - 1, 2**64 - 1],
    "evict_before": [2**64 - 1],
    "set_serve_until": [2**64 - 1],
    "bridge_vouch": [2**64 - 1],
    "raise_incarnation": [2**64 - 1],
    "_synced": [2**64 - 1, 2**64 - 1],
    "_lateness": [2**64 - 1, 2**64 - 1],
}


@pytest.mark.parametrize("verb", NUMBERED)
def test_a_number_that_is_negative_or_too_large_is_refused_and_never_another_number(private, verb):
    arguments = NUMBERED[verb]
    plain = [0 if type(most) is int else most for most in arguments]
    for i, most in enumerate(arguments):
        if type(most) is not int:
            continue
        for wrong in (-1, most + 1, -(2**64), 2**70):
            with pytest.raises(OverflowError, match=f"An int from 0 to {most} is wanted, not {wrong}"):
                getattr(private, verb)(*plain[:i], wrong, *plain[i + 1 :])
        for wrong in (1.0, "1", None):
            with pytest.raises(TypeError, match=f"An int from 0 to {most} is wanted, not "):
                getattr(private, verb)(*plain[:i], wrong, *plain[i + 1 :])
    assert private.get("nothing") is None


@pytest.mark.parametrize("local", [True, False])
def test_a_set_that_fails_is_counted_as_the_delete_that_it_is(private, local):
    private.set("a", 1, local=local)
    before = private.stats()
    with pytest.raises(Unserializable):
        private.set("a", object(), local=local)
    after = private.stats()
    assert after["sets"] == before["sets"]
    assert after["deletes"] == before["deletes"] + 1
    assert "a" not in private


TAKES_OPTIONS = {
    "get": (lambda cache, **wrong: cache.get("a", **wrong), "key, default"),
    "set": (lambda cache, **wrong: cache.set("a", 1, **wrong), "key, value, ttl, tags, local"),
    "touch": (lambda cache, **wrong: cache.touch("a", **wrong), "key, ttl"),
    "get_or_load": (
        lambda cache, **wrong: cache.get_or_load("a", lambda: pytest.fail("it was loaded"), **wrong),
        "ttl, stale, negative_ttl, tags, local, on_error, early, .*, hard_timeout",
    ),
    "aget_or_load": (
        lambda cache, **wrong: asyncio.run(cache.aget_or_load("a", None, **wrong)),
        "ttl, stale, negative_ttl, tags, local, on_error, early, .*, hard_timeout",
    ),
    "get_or_load_many": (
        lambda cache, **wrong: cache.get_or_load_many(["a"], lambda keys: pytest.fail("loaded"), **wrong),
        "ttl, .*, hard_timeout",
    ),
    "aget_or_load_many": (
        lambda cache, **wrong: asyncio.run(cache.aget_or_load_many(["a"], None, **wrong)),
        "ttl, .*, hard_timeout",
    ),
    "cached": (lambda cache, **wrong: cache.cached(**wrong), "key, ttl, .*, condition"),
}


@pytest.mark.parametrize(("verb", "accepted"), TAKES_OPTIONS.values(), ids=TAKES_OPTIONS)
def test_an_unknown_option_names_the_accepted_ones(private, verb, accepted):
    private.set("a", 1)
    private.delete("a")
    before = private.stats()
    with pytest.raises(TypeError, match=rf"tll.*Nothing was read or written\. Accepted: {accepted}\."):
        verb(private, tll=60)
    assert private.stats() == before
