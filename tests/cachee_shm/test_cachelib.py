"""cachelib's cache; its own tests run in tests/foreign."""

import sys
import threading

import pytest

from cachee_shm.errors import InvalidKey, Unserializable
from cachee_shm.testing import frozen_clock
from tests.cachee_shm.kept import Plain

pytestmark = pytest.mark.needs("frameworks")


@pytest.fixture
def cache(shm_cache):
    from cachee_shm.cachelib import CacheeCache

    made = CacheeCache()
    made._backing.cache = shm_cache
    return made


def test_a_negative_timeout_is_over_already(cache):
    cache.set("a", 1)
    assert cache.set("a", 2, timeout=-1)
    assert cache.get("a") is None


def test_a_timeout_that_no_clock_tells_is_for_ever(cache):
    assert cache.set("a", 1, timeout=sys.maxsize) and cache.add("b", 1, timeout=sys.maxsize)
    assert cache.get_many("a", "b") == [1, 1]


def test_clear_with_a_prefix_spares_what_has_none(cache, shm_cache):
    from cachee_shm.cachelib import CacheeCache

    prefixed = CacheeCache(key_prefix="shop:")
    prefixed._backing.cache = shm_cache
    cache.set("a", 1)
    prefixed.set("a", 2)
    prefixed.inc("n")
    assert prefixed.get("a") == 2
    assert prefixed.clear()
    assert (cache.get("a"), prefixed.get("a"), prefixed.get("n")) == (1, None, None)
    prefixed.set("a", 3)
    assert cache.clear()
    assert prefixed.get("a") is None


def test_a_value_that_only_pickle_takes_is_an_error_that_names_the_setting(cache):
    with pytest.raises(Unserializable, match=r"`pickle = true` in .*may then run code"):
        cache.set("a", Plain())
    with pytest.raises(Unserializable, match="pickle = true"):
        cache.add("a", Plain())


def test_a_value_that_is_too_large_is_not_stored(cache):
    assert cache.set("a", "x" * (40 << 20)) is False
    assert cache.get("a") is None


def test_a_key_that_is_no_str_is_refused(cache):
    with pytest.raises(InvalidKey):
        cache.get(7)


def test_a_key_may_be_as_long_as_it_likes(cache):
    cache.set("k" * 5000, 1)
    assert cache.get("k" * 5000) == 1
    assert cache.get_many("k" * 5000, "other") == [1, None]
    assert not cache.has("k" * 5001)


def test_a_namespace_that_is_not_there_is_a_cache_that_misses():
    from cachee_shm.cachelib import CacheeCache

    cache = CacheeCache(namespace="cachelib", config={"namespaces": {"y": {"memory": "4MiB"}}})
    assert cache.set("a", 1) is False
    assert (cache.get("a"), cache.has("a"), cache.inc("n"), cache.add("b", 1)) == (None, False, 1, False)
    assert cache.set_many({"a": 1}) == []
    assert cache.get_dict("a") == {"a": None}
    assert cache.clear()
    assert not cache.health().ok


def test_a_set_is_announced(shm_hosts):
    from cachee_shm.cachelib import CacheeCache

    caches = []
    for host in shm_hosts(2):
        caches.append(CacheeCache())
        caches[-1]._backing.cache = host
    first, second = caches
    first.set("a", "old")
    assert first.shm.wait_synced(5)
    second.set("a", "old")  # equal bytes: both keep theirs
    assert second.shm.wait_synced(5)
    assert first.get("a") == second.get("a") == "old"
    first.set("a", "new")
    assert first.shm.wait_synced(5)
    assert second.get("a") is None


def two_hosts_that_fill(shm_hosts):
    from cachee_shm.cachelib import CacheeCache

    for host in shm_hosts(2):
        cache = CacheeCache(default_timeout=0, set_after_miss_fills=True)
        cache._backing.cache = host
        yield cache


def test_with_set_after_miss_fills_another_host_keeps_its_not_found_for_ever(shm_hosts):
    """The danger of the option, which is why it is off: get, a miss, INSERT, set."""
    first, second = two_hosts_that_fill(shm_hosts)
    second.set("user:7", "not found")
    assert second.shm.wait_synced(5)
    assert first.get("user:7") is None  # a miss; then the row is inserted
    assert first.set("user:7", "Ann")
    assert first.shm.wait_synced(5)
    assert first.get("user:7") == "Ann"
    assert second.get("user:7") == "not found"  # stale, and nothing will end it
    first.delete("user:7")  # what the one who inserts has to do
    assert first.shm.wait_synced(5)
    assert second.get("user:7") is None


def test_with_set_after_miss_fills_hosts_with_values_of_their_own_leave_each_other_alone(shm_hosts):
    caches, loads = list(two_hosts_that_fill(shm_hosts)), []
    for _ in range(3):
        for number, cache in enumerate(caches):
            if cache.get("page") is None:
                loads.append(number)
                cache.set("page", f"made by host {number}")
            assert cache.shm.wait_synced(5)
    assert loads == [0, 1]
    assert [cache.get("page") for cache in caches] == ["made by host 0", "made by host 1"]


def test_set_after_miss_fills_is_about_one_set_after_a_miss(shm_hosts):
    first, second = two_hosts_that_fill(shm_hosts)
    second.set("a", 1)
    assert second.shm.wait_synced(5)
    assert first.get("a") is None
    second.set("a", 2)
    assert second.shm.wait_synced(5)
    assert not first.set("a", 1)  # it may be older than what was announced since the miss
    assert first.get("a") is None
    assert first.set("a", 3)
    first.set("a", 4)  # no miss of its own: a write
    assert first.shm.wait_synced(5)
    assert second.get("a") is None
    second.set("a", 5), second.shm.wait_synced(5)
    assert first.get("a") is None
    first.set("a", 6, timeout=-1)  # over at once: a write
    assert first.shm.wait_synced(5)
    assert second.get("a") is None


def filled_by(do):
    def fill(cache):
        cache.shm.get_or_load("a", lambda: "theirs")  # another task
        do(cache)

    return fill


@pytest.mark.parametrize(
    "between",
    [
        lambda cache: cache.add("a", 1),
        lambda cache: cache.inc("a", 1),
        lambda cache: cache.set_many({"a": 1}),
        lambda cache: cache.delete("a"),
        lambda cache: cache.delete_many("a"),
        lambda cache: cache.clear(),
        filled_by(lambda cache: cache.get("a")),
        filled_by(lambda cache: cache.get_many("a")),
        filled_by(lambda cache: cache.get_dict("a")),
    ],
    ids=["add", "inc", "set_many", "delete", "delete_many", "clear", "get", "get_many", "get_dict"],
)
def test_a_key_that_is_found_or_written_after_its_miss_is_written_by_a_set(shm_cache, between):
    from cachee_shm.cachelib import CacheeCache

    cache = CacheeCache(default_timeout=0, set_after_miss_fills=True)
    cache._backing.cache = shm_cache
    assert cache.get("a") is None
    between(cache)
    written = shm_cache._written()
    assert cache.set("a", 7)
    assert cache.get("a") == 7
    assert shm_cache._written() != written


def test_a_miss_is_of_one_cache_and_is_forgotten_in_time(shm_hosts):
    from cachee_shm.backing import MISS_MS_MAX, Misses

    first, second = shm_hosts(2)
    misses, request = Misses(lambda: requests[-1]), "first"
    requests = [request]
    misses.remember(first, "a")
    assert misses.taken(second, "a") is None
    assert misses.taken(first, "a") and misses.taken(first, "a") is None
    misses.remember(first, "a")
    requests.append("second")
    assert misses.taken(first, "a") is None
    with frozen_clock(first) as clock:
        misses.remember(first, "a"), misses.remember(first, "b")
        clock.tick(MISS_MS_MAX / 1000)
        assert misses.taken(first, "a")
        clock.tick(0.001)
        assert misses.taken(first, "b") is None


def test_in_a_transaction_a_miss_is_as_old_as_the_snapshot_and_no_miss_once_it_has_written(shm_cache):
    from cachee_shm.backing import Misses
    from cachee_shm.transactions import transaction

    misses = Misses()
    before = shm_cache._token()[0]
    with transaction() as one:
        other = threading.Thread(target=shm_cache.set, args=("b", 1))
        other.start(), other.join()
        misses.remember(shm_cache, "a"), misses.remember(shm_cache, "c")
        assert misses.taken(shm_cache, "a")[0] == before
        one.may_write()
        assert misses.taken(shm_cache, "c") is None
        misses.remember(shm_cache, "d")
    assert shm_cache._token()[0] > before
    assert misses.taken(shm_cache, "d") is None


def test_a_set_after_its_own_miss_is_a_write_that_ends_another_hosts_not_found(shm_hosts):
    """As a fill it would be announced to nobody, and the other host would keep its "not found" for ever."""
    from cachee_shm.cachelib import CacheeCache

    caches = []
    for host in shm_hosts(2):
        caches.append(CacheeCache(default_timeout=0))
        caches[-1]._backing.cache = host
    first, second = caches
    second.set("user:7", "not found")
    assert second.shm.wait_synced(5)
    assert first.get("user:7") is None  # a miss; then the row is inserted
    first.set("user:7", "Ann")
    assert first.shm.wait_synced(5)
    assert second.get("user:7") is None
