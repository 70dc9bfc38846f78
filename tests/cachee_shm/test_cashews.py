"""cashews' backend."""

import asyncio
import logging

import pytest

from cachee_shm.errors import Unserializable
from cachee_shm.testing import frozen_clock
from tests.cachee_shm.kept import Plain

pytestmark = pytest.mark.needs("frameworks")


def made(shm, **options):
    """A cache of cashews, and the backend in it."""
    import cashews

    import cachee_shm.cashews
    from cachee_shm.backing import Backing

    cache = cashews.Cache()
    backend = cache.setup("cachee://", **options)
    assert type(backend) is cachee_shm.cashews.CacheeBackend
    if shm is not None:
        backend._backing = Backing(attached=shm)
    return cache


def test_what_a_decorator_stores_is_a_fill_and_a_set_is_a_write(shm_cache):
    async def story():
        cache, calls = made(shm_cache), []

        @cache(ttl="1m", key="user:{uid}")
        async def user(uid):
            calls.append(uid)
            return {"id": uid}

        @cache.early(ttl="1m", key="early:{uid}")
        async def early(uid):
            return uid

        assert [await user(1), await user(1)] == [{"id": 1}] * 2
        assert [await early(1), await early(1)] == [1, 1]
        assert await cache.get_or_set("a", lambda: 2) == await cache.get_or_set("a", lambda: 3) == 2
        assert calls == [1]
        assert shm_cache._written()[1] == 0
        await cache.set("b", 1)
        await cache.set_many({"c": 1})
        assert shm_cache.stats()["sets"] == 2

    asyncio.run(story())


def test_a_subclass_that_extends_the_verbs_fills_too(shm_cache):
    from cachee_shm.cashews import CacheeBackend

    class Extended(CacheeBackend):
        async def get(self, *args, **kwargs):
            return await super().get(*args, **kwargs)

        async def set(self, *args, **kwargs):
            return await super().set(*args, **kwargs)

    async def story():
        cache = made(shm_cache)
        next(iter(cache._backends.values())).__class__ = Extended

        @cache(ttl="1m", key="user:{uid}", tags=["team"])
        async def user(uid):
            await cache.set(f"by the way {uid}", uid)
            return uid

        assert [await user(1), await user(1)] == [1, 1]
        assert shm_cache.stats()["fills"] == 1  # the value of the decorator, and not the one by the way
        await cache.delete_tags("team")
        assert await cache.get("user:1") is None

    asyncio.run(story())


def test_what_was_loaded_before_an_invalidation_is_not_stored_after_it(shm_cache):
    async def story():
        cache = made(shm_cache)

        @cache(ttl="1m", key="a")
        async def load():
            await cache.delete("a")
            return "old"

        assert await load() == "old"
        assert await cache.get("a") is None

    asyncio.run(story())


def test_a_tag_drops_what_another_host_has_cached_with_it(shm_hosts):
    hosts = shm_hosts(2)

    async def story():
        one, other = caches = [made(host) for host in hosts]
        calls = []

        def member(cache):
            @cache(ttl="1m", key="user:{uid}", tags=["team:{team}"])
            async def load(uid, team):
                calls.append(uid)
                return uid

            return load

        first, second = (member(cache) for cache in caches)
        assert [await first(1, 7), await second(2, 7), await second(3, 8)] == [1, 2, 3]
        await one.delete_tags("team:7")
        assert hosts[0].wait_synced(5)
        assert await other.get("user:2") is None
        assert await other.get("user:3") == 3
        assert await one.get("user:1") is None

    asyncio.run(story())


@pytest.mark.parametrize("mode", ["fast", "locked", "serializable"])
def test_what_a_transaction_stores_has_its_tags_on_another_host_too(shm_hosts, mode):
    """cashews stores it as the transaction ends, by a call that says nothing of tags."""
    from cashews import TransactionMode

    hosts = shm_hosts(2)

    async def story():
        one, other = (made(host) for host in hosts)

        @one.transaction(TransactionMode(mode))
        @one(ttl="1m", key="user:{uid}", tags=["team:{team}"])
        async def member(uid, team):
            return uid

        async with one.transaction(TransactionMode(mode)):
            await one.set("plain:1", 1, tags=["team:7"])
            await one.set("plain:2", 2)
        assert [await member(1, 7), await member(2, 8)] == [1, 2]
        assert hosts[0].wait_synced(5)
        await other.delete_tags("team:7")
        assert hosts[1].wait_synced(5)
        assert await one.get_many("user:1", "user:2", "plain:1", "plain:2") == (None, 2, None, 2)

    asyncio.run(story())


@pytest.mark.parametrize("mode", ["fast", "locked", "serializable"])
def test_a_transaction_deletes_what_matches_as_it_ends(shm_cache, mode):
    from cashews import TransactionMode

    async def story():
        cache = made(shm_cache)
        await cache.set_many({"user:1": 1, "user:2": 2, "team:1": 1, "team:2": 2})

        @cache.transaction(TransactionMode(mode))
        @cache.invalidate("team:{team}")
        async def change(team):
            await cache.delete_match("user:*")
            await cache.set("user:3", 3)
            assert shm_cache.get("user:1") == 1, "it takes effect at the end"

        await change(1)
        found = await cache.get_many("user:1", "user:2", "user:3", "team:1", "team:2")
        assert found == (None, None, 3, None, 2)
        await cache.set("user:*", "a key of that name")
        await cache.set("user:1", 1)
        await cache.delete_many("user:*")
        assert await cache.get_many("user:*", "user:1") == (None, 1)

    asyncio.run(story())


def test_a_set_that_changes_keeps_its_lifetime(shm_cache):
    async def story():
        cache = made(shm_cache)
        await cache.set_add("s", "a", "b", "c", expire=10)
        await cache.set_remove("s", "a")
        assert len(await cache.set_pop("s", count=1)) == 1
        with frozen_clock(shm_cache) as clock:
            clock.tick(11)
            assert not await cache.set_pop("s")

    asyncio.run(story())


def test_a_function_with_more_tags_than_an_entry_has_is_not_cached_and_works(shm_cache, caplog):
    async def story():
        cache, calls = made(shm_cache), []

        @cache(ttl="1m", key="user:{uid}", tags=[f"tag{number}" for number in range(20)])
        async def user(uid):
            calls.append(uid)
            return uid

        assert [await user(1), await user(1)] == [1, 1] == calls
        assert "not cached: 'user:1' has 22 tags" in caplog.text
        await cache.delete_tags("tag19")

    asyncio.run(story())


def test_delete_match_drops_a_beginning_or_more_never_less(shm_cache):
    async def story():
        cache = made(shm_cache)
        for key in ("user:1:a", "user:1:b", "user:2:a", "other"):
            await cache.set(key, 1)
        await cache.delete_match("user:1:*")
        assert await cache.get_many("user:1:a", "user:1:b", "user:2:a", "other") == (None, None, 1, 1)
        await cache.set("user:1:a", 1)
        await cache.delete_match("user:*:b")
        assert await cache.get_many("user:1:a", "user:2:a", "other") == (None, None, 1)
        await cache.delete_match("*")
        assert await cache.get("other") is None

    asyncio.run(story())


def test_keys_are_not_listed_and_the_error_says_so(shm_cache):
    async def story():
        cache = made(shm_cache)
        with pytest.raises(NotImplementedError, match="cannot list keys"):
            [key async for key in cache.scan("a*")]
        with pytest.raises(NotImplementedError, match="Use tags"):
            [pair async for pair in cache.get_match("a*")]

    asyncio.run(story())


def test_nobody_waits_for_a_lock_that_cannot_be_kept(monkeypatch):
    """cashews asks for it again without end."""
    import cashews

    monkeypatch.setenv("CACHEE_DISABLE", "1")

    async def main():
        cache = made(None, namespace="elsewhere")

        @cache(ttl=60, key="k", lock=True)
        async def page():
            return "made"

        assert await page() == "made"
        async with cache.transaction(cashews.TransactionMode.LOCKED, timeout=1):
            await cache.set("a", 1)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_locks_counters_sets_and_bits_are_this_hosts(shm_cache):
    async def story():
        cache = made(shm_cache)
        assert await cache.set_lock("lock", "me", 10)
        assert not await cache.set_lock("lock", "you", 10)
        assert not await cache.unlock("lock", "you")
        assert await cache.is_locked("lock")
        assert await cache.unlock("lock", "me")
        assert await cache.incr("n", 2, expire=10) == 2
        assert await cache.get_expire("n") == 10
        assert await cache.incr("m", 2, expire=10**18) == 2
        assert await cache.get_expire("m") == -1
        assert await cache.incr_bits("bits", 0, 3) == (1, 1)
        assert await cache.get_bits("bits", 0, 1, 3) == (1, 0, 1)
        assert [await cache.slice_incr("slice", 0, end, maxvalue=2) for end in (5, 6, 7)] == [1, 2, 2]
        await cache.set_add("set", "a", "b")
        await cache.set_remove("set", "a")
        assert list(await cache.set_pop("set")) == ["b"]
        assert shm_cache._written()[1] == 0

    asyncio.run(story())


def test_a_value_that_only_pickle_takes_is_an_error_that_names_the_setting(shm_cache):
    async def story():
        cache = made(shm_cache)
        with pytest.raises(Unserializable, match="pickle = true"):
            await cache.set("a", Plain())
        pickling = made(shm_cache, pickle_type="default")
        await pickling.set("a", Plain())
        assert type(await pickling.get("a")) is Plain

    asyncio.run(story())


def test_no_call_fails_without_a_cache(caplog):
    async def story():
        cache, calls = made(None, namespace="cashews", config={"namespaces": {"y": {"memory": "4MiB"}}}), []

        @cache(ttl="1m", key="a", tags=["t"])
        async def load():
            calls.append(1)
            return 1

        assert [await load(), await load()] == [1, 1]
        assert calls == [1, 1]
        assert await cache.set("a", 1) is False
        assert await cache.incr("n") == 1
        await cache.delete_tags("t")
        assert not cache._backends[""].health().ok

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert caplog.text.count("cannot be attached") == 1


def test_get_raw_returns_what_is_stored_and_none_for_a_miss(shm_cache):
    async def story():
        backend = made(shm_cache)._get_backend("a")
        await backend.set("a", 5)
        assert [await backend.get_raw("a"), await backend.get_raw("b")] == [5, None]

    asyncio.run(story())
