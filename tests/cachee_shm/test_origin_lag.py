"""`origin_lag`: what is loaded soon after a write may come from a replica that has not got it yet."""

import struct

import pytest

import cachee_shm
from cachee_shm.testing import frozen_clock

WIRE_KEY = 1
LAG_S = 2


@pytest.fixture
def lagging(config):
    config["namespaces"]["shop"] |= {"origin_lag": f"{LAG_S}s", "default_ttl": "1h", "near_cache": "0"}
    with cachee_shm.attach(config=config) as cache:
        yield cache


@pytest.fixture
def clock(lagging):
    """The first load of a process notes where the ring stands; the clock then goes on beyond the lag."""
    with frozen_clock(lagging) as clock:
        lagging.get_or_load("before", str)
        clock.tick(2 * LAG_S)
        lagging.get_or_load("before too", str)
        clock.tick(LAG_S + 1)
        yield clock


def peer_wrote(cache, key):
    cache.apply(cache.source_open("peer"), struct.pack("<BQ", WIRE_KEY, cache._hash(key)))


class Replica:
    """The primary's rows, as they were before the last one was written."""

    def __init__(self):
        self.row, self.behind, self.loads = "new", "old", 0

    def catch_up(self):
        self.behind = self.row

    def load(self):
        self.loads += 1
        return self.behind


def test_what_a_replica_loads_soon_after_a_peer_s_write_lives_no_longer_than_the_lag(lagging, clock):
    replica = Replica()
    peer_wrote(lagging, "user:1")
    assert lagging.get_or_load("user:1", replica.load) == "old"
    replica.catch_up()
    clock.tick(LAG_S - 0.5)
    assert lagging.get("user:1") == "old"
    clock.tick(1)
    assert lagging.get_or_load("user:1", replica.load) == "new"
    clock.tick(60)
    assert lagging.get("user:1") == "new" and replica.loads == 2


@pytest.mark.parametrize("write", ["delete", "tag", "clear"])
def test_what_is_loaded_soon_after_this_hosts_own_invalidation_lives_no_longer_than_the_lag(
    lagging, clock, write
):
    {"delete": lambda: lagging.delete("a"), "tag": lambda: lagging.delete_tags("t"), "clear": lagging.clear}[
        write
    ]()
    lagging.get_or_load("a", lambda: 1, tags=["t"])
    clock.tick(LAG_S + 0.5)
    assert "a" not in lagging


def test_what_was_written_longer_ago_is_kept_as_asked(lagging, clock):
    peer_wrote(lagging, "a")
    lagging.get_or_load("other", lambda: 1)  # notes where the ring stands
    clock.tick(LAG_S + 1)
    lagging.get_or_load("a", lambda: 1)
    clock.tick(60)
    assert lagging.get("a") == 1


def test_a_neighbour_s_write_long_before_the_process_attached_costs_one_load_at_most(lagging, config):
    peer_wrote(lagging, "a")
    with cachee_shm.attach(config=config) as fresh, frozen_clock(fresh) as clock:
        fresh.get_or_load("a", lambda: 1)
        clock.tick(LAG_S + 1)
        assert "a" not in fresh
        fresh.get_or_load("a", lambda: 2)
        clock.tick(60)
        assert fresh.get("a") == 2


def test_touch_does_not_lengthen_the_life_of_what_was_loaded_within_the_lag(lagging, clock):
    peer_wrote(lagging, "a")
    lagging.get_or_load("a", lambda: "old")
    for _ in range(8):
        clock.tick(LAG_S / 4)
        lagging.touch("a", ttl=3600)
    assert "a" not in lagging


def test_a_touch_after_the_lag_does_not_lengthen_the_life_of_what_was_loaded_within_it(lagging, clock):
    peer_wrote(lagging, "a")
    lagging.get_or_load("other", lambda: 1)  # notes where the ring stands
    clock.tick(0.8 * LAG_S)
    lagging.get_or_load("a", lambda: "old")
    clock.tick(0.4 * LAG_S)
    assert lagging.touch("a", ttl=3600)
    clock.tick(LAG_S)
    assert "a" not in lagging


def test_touch_gives_what_was_loaded_later_the_lifetime_that_is_asked_for(lagging, clock):
    lagging.get_or_load("a", lambda: 1, ttl=5)
    lagging.touch("a", ttl=3600)
    clock.tick(60)
    assert lagging.get("a") == 1


def test_what_this_host_wrote_is_the_truth_and_lives_as_long_as_asked(lagging, clock):
    lagging.set("a", 1)
    with lagging.writing("b") as write:
        write.set(2)
    clock.tick(60)
    assert (lagging.get("a"), lagging.get("b")) == (1, 2)


def test_a_value_that_may_be_from_before_a_write_is_not_served_stale(lagging, clock):
    peer_wrote(lagging, "a")
    lagging.get_or_load("a", lambda: "old", stale=3600)
    clock.tick(LAG_S + 0.5)
    assert lagging.get_or_load("a", lambda: "new", stale=3600) == "new"


def test_without_the_option_everything_is_kept_as_asked(config):
    with cachee_shm.attach(config=config) as cache, frozen_clock(cache) as clock:
        peer_wrote(cache, "a")
        cache.get_or_load("a", lambda: 1)
        clock.tick(60)
        assert cache.get("a") == 1


def test_what_a_slow_load_read_within_the_lag_lives_no_longer_than_the_lag(lagging, clock):
    replica = Replica()

    def slow():
        row = replica.load()
        lagging.get_or_load("other", lambda: 1)  # notes where the ring stands
        clock.tick(2 * LAG_S)  # what it makes of the row takes its time
        return row

    peer_wrote(lagging, "user:1")
    assert lagging.get_or_load("user:1", slow) == "old"
    clock.tick(LAG_S + 0.5)
    assert "user:1" not in lagging


def test_touch_does_not_lengthen_the_life_of_what_a_slow_load_read_within_the_lag(lagging, clock):
    peer_wrote(lagging, "a")
    lagging.get_or_load("other", lambda: 1)  # notes where the ring stands
    lagging.get_or_load("a", lambda: clock.tick(2 * LAG_S))
    assert lagging.touch("a", ttl=3600)
    clock.tick(LAG_S + 0.5)
    assert "a" not in lagging


def test_a_slow_load_that_began_after_the_lag_is_kept_as_asked(lagging, clock):
    peer_wrote(lagging, "a")
    clock.tick(LAG_S + 1)
    lagging.get_or_load("other", lambda: 1)  # notes where the ring stands
    clock.tick(LAG_S + 1)

    def slow():
        for number in range(8):
            clock.tick(LAG_S)
            lagging.get_or_load(f"meanwhile {number}", lambda: 1)
        return 1

    lagging.get_or_load("a", slow)
    clock.tick(60)
    assert "a" in lagging
