"""How long a loaded value lives, and when it is loaded anew: early, jitter, sliding, on_error."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import cachee_shm
from cachee_shm.errors import InvalidTTL
from cachee_shm.loading import Options
from tests.cachee_shm.loaders import Origin
from tests.cachee_shm.test_loading import load
from tests.cachee_shm.test_loads import clock

__all__ = ["clock", "load"]

NEAR_CERTAIN = 100.0  # times the time that a load took, drawn anew at each call


def ended(cache, key):
    """When the value that is there ends, in ms."""
    return cache._find_early(key, 0.0)[2]


# on_error


def test_a_stale_value_is_returned_when_the_loader_fails(cache, load, clock):
    load("a", Origin(1), ttl=10, stale=60)
    clock(11)
    assert load("a", Origin(OSError()), ttl=10, stale=60) == 1


def test_the_error_is_raised_instead_if_on_error_says_so(cache, load, clock):
    load("a", Origin(1), ttl=10, stale=60)
    clock(11)
    with pytest.raises(OSError):
        load("a", Origin(OSError()), ttl=10, stale=60, on_error="raise")


def test_a_stale_value_is_still_served_while_another_caller_reloads_it(cache, clock):
    cache.get_or_load("a", Origin(1), ttl=10, stale=60)
    clock(11)
    begun, go = threading.Event(), threading.Event()

    def loader():
        begun.set()
        go.wait()
        return 2

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(cache.get_or_load, "a", loader, ttl=10, stale=60, on_error="raise")
        begun.wait()
        assert cache.get_or_load("a", Origin(3), ttl=10, stale=60, on_error="raise") == 1
        go.set()
        assert second.result() == 2


# early


def slow(cache, value, ms=50):
    """A loader that takes some time."""

    def loader():
        end = cache._real_ms() + ms
        while cache._real_ms() < end:
            pass
        return value

    return loader


def test_a_value_near_its_end_is_loaded_early_by_one_caller(cache, load, clock):
    load("a", slow(cache, 1), ttl=10, early=True)
    assert load("a", Origin(2), ttl=10, early=True) == 1  # 10 s are 200 times the load's time
    clock(9.9999)
    assert load("a", Origin(3), ttl=10, early=NEAR_CERTAIN) == 3
    assert cache.get("a") == 3


def test_the_longer_a_load_took_the_earlier_it_is_repeated(cache, clock):
    """By the chance drawn: the same for both keys."""
    cache.get_or_load("slow", slow(cache, 1, 700), ttl=10, early=True)
    cache.get_or_load("fast", slow(cache, 1, 2), ttl=10, early=True)
    clock(9)
    assert cache._find_early("slow", 1.5)[0] == 3
    assert cache._find_early("fast", 1.5)[0] == 1


def test_others_have_the_old_value_while_one_loads_it_early(cache, clock):
    cache.get_or_load("a", slow(cache, 1), ttl=10, early=True)
    clock(9.9999)
    begun, go = threading.Event(), threading.Event()

    def loader():
        begun.set()
        go.wait()
        return 2

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(cache.get_or_load, "a", loader, ttl=10, early=NEAR_CERTAIN)
        begun.wait()
        assert cache.get("a") == 1
        assert cache.get_or_load("a", Origin(3), ttl=10, early=NEAR_CERTAIN) == 1
        go.set()
        assert second.result() == 2
    assert cache.get("a") == 2 and cache.stats()["loads"] == 2


def test_an_early_load_that_fails_leaves_the_value_that_is_still_fresh(cache, load, clock):
    load("a", slow(cache, 1), ttl=10, early=True)
    clock(9.9999)
    failing = Origin(OSError())
    assert load("a", failing, ttl=10, early=NEAR_CERTAIN, on_error="raise") == 1
    assert failing.calls == 1


def test_a_caller_after_an_early_load_does_not_load_again(cache, clock):
    """Between its look and its lease, another caller may have filled the key."""
    cache.get_or_load("a", slow(cache, 1), ttl=10, early=True)
    clock(9.9999)
    state, _, ends = cache._find_early("a", NEAR_CERTAIN)
    assert state == 3
    cache.get_or_load("a", Origin(2), ttl=10, early=NEAR_CERTAIN)
    options = Options(cache, ttl=10, early=1)
    since, asked = cache._arrive("a", (), False)
    assert cache._load("a", Origin(3), (), options.kept, since, asked, False, ends) == (1, 2, None)


def test_a_value_loaded_without_early_is_not_loaded_early(cache, load, clock):
    load("a", slow(cache, 1), ttl=10)
    clock(9.9999)
    assert load("a", Origin(2), ttl=10, early=NEAR_CERTAIN) == 1


def test_a_value_that_never_ends_is_not_loaded_early(cache, load):
    load("a", slow(cache, 1), ttl=None, early=True)
    assert load("a", Origin(2), ttl=None, early=NEAR_CERTAIN) == 1


# jitter


def test_lifetimes_are_shortened_by_different_shares(cache, load):
    now = cache.now_ms()
    for number in range(200):
        load(f"k{number}", Origin(1), ttl=1000, jitter=0.5)
    lives = [ended(cache, f"k{number}") - now for number in range(200)]
    assert 500_000 <= min(lives) < 600_000 < 900_000 < max(lives) <= 1_100_000
    assert len(set(lives)) > 100


def test_without_jitter_they_are_what_was_asked_for(cache, load, clock):
    load("a", Origin(1), ttl=1000)
    load("b", Origin(1), ttl=None, jitter=1)
    assert ended(cache, "a") - cache.now_ms() == 1_000_000
    assert ended(cache, "b") == 0


def test_the_longest_jitter_leaves_a_lifetime(cache, load):
    for _ in range(50):
        load("a", Origin(1), ttl=0.001, jitter=1)
    assert cache.stats()["fills"] > 0


def test_a_namespace_has_a_jitter_of_its_own_that_a_call_may_replace(config):
    config["namespaces"]["shop"]["jitter"] = 0.5
    with cachee_shm.attach(config=config) as cache:
        cache._freeze(cache.now_ms())
        for number in range(50):
            cache.get_or_load(f"k{number}", Origin(1), ttl=1000)
        assert len({ended(cache, f"k{number}") for number in range(50)}) > 10
        cache.get_or_load("a", Origin(1), ttl=1000, jitter=0)
        assert ended(cache, "a") - cache.now_ms() == 1_000_000


# sliding


def test_each_use_in_the_last_half_lengthens_the_life_of_a_sliding_value(cache, load, clock):
    load("a", Origin("v"), ttl=100, sliding=10)
    for at in (6, 12, 18, 24):
        clock(at)
        assert cache.get("a") == "v"
    clock(35)
    assert cache.get("a") is None


def test_a_use_in_the_first_half_writes_nothing(cache, load, clock):
    load("a", Origin("v"), ttl=100, sliding=10)
    clock(4.9)
    before = ended(cache, "a")
    assert cache.get("a") == "v" and ended(cache, "a") == before
    clock(5.1)
    assert cache.get("a") == "v" and ended(cache, "a") > before


def test_no_use_lengthens_it_beyond_its_whole_lifetime(cache, load, clock):
    load("a", Origin("v"), ttl=25, sliding=10)
    for at in (8, 16, 24):
        clock(at)
        assert cache.get("a") == "v"
    clock(25.1)
    assert cache.get("a") is None


def test_a_lifetime_shorter_than_the_period_is_what_counts(cache, load, clock):
    load("a", Origin("v"), ttl=5, sliding=10)
    clock(4.9)
    assert cache.get("a") == "v"
    clock(5.1)
    assert cache.get("a") is None


def test_without_an_end_it_lives_as_long_as_it_is_used(cache, load, clock):
    load("a", Origin("v"), ttl=None, sliding=10)
    for at in range(0, 1000, 9):
        clock(at)
        assert cache.get("a") == "v"
    clock(1010)
    assert cache.get("a") is None


def test_a_use_is_unannounced_and_does_not_make_the_value_younger(cache, load, clock):
    load("a", Origin("v"), ttl=100, sliding=10)
    tail = cache.tail
    clock(6)
    cache.get("a")
    assert cache.tail == tail
    cache.delete("a")
    assert "a" not in cache


def test_a_sliding_value_keeps_its_tags_its_etag_and_its_grace(cache, load, clock):
    def loader():
        cachee_shm.current_load().etag = "e"
        return {"n": 1}

    load("a", loader, ttl=100, sliding=10, stale=60, tags=["t", "u"])
    before = cache._stored("a")
    clock(6)
    assert cache.get("a") == {"n": 1} and cache._stored("a") == before
    clock(17)
    assert cache.get("a") is None and cache._find("a", False) == (2, {"n": 1})
    clock(6)
    cache.delete_tags("u")
    assert cache._find("a", False)[0] == 0


def test_near_hits_lengthen_it_too(config, clock):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": True}
    with cachee_shm.attach(config=config) as cache:
        now = cache.now_ms()
        cache.get_or_load("a", Origin({"n": 1}), ttl=100, sliding=10)
        for at in (1, 6, 7, 12, 13, 18):
            cache._freeze(now + at * 1000)
            assert cache.get("a") == {"n": 1}
        assert cache.stats()["near_hits"] > 0


def test_touch_gives_a_sliding_value_a_new_end(cache, load, clock):
    load("a", Origin("v"), ttl=15, sliding=10)
    assert cache.touch("a", ttl=30)
    for at in (8, 16, 24):
        clock(at)
        assert cache.get("a") == "v"
    clock(30.1)
    assert cache.get("a") is None


@pytest.mark.parametrize("options", [{"ttl": 60}, {"ttl": None}, {"ttl": 60, "sliding": 10}])
def test_touch_by_a_lifetime_of_0_ends_a_value_at_once(cache, load, clock, options):
    """The clock stands still here: a lifetime of a millisecond would not end before its next tick."""
    load("a", Origin("v"), stale=30, **options)
    assert cache.touch("a", ttl=0)
    assert "a" not in cache and not cache.touch("a", ttl=60)
    assert load("a", Origin(OSError()), stale=30) == "v"


def test_a_large_sliding_value_is_copied_with_its_spans(cache, load, clock):
    value = bytes(range(256)) * 1000
    load("a", Origin(value), ttl=100, sliding=10, tags=["t"])
    for at in (6, 12, 18):
        clock(at)
        assert cache.get("a") == value


def test_many_readers_of_a_sliding_value_at_once_lose_nothing(cache, clock):
    cache.get_or_load("a", Origin("v"), ttl=10_000, sliding=10)
    for at in range(0, 400, 8):
        clock(at)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: cache.get("a"), range(16))) == {"v"}


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"on_error": "ignore"}, ValueError, 'on_error is "stale" or "raise"'),
        ({"early": -1}, ValueError, "early is a number from 0 to 100"),
        ({"early": "yes"}, ValueError, "early is a number from 0 to 100"),
        ({"early": float("nan")}, ValueError, "early is a number"),
        ({"jitter": 1.5}, ValueError, "jitter is a number from 0 to 1"),
        ({"jitter": "0.1"}, ValueError, "jitter is a number from 0 to 1"),
        ({"sliding": -1}, InvalidTTL, "sliding is a number of seconds"),
        ({"sliding": "1h"}, InvalidTTL, "sliding is a number of seconds"),
        ({"stale": "1h"}, InvalidTTL, "stale is a number of seconds"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(cache, load, options, error, why):
    cache.set("a", 1)
    origin = Origin(2)
    for key in ("a", "b"):
        with pytest.raises(error, match=why):
            load(key, origin, **options)
    assert origin.calls == 0


def test_what_a_loader_says_of_its_lifetime_leaves_the_other_options(cache, load, clock):
    def loader():
        cachee_shm.current_load().ttl = 20
        return "v"

    load("a", loader, ttl=100, stale=60, sliding=10, early=True)
    clock(6)
    assert cache.get("a") == "v"
    clock(15)
    assert cache.get("a") == "v"
    clock(20.1)
    assert cache._find("a", False) == (2, "v")  # its grace of 60 s
    clock(81)
    assert cache._find("a", False)[0] == 0
