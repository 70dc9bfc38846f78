"""What to load ahead, and when: the predictor as a process sees it that loads, and one that reads."""

import struct

import pytest

import cachee_shm
from cachee_shm.orders import Orders

NOBODY_ASKED = (1 << 64) - 2


def attached(**options):
    table = {"prewarm": True, "memory": "2MiB", "near_cache": "0", "prewarm_budget": 0.0} | options
    return cachee_shm.attach("shop", config={"namespaces": {"shop": table}}, private=True)


class Host:
    """A host whose peer writes, with a clock that stands."""

    def __init__(self, **options):
        self.cache = attached(**options)
        self.peer = self.cache.source_open("peer")
        self.now = 1_000_000
        self.cache._freeze(self.now)
        self.orders = Orders(self.cache)

    def wait(self, ms):
        self.now += ms
        self.cache._freeze(self.now)

    def written_elsewhere(self, key):
        self.cache.apply(self.peer, b"\x01" + struct.pack("<Q", self.cache._hash(key)))
        self.orders.take(self.now)

    def read(self, key):
        return self.cache.get_or_load(key, lambda: "read", ttl=None)

    def load(self, key):
        kept = self.cache._judge(None, 0, None, (), False, False, 0.0, 0, 0.0)
        return self.cache._load(key, lambda: "ahead", (), kept, 0, 0, False, NOBODY_ASKED)

    def load_due(self):
        keys = [key for _, key in self.orders.due(self.now)]
        for key in keys:
            self.load(key)
        return keys

    def state(self, key):
        return (self.cache.warm_explain(self.cache._hash(key)) or {}).get("state")


@pytest.fixture
def host():
    return Host()


def test_a_key_that_a_peer_writes_is_ordered_loaded_and_read(host):
    assert host.read("user:1") == "read"
    host.written_elsewhere("user:1")
    assert host.state("user:1") == "queued"
    assert host.load_due() == [b"user:1"]
    assert host.state("user:1") == "warm"
    assert host.cache.get("user:1") == "ahead"
    assert host.state("user:1") == "idle"
    assert host.cache.warm_stats() == (1, 1, 0)


def test_a_value_that_is_written_before_it_is_read_was_loaded_in_vain(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    host.load_due()
    host.written_elsewhere("user:1")
    assert host.cache.warm_stats() == (1, 0, 1)


def test_only_the_first_hit_counts_and_the_next_ones_change_nothing(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    host.load_due()
    known = [
        host.cache.get("user:1") and host.cache.warm_explain(host.cache._hash("user:1")) for _ in range(3)
    ]
    assert known[0] == known[1] == known[2]
    assert host.cache.warm_stats() == (1, 1, 0)


def test_a_key_that_is_not_here_is_not_ordered(host):
    host.written_elsewhere("user:1")
    assert host.state("user:1") is None
    assert host.load_due() == []


def test_a_local_value_is_not_ordered_since_no_peer_evicts_it(host):
    host.cache.set("user:1", 1, local=True)
    host.written_elsewhere("user:1")
    assert host.state("user:1") is None
    assert host.cache.get("user:1") == 1


def test_a_reader_that_comes_first_loads_and_the_order_is_void(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    assert host.read("user:1") == "read"
    assert host.load_due() == []
    assert host.cache.warm_stats() == (0, 0, 0)


def test_a_write_of_this_host_voids_the_order(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    host.cache.set("user:1", "own")
    assert host.load_due() == []
    assert host.cache.get("user:1") == "own"


def test_a_delete_of_this_host_voids_the_order(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    host.cache.delete("user:1")
    assert host.load_due() == []


def test_what_was_loaded_before_the_next_write_is_not_stored_after_it(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    [(_, key)] = host.orders.due(host.now)
    kept = host.cache._judge(None, 0, None, (), False, False, 0.0, 0, 0.0)

    def load():
        host.written_elsewhere("user:1")
        return "old"

    host.cache._load(key, load, (), kept, 0, 0, False, NOBODY_ASKED)
    assert host.state("user:1") in ("queued", "wait")
    assert "user:1" not in host.cache


def test_keys_that_are_never_read_again_are_left_alone_after_a_while():
    host = Host(prewarm_budget=0.05)
    asked = 0
    for number in range(2000):
        host.wait(1000)
        host.read(f"dead:{number}")
        host.written_elsewhere(f"dead:{number}")
        asked += len(host.load_due())
    assert asked < 100, "the origin was asked again and again for what nobody reads"


def test_keys_that_are_always_read_again_are_loaded_ahead_most_times():
    host = Host(prewarm_budget=0.05)
    for number in range(4000):
        host.wait(50)
        key = f"hot:{number % 50}"
        host.read(key)
        if number % 3 == 0:
            host.written_elsewhere(key)
            host.load_due()
    loads, useful, wasted = host.cache.warm_stats()
    assert useful > 500
    assert wasted <= loads // 20


def test_without_demand_the_budget_loads_nothing():
    host = Host(prewarm_budget=0.05)
    host.cache.set("user:1", 1)
    host.written_elsewhere("user:1")
    assert host.load_due() == []


def test_an_order_waits_for_its_time(host):
    for number in range(100):  # bursts of writes: what is loaded at once is written again
        host.wait(1)
        host.read(f"user:{number}")
        for _ in range(5):
            host.written_elsewhere(f"user:{number}")
            host.wait(40)
        host.wait(2000)
        host.load_due()
        host.read(f"user:{number}")
    host.read("user:x")
    host.written_elsewhere("user:x")
    assert host.state("user:x") == "queued"
    due = host.orders.next_ms()
    assert due is not None
    assert due > host.now, "it is to be loaded at once, in the middle of a burst"
    host.now = due - 1
    assert host.load_due() == []
    host.now = due
    assert host.load_due() == [b"user:x"]


def test_a_key_that_is_written_again_while_it_waits_is_ordered_once(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    host.written_elsewhere("user:1")
    assert len(host.orders) <= 1
    host.wait(1 << 18)
    assert host.load_due().count(b"user:1") <= 1


def test_the_newest_orders_are_dropped_beyond_the_bound(host):
    host.orders._most = 3
    for number in range(5):
        host.read(f"user:{number}")
        host.written_elsewhere(f"user:{number}")
    assert len(host.orders) == 3
    assert host.load_due() == [b"user:0", b"user:1", b"user:2"]


def test_a_full_mailbox_drops_the_newest_and_goes_on(host):
    key = "k" * 1000
    for number in range(100):
        host.read(f"{key}{number}")
        host.cache.apply(host.peer, b"\x01" + struct.pack("<Q", host.cache._hash(f"{key}{number}")))
    host.orders.take(host.now)
    loaded = host.load_due()
    assert 0 < len(loaded) < 100
    assert loaded == [f"{key}{number}".encode() for number in range(len(loaded))]
    host.read("user:1")
    host.written_elsewhere("user:1")
    assert host.load_due() == [b"user:1"]


def test_what_falls_out_unread_was_loaded_in_vain(host):
    host.read("user:1")
    host.written_elsewhere("user:1")
    host.load_due()
    for number in range(40_000):
        host.cache.set(f"other:{number}", b"x" * 100)
    assert "user:1" not in host.cache
    assert host.cache.warm_stats() == (1, 0, 1)


def test_without_prewarm_nothing_is_learned_and_nothing_is_reserved():
    plain, with_it = attached(prewarm=False), attached()
    assert plain.warm_stats() is None
    assert plain.warm_explain(1) is None
    assert plain._warm_take() is None
    assert Orders(plain)._most == 0
    room = plain.stats()["value_bytes"] - with_it.stats()["value_bytes"]
    assert 0 < room < 0.1 * plain.stats()["value_bytes"]


def test_explain_says_what_is_known(host):
    host.read("user:1")
    host.wait(100)
    host.written_elsewhere("user:1")
    known = host.cache.warm_explain(host.cache._hash("user:1"))
    assert known is not None
    assert known["state"] == "queued"
    assert known["p"] == 0.5
    assert known["price"] == 0.25
    assert known["delay_ms"] == 0
    assert known["since_ms"] == 0
    assert known["buckets"][1] in (
        6,
        7,
        8,
    )  # bits of some 100 ms: entries know when they were loaded to 1/16 s
    assert known["buckets"][2] == 1
    assert known["weights"] == (0.0, 0.0, 0.0, 0.0)


def test_a_segment_that_was_made_without_prewarm_says_so(caplog):
    config = {"host": {"name": "orders-test"}, "namespaces": {"shop": {"memory": "2MiB"}}}
    with cachee_shm.attach("shop", config=config) as first:
        config["namespaces"]["shop"]["prewarm"] = True
        with cachee_shm.attach("shop", config=config) as second:
            assert second.warm_stats() is None
        assert "no tables for pre-warming" in caplog.text
        first.retire()
