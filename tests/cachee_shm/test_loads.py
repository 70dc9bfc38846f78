"""``current_load()``: what a loader asks and says of its own load."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import cachee_shm
from cachee_shm import current_load
from cachee_shm.errors import InvalidKey, InvalidTTL, NoStaleValue
from tests.cachee_shm.test_loading import load

__all__ = ["load"]

SECOND = 1000


@pytest.fixture
def clock(cache):
    """Moves the segment's clock as this process sees it; its first value."""
    now = cache.now_ms()
    cache._freeze(now)
    yield lambda seconds: cache._freeze(now + int(seconds * SECOND))
    cache._freeze(None)


def test_outside_of_a_load_there_is_none(cache, load):
    assert current_load() is None
    load("a", lambda: 1)
    assert current_load() is None


def test_a_loader_knows_its_key_and_what_its_caller_asked_for(cache, load):
    def loader():
        here = current_load()
        return [here.key, here.ttl, list(here.tags), here.stale_value, here.etag]

    assert load("a", loader, ttl=60, tags=["t"]) == ["a", 60, ["t"], None, None]


def test_a_loader_sets_the_lifetime_of_what_it_loads(cache, load, clock):
    def loader():
        current_load().ttl = 5
        return 1

    load("a", loader, ttl=60)
    clock(4.9)
    assert cache.get("a") == 1
    clock(5.1)
    assert cache.get("a") is None


def test_a_loader_sets_the_tags_of_what_it_loads(cache, load):
    def loader():
        current_load().tags = [*current_load().tags, "team:7"]
        return 1

    load("a", loader, tags=["user:1"])
    assert cache.get("a") == 1
    cache.delete_tags("team:7")
    assert cache.get("a") is None


def test_what_is_wrong_raises_in_the_loader_and_changes_nothing(cache, load):
    def loader():
        with pytest.raises(InvalidTTL):
            current_load().ttl = -1
        with pytest.raises(InvalidKey):
            current_load().tags = "ab"
        with pytest.raises(ValueError, match="1024 bytes"):
            current_load().etag = "x" * 1025
        return current_load().ttl

    assert load("a", loader, ttl=60) == 60
    assert cache.get("a") == 60


def test_a_skipped_value_is_returned_and_not_stored(cache, load):
    def loader():
        current_load().skip()
        return {"error": 503}

    assert load("a", loader, negative_ttl=60) == {"error": 503}
    assert "a" not in cache


def test_a_skipped_none_is_not_stored_as_a_negative_answer_either(cache, load):
    assert load("a", lambda: current_load().skip(), negative_ttl=60) is None
    assert "a" not in cache


def test_the_stale_value_is_there_for_the_loader(cache, load, clock):
    seen = []

    def loader(value):
        seen.append(current_load().stale_value)
        return value

    load("a", loader, {"n": 1}, ttl=10, stale=60)
    clock(11)
    assert load("a", loader, {"n": 2}, ttl=10, stale=60) == {"n": 2}
    assert seen == [None, {"n": 1}]


def test_an_etag_stands_with_the_value_and_comes_back_with_the_next_load(cache, load, clock):
    seen = []

    def loader(etag, value):
        seen.append(current_load().etag)
        current_load().etag = etag
        assert current_load().etag == etag
        return value

    load("a", loader, '"v1"', {"n": 1}, ttl=10, stale=60)
    assert cache.get("a") == {"n": 1}
    clock(11)
    load("a", loader, '"v2"', "text", ttl=10, stale=60)
    assert cache.get("a") == "text"
    clock(22)
    load("a", loader, None, b"bytes", ttl=10, stale=60)
    assert cache.get("a") == b"bytes"
    assert seen == [None, '"v1"', '"v2"']
    assert cache.stats()["undecodable"] == 0


@pytest.mark.parametrize("value", [{"n": [1, 2]}, "text", "täxt", b"", 7, 1.5, None, True, (1, 2)])
def test_what_is_not_modified_keeps_its_bytes_and_its_etag_and_gets_a_new_lifetime(cache, load, clock, value):
    def first():
        current_load().etag = "e"
        return value

    def second():
        assert current_load().etag == "e"
        return current_load().not_modified()

    load("a", first, ttl=10, stale=60)
    before = cache._stored("a")
    for at in (11, 22):
        clock(at)
        assert load("a", second, ttl=10, stale=60) == value
        clock(at + 9)
        assert cache.lookup("a") == (value, True)
    assert cache._stored("a") == before


def test_without_an_older_value_there_is_nothing_to_keep(cache, load):
    def loader():
        with pytest.raises(NoStaleValue, match="Load it without a condition"):
            current_load().not_modified()
        return 2

    assert load("a", loader) == 2
    assert cache.get("a") == 2


def test_a_value_invalidated_while_it_is_checked_is_not_kept(cache, load, clock):
    def loader():
        kept = current_load().not_modified()
        cache.delete("a")
        return kept

    load("a", lambda: 1, ttl=10, stale=60)
    clock(11)
    assert load("a", loader, ttl=10, stale=60) == 1
    assert "a" not in cache


def test_a_loader_that_returns_another_value_than_the_one_it_kept_stores_that(cache, load, clock):
    def loader():
        current_load().not_modified()
        return {"n": 2}

    load("a", lambda: {"n": 1}, ttl=10, stale=60)
    clock(11)
    load("a", loader, ttl=10, stale=60)
    assert cache.get("a") == {"n": 2}


def test_a_loader_within_a_loader_has_its_own(cache, load):
    def inner():
        current_load().ttl = 1
        return current_load().key

    def outer():
        before = current_load().key
        value = cache.get_or_load("inner", inner)
        assert current_load().key == before == "outer"
        return [value, current_load().ttl]

    assert load("outer", outer, ttl=60) == ["inner", 60]


def test_a_task_and_a_thread_of_a_loader_find_its_load(cache):
    async def loader():
        in_task = await asyncio.create_task(key_of())
        return [in_task, await asyncio.to_thread(lambda: current_load().key)]

    async def key_of():
        return current_load().key

    async def main():
        return await cache.aget_or_load("a", loader)

    assert asyncio.run(main()) == ["a", "a"]


def test_a_context_that_outlives_the_load_has_none(cache, load):
    kept, contexts = [], []

    def loader():
        kept.append(current_load())
        contexts.append(contextvars.copy_context())
        return 1

    load("a", loader)
    assert contexts[0].run(current_load) is None
    kept[0].ttl = 5  # too late: it does nothing
    kept[0].skip()
    assert kept[0].stale_value is None and kept[0].etag is None
    assert cache.get("a") == 1


def test_two_loads_at_once_do_not_mix(cache):
    both = threading.Barrier(2)

    def loader(ttl):
        both.wait()
        current_load().ttl = ttl
        both.wait()
        return [current_load().key, current_load().ttl]

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(cache.get_or_load, key, loader, ttl) for key, ttl in (("a", 1), ("b", 2))]
        assert [load.result() for load in loads] == [["a", 1], ["b", 2]]


def test_waiters_get_copies_of_a_value_with_an_etag(cache):
    begun, go = threading.Event(), threading.Event()

    def loader():
        current_load().etag = "e"
        begun.set()
        go.wait()
        return {"n": 1}

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_load, "a", loader)
        begun.wait()
        second = pool.submit(cache.get_or_load, "a", loader)
        while cache.stats()["lease_waits"] == 0:
            pass
        go.set()
        assert first.result() == second.result() == {"n": 1}
        assert first.result() is not second.result()
    assert cache.stats()["loads"] == 1


def test_the_package_exports_current_load():
    assert cachee_shm.current_load is current_load


def test_with_the_cache_disabled_a_loader_has_a_load_that_stores_nothing(config, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")

    def loader():
        here = current_load()
        here.ttl, here.tags, here.etag = 5, ["t"], "e"
        here.skip()
        with pytest.raises(NoStaleValue):
            here.not_modified()
        return [here.key, here.stale_value]

    async def aloader():
        return loader()

    with cachee_shm.attach(config=config) as cache:
        assert cache.get_or_load("a", loader) == ["a", None]
        assert asyncio.run(cache.aget_or_load("a", aloader)) == ["a", None]
        assert current_load() is None


@pytest.mark.parametrize("etag", [7, b"v1", ["v1"], "\ud800", "é" * 513])
def test_an_etag_that_cannot_be_stored_is_refused_and_the_load_goes_on(cache, load, clock, etag):
    def loader():
        current_load().etag = "v1"
        with pytest.raises(ValueError, match="An etag is a str"):
            current_load().etag = etag
        return 1

    load("a", loader, ttl=10, stale=60)
    clock(11)
    assert load("a", lambda: current_load().etag, stale=60) == "v1"


def test_a_none_with_an_etag_and_one_that_is_kept_have_the_lifetime_of_a_none(cache, load, clock):
    def loader():
        current_load().etag = "v1"

    load("a", loader, ttl=60, negative_ttl=5, stale=600)
    clock(6)
    assert cache.lookup("a") == (None, False)
    load("a", lambda: current_load().not_modified(), ttl=60, negative_ttl=5, stale=600)
    assert cache.lookup("a") == (None, True)
    clock(12)
    assert cache.lookup("a") == (None, False)


@pytest.mark.parametrize("first", ["etag", "value"])
@pytest.mark.parametrize("new", ["v2", None])
def test_a_value_that_is_kept_takes_a_new_etag_whatever_is_said_first(cache, load, clock, first, new):
    def loader():
        here = current_load()
        if here.stale_value is None:
            here.etag = "v1"
            return [1]
        if first == "etag":
            here.etag = new
        kept = here.not_modified()
        if first == "value":
            here.etag = new
        assert here.etag == new
        return kept

    load("a", loader, ttl=10, stale=600)
    clock(11)
    assert load("a", loader, ttl=10, stale=600) == [1]
    assert cache.get("a") == [1]
    clock(22)
    assert load("a", lambda: [current_load().etag], ttl=10, stale=600) == [new]


def test_a_loader_that_returns_another_value_after_not_modified_keeps_its_etag(cache, load, clock):
    load("a", lambda: 1, ttl=10, stale=600)
    clock(11)

    def loader():
        current_load().etag = "v2"
        current_load().not_modified()
        return 2

    assert load("a", loader, ttl=10, stale=600) == 2
    clock(22)
    assert load("a", lambda: current_load().etag, ttl=10, stale=600) == "v2"


@pytest.mark.parametrize("how", [lambda here: here.skip(), lambda here: setattr(here, "ttl", 0)])
def test_a_value_that_is_not_to_be_stored_need_not_be_storable(cache, load, how, recwarn):
    def loader():
        how(current_load())
        return object()

    assert type(load("a", loader)) is object
    assert not [each for each in recwarn if each.category is RuntimeWarning]
