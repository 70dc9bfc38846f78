"""Waiting for the peers, and how hosts fare: real bridges, and what can go wrong between them."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachee_shm.ports import free_ports
from tests.bridge.hosts import WAIT_S, Host, hosts, until
from tests.bridge.relay import relay
from tests.bridge.test_two_bridges import Pair, fill, isolated, meet

SHORT_S = 0.2
"""Far less than lost_after, which is 2 s."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with hosts(tmp_path) as both:
        meet(*both)
        yield both


def well(*all_hosts: Host) -> None:
    for host in all_hosts:
        cache = host.attach()
        until(lambda cache=cache: cache.health().ok, f"{host.name}: {cache.health()}\n{host.log}")


def test_a_write_that_is_waited_for_is_gone_at_the_peer(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    for number in range(50):
        keys = [f"{number}:{i}" for i in range(20)]
        fill(reader, keys)
        writer.delete_many(keys)
        assert writer.wait_synced(WAIT_S)
        assert reader.get_many(keys) == {}


def test_with_all_peers_it_waits_for_the_last_of_them(tmp_path: Path) -> None:
    with hosts(tmp_path, 3) as (first, second, third):
        meet(first, second, third)
        writer = first.attach()
        for other in (second, third):
            other.signal(signal.SIGSTOP)
            writer.delete("k")
            assert not writer.wait_synced(SHORT_S)
            other.signal(signal.SIGCONT)
            assert writer.wait_synced(WAIT_S)


def test_all_is_well_is_said_with_every_peers_position(pair: Pair) -> None:
    well(*pair)
    writer = pair[0].attach()
    writer.set("k", 1)
    assert writer.wait_synced(WAIT_S)
    health = writer.health()
    assert (health.bridge, health.isolated, health.unreachable) == ("up", False, [])
    (peer,) = health.peers
    assert peer.name == pair[1].name
    assert peer.reachable
    assert peer.applied is not None
    assert peer.applied >= writer._written()[1]
    assert peer.stale_s is not None


def test_a_host_without_peers_does_not_wait(tmp_path: Path) -> None:
    with hosts(tmp_path, 1) as (host,):
        meet(host)
        cache = host.attach()
        cache.set("k", 1)
        assert cache.wait_synced(WAIT_S)
        assert cache.health().peers == ()


def test_a_bridge_that_is_not_started_is_a_no_until_it_is(tmp_path: Path) -> None:
    with hosts(tmp_path) as both:
        cache = both[0].attach()
        cache.set("k", 1)
        assert not cache.wait_synced(SHORT_S)
        assert (cache.health().bridge, cache.health().ok) == ("down", False)
        meet(*both)
        assert cache.wait_synced(WAIT_S)
        well(*both)


def test_a_bridge_that_has_met_no_peer_yet_does_not_say_that_there_is_none(tmp_path: Path) -> None:
    with hosts(tmp_path) as both:
        cache = both[0].attach()
        cache.set("k", 1)
        both[0].start()
        assert not cache.wait_synced(SHORT_S)
        both[1].start()
        assert cache.wait_synced(WAIT_S)


def test_a_stopped_peer_is_waited_for_then_named_and_waited_for_again(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    fill(reader, ["k"])
    pair[1].signal(signal.SIGSTOP)
    writer.delete("k")
    assert not writer.wait_synced(SHORT_S)
    until(lambda: writer.health().unreachable == [pair[1].name])
    assert writer.wait_synced(WAIT_S)
    until(lambda: isolated(writer))  # a word that it said before it was stopped may be heard yet
    assert writer.health().bridge == "up"
    assert not writer.health().ok
    pair[1].signal(signal.SIGCONT)
    well(*pair)
    assert writer.wait_synced(WAIT_S)
    assert reader.get("k") is None


def test_a_killed_peer_is_waited_for_then_named_and_waited_for_again(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    fill(reader, ["k"])
    pair[1].kill()
    writer.delete("k")
    assert not writer.wait_synced(SHORT_S)
    until(lambda: writer.health().unreachable == [pair[1].name])
    assert writer.wait_synced(0)
    (peer,) = writer.health().peers
    assert peer.lag > 0
    pair[1].start()
    well(*pair)
    assert writer.wait_synced(WAIT_S)
    assert reader.get("k") is None


def test_a_peer_that_left_for_good_is_nobody_to_wait_for(pair: Pair) -> None:
    writer = pair[0].attach()
    pair[1].detach()
    assert pair[1].stop() == 0
    writer.delete("k")
    until(lambda: writer.health().peers == ())
    assert writer.wait_synced(WAIT_S)
    assert writer.health().ok


def test_a_peer_that_was_lapped_has_applied_what_stands_for_all(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    keys = [f"k{number}" for number in range(50)]
    fill(reader, keys)
    pair[1].signal(signal.SIGSTOP)
    for number in range(2 * writer.ring_slots):
        writer.delete(keys[number % len(keys)])
    assert not writer.wait_synced(SHORT_S)
    pair[1].signal(signal.SIGCONT)
    well(*pair)
    assert writer.wait_synced(WAIT_S)
    assert reader.get_many(keys) == {}


def test_the_own_bridge_killed_is_a_no_and_said_until_it_is_back(pair: Pair) -> None:
    writer = pair[0].attach()
    writer.delete("k")
    assert writer.wait_synced(WAIT_S)
    pair[0].kill()
    assert not writer.wait_synced(0)
    assert writer.health().bridge == "down"
    assert writer.health().bridge_s is not None
    pair[0].start()
    assert writer.wait_synced(WAIT_S)
    well(*pair)


def test_the_own_bridge_stopped_is_a_no_and_said_until_it_goes_on(pair: Pair) -> None:
    writer = pair[0].attach()
    pair[0].signal(signal.SIGSTOP)
    writer.delete("k")
    assert not writer.wait_synced(SHORT_S)
    until(lambda: writer.health().bridge == "hung")
    assert not writer.wait_synced(SHORT_S)
    pair[0].signal(signal.SIGCONT)
    assert writer.wait_synced(WAIT_S)
    well(*pair)


def test_after_a_restart_under_a_stopped_peer_it_is_still_waited_for(pair: Pair) -> None:
    writer = pair[0].attach()
    pair[1].signal(signal.SIGSTOP)
    pair[0].kill()
    writer.delete("k")
    pair[0].start()
    assert not writer.wait_synced(SHORT_S)
    pair[1].signal(signal.SIGCONT)
    until(lambda: not isolated(writer))
    assert writer.wait_synced(WAIT_S)


OTHER = """
import sys, cachee_shm
cache = cachee_shm.attach("shop", config=sys.argv[1])
cache.delete("k")
print(cache.wait_synced(0.05))
"""


def test_what_another_process_writes_is_its_own_to_wait_for(pair: Pair) -> None:
    mine = pair[0].attach()
    assert mine.wait_synced(WAIT_S)
    pair[1].signal(signal.SIGSTOP)
    command = [sys.executable, "-c", OTHER, str(pair[0].config)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
    assert said == "False\n"
    assert mine.wait_synced(0)
    pair[1].signal(signal.SIGCONT)


def test_a_segment_removed_under_its_workers_is_waited_for_anew(pair: Pair) -> None:
    writer, reader = pair[0].attach(), pair[1].attach()
    fill(reader, ["k"])
    writer.retire()
    writer.delete("k")
    assert writer.wait_synced(WAIT_S)
    assert reader.get("k") is None
    well(*pair)


def test_a_link_on_which_nothing_passes_is_waited_for_until_another_takes_its_place(tmp_path: Path) -> None:
    run, ports = uuid.uuid4().hex[:8], free_ports(2)
    with relay(ports[1]) as between:
        a = Host(tmp_path, f"a-{run}", ports[0], [between.port])
        b = Host(tmp_path, f"b-{run}", ports[1], [])
        try:
            meet(a, b)
            writer, reader = a.attach(), b.attach()
            assert writer.wait_synced(WAIT_S)
            fill(reader, ["k"])
            between.passes.clear()
            writer.delete("k")
            assert not writer.wait_synced(SHORT_S)
            assert reader.get("k") == b"old"
            until(lambda: reader.get("k") is None, f"{a.log}\n{b.log}")
            well(a, b)
            assert writer.wait_synced(WAIT_S)
        finally:
            a.clean_up()
            b.clean_up()
