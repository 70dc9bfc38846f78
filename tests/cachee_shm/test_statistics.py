"""What is counted for operators: loads and what came of them, waits, why entries go; also after deaths."""

import asyncio
import contextlib
import struct
import threading
import time

import pytest

import cachee_shm
from tests.cachee_shm.loaders import Origin, running
from tests.cachee_shm.processes import child, children

WIRE_CLEAR, WIRE_ALL = 4, 5
FILLING = 400  # values of 16 KiB: more than the 4 MiB of the segment
LOADS = ("loads_ok", "loads_failed", "loads_refused", "loads_stale")
WAITS = ("lease_waits", "waits_served", "waits_failed", "waits_again", "waits_stale")
GONE = ("evicted", "dropped_expired", "dropped_tag", "dropped_flushed", "dropped_cleared")


def counted(cache, names):
    """Those that are not zero."""
    stats = cache.stats()
    return {name: stats[name] for name in names if stats[name]}


def took(cache):
    """How many loads there were, by the histogram."""
    return sum(cache.load_durations()[1])


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# loads


def test_a_load_whose_value_is_stored_is_ok_and_a_hit_is_none(cache):
    for _ in range(3):
        cache.get_or_load("k", lambda: 1, ttl=60)
    assert counted(cache, LOADS) == {"loads_ok": 1}
    assert took(cache) == 1


def test_a_load_that_fails_is_counted_and_one_that_is_interrupted_is_not(cache):
    with pytest.raises(ValueError):
        cache.get_or_load("k", Origin(ValueError()))
    assert counted(cache, LOADS) == {"loads_failed": 1}

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_load("k", interrupted)
    assert counted(cache, LOADS) == {"loads_failed": 1}
    assert took(cache) == 2


def test_a_load_of_a_key_that_is_written_meanwhile_is_refused(cache):
    def loader():
        cache.delete("k")
        return 1

    assert cache.get_or_load("k", loader) == 1
    assert counted(cache, LOADS) == {"loads_refused": 1}


def test_a_failure_that_an_older_value_stands_in_for_is_stale(cache):
    now = cache.now_ms()
    cache._freeze(now)
    cache.get_or_load("k", lambda: 1, ttl=1, stale=60)
    cache._freeze(now + 2000)
    assert cache.get_or_load("k", Origin(ValueError()), ttl=1, stale=60) == 1
    assert counted(cache, LOADS) == {"loads_ok": 1, "loads_stale": 1}


def test_a_value_that_cannot_be_cached_was_loaded_all_the_same(cache):
    with pytest.warns(RuntimeWarning, match="not cached"):
        cache.get_or_load("k", lambda: threading.Lock())
    assert counted(cache, LOADS) == {"loads_ok": 1}


def test_a_load_of_many_keys_counts_each_key_and_is_one_duration(cache):
    cache.get_or_load_many(["a", "b", "c"], lambda keys: dict.fromkeys(keys, 1))
    with pytest.raises(ValueError):
        cache.get_or_load_many(["c", "d", "e"], Origin(ValueError()))
    assert counted(cache, LOADS) == {"loads_ok": 3, "loads_failed": 2}
    assert took(cache) == 2


def test_an_awaited_load_is_counted_as_any_other(cache):
    async def loader():
        await asyncio.sleep(0)
        return 1

    async def fails():
        await asyncio.sleep(0)
        raise ValueError

    async def main():
        await cache.aget_or_load("k", loader)
        with pytest.raises(ValueError):
            await cache.aget_or_load("other", fails)

    asyncio.run(main())
    assert counted(cache, LOADS) == {"loads_ok": 1, "loads_failed": 1}
    assert took(cache) == 2


def test_durations_lie_in_their_buckets_and_are_summed(cache):
    bounds, counts, total_s = cache.load_durations()
    assert list(bounds) == sorted(bounds) and bounds[0] == 0.0005 and bounds[-1] == 10
    assert (len(counts), sum(counts), total_s) == (len(bounds) + 1, 0, 0)
    cache.get_or_load("k", lambda: time.sleep(0.003))
    _, counts, total_s = cache.load_durations()
    assert sum(counts) == 1
    assert sum(counts[: bounds.index(0.0025) + 1]) == 0
    assert total_s >= 0.003


# waits


def test_a_wait_within_a_process_has_the_outcome_of_the_load(cache):
    for outcome, value in (("waits_served", 1), ("waits_failed", ValueError())):
        before, go_on = cache.stats()["lease_waits"], threading.Event()
        origin = Origin(value)

        def slow(origin=origin, go_on=go_on):
            go_on.wait(60)
            return origin()

        def call(slow=slow, outcome=outcome):
            with contextlib.suppress(ValueError):
                cache.get_or_load(outcome, slow)

        with running(call, call, call):
            until(lambda before=before: cache.stats()["lease_waits"] == before + 2)
            go_on.set()
        assert origin.calls == 1
        assert cache.stats()[outcome] == 2
    assert counted(cache, WAITS) == {"lease_waits": 4, "waits_served": 2, "waits_failed": 2}


OTHER = """
def loader():
    say('loads')
    if wait() == 'die\\n': die()
    return 1
cache.get_or_load('k', loader)
say('done')
"""


def test_a_wait_for_another_process_is_served_by_its_value_and_begins_again_after_its_death(cache, config):
    for words, outcome in (("go on", "waits_served"), ("die", "waits_again")):
        cache.delete("k")
        before = cache.stats()["lease_waits"]
        with child(OTHER, config=config) as other:
            assert other.line() == "loads"
            with running(lambda: cache.get_or_load("k", lambda: 2)):
                until(lambda before=before: cache.stats()["lease_waits"] == before + 1)
                other.tell(words)
        assert cache.stats()[outcome] >= 1
    stats = cache.stats()
    assert stats["lease_waits"] == stats["waits_served"] + stats["waits_again"]


def test_a_caller_with_an_older_value_does_not_wait_and_is_counted_separately(cache):
    now, go_on = cache.now_ms(), threading.Event()
    cache._freeze(now)
    cache.get_or_load("k", lambda: 1, ttl=1, stale=60)
    cache._freeze(now + 2000)
    began = threading.Event()

    def slow():
        began.set()
        go_on.wait(60)
        return 2

    with running(lambda: cache.get_or_load("k", slow, ttl=1, stale=60)):
        began.wait(60)
        assert cache.get_or_load("k", slow, ttl=1, stale=60) == 1
        go_on.set()
    assert counted(cache, WAITS) == {"waits_stale": 1}


# why entries go


def fill(cache, prefix="x"):
    for number in range(FILLING):
        cache.set(f"{prefix}{number}", bytes(16000), ttl=None)


def keep(cache, count=100, **how):
    for number in range(count):
        cache.set(f"k{number}", bytes(1000), **how)


def test_only_entries_that_could_be_read_count_as_evicted_for_room(cache):
    fill(cache)
    gone = counted(cache, GONE)
    assert gone.keys() == {"evicted"}
    assert gone["evicted"] + len(cache) == FILLING


def test_what_has_expired_goes_as_such(cache):
    now = cache.now_ms()
    cache._freeze(now)
    keep(cache, ttl=1)
    cache._freeze(now + 2000)
    fill(cache)
    assert 50 <= counted(cache, GONE)["dropped_expired"] <= 100  # the others' pages have yet to come


def test_what_lost_a_tag_goes_as_such_and_what_was_deleted_is_no_eviction(cache):
    keep(cache, tags=["t"], ttl=None)
    cache.set("plain", 1, ttl=None)
    cache.delete("plain")
    cache.delete_tags("t")
    fill(cache)
    gone = counted(cache, GONE)
    assert 50 <= gone["dropped_tag"] <= 100
    assert gone.keys() <= {"dropped_tag", "evicted"}


@pytest.mark.parametrize(("kind", "name"), [(WIRE_CLEAR, "dropped_cleared"), (WIRE_ALL, "dropped_flushed")])
def test_a_peer_s_clear_and_a_flush_are_told_apart_and_only_the_flush_is_more_than_was_written(
    cache, kind, name
):
    keep(cache, ttl=None)
    assert cache.bridge_acquire()
    cache.apply(cache.source_open("peer"), bytes([kind]))
    fill(cache)
    assert counted(cache, GONE)[name] == 100
    assert cache.stats()["overevicted"] == (100 if kind == WIRE_ALL else 0)


def test_an_own_clear_is_no_flush(cache):
    keep(cache, ttl=None)
    cache.clear()
    fill(cache)
    gone = counted(cache, GONE)
    assert gone["dropped_cleared"] == 100 and "dropped_flushed" not in gone


def test_a_key_that_a_peer_names_is_not_over_evicted(cache):
    cache.set("k", 1)
    assert cache.bridge_acquire()
    cache.apply(cache.source_open("peer"), struct.pack("<BQ", 1, cache._hash("k")))
    assert (cache.stats()["invalidated"], cache.stats()["overevicted"]) == (1, 0)


# deaths


LOADER = """
for number in range(arguments['loads']):
    cache.get_or_load(f"{os.getpid()}.{number}", lambda: number)
say('done')
wait()
"""


def test_what_the_dead_counted_is_kept_and_many_who_count_at_once_lose_nothing(cache, config):
    with children(LOADER, 3, config=config, loads=500) as loaders:
        for loader in loaders:
            assert loader.line() == "done"
        for loader in loaders:
            loader.kill()
    cache.sweep()
    stats = cache.stats()
    assert (stats["attached"], stats["loads_ok"], stats["misses"]) == (1, 1500, 1500)
    assert took(cache) == 1500


def test_a_private_cache_counts_for_itself(cache):
    private = cachee_shm.attach("shop", private=True)
    assert private.get_or_load("k", lambda: 1) == 1
    assert counted(private, LOADS) == {"loads_ok": 1}
    assert counted(cache, LOADS) == {}
    private.close()
