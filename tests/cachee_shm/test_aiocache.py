"""aiocache's cache; its own tests run in tests/foreign."""

import asyncio
import logging

import pytest

from cachee_shm import attach
from cachee_shm.errors import Unserializable
from tests.cachee_shm.kept import Plain

pytestmark = pytest.mark.needs("frameworks")


def cache_in(shm, **options):
    from cachee_shm.aiocache import CacheeCache
    from cachee_shm.backing import Backing

    cache = CacheeCache(**options)
    cache._backing = Backing(attached=shm)
    return cache


def decorated(cache, function, kind="cached", **options):
    """``function``, decorated by aiocache; the decorator makes a cache, in whose place ours comes."""
    import aiocache

    wrapper = getattr(aiocache, kind)(cache=type(cache), **options)
    made = wrapper(function)
    wrapper.cache = made.cache = cache
    return made


@pytest.mark.parametrize("kind", ["cached", "cached_stampede"])
@pytest.mark.parametrize("plugins", [False, True])
def test_what_a_decorator_stores_is_a_fill_and_a_set_is_a_write(shm_cache, kind, plugins):
    from aiocache.plugins import BasePlugin

    async def story():
        cache = cache_in(shm_cache, plugins=[BasePlugin()] if plugins else None)
        calls = []

        async def load(uid):
            calls.append(uid)
            return uid

        user = decorated(cache, load, kind, ttl=60)
        assert [await user(1), await user(1), await user(2)] == [1, 1, 2]
        assert calls == [1, 2]
        assert shm_cache._written()[1] == 0  # nothing was announced
        assert shm_cache.stats()["fills"] == 2
        await cache.set("a", 1)
        first = shm_cache._written()[1]
        await cache.multi_set([("b", 1)])
        assert 0 < first < shm_cache._written()[1]

    asyncio.run(story())


def test_a_subclass_that_extends_the_verbs_fills_too(shm_cache):
    from cachee_shm.aiocache import CacheeCache
    from cachee_shm.backing import Backing

    class Extended(CacheeCache):
        async def get(self, *args, **kwargs):
            return await super().get(*args, **kwargs)

        async def set(self, *args, **kwargs):
            return await super().set(*args, **kwargs)

    async def story():
        cache = Extended()
        cache._backing = Backing(attached=shm_cache)

        async def load(uid):
            await cache.set(f"by the way {uid}", uid)
            return uid

        user = decorated(cache, load, ttl=60)
        assert [await user(1), await user(1)] == [1, 1]
        assert (shm_cache.stats()["fills"], shm_cache.stats()["sets"]) == (1, 1)

    asyncio.run(story())


def test_many_are_filled_too_and_a_fill_in_the_background(shm_cache):
    async def story():
        cache = cache_in(shm_cache)

        async def load(ids=None):
            return {each: each for each in ids}

        async def one():
            return 1

        many = decorated(cache, load, "multi_cached", keys_from_attr="ids")
        assert await many(ids=["1", "2"]) == await many(ids=["1", "2"]) == {"1": "1", "2": "2"}
        await decorated(cache, one, key="one")(aiocache_wait_for_write=False)
        await asyncio.sleep(0.01)
        assert await cache.get("one") == 1
        assert (shm_cache.stats()["sets"], shm_cache.stats()["fills"]) == (0, 3)

    asyncio.run(story())


def test_what_was_loaded_before_an_invalidation_is_not_stored_after_it(shm_cache):
    async def story():
        cache = cache_in(shm_cache)

        async def load():
            await cache.delete("a")
            return "old"

        assert await decorated(cache, load, key="a")() == "old"
        assert await cache.get("a") is None

    asyncio.run(story())


def test_a_set_within_a_cached_function_is_a_write(shm_cache):
    async def story():
        cache = cache_in(shm_cache)

        async def load():
            await cache.set("row", 1)
            return 1

        await decorated(cache, load, key="a")()
        assert (shm_cache.stats()["sets"], shm_cache.stats()["fills"]) == (1, 1)

    asyncio.run(story())


def test_a_stampede_of_two_processes_is_one_load(tmp_path):
    """The lock is another process's: it is waited for, and the value that it has left is taken."""

    async def story(shm):
        from aiocache.lock import RedLock

        cache, other = cache_in(shm), cache_in(shm)
        calls = []

        async def load():
            calls.append(1)
            return "mine"

        async def elsewhere():
            assert await other._add("a-lock", "another process", ttl=2)
            await asyncio.sleep(0.2)
            await other.set("a", "theirs")
            assert await other._redlock_release("a-lock", "another process") == 1

        task = asyncio.create_task(elsewhere())
        await asyncio.sleep(0.05)
        assert not RedLock._EVENTS
        assert await decorated(cache, load, "cached_stampede", key="a", lease=2)() == "theirs"
        await task
        assert calls == []

    with attach(private=True) as shm:
        asyncio.run(story(shm))


def test_a_value_that_is_too_large_is_not_stored_and_fails_nothing(shm_cache, caplog):
    async def story():
        cache = cache_in(shm_cache)
        assert [await verb("a", b"x" * (8 << 20)) for verb in (cache.set, cache.add)] == [False, False]
        assert await cache.get("a") is None

    asyncio.run(story())
    assert caplog.text.count("not cached") == 2


def test_lifetimes_and_namespaces(shm_cache):
    from cachee_shm.testing import frozen_clock

    async def story():
        cache = cache_in(shm_cache, namespace="shop:", ttl=10)
        with frozen_clock(shm_cache) as clock:
            await cache.set("a", 1)
            await cache.set("b", 1, ttl=None)
            await cache.set("c", 1, ttl=-1)
            await cache.set("d", 1, ttl=10**18)
            assert await cache.get("c") is None
            clock.tick(11)
            assert await cache.multi_get(["a", "b", "d"]) == [None, 1, 1]
        await cache.set("a", 2, namespace="other:")
        assert await cache.get("a", namespace="other:") == 2
        await cache.clear(namespace="shop:")
        assert (await cache.get("b"), await cache.get("a", namespace="other:")) == (None, 2)
        await cache.clear()
        assert await cache.get("a", namespace="other:") is None

    asyncio.run(story())


def test_a_value_that_is_no_number_is_no_counter(shm_cache):
    async def story():
        cache = cache_in(shm_cache)
        assert await cache.increment("n") == 1
        await cache.set("text", "41")
        assert await cache.increment("text") == 42
        await cache.set("word", "x")
        with pytest.raises(TypeError, match="not an integer"):
            await cache.increment("word")
        with pytest.raises(ValueError, match="already exists"):
            await cache.add("word", 1)
        assert await cache.raw("get", "word") == "x"
        with pytest.raises(Unserializable, match="pickle = true"):
            await cache.set("a", Plain())

    asyncio.run(story())


def test_it_can_be_disabled_and_can_be_made_from_a_url(shm_cache, monkeypatch):
    from aiocache import Cache

    async def story():
        cache = cache_in(shm_cache)
        monkeypatch.setenv("AIOCACHE_DISABLE", "1")
        assert await cache.set("a", 1) is True
        assert await cache.get("a") is None
        monkeypatch.delenv("AIOCACHE_DISABLE")
        assert await cache.get("a") is None

    asyncio.run(story())
    assert Cache.from_url("cachee:///shop")._backing._wanted.namespace == "shop"


def test_no_call_fails_without_a_cache(caplog):
    from cachee_shm.aiocache import CacheeCache

    async def story():
        cache = CacheeCache(segment="aiocache", config={"namespaces": {"y": {"memory": "4MiB"}}})

        async def load():
            return 1

        for _ in range(3):
            assert await decorated(cache, load, key="a")() == 1
        assert await cache.set("a", 1) is False
        assert await cache.add("a", 1) is True
        assert await cache.increment("n", 2) == 2
        assert await cache.multi_get(["a"]) == [None]
        assert not cache.health().ok

    with caplog.at_level(logging.WARNING, "cachee_shm"):
        asyncio.run(story())
    assert caplog.text.count("cannot be attached") == 1
