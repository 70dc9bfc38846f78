"""add: it stores where nothing is, and says what happened, also where others write the same key at once."""

import struct
from contextlib import closing

import pytest

import cachee_shm
from tests.cachee_shm.bridged import Bridge
from tests.cachee_shm.processes import children

WIRE_KEY_SET = 2
FOR_EVER = 2**63


@pytest.fixture
def bridged(config):
    """A cache of a host that has a bridge in its configuration, which is not running; its clock stands."""
    config["bridge"] = {"listen": "127.0.0.1:7946"}
    with cachee_shm.attach(config=config) as cache:
        cache._freeze(cache.now_ms())
        yield cache


def announced(cache, since=0):
    """What peers would be sent of this host's announcements: payload bytes."""
    return cache.pack(since, 1000, 65536)[1]


def test_add_stores_only_if_the_key_has_no_value(cache):
    assert cache.add("a", 1) is True
    assert cache.add("a", 2) is False
    assert cache.get("a") == 1
    cache.delete("a")
    assert cache.add("a", 3) is True


def test_add_stores_where_the_value_expired_or_its_tag_was_deleted(cache):
    cache._freeze(1_000_000)
    cache.set("a", 1, ttl=1, tags=["t"])
    assert cache.add("a", 2) is False
    cache._freeze(1_001_000)
    assert cache.add("a", 3, tags=["t"]) is True
    cache.delete_tags("t")
    assert cache.add("a", 4) is True
    assert cache.get("a") == 4


def test_of_many_processes_that_add_a_key_exactly_one_does(cache, config):
    code = """
say('ready'); wait()
say(*[int(cache.add(f'job:{i}', arguments['number'])) for i in range(200)])
"""
    with children(code, 4, config=config) as adders:
        for adder in adders:
            adder.line()
        for adder in adders:
            adder.tell()
        won = [[int(word) for word in adder.line().split()] for adder in adders]
    for job in range(200):
        winners = [number for number in range(4) if won[number][job]]
        assert winners == [cache.get(f"job:{job}")]


def test_peers_hear_of_an_added_value_and_nothing_of_a_local_one(bridged):
    bridged.add("a", 1)
    since = bridged.tail
    payload = announced(bridged)
    assert struct.unpack("<BQ", payload[:9]) == (WIRE_KEY_SET, bridged._hash("a"))  # and its digest
    assert len(payload) == 17
    bridged.add("b", 1, local=True)
    assert announced(bridged, since) == b""


def test_an_add_that_loses_is_announced_to_nobody_and_evicts_nothing(bridged):
    bridged.add("a", 1)
    since = bridged.tail
    assert bridged.add("a", 2) is False
    assert bridged.tail == since
    assert bridged.get("a") == 1


def test_healing_the_record_of_an_add_evicts_neither_its_value_nor_another(config):
    config["bridge"] = {"listen": "127.0.0.1:7946"}
    with cachee_shm.attach(config=config) as cache, closing(Bridge(config)) as bridge:
        for key, local in (("a", False), ("b", True)):
            assert cache.add(key, 1, local=local)
        bridge.segment.heal(0, 100, 0, b"")
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 1}


def test_an_add_replaces_a_value_that_an_isolated_host_withholds(bridged):
    bridged.set_serve_until(FOR_EVER)
    assert bridged.set("a", 1)
    bridged.set_serve_until(bridged.now_ms())
    bridged._freeze(bridged.now_ms() + 3_600_000)
    assert bridged.get("a") is None
    assert bridged.add("a", 2) is True
    assert bridged.get("a") == 2


# Two that go through the same keys side by side, so that most of their adds overlap.
IN_STEP = """
import mmap, struct
with open(arguments['steps'], 'r+b') as file:
    steps = mmap.mmap(file.fileno(), 0)
me = arguments['number']
def keep_step(i):
    struct.pack_into('<q', steps, 8 * me, i)
    while struct.unpack_from('<q', steps, 8 * (1 - me))[0] < i:
        pass
keep_step(1)
won = []
for i in range(arguments['keys']):
    keep_step(i + 2)
    local = i % 2 == 1
    won.append(int(cache.add(f'job:{i}', me, local=local)))
    if not won[i] and not cache.touch(f'job:{i}', None):
        say('nothing to touch')
keep_step(1 << 40)
say(*won)
"""


def test_of_two_that_add_at_once_one_wins_and_the_other_finds_its_value(config, tmp_path):
    keys = 8_000
    config["namespaces"]["shop"]["memory"] = "32MiB"
    (tmp_path / "steps").write_bytes(bytes(16))
    with cachee_shm.attach(config=config) as cache:
        with children(IN_STEP, 2, config=config, keys=keys, steps=str(tmp_path / "steps")) as adders:
            won = [[int(word) for word in adder.line().split()] for adder in adders]
        assert [first + second for first, second in zip(*won, strict=True)] == [1] * keys
        assert [cache.get(f"job:{i}") for i in range(keys)] == won[1]
