"""A plain set gives way to what another host has just written; equal sets of several hosts soon end that."""

import struct

import pytest

import cachee_shm
from tests.cachee_shm.test_cache import WIRE_KEY, WIRE_KEY_SET, announced, bridged

__all__ = ["bridged"]  # a fixture


@pytest.fixture
def peer(config):
    """Another host of the same mesh."""
    name = config["host"]["name"] + "x"
    remote = {**config, "host": {"name": name}, "bridge": {"listen": "127.0.0.1:7947"}}
    with cachee_shm.attach(config=remote) as cache:
        yield cache


def relay(source, target):
    """All that one host announced, applied on the other as its bridge would."""
    target.apply(target.source_open("peer"), announced(source))


def test_a_plain_set_of_other_bytes_within_a_second_of_a_remote_write_is_not_stored(bridged, peer):
    peer.set("a", "from peer")
    relay(peer, bridged)
    since = bridged.tail
    assert bridged.set("a", "mine") is False
    assert bridged.get("a") is None
    kind, hashed, digest = struct.unpack("<BQQ", announced(bridged, since))
    assert (kind, hashed, digest >> 11) == (WIRE_KEY_SET, bridged._hash("a"), 1)  # some bits of its digest
    assert bridged.stats()["sets_guarded"] == 1


def test_a_plain_set_of_the_same_bytes_is_stored_so_that_hosts_do_not_refuse_each_other(bridged, peer):
    peer.set("a", "same")
    relay(peer, bridged)
    assert bridged.set("a", "same") is True
    assert bridged.get("a") == "same"


def test_the_same_bytes_with_another_type_tag_or_lifetime_are_another_value(bridged, peer):
    for key, mine in [("type", {"value": b"1"}), ("tags", {"tags": ["t"]}), ("ttl", {"ttl": 1})]:
        peer.set(key, "1")
        relay(peer, bridged)
        assert bridged.set(key, **{"value": "1", **mine}) is False


def test_a_second_after_the_remote_write_a_plain_set_is_stored(bridged, peer):
    peer.set("a", "from peer")
    relay(peer, bridged)
    now = bridged.now_ms()
    bridged._freeze(now + 999)
    assert bridged.set("a", "mine") is False
    bridged._freeze(now + 2500)
    assert bridged.set("a", "mine") is True


@pytest.fixture
def hosts(bridged, config):
    """`bridged` and another host that has a bridge too."""
    other = {**config, "host": {"name": config["host"]["name"] + "y"}, "bridge": {"listen": "127.0.0.1:7948"}}
    with cachee_shm.attach(config=other) as cache:
        for host in (bridged, cache):
            host.set_serve_until(host.now_ms() + 3_600_000)
        yield bridged, cache


class Mesh:
    """Two hosts, and what each has announced: all is carried, at one moment."""

    def __init__(self, hosts):
        self.hosts, self.cursors, self.ms = hosts, [host.tail for host in hosts], hosts[0].now_ms()

    def carry(self):
        for (at, source), target in zip(enumerate(self.hosts), reversed(self.hosts), strict=True):
            self.cursors[at], payload = source.pack(self.cursors[at], 1000, 1 << 16)
            target.apply(target.source_open(source.name), payload)

    def wait(self, ms):
        self.ms += ms
        for host in self.hosts:
            host._freeze(self.ms)


def delete_somewhere(hosts):
    """A third host deletes "a", and both know."""
    for host in hosts:
        host.apply(host.source_open("third"), struct.pack("<BQ", WIRE_KEY, host._hash("a")))


def test_two_hosts_that_set_one_value_again_and_again_after_a_third_ones_write_hold_it_in_the_end(hosts):
    """Each refused set is announced, and must not renew the refusal at the other."""
    mesh = Mesh(hosts)
    delete_somewhere(hosts)
    for _ in range(20):
        stored = [host.set("a", "same") for host in hosts]
        mesh.carry()
        mesh.wait(100)
    assert stored == [True, True]
    assert [host.get("a") for host in hosts] == ["same", "same"]
    assert all(host.stats()["sets_guarded"] >= 9 for host in hosts)


def test_the_same_value_is_refused_as_long_as_the_write_before_the_refused_one_is_recent(hosts):
    """Both may have read it before that write."""
    mesh = Mesh(hosts)
    delete_somewhere(hosts)
    mesh.wait(500)
    assert hosts[0].set("a", "same") is False
    mesh.carry()
    mesh.wait(400)
    assert hosts[1].set("a", "same") is False
    mesh.wait(300)
    assert hosts[1].set("a", "same") is True


def test_a_set_of_other_bytes_gives_way_for_a_second_to_a_set_that_was_itself_refused(hosts):
    mesh = Mesh(hosts)
    delete_somewhere(hosts)
    mesh.wait(900)
    assert hosts[0].set("a", "newer") is False
    mesh.carry()
    mesh.wait(900)
    assert hosts[1].set("a", "older") is False
    mesh.wait(300)
    assert hosts[1].set("a", "older") is True


def test_workers_of_a_host_that_set_one_value_at_once_do_not_evict_it_at_a_peer(hosts):
    mesh = Mesh(hosts)
    hosts[1].set("a", "same")
    mesh.carry()
    for _ in range(3):
        hosts[0].set("a", "same")
    mesh.carry()
    first = hosts[0].tail
    hosts[0].set("a", "same")
    hosts[0].set("a", "same")
    _, payload = hosts[0].pack(first, 1, 1 << 16)  # the first of them alone
    hosts[1].apply(hosts[1].source_open("web"), payload)
    assert hosts[1].get("a") == "same"


def test_a_local_value_says_nothing_of_what_was_announced_before_it(hosts):
    mesh = Mesh(hosts)
    hosts[1].set("a", "same")
    hosts[0].set("a", "same")
    hosts[0].set("a", "same", local=True)
    mesh.carry()
    assert hosts[1].get("a") is None


def test_after_a_remote_delete_a_plain_set_is_guarded_too(bridged, peer):
    peer.delete("a")
    relay(peer, bridged)
    assert bridged.set("a", "mine") is False


def test_what_is_not_a_plain_set_of_that_key_is_not_guarded(bridged, peer):
    peer.set("a", "from peer")
    relay(peer, bridged)
    assert bridged.set("b", "mine") is True
    with bridged.writing("a") as w:
        w.set("after the record")
    assert w.stored
    relay(peer, bridged)
    assert bridged.get_or_load("a", lambda: "loaded") == "loaded"
    relay(peer, bridged)
    assert bridged.set("a", "mine", local=True) is True


def test_without_a_bridge_there_is_no_guard(cache, peer):
    peer.set("a", "from peer")
    relay(peer, cache)
    assert cache.set("a", "mine") is True


def test_a_host_that_holds_the_announced_bytes_keeps_them(bridged, peer):
    for host in (bridged, peer):
        host.set("a", "same")
        host.set("b", host.name)
    relay(peer, bridged)
    assert bridged.get("a") == "same"
    assert bridged.get("b") is None
    assert bridged.stats()["applied_kept"] == 1
