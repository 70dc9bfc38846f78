"""The view of this host alone: counters."""

import json
import struct
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

import cachee_shm
from cachee_shm.errors import NotACounter, NotLocal
from tests.cachee_shm.bridged import Bridge, with_bridge
from tests.cachee_shm.processes import MINUTE_S, children

COUNTS = 20_000
COUNTERS = 4
BEGUN = 2_000
DONE = 1 << 40


@pytest.fixture
def host(cache):
    return cache.host


def test_a_count_begins_at_initial_and_goes_up_and_down_below_zero(host, cache):
    assert host.incr("hits", initial=0) == 1
    assert host.incr("hits", 41, initial=0) == 42
    assert host.decr("hits", 50) == -8
    assert cache.get("hits") == -8


def test_without_a_value_and_without_initial_it_is_a_key_error(host, cache):
    with pytest.raises(KeyError, match="hits"):
        host.incr("hits")
    assert "hits" not in cache


def test_a_local_integer_that_was_set_is_counted_on(host, cache):
    cache.set(b"hits", 7, local=True, tags=["t"])
    assert host.incr(b"hits") == 8
    cache.delete_tags("t")
    assert b"hits" not in cache


def test_a_counter_keeps_the_lifetime_with_which_it_began(host, cache):
    start = cache.now_ms()
    cache._freeze(start)
    host.incr("hits", initial=0, ttl=60)
    cache._freeze(start + 59_000)
    assert host.incr("hits", initial=0, ttl=3600) == 2
    cache._freeze(start + 60_000)
    assert host.incr("hits", initial=0, ttl=60) == 1


@pytest.mark.parametrize("value", [1.5, True, "1", b"12345678", None, 2**70, [1]])
def test_what_is_no_integer_of_64_bits_is_left_as_it_was(host, cache, value):
    cache.set("a", value, local=True)
    with pytest.raises(NotACounter, match="'a' is no integer of 64 bits"):
        host.incr("a", initial=0)
    assert cache.get("a") == value


def test_what_other_hosts_may_hold_is_not_counted_on(host, cache):
    cache.set("a", 1)
    with pytest.raises(NotACounter, match="without local=True"):
        host.incr("a")


@pytest.mark.parametrize(("number", "delta"), [(2**63 - 1, 1), (-(2**63), -1), (0, 2**63)])
def test_a_sum_of_more_than_64_bits_is_an_error_and_changes_nothing(host, cache, number, delta):
    cache.set("a", number, local=True)
    with pytest.raises(NotACounter, match="does not fit 64 bits"):
        host.incr("a", delta)
    assert cache.get("a") == number


@pytest.mark.parametrize("initial", [2**63 - 1, -(2**63) - 2])
def test_a_count_that_would_begin_beyond_64_bits_does_not_begin(host, cache, initial):
    with pytest.raises(NotACounter, match="does not fit 64 bits"):
        host.incr("a", initial=initial)
    assert "a" not in cache


def test_a_count_that_is_no_integer_does_not_begin(host, cache):
    with pytest.raises(TypeError):
        host.incr("a", initial=0.5)
    with pytest.raises(TypeError):
        host.incr("a", 0.5, initial=0)
    assert "a" not in cache


@pytest.mark.parametrize("ttl", [0, timedelta(0)])
def test_a_count_without_a_lifetime_begins_anew_each_time(host, cache, ttl):
    assert [host.incr("a", initial=0, ttl=ttl) for _ in range(2)] == [1, 1]
    assert "a" not in cache


def test_peers_hear_nothing_of_a_counter(cache):
    cache.host.incr("hits", initial=0)
    cache.host.incr("hits")
    assert cache.pack(0, 1000, 65536)[1] == b""


def test_a_counter_that_is_read_is_the_last_sum_also_by_a_near_cache(config):
    config["namespaces"] = {"default": {"near_cache": "64KiB"}}
    with cachee_shm.attach(config=config) as cache:
        for n in range(100):
            assert cache.host.incr("hits", initial=0) == cache.get("hits") == n + 1


COUNTER = """
held = cachee_shm.attach(config=arguments['config']).host
for n in range(arguments['counts']):
    held.incr(f'hits:{n % arguments["counters"]}', initial=0)
say('counted')
wait()
"""


def test_what_processes_count_at_once_adds_up(cache, config):
    with children(COUNTER, 4, config=config, counts=COUNTS, counters=COUNTERS) as counting:
        for child in counting:
            assert child.line() == "counted"
        sums = [cache.get(f"hits:{n}") for n in range(COUNTERS)]
    assert sums == [4 * COUNTS // COUNTERS] * COUNTERS


# The first calls of all of them at once, side by side.
BEGIN_COUNTERS = """
import mmap, struct
with open(arguments['steps'], 'r+b') as file:
    steps = mmap.mmap(file.fileno(), 0)
me = arguments['number']
def keep_step(i):
    struct.pack_into('<q', steps, 8 * me, i)
    while struct.unpack_from('<q', steps, 8 * (1 - me))[0] < i:
        pass
for i in range(arguments['counts']):
    keep_step(i + 1)
    cache.host.incr(f'hits:{i}', initial=0)
keep_step(arguments['done'])
say('counted')
wait()
"""


def test_counters_that_two_begin_at_once_hold_both_counts_while_a_bridge_heals(config, tmp_path):
    (tmp_path / "steps").write_bytes(bytes(16))
    bridged = with_bridge(config)
    bridged["namespaces"]["shop"]["memory"] = "32MiB"
    with cachee_shm.attach(config=bridged) as cache, closing(Bridge(bridged)) as bridge:
        steps, healed = str(tmp_path / "steps"), bridge.segment.tail
        with children(BEGIN_COUNTERS, 2, config=bridged, counts=BEGUN, steps=steps, done=DONE) as counting:
            ends = time.monotonic() + MINUTE_S
            while struct.unpack("<2q", Path(steps).read_bytes()) != (DONE, DONE) and time.monotonic() < ends:
                healed = bridge.segment.heal(healed, 100, 0, b"")[0]
            for child in counting:
                assert child.line() == "counted"
            bridge.segment.heal(healed, 1 << 20, 0, b"")
            sums = [cache.get(f"hits:{n}") for n in range(BEGUN)]
    assert sums == [2] * BEGUN


# What a process had counted, to the last one but at most one, before it was killed.
COUNT_AND_TELL = """
import mmap
with open(arguments['told'], 'r+b') as file:
    told = memoryview(mmap.mmap(file.fileno(), 0)).cast('q')  # one store; pack_into writes zeros first
n = 0
say('counting')
while True:
    cache.host.incr('hits', initial=0)
    n += 1
    told[arguments['number']] = n
"""


def test_what_a_killed_process_had_counted_is_not_lost(cache, config, tmp_path):
    told = tmp_path / "told"
    told.write_bytes(bytes(8 * 4))
    with children(COUNT_AND_TELL, 4, config=config, told=str(told)) as counting:
        for child in counting:
            assert child.line() == "counting"
        while cache.get("hits", 0) < 10_000:
            pass
        for child in counting:
            child.kill()
    counted = sum(struct.unpack("<4q", told.read_bytes()))
    assert counted <= cache.get("hits") <= counted + 4


# gets and cas


def test_cas_stores_if_nobody_has_changed_the_value_since_gets(host, cache):
    assert host.gets("a") == (None, None)
    assert host.cas("a", {"n": 1}, None, ttl=60)
    assert not host.cas("a", {"n": 9}, None)
    value, token = host.gets("a")
    assert value == {"n": 1}
    assert host.cas("a", {"n": 2}, token)
    assert not host.cas("a", {"n": 3}, token)
    assert cache.get("a") == {"n": 2}


CHANGES = {
    "set": lambda c: c.set("a", 1, local=True),
    "incr": lambda c: (c.host.incr("a"), c.host.decr("a")),
    "cas": lambda c: c.host.cas("a", 1, c.host.gets("a")[1]),
    "delete": lambda c: c.delete("a"),
    "delete and set": lambda c: (c.delete("a"), c.set("a", 1, local=True)),
    "tag": lambda c: c.delete_tags("t"),
    "clear": lambda c: c.clear(),
    "successor": lambda c: (c.retire(), c.set("a", 1, local=True)),
    "end": lambda c: c._freeze(c.now_ms() + 60_000),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_happened_to_the_key_meanwhile_fails_the_cas(host, cache, change):
    cache.set("a", 1, ttl=60, tags=["t"], local=True)
    _, token = host.gets("a")
    change(cache)
    before = cache.get("a")
    assert host.cas("a", "lost", token) is False
    assert cache.get("a") == before != "lost"


def test_what_cas_stored_has_its_lifetime_and_keeps_its_tags(host, cache):
    start = cache.now_ms()
    cache._freeze(start)
    cache.set("a", 1, ttl=60, tags=["t"], local=True)
    assert host.cas("a", "x" * 9000, host.gets("a")[1], ttl=5)
    cache._freeze(start + 4_999)
    assert host.gets("a")[0] == "x" * 9000
    assert host.cas("a", 3, host.gets("a")[1], ttl=None)
    cache._freeze(start + 10**8)
    assert cache.get("a") == 3
    cache.delete_tags("t")
    assert "a" not in cache
    assert host.cas("a", 4, None)
    assert host.cas("a", 5, host.gets("a")[1], ttl=0)
    assert "a" not in cache


def test_what_other_hosts_may_hold_is_not_compared(host, cache):
    cache.set("a", 1, local=True)
    _, token = host.gets("a")
    cache.set("a", 1)
    with pytest.raises(NotLocal, match="without local=True"):
        host.gets("a")
    assert host.cas("a", 2, token) is False
    with pytest.raises(TypeError, match="gets"):
        host.cas("a", 2, b"token")
    assert cache.get("a") == 1


def test_peers_hear_nothing_of_cas_and_a_near_cache_sees_each(config):
    config["namespaces"] = {"default": {"near_cache": "64KiB"}}
    with cachee_shm.attach(config=config) as cache:
        assert cache.host.cas("a", [0], None)
        for n in range(50):
            value, token = cache.host.gets("a")
            assert value == cache.get("a") == [n]
            assert cache.host.cas("a", [n + 1], token)
        assert cache.pack(0, 1000, 65536)[1] == b""


# A life of the counter begins with a number of its own, and each step of it is made by one process alone.
COUNT_BY_CAS = """
import os
made = []
while len(made) < arguments['counts']:
    value, token = cache.host.gets('count')
    life, n = value or (os.urandom(8).hex(), 0)
    if cache.host.cas('count', (life, n + 1), token):
        made.append((life, n + 1))
    if arguments['evicts'] and len(made) % 20 == 0:
        for i in range(40):
            cache.set(f'filler:{arguments["number"]}:{i}:{len(made)}', bytes(30000))
say(json.dumps(made))
"""


@pytest.mark.parametrize("evicts", [False, True])
def test_what_processes_count_by_cas_is_never_lost_also_with_evictions_between(cache, config, evicts):
    with children(
        COUNT_BY_CAS, 4, config=config, counts=1000 if not evicts else 300, evicts=evicts
    ) as counting:
        made = [tuple(step) for child in counting for step in json.loads(child.line())]
    assert len(set(made)) == len(made), "two made one step"
    lives = {}
    for life, n in made:
        lives.setdefault(life, set()).add(n)
    assert all(steps == set(range(1, len(steps) + 1)) for steps in lives.values())
    assert evicts or len(lives) == 1
    assert (cache.stats()["evicted"] > 0) is evicts
