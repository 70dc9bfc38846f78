"""``set_after_miss_fills`` of dogpile.cache, aiocache, cashews and Litestar, and what it gives up.

Django's, Flask-Caching's and cachelib's are in the tests of these.
"""

import asyncio

import pytest

from tests.cachee_shm import test_aiocache, test_cashews, test_dogpile, test_litestar

pytestmark = pytest.mark.needs("frameworks")


class Dogpile:
    """As all of these: the verbs of one backend. A story's verbs run in one task, as a request's do."""

    def __init__(self, shm, **options):
        self._region = test_dogpile.region_of(shm, {"ttl": None, **options})

    async def get(self, key):
        from dogpile.cache.api import NO_VALUE

        found = self._region.get(key)
        return None if found is NO_VALUE else found

    async def look_for_all(self, *keys):
        self._region.get_multi(keys)

    async def set(self, key, value):
        self._region.set(key, value)

    async def delete(self, key):
        self._region.delete(key)


class Aiocache:
    def __init__(self, shm, **options):
        self._cache = test_aiocache.cache_in(shm, **options)
        self.get, self.set, self.delete = self._cache.get, self._cache.set, self._cache.delete

    async def look_for_all(self, *keys):
        await self._cache.multi_get(keys)


class Cashews:
    def __init__(self, shm, **options):
        self._cache = test_cashews.made(shm, **options)
        self.get, self.set, self.delete = self._cache.get, self._cache.set, self._cache.delete

    async def look_for_all(self, *keys):
        await self._cache.get_many(*keys)


class Litestar:
    def __init__(self, shm, **options):
        self._store = test_litestar.store_in(shm, **options)
        self.set, self.delete = self._store.set, self._store.delete

    async def get(self, key):
        value = await self._store.get(key)
        return None if value is None else value.decode()

    async def look_for_all(self, *keys):
        for key in keys:
            await self._store.get(key)


each_backend = pytest.mark.parametrize("backend", [Dogpile, Aiocache, Cashews, Litestar])
FILLS = {"set_after_miss_fills": True}


@each_backend
def test_with_the_option_another_host_keeps_its_not_found_for_ever(shm_hosts, backend):
    """The danger of the option, which is why it is off: get, a miss, INSERT, set."""

    async def story(key, **options):
        first, second = (backend(host, **options) for host in hosts)
        await second.set(key, "not found")
        assert hosts[1].wait_synced(5)
        assert await first.get(key) is None  # a miss; then the row is inserted
        await first.set(key, "Ann")
        assert hosts[0].wait_synced(5)
        others = await second.get(key)
        await first.delete(key)  # what the one who inserts has to do
        assert hosts[0].wait_synced(5)
        assert await second.get(key) is None
        return others

    hosts = shm_hosts(2)
    assert asyncio.run(story("user:7")) is None
    assert asyncio.run(story("user:8", **FILLS)) == "not found"  # stale, and nothing would have ended it


@each_backend
def test_one_miss_makes_one_set_a_fill(shm_cache, backend):
    async def story():
        cache = backend(shm_cache, **FILLS)
        assert await cache.get("a") is None
        await cache.set("a", "filled")
        assert shm_cache._written()[1] == 0
        assert await cache.get("a") == "filled"
        await cache.set("a", "written")
        assert shm_cache._written()[1] == shm_cache.tail > 0
        assert await cache.get("a") == "written"

    asyncio.run(story())


@each_backend
@pytest.mark.parametrize("between", ["delete", "set", "get", "look_for_all"])
def test_a_key_that_is_found_or_written_after_its_miss_is_written_by_a_set(shm_cache, backend, between):
    async def story():
        cache = backend(shm_cache, **FILLS)
        assert await cache.get("a") is None
        if between == "set":
            await cache.set("a", "mine")
        elif between == "delete":
            await cache.delete("a")
        else:
            await backend(shm_cache).set("a", "another task's")
            await getattr(cache, between)("a")
        before = shm_cache.tail
        await cache.set("a", "mine")
        assert shm_cache.tail > before

    asyncio.run(story())


@each_backend
def test_a_fill_is_refused_if_the_key_was_invalidated_since_the_miss(shm_cache, backend):
    async def story():
        cache = backend(shm_cache, **FILLS)
        assert await cache.get("a") is None
        shm_cache.delete("a")
        await cache.set("a", "older")
        assert await cache.get("a") is None

    asyncio.run(story())


@each_backend
def test_without_the_option_every_set_is_a_write(shm_cache, backend):
    async def story():
        cache = backend(shm_cache)
        assert await cache.get("a") is None
        await cache.set("a", "mine")
        assert shm_cache.tail == 1

    asyncio.run(story())
