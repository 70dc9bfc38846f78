"""Many keys, one call of the loader, one lease a key; nobody waits for a lease while it holds one."""

import asyncio
import inspect
import threading
import types
from contextlib import suppress

import pytest
import trio

import cachee_shm
from cachee_shm import current_load
from cachee_shm.errors import InvalidKey, InvalidTTL, KeyTooLong, LoadTimeout
from cachee_shm.transactions import transaction
from tests.cachee_shm.loaders import running
from tests.cachee_shm.processes import until
from tests.cachee_shm.test_interrupted import interrupted, owes_nothing
from tests.cachee_shm.test_loads import clock

__all__ = ["clock", "interrupted"]

ABC = ["a", "b", "c"]


@pytest.fixture(params=["def", "async def"])
def load(request, cache):
    """``get_or_load_many`` and ``aget_or_load_many``, called alike."""
    if request.param == "def":
        return cache.get_or_load_many

    def run(keys, loader, *args, **options):
        async def aloader(*given):
            await asyncio.sleep(0)
            return loader(*given)

        return asyncio.run(cache.aget_or_load_many(keys, aloader, *args, **options))

    return run


class Rows:
    """A loader of many that notes what it was asked for."""

    def __init__(self, **rows):
        self.rows, self.asked = rows, []

    def __call__(self, keys):
        self.asked.append(list(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}


# One call


def test_what_is_missing_is_loaded_by_one_call_and_found_by_the_next(cache, load):
    rows = Rows(a={"is": 1}, b=2, c=3)
    cache.set("b", "here")
    assert load(ABC, rows) == {"a": {"is": 1}, "b": "here", "c": 3}
    assert load(ABC, rows) == {"a": {"is": 1}, "b": "here", "c": 3}
    assert rows.asked == [["a", "c"]]
    assert cache.get_many(ABC) == {"a": {"is": 1}, "b": "here", "c": 3}
    numbers = cache.stats()
    assert (numbers["hits"], numbers["misses"], numbers["loads"]) == (7, 2, 2)
    owes_nothing(cache)


def test_the_result_has_the_order_of_the_keys_and_the_loader_its_arguments(cache, load):
    cache.set("b", 0)
    got = load(iter(["c", "b", b"a"]), lambda keys, add: dict.fromkeys(keys, add), 7)
    assert list(got.items()) == [("c", 7), ("b", 0), (b"a", 7)]
    assert load([], pytest.fail) == {}


def test_the_options_are_those_of_a_single_load(cache, load, clock):
    rows = Rows(a=1, b=2, c=3)
    load(ABC, rows, ttl=60, tags=["t"], local=True)
    clock(59)
    load(ABC, rows)
    clock(60)
    load(ABC, rows, ttl=60, tags=["t"])
    cache.delete_tags("t")
    load(ABC, rows, ttl=10, sliding=1)
    clock(62)
    load(ABC, rows, ttl=0)
    load(ABC, rows)
    assert rows.asked == [ABC] * 5


def test_what_the_loader_leaves_out_is_none_and_cached_as_a_loaded_none_is(cache, load, clock):
    rows = Rows(a=1)
    assert load(["a", "b"], rows, ttl=60, negative_ttl=5) == {"a": 1, "b": None}
    clock(4)
    assert load(["a", "b"], rows, ttl=60, negative_ttl=5) == {"a": 1, "b": None}
    assert cache.lookup("b") == (None, True)
    clock(5)
    rows.rows["b"] = 2
    assert load(["a", "b"], rows, ttl=60, negative_ttl=5) == {"a": 1, "b": 2}
    assert rows.asked == [["a", "b"], ["b"]]


def test_a_mapping_that_is_no_dict_and_has_more_than_was_asked_for_is_taken(cache, load):
    table = types.MappingProxyType({"a": 1, "b": 2})
    assert load(["a"], lambda keys: table) == {"a": 1}
    assert "b" not in cache
    assert load(["c"], lambda keys: {}) == {"c": None}


@pytest.mark.parametrize(
    ("loaded", "error", "words"),
    [
        ([1], TypeError, "not a mapping from key to value"),
        (None, TypeError, "NoneType, not a mapping"),
        ({1: "row"}, ValueError, "has none of them, but 1. Nothing was cached"),
    ],
)
def test_a_loader_that_returns_no_mapping_of_its_keys_is_an_error(cache, load, loaded, error, words):
    with pytest.raises(error, match=words):
        load(["a"], lambda keys: loaded)
    assert "a" not in cache
    owes_nothing(cache)


def test_a_loader_of_the_other_kind_is_an_error_that_says_which_verb_to_use(cache):
    async def aloader(keys):
        pytest.fail("it was awaited")

    with pytest.raises(TypeError, match=r"has to be awaited\. Nothing was cached\. Use aget_or_load_many"):
        cache.get_or_load_many(["a"], aloader)
    with pytest.raises(TypeError, match=r"cannot be awaited\. Nothing was cached\..* use get_or_load_many"):
        asyncio.run(cache.aget_or_load_many(["a"], lambda keys: {}))
    assert "a" not in cache
    owes_nothing(cache)


@pytest.mark.parametrize(
    ("keys", "options", "error"),
    [
        ("ab", {}, InvalidKey),
        (b"ab", {}, InvalidKey),
        (7, {}, InvalidKey),
        (["a", 7], {}, InvalidKey),
        (["a", "b", "a"], {}, InvalidKey),
        (["a", b"a"], {}, InvalidKey),
        (["a", "x" * 2000], {}, KeyTooLong),
        (["a"], {"ttl": -1}, InvalidTTL),
        (["a"], {"tags": "t"}, InvalidKey),
        (["a"], {"on_error": "no"}, ValueError),
        (["a"], {"hard_timeout": -1}, ValueError),
        (["a"], {"lifetime": 1}, TypeError),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_loaded(cache, load, keys, options, error):
    before = cache.stats()
    with pytest.raises(error):
        load(keys, lambda keys: pytest.fail("it was loaded"), **options)
    assert cache.stats() == before
    owes_nothing(cache)


def test_a_value_that_cannot_be_cached_is_returned_with_a_warning_at_the_callers_line(cache):
    keys = [object(), 2]
    with pytest.warns(RuntimeWarning, match="loaded, returned, not cached: 'a'") as warned:
        got = cache.get_or_load_many(["a", "b"], lambda asked: dict(zip(asked, keys, strict=True)))
    assert list(got.values()) == keys and cache.get_many(["a", "b"]) == {"b": 2}
    assert warned[0].filename == __file__


def test_it_is_empty_without_the_cache(config, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    seen = []

    def loader(keys):
        load = current_load()
        load.ttl, load.of("b").tags = 5, ["t"]
        seen.append(load.keys)
        return dict.fromkeys(keys, 1)

    async def aloader(keys):
        return loader(keys)

    with cachee_shm.attach(config=config) as bypass:
        assert bypass.get_or_load_many(["a", "b"], loader) == {"a": 1, "b": 1}
        assert asyncio.run(bypass.aget_or_load_many(["a", "b"], aloader)) == {"a": 1, "b": 1}
        assert seen == [("a", "b")] * 2 and current_load() is None and bypass.get("a") is None


# Failure


def test_what_the_loader_raises_is_the_callers_and_nothing_is_kept(cache, load):
    with pytest.raises(OSError, match="down"):
        load(ABC, lambda keys: (_ for _ in ()).throw(OSError("down")))
    assert cache.get_many(ABC) == {}
    owes_nothing(cache)


def test_older_values_are_served_if_each_key_has_one_and_the_loader_fails(cache, load, clock):
    def fails(keys):
        raise OSError("down")

    load(["a", "b"], Rows(a=1, b=2), ttl=5, stale=60)
    clock(10)
    assert load(["a", "b"], fails) == {"a": 1, "b": 2}
    for keys, options in ((ABC, {}), (["a", "b"], {"on_error": "raise"})):
        with pytest.raises(OSError, match="down"):
            load(keys, fails, **options)
    cache.delete("a")
    with pytest.raises(OSError, match="down"):
        load(["a", "b"], fails)
    owes_nothing(cache)


def test_a_failure_is_told_to_those_who_wait_for_any_of_its_keys(cache):
    entered, go, told = threading.Event(), threading.Event(), []

    def fails(keys):
        entered.set()
        go.wait(60)
        raise OSError("down")

    def first():
        with suppress(OSError):
            cache.get_or_load_many(["a", "b"], fails)

    def waits():
        entered.wait(60)
        try:
            cache.get_or_load_many(["c", "b"], lambda keys: dict.fromkeys(keys, 1))
        except OSError as error:
            told.append(str(error))

    def release():
        until(lambda: cache.get("c"))
        go.set()

    with running(first, waits, release):
        pass
    assert told == ["down"]


def test_one_whose_key_expires_early_is_loaded_before_its_end(cache, load, clock, monkeypatch):
    monkeypatch.setattr("random.expovariate", lambda _: 100.0)
    load(["a", "b"], Rows(a=1, b=2), ttl=60, early=True)
    clock(59.99)
    rows = Rows(a=3, b=4)
    assert load(["a", "b"], rows, ttl=60, early=100) == {"a": 3, "b": 4}
    assert rows.asked == [["a", "b"]]


# Limits


def test_after_the_hard_timeout_there_is_an_error_or_the_older_values_and_the_load_goes_on(cache, clock):
    go = threading.Event()

    def slow(keys):
        go.wait(60)
        return dict.fromkeys(keys, "new")

    async def aslow(keys):
        while not go.is_set():
            await asyncio.sleep(0.001)
        return dict.fromkeys(keys, "new")

    with pytest.raises(LoadTimeout, match="'c'"):
        cache.get_or_load_many(["c"], slow, hard_timeout=0)
    cache.get_or_load_many(["x", "y"], Rows(x=1, y=2), ttl=5, stale=60)
    clock(10)
    assert cache.get_or_load_many(["x", "y"], slow, soft_timeout=0) == {"x": 1, "y": 2}

    async def main():
        with pytest.raises(LoadTimeout):
            await cache.aget_or_load_many(["d"], aslow, hard_timeout=0.001)
        go.set()
        return await cache.aget_or_load_many(["d", "e"], aslow, hard_timeout=60)

    assert asyncio.run(main()) == {"d": "new", "e": "new"}
    until(lambda: cache.get_many(["c", "x", "y"]) == {"c": "new", "x": "new", "y": "new"})
    until(lambda: cache._holds()[0] == 0)


def test_limits_are_judged_and_refused_as_those_of_a_single_load(cache):
    with transaction() as one:
        one.statement("SELECT 1")
        with pytest.raises(ValueError, match="transaction"):
            cache.get_or_load_many(["a"], pytest.fail, hard_timeout=1)
    with pytest.raises(ValueError, match="asyncio"):
        trio.run(lambda: cache.aget_or_load_many(["a"], pytest.fail, hard_timeout=1))


# What the loader says


def test_a_loader_of_many_says_of_each_key_what_it_knows(cache, load, clock):
    def loader(keys):
        batch = current_load()
        assert isinstance(batch, cachee_shm.BatchLoad) and batch.keys == ("a", "b", "c")
        batch.ttl, batch.tags = 60, ["all"]
        batch.of("a").ttl = 5
        batch.of("b").tags = ["mine"]
        batch.of("c").skip()
        assert (batch.of("a").ttl, batch.of("b").ttl, batch.of("b").key) == (5, 60, "b")
        for name in ("key", "etag", "stale_value"):
            with pytest.raises(ValueError, match=f"no {name} of its own"):
                getattr(batch, name)
        with pytest.raises(ValueError, match="no etag"):
            batch.etag = "x"
        with pytest.raises(ValueError, match="not_modified"):
            batch.not_modified()
        with pytest.raises(KeyError):
            batch.of("d")
        with pytest.raises(InvalidTTL):
            batch.ttl = -1
        return dict.fromkeys(keys, 1)

    load(ABC, loader)
    assert cache.get_many(ABC) == {"a": 1, "b": 1}
    clock(6)
    assert cache.get_many(ABC) == {"b": 1}
    cache.delete_tags("all")
    assert cache.get_many(ABC) == {"b": 1}
    cache.delete_tags("mine")
    assert cache.get_many(ABC) == {} and current_load() is None


def test_a_batch_of_one_is_a_batch_and_skip_is_of_all_its_keys(cache, load):
    def loader(keys):
        assert current_load().keys == tuple(keys)
        current_load().skip()
        return dict.fromkeys(keys, 1)

    assert load(["a"], loader) == {"a": 1} and load(["a", "b"], loader) == {"a": 1, "b": 1}
    assert cache.get_many(["a", "b"]) == {}


def test_a_key_that_is_not_modified_keeps_its_bytes(cache, load, clock):
    def first(keys):
        for key in keys:
            current_load().of(key).etag = f"v-{key}"
        return {key: [key] for key in keys}

    def again(keys):
        loads = {key: current_load().of(key) for key in keys}
        assert [each.etag for each in loads.values()] == ["v-a", "v-b"]
        assert loads["b"].stale_value == ["b"]
        return {"a": loads["a"].not_modified(), "b": "new"}

    load(["a", "b"], first, ttl=5, stale=60)
    clock(10)
    assert load(["a", "b"], again, ttl=60) == {"a": ["a"], "b": "new"}
    clock(30)
    assert cache.get_many(["a", "b"]) == {"a": ["a"], "b": "new"}


# Transactions


def test_a_transaction_that_writes_stores_none_of_them(cache, load):
    with transaction() as one:
        one.statement("UPDATE t SET a = 1")
        assert load(ABC, Rows(a=1, b=2, c=3)) == {"a": 1, "b": 2, "c": 3}
    assert cache.get_many(ABC) == {}


def test_a_loader_that_writes_stores_none_of_them(cache, load):
    def loader(keys):
        with transaction() as one:
            one.statement("UPDATE t SET a = 1")
        return dict.fromkeys(keys, 1)

    load(ABC, loader)
    assert cache.get_many(ABC) == {}
    owes_nothing(cache)


def test_a_fill_is_as_old_as_the_transaction_and_only_the_key_that_moved_since_is_refused(cache, load):
    with transaction() as one:
        one.statement("SELECT 1")
        cache.delete("b")
        load(ABC, lambda keys: dict.fromkeys(keys, "old"))
    assert cache.get_many(ABC) == {"a": "old", "c": "old"}


def test_get_or_load_many_has_the_defaults_of_get_or_load():
    many = inspect.signature(cachee_shm.Cache.get_or_load_many).parameters
    single = inspect.signature(cachee_shm.Cache.get_or_load).parameters
    options = single.keys() & many.keys() - {"self", "args", "unknown"}
    assert {"ttl", "stale", "negative_ttl", "early", "jitter", "sliding", "on_error"} <= options
    assert [name for name in options if many[name].default != single[name].default] == []
