"""One load per host, fenced fills, and writes of the origin that leave no stale value behind."""

import asyncio
import contextvars
import struct
import sys
import types
from datetime import timedelta

import pytest

from cachee_shm.errors import InvalidKey, InvalidTTL, KeyTooLong
from tests.cachee_shm.loaders import Origin

WIRE_KEY = 1


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


def test_a_coroutine_function_given_to_the_verb_that_does_not_wait_is_an_error(cache):
    async def loader():
        pytest.fail("it was awaited")

    with pytest.raises(TypeError, match=r"has to be awaited\. Nothing was cached\. Use aget_or_load"):
        cache.get_or_load("a", loader)
    assert "a" not in cache and cache._holds()[:2] == (0, 0)


def test_a_plain_function_given_to_the_verb_that_awaits_is_an_error(cache):
    with pytest.raises(TypeError, match=r"cannot be awaited\. Nothing was cached"):
        asyncio.run(cache.aget_or_load("a", lambda: 1))
    assert "a" not in cache and cache._holds()[:2] == (0, 0)


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


class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return 1


@types.coroutine
def marked():
    yield from asyncio.sleep(0).__await__()
    return 1


def generator():
    yield 1


def test_a_loader_may_return_whatever_can_be_awaited(cache):
    async def coroutine():
        return 1

    async def run():
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        made = {"a": coroutine, "b": Awaitable, "c": marked, "d": lambda: future}
        assert [await cache.aget_or_load(key, loader) for key, loader in made.items()] == [1] * 4
        for nothing in (generator, lambda: 1):
            with pytest.raises(TypeError, match="cannot be awaited"):
                await cache.aget_or_load("e", nothing)

    asyncio.run(run())
    assert cache.get_many(list("abcd")) == dict.fromkeys("abcd", 1)
    assert cache._holds()[:2] == (0, 0)


def test_a_loaded_value_that_is_too_large_is_returned_with_a_warning(cache, load):
    value = b"x" * (1 << 20)
    with pytest.warns(RuntimeWarning, match="not cached"):
        assert load("a", Origin(value)) == value
    assert "a" not in cache


def test_a_loaded_value_that_no_codec_takes_is_returned_with_one_warning(cache, load):
    value = object()
    cache._freeze(1_000_000)
    load("a", Origin("old"), ttl=1, stale=60)
    cache._freeze(1_002_000)
    with pytest.warns(RuntimeWarning, match="not cached") as warned:
        assert load("a", Origin(value), stale=60) is value
        assert load("b", Origin(value)) is value
    assert len(warned) == 1
    assert load("a", Origin("new"), stale=60) == "new"
    assert cache._holds()[0] == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": -5}, InvalidTTL),
        ({"ttl": "5"}, InvalidTTL),
        ({"ttl": float("nan")}, InvalidTTL),
        ({"negative_ttl": "x"}, InvalidTTL),
        ({"negative_ttl": -1}, InvalidTTL),
        ({"stale": -1}, InvalidTTL),
        ({"stale": "x"}, InvalidTTL),
        ({"stale": 2e11}, InvalidTTL),
        ({"tags": "team:7"}, InvalidKey),
        ({"tags": [7]}, InvalidKey),
        ({"tags": 7}, InvalidKey),
        ({"tags": ["t"] * 17}, InvalidKey),
        ({"tags": ["x" * 2000]}, KeyTooLong),
    ],
)
@pytest.mark.parametrize("key", ["hit", "miss"])
def test_what_is_wrong_with_the_options_is_found_before_anything_is_loaded_hit_or_miss(
    cache, load, key, options, error
):
    cache.set("hit", 1)
    origin = Origin()
    with pytest.raises(error):
        load(key, origin, **options)
    assert origin.calls == 0


def test_stale_is_seconds_or_a_timedelta(cache, load):
    cache._freeze(1_000_000)
    load("a", Origin("old"), ttl=1, stale=timedelta(seconds=60))
    cache._freeze(1_060_000)
    assert load("a", Origin(OSError("down")), stale=timedelta(seconds=60)) == "old"


def test_of_tags_and_values_nothing_is_kept_beyond_the_load(cache, load):
    tag, value = b"a tag of this test", b"a value of this test"
    load("warm", lambda: value, tags=[tag])
    before = sys.getrefcount(tag), sys.getrefcount(value)
    for i in range(100):
        load(f"a:{i}", lambda: value, tags=[tag], stale=1)
    assert (sys.getrefcount(tag), sys.getrefcount(value)) == before


def test_a_load_leaves_the_callers_context_as_it_was(cache):
    def broken():
        raise OSError("down")

    async def abroken():
        raise OSError("down")

    async def one():
        return 1

    async def loads():
        before = dict(contextvars.copy_context())
        assert await cache.aget_or_load("c", one) == 1
        with pytest.raises(OSError, match="down"):
            await cache.aget_or_load("d", abroken)
        return dict(contextvars.copy_context()) == before

    before = dict(contextvars.copy_context())
    assert cache.get_or_load("a", lambda: 1) == 1
    with pytest.raises(OSError, match="down"):
        cache.get_or_load("b", broken)
    assert dict(contextvars.copy_context()) == before
    assert asyncio.run(loads())


def test_tags_may_be_given_by_a_generator(cache, load):
    load("a", Origin(), tags=(tag for tag in ("t", "u")))
    cache.delete_tags("u")
    assert "a" not in cache


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
