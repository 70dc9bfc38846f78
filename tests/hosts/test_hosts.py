"""What may befall three hosts while their workers read and write. The fixture judges what readers were shown.

After each fault the hosts agree again by themselves; no read was older than the bound, nor than what its host
had applied; at rest every copy is the origin's row.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.bridge.hosts import until
from tests.hosts.observer import cursor_of
from tests.hosts.places import ISOLATION_TTL_S, LOST_AFTER_S, PlacedHost, PlacedMesh

pytestmark = pytest.mark.needs("network namespaces")

LONG_S = LOST_AFTER_S + ISOLATION_TTL_S + 0.5  # a fault that outlasts every bound


def applied(target: PlacedHost, source: PlacedHost) -> int:
    return cursor_of(target.cache, source.cache)


def test_undisturbed_hosts_agree(mesh: PlacedMesh) -> None:
    time.sleep(1.0)


def test_a_host_whose_cable_is_out_is_isolated_and_so_are_the_others_from_it(mesh: PlacedMesh) -> None:
    with mesh.hosts[2].place.unplugged():
        for host in mesh.hosts:
            until(host.isolated, f"{host.name} to be isolated")
        time.sleep(LONG_S)


def test_a_path_that_is_lost_in_one_direction_is_gone_around(mesh: PlacedMesh) -> None:
    mute, deaf, _ = mesh.hosts
    with mute.place.unheard_by(deaf.place):
        time.sleep(LONG_S)  # nothing that came before is on its way any more
        before = applied(deaf, mute)
        until(lambda: applied(deaf, mute) > before, f"{deaf.name} to hear of {mute.name} by way of another")
        until(lambda: not deaf.isolated(), f"{deaf.name} to be isolated no more")


def test_a_host_that_no_host_hears_isolates_the_hosts_that_it_hears(mesh: PlacedMesh) -> None:
    mute, deaf, third = mesh.hosts
    with mute.place.unheard_by(deaf.place), mute.place.unheard_by(third.place):
        until(deaf.isolated, f"{deaf.name} to be isolated")
        until(third.isolated, f"{third.name} to be isolated")
        time.sleep(LONG_S)


def test_cables_that_are_out_for_a_moment_lose_no_invalidation(mesh: PlacedMesh) -> None:
    for host in mesh.hosts:
        with host.place.unplugged():
            time.sleep(LOST_AFTER_S / 4)


def test_bridges_that_are_killed_under_load_lose_no_invalidation(mesh: PlacedMesh) -> None:
    for host in mesh.hosts:
        time.sleep(0.2)
        host.kill()
        host.start()


def test_a_bridge_that_stays_dead_isolates_every_host_until_it_is_back(mesh: PlacedMesh) -> None:
    dead = mesh.hosts[1]
    dead.kill()
    for host in mesh.hosts:
        until(host.isolated, f"{host.name} to be isolated")
    time.sleep(ISOLATION_TTL_S)
    dead.start()


def test_a_host_that_starts_again_begins_anew_and_misses_nothing(mesh: PlacedMesh) -> None:
    host = mesh.hosts[2]
    life = host.cache.incarnation
    host.crash()
    time.sleep(LONG_S)
    mesh.start(host)
    assert host.cache.incarnation > life


def test_a_host_that_was_cut_off_for_longer_than_a_ring_holds_is_repaired(mesh: PlacedMesh) -> None:
    writer, reader = mesh.hosts[0], mesh.hosts[1]
    with reader.place.unplugged():
        before = applied(reader, writer)
        for number in range(2 * writer.cache.ring_slots):
            writer.cache.delete(f"other:{number}")
        assert writer.cache.tail - before > writer.cache.ring_slots
        assert applied(reader, writer) == before


def test_a_slow_peer_delays_nobody_but_itself(mesh: PlacedMesh) -> None:
    writer, reader, slow = mesh.hosts
    with slow.place.throttled("32kbit"):
        end = time.monotonic() + LONG_S
        written = 0
        while time.monotonic() < end:
            for _ in range(writer.cache.ring_slots // 8):
                written += 1
                writer.cache.set(f"other:{written}", written)
            time.sleep(0.05)
        tail = writer.cache.tail
        until(lambda: applied(reader, writer) >= tail)
        assert applied(slow, writer) < tail


def test_a_bridge_that_hangs_is_as_good_as_dead(mesh: PlacedMesh) -> None:
    hung = mesh.hosts[0]
    hung.signal(signal.SIGSTOP)
    try:
        for host in mesh.hosts:
            until(host.isolated, f"{host.name} to be isolated")
        time.sleep(ISOLATION_TTL_S)
    finally:
        hung.signal(signal.SIGCONT)
