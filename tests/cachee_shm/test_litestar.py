"""Litestar's store, in real applications and alone."""

import asyncio
import logging
from datetime import timedelta

import pytest

pytestmark = pytest.mark.needs("frameworks")


def store_in(shm, namespace=None, **options):
    from cachee_shm.backing import Backing
    from cachee_shm.litestar import CacheeStore

    return CacheeStore(namespace, backing=Backing(attached=shm), **options)


def run(coroutine):
    return asyncio.run(coroutine)


def test_values_are_bytes_and_live_as_long_as_they_should(shm_cache):
    from cachee_shm.testing import frozen_clock

    async def story():
        store = store_in(shm_cache)
        assert await store.get("a") is None
        assert await store.expires_in("a") is None
        await store.delete("a")
        await store.set("a", "text")
        assert await store.get("a") == b"text"
        assert await store.expires_in("a") == -1
        with frozen_clock(shm_cache) as clock:
            await store.set("b", b"bytes", 10)
            await store.set("c", b"bytes", timedelta(seconds=10))
            await store.set("d", b"bytes", 10**18)
            assert await store.expires_in("d") == -1
            clock.tick(4)
            assert await store.expires_in("b") == 6
            assert await store.get("c", renew_for=timedelta(minutes=1)) == b"bytes"
            assert await store.get("a", renew_for=10) == b"text"
            clock.tick(20)
            assert not await store.exists("b")
            assert await store.expires_in("c") == 40
            assert await store.get("a") == b"text"  # it had no end that could be renewed
        await store.delete("a")
        assert not await store.exists("a")

    run(story())


def test_delete_all_reaches_the_stores_below_and_no_other(shm_cache):
    async def story():
        shop = store_in(shm_cache, "shop")
        child, other = shop.with_namespace("pages"), store_in(shm_cache, "other")
        for store in (shop, child, other):
            await store.set("a", store.namespace)
        assert await child.get("a") == b"shop_pages"
        await child.delete_all()
        assert (await child.get("a"), await shop.get("a")) == (None, b"shop")
        await child.set("a", "again")
        await shop.delete_all()
        assert (await child.get("a"), await shop.get("a"), await other.get("a")) == (None, None, b"other")
        await store_in(shm_cache).delete_all()
        assert await other.get("a") is None

    run(story())


def application(shm, calls, store=None):
    from litestar import Litestar, get

    @get("/", cache=60)
    async def page() -> str:
        calls.append(1)
        return f"page {len(calls)}"

    stores = {"response_cache": store or store_in(shm, "pages")}
    return Litestar([page], stores=stores, logging_config=None)


def test_a_cached_response_is_a_fill(shm_cache):
    from litestar.testing import TestClient

    calls = []
    with TestClient(application(shm_cache, calls)) as client:
        assert client.get("/").text == client.get("/").text == "page 1"
        assert shm_cache.stats()["sets"] == 0
        assert shm_cache.stats()["fills"] == 1


def test_a_subclass_that_extends_the_verbs_fills_too(shm_cache):
    from litestar.testing import TestClient

    from cachee_shm.backing import Backing
    from cachee_shm.litestar import CacheeStore

    class Extended(CacheeStore):
        async def get(self, *args, **kwargs):
            return await super().get(*args, **kwargs)

        async def set(self, *args, **kwargs):
            return await super().set(*args, **kwargs)

    store = Extended("pages", backing=Backing(attached=shm_cache))
    with TestClient(application(shm_cache, [], store)) as client:
        assert client.get("/").text == client.get("/").text == "page 1"
        assert (shm_cache.stats()["fills"], shm_cache.stats()["sets"]) == (1, 0)


def test_a_page_that_was_rendered_before_an_invalidation_is_not_stored_after_it(shm_cache):
    from litestar import Litestar, get
    from litestar.testing import TestClient

    store, calls = store_in(shm_cache, "pages"), []

    @get("/", cache=60)
    async def page() -> str:
        calls.append(1)
        if len(calls) == 1:
            await store.delete_all()
        return f"page {len(calls)}"

    with TestClient(Litestar([page], stores={"response_cache": store})) as client:
        assert [client.get("/").text for _ in range(3)] == ["page 1", "page 2", "page 2"]


def test_two_hosts_with_pages_of_their_own_leave_each_other_alone(shm_hosts):
    from litestar.testing import TestClient

    hosts, calls = shm_hosts(2), []
    apps = [application(host, calls) for host in hosts]
    for _ in range(3):
        for app, host in zip(apps, hosts, strict=True):
            with TestClient(app) as client:
                client.get("/")
            assert host.wait_synced(5)
    assert len(calls) == 2
    run(store_in(hosts[0], "pages").delete_all())
    assert hosts[0].wait_synced(5)
    with TestClient(apps[1]) as client:
        assert client.get("/").text == "page 3"


def test_a_rate_limit_is_one_of_each_host_however_requests_alternate(shm_hosts):
    """An announced count would drop the other host's: neither would ever reach its limit."""
    from litestar import Litestar, get
    from litestar.middleware.rate_limit import RateLimitConfig
    from litestar.testing import TestClient

    @get("/")
    async def page() -> str:
        return "page"

    hosts, answers = shm_hosts(2), []
    limit = RateLimitConfig(rate_limit=("hour", 3))
    apps = [
        Litestar([page], middleware=[limit.middleware], stores={"rate_limit": store_in(host)})
        for host in hosts
    ]
    for _ in range(5):
        for app, host in zip(apps, hosts, strict=True):
            with TestClient(app) as client:
                answers.append(client.get("/").status_code)
            assert host.wait_synced(5)
    assert answers == [200] * 6 + [429] * 4


def test_no_page_fails_without_a_cache(caplog):
    from litestar.testing import TestClient

    from cachee_shm.litestar import CacheeStore

    store = CacheeStore(segment="litestar", config={"namespaces": {"y": {"memory": "4MiB"}}})
    calls = []
    with (
        TestClient(application(None, calls, store)) as client,
        caplog.at_level(logging.WARNING, "cachee_shm"),
    ):
        assert [client.get("/").status_code for _ in range(3)] == [200] * 3
    assert len(calls) == 3
    assert caplog.text.count("cannot be attached") == 1
    assert not store.health().ok
