"""The backend beyond what Django's own suites ask of it."""

import asyncio
import inspect
import logging
import os
import threading
import warnings

import pytest

import cachee_shm
from cachee_shm.errors import Unserializable
from tests import machine
from tests.cachee_shm.test_successor import Obstacle

machine.require("Django")


@pytest.fixture
def cache(caches):
    return caches["default"]


def announced(shm, do):
    """What of this host the other hosts hear of while `do` runs."""
    before = shm.tail
    do()
    return shm.tail - before


# Coroutines


def test_no_verb_in_a_coroutine_leaves_its_thread(cache):
    """asgiref's hop goes through an executor: here there is none to be had."""

    async def all_of_them():
        asyncio.get_running_loop().run_in_executor = None
        await cache.aset("a", 1)
        assert await cache.aget("a") == 1
        assert await cache.aadd("a", 2) is False
        assert await cache.aincr("a") == 2
        assert await cache.adecr("a", 2) == 0
        assert await cache.atouch("a", 5) is True
        assert await cache.ahas_key("a")
        assert await cache.aset_many({"b": 1, "c": 2}) == []
        assert await cache.aget_many(["b", "c", "d"]) == {"b": 1, "c": 2}
        assert await cache.aget_or_set("d", lambda: 3) == 3
        assert await cache.aincr_version("b") == 2
        assert await cache.adecr_version("b", version=2) == 1
        await cache.adelete_many(["c"])
        assert await cache.adelete("b") is True
        await cache.aclear()
        assert await cache.aget("d", "none") == "none"

    asyncio.run(all_of_them())


def test_every_verb_of_django_has_its_own_coroutine(cache):
    from django.core.cache.backends.base import BaseCache

    names = [name for name, _ in inspect.getmembers(BaseCache, inspect.iscoroutinefunction)]
    assert [name for name in names if name not in vars(type(cache))] == ["aclose"]


def test_a_coroutine_may_make_what_is_missing(cache):
    async def make():
        await asyncio.sleep(0)
        return "made"

    assert asyncio.run(cache.aget_or_set("k", make)) == "made"
    assert cache.get("k") == "made"


# Fills and writes


def test_what_get_or_set_makes_is_announced_to_nobody(cache):
    assert announced(cache.shm, lambda: cache.get_or_set("k", lambda: "row")) == 0
    assert announced(cache.shm, lambda: asyncio.run(cache.aget_or_set("l", lambda: "row"))) == 0
    assert (cache.get("k"), cache.get("l")) == ("row", "row")


def test_a_row_that_was_read_before_an_invalidation_is_not_kept(cache):
    def load():
        cache.delete("k")  # another request has written the row, and announced it
        return "old row"

    assert cache.get_or_set("k", load) == "old row"
    assert cache.get("k") is None


def test_of_many_callers_one_makes_the_value(cache):
    made, together = [], threading.Barrier(8)

    def make():
        made.append(1)
        return "row"

    def call():
        together.wait()
        assert cache.get_or_set("k", make) == "row"

    threads = [threading.Thread(target=call) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert made == [1]


def test_a_set_after_its_own_miss_is_a_write_since_another_host_may_hold_what_was_not_found(cache):
    assert cache.get("user:1") is None
    # INSERT INTO users ...
    assert announced(cache.shm, lambda: cache.set("user:1", "row")) == 1


def test_a_value_of_none_is_one(cache):
    assert cache.get_or_set("k", None) is None
    assert "k" in cache


# Lifetimes and keys


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_a_lifetime_that_is_over_leaves_nothing_and_is_announced(cache, timeout):
    cache.set("k", 1)
    assert announced(cache.shm, lambda: cache.set("k", 2, timeout=timeout)) == 1
    assert "k" not in cache
    cache.set("k", 1)
    assert cache.touch("k", timeout) is True
    assert "k" not in cache
    assert cache.add("k", 1, timeout) is True
    assert cache.set_many({"k": 1, "l": 2}, timeout) == []
    assert cache.get_or_set("k", 3, timeout) == 3
    assert "k" not in cache and "l" not in cache


def test_what_is_no_number_of_seconds_is_refused_as_by_django(cache):
    from datetime import timedelta

    for timeout in ("60", timedelta(seconds=60), object()):
        with pytest.raises(TypeError):
            cache.set("k", 1, timeout)


def test_longer_than_any_clock_is_for_ever(cache):
    cache.set("k", 1, timeout=float("inf"))
    assert cache.get("k") == 1


def test_any_key_that_django_takes_is_one(cache):
    keys = ["k" * 2000, "k" * 1999 + "l", "\ud800", "ключ" * 300, "with space", "\x00"]
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for number, key in enumerate(keys):
            cache.set(key, number)
        assert [cache.get(key) for key in keys] == list(range(len(keys)))
        assert cache.get_many(keys) == {key: number for number, key in enumerate(keys)}


def test_a_count_keeps_its_lifetime_and_is_of_this_host(cache):
    cache.add("hits", 0, timeout=60)
    assert announced(cache.shm, lambda: cache.incr("hits")) == 0
    cache.shm._freeze(cache.shm.now_ms() + 61_000)
    assert "hits" not in cache


def test_no_count_of_many_threads_is_lost(cache):
    cache.set("hits", 0)
    threads = [threading.Thread(target=lambda: [cache.incr("hits") for _ in range(500)]) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert cache.get("hits") == 2000


def test_what_is_no_whole_number_is_added_to_as_django_does(cache):
    cache.set("price", 1.5)
    assert cache.incr("price", 2) == 3.5
    cache.set("big", 1 << 70)
    assert cache.incr("big") == (1 << 70) + 1
    cache.set("name", "Ada")
    with pytest.raises(TypeError):
        cache.incr("name")


# Values


class Only:
    """Pickle alone takes it."""

    def __eq__(self, other):
        return type(other) is Only


def test_a_value_that_only_pickle_takes_says_what_pickle_is(caches):
    without, with_pickle = caches["other"], caches["default"]
    for verb in (
        lambda: without.set("k", Only()),
        lambda: without.add("k", Only()),
        lambda: without.set_many({"k": Only()}),
        lambda: without.get_or_set("k", Only),
        lambda: asyncio.run(without.aset("k", Only())),
        lambda: asyncio.run(without.aget_or_set("k", Only)),
    ):
        with pytest.raises(
            Unserializable, match=r"`pickle = true` in \[namespaces.plain\].*may then run code"
        ):
            verb()
    with_pickle.set("k", Only())
    assert with_pickle.get("k") == Only()


def test_a_value_that_is_too_large_is_not_kept_and_fails_nothing(cache):
    cache.set("k", "small")
    with pytest.warns(RuntimeWarning, match="not cached"):
        cache.set("k", b"x" * (4 << 20))
    assert cache.get("k") is None
    assert cache.set_many({"k": b"x" * (4 << 20), "l": 1}) == ["k"]


# One cache for the process


def test_all_threads_and_tasks_share_one_attachment(caches):
    seen = []

    def look():
        seen.append(caches["default"].shm)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(map(id, seen)) == {id(caches["default"].shm)}


def test_nothing_is_attached_before_the_first_use(caches, config):
    caches["default"]
    assert not [name for name in os.listdir("/dev/shm") if config["host"]["name"] in name]
    caches["default"].get("k")
    assert [name for name in os.listdir("/dev/shm") if config["host"]["name"] in name]


def test_the_end_of_a_request_leaves_the_cache_attached(cache):
    from django.core.signals import request_finished

    cache.set("k", 1)
    request_finished.send(None)
    assert cache.get("k") == 1


def test_an_option_that_nobody_knows_is_an_error(project):
    from django.core.exceptions import ImproperlyConfigured

    from cachee_shm.django import CacheeCache

    with pytest.raises(ImproperlyConfigured, match="OPTIONS of CacheeCache has sockets; it may have"):
        CacheeCache("", {"OPTIONS": {"sockets": 3}})


@pytest.mark.parametrize("is_async", [False, True])
def test_set_after_miss_fills_makes_fills_of_sets_after_a_miss_and_is_off(project, config, is_async):
    from cachee_shm.django import CacheeCache

    def made(**options):
        return CacheeCache("shop", {"OPTIONS": {"config": config, **options}})

    async def get_and_set(cache, key):
        if is_async:
            assert await cache.aget(key) is None
            await cache.aset(key, 1)
        else:
            assert cache.get(key) is None
            cache.set(key, 1)
        assert cache.get(key) == 1

    writes, fills = made(), made(set_after_miss_fills=True)
    asyncio.run(get_and_set(writes, "a"))
    written = writes.shm._written()
    assert written[1]
    asyncio.run(get_and_set(fills, "b"))
    assert fills.shm._written() == written  # announced to nobody
    fills.set("b", 2)
    assert fills.get("missed") is None
    fills.set("missed", 1, timeout=0)
    assert fills.shm._written() > written
    fills.shm.close()


# A cache that cannot be had


@pytest.mark.parametrize(
    "between",
    [
        lambda cache: cache.get("a"),
        lambda cache: cache.get_many(["a"]),
        lambda cache: cache.get_or_set("a", 1),
        lambda cache: cache.add("a", 1),
        lambda cache: cache.touch("a"),
        lambda cache: cache.delete("a"),
        lambda cache: cache.delete_many(["a"]),
        lambda cache: cache.set_many({"a": 1}),
        lambda cache: cache.incr("a"),
        lambda cache: cache.clear(),
        lambda cache: cache.close(),
    ],
    ids=[
        "get",
        "get_many",
        "get_or_set",
        "add",
        "touch",
        "delete",
        "delete_many",
        "set_many",
        "incr",
        "clear",
        "close",
    ],
)
def test_a_set_is_no_fill_if_its_key_was_found_or_written_or_its_request_has_ended(project, config, between):
    from cachee_shm.django import CacheeCache

    cache = CacheeCache("shop", {"OPTIONS": {"config": config, "set_after_miss_fills": True}})
    assert cache.get("a") is None
    cache.shm.get_or_load(cache._key("a", None), lambda: 5)  # another task
    between(cache)
    written = cache.shm._written()
    cache.set("a", 7)
    assert cache.get("a") == 7
    assert cache.shm._written() != written
    cache.shm.close()


def test_a_set_is_no_fill_once_its_task_has_found_the_key(project, config):
    from cachee_shm.django import CacheeCache

    cache = CacheeCache("shop", {"OPTIONS": {"config": config, "set_after_miss_fills": True}})

    async def handle(key, find):
        assert await cache.aget(key) is None
        cache.shm.get_or_load(cache._key(key, None), lambda: 5)  # another task
        assert await find(key) == 5
        written = cache.shm._written()
        await cache.aset(key, 7)
        assert cache.shm._written() != written

    asyncio.run(handle("a", cache.aget))
    asyncio.run(handle("b", lambda key: cache.aget_or_set(key, 6)))
    cache.shm.close()


def every_verb(cache):
    """As of an empty cache."""
    cache.set("k", 1)
    assert cache.get("k", "none") == "none"
    assert asyncio.run(cache.aget("k", "none")) == "none"
    assert cache.get_many(["k"]) == {}
    assert cache.get_or_set("k", lambda: "made") == "made"
    assert asyncio.run(cache.aget_or_set("k", lambda: "made")) == "made"
    assert cache.delete("k") is False
    assert cache.touch("k") is False
    assert "k" not in cache
    cache.set_many({"k": 1})
    cache.delete_many(["k"])
    cache.add("k", 1)
    with pytest.raises(ValueError):
        cache.incr("k")
    cache.clear()


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "cachee_shm"]


def test_without_a_segment_it_is_a_cache_that_misses_and_announces_later(caches, config, caplog):
    cachee_shm.attach("shop", config=config).close()
    obstacle = Obstacle(config)
    cache = caches["default"]
    with caplog.at_level(logging.WARNING):
        every_verb(cache)
        every_verb(cache)
    assert len(lines_of(caplog)) == 1 and "reads miss" in lines_of(caplog)[0]
    assert not cache.health().ok and cache.health().error
    obstacle.remove()
    with cachee_shm.attach("shop", config=config) as another:
        another.set(":1:k", "old row")
        cache.shm._reattach()  # the core does so within a second
        assert another.get(":1:k") is None
    cache.set("k", 1)
    assert cache.get("k") == 1 and cache.health().ok


@pytest.mark.parametrize(
    "options",
    [
        {"namespace": "unknown", "config": {"namespaces": {"shop": {}}}},
        {"config": "/nonexistent/cachee.toml"},
        {"config": {"nonsense": {}}},
    ],
    ids=["namespace", "file", "key"],
)
def test_without_a_configuration_it_is_a_cache_that_misses(project, caplog, options):
    from cachee_shm.django import CacheeCache

    with caplog.at_level(logging.WARNING):
        cache = CacheeCache("", {"OPTIONS": options})
        every_verb(cache)
        every_verb(CacheeCache("", {"OPTIONS": options}))  # another thread's
    assert len(lines_of(caplog)) == 1 and "cannot be attached" in lines_of(caplog)[0]
    assert not cache.health().ok and cache.health().error


def test_without_a_configuration_it_makes_its_values_within_another_caches_load_too(caches, project):
    from cachee_shm.django import CacheeCache

    unconfigured = CacheeCache("", {"OPTIONS": {"config": "/nonexistent/cachee.toml"}})

    def within():
        return [unconfigured.get_or_set("inner", lambda: "made")]

    assert caches["default"].get_or_set("outer", within) == ["made"]
    assert caches["default"].get("outer") == ["made"]
