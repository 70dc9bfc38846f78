"""More hosts than `fanout`, and regions: real bridges that hear of most others by way of relays.

Links that nobody needs are closed sooner here than elsewhere, and who is in doubt is given another chance.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachee_shm.cli.main import main
from cachee_shm.cli.operator import ask
from cachee_shm.config import load
from tests.bridge.hosts import WAIT_S, Host, hosts, until
from tests.bridge.test_synced_hosts import SHORT_S, well
from tests.bridge.test_two_bridges import fill, gone, whole

SOON = "import cachee_bridge.protocol.paths as paths; paths.LINGER_S = paths.DISTRUST_S = 1.0"
Mesh = list[Host]


def start(mesh: Mesh, settles: bool = True) -> None:
    """Starts the bridges that do not run; `settles`: until no link is left that nobody needs."""
    for host in mesh:
        if host.process is None or host.process.poll() is not None:
            host.process = host.run(SOON)
    for host in mesh:
        whole(host)
    if settles:
        until(lambda: all(relays(host) for host in mesh), said(mesh))


def peers(host: Host) -> dict[str, dict[str, Any]]:
    """By name, as `cachee peers` tells of them."""
    return {peer["name"]: peer for peer in ask(load(host.config), {"do": "peers"})["peers"] if peer["name"]}


def relays(host: Host) -> dict[str, str]:
    """Who comes to `host` by way of others; by whom."""
    return {name: peer["through"] for name, peer in peers(host).items() if peer["state"] == "relayed"}


def said(mesh: Mesh) -> str:
    """What all of them have logged."""
    return "\n".join(host.log for host in mesh)


def tell_all(mesh: Mesh, key: str) -> None:
    """What each host deletes, every other evicts."""
    for writer in mesh:
        own = f"{key}:{writer.name}"
        readers = [host.attach() for host in mesh if host is not writer]
        for reader in readers:
            fill(reader, [own])
        writer.attach().delete(own)
        for reader in readers:
            gone(reader, [own], f"{own}\n{said(mesh)}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with hosts(tmp_path_factory.mktemp("relayed"), 6, "fanout = 2") as mesh:
        yield mesh


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    """Six hosts that are sent by two and more directly, and by the others through these."""
    start(running)
    return running


def through_a_relay(mesh: Mesh) -> tuple[Host, Host, Host]:
    """(who writes, who relays it, who hears of it by him)"""
    reader = mesh[0]
    source, relay = next(iter(relays(reader).items()))
    named = {host.name: host for host in mesh}
    return named[source], named[relay], reader


def test_while_all_hosts_are_linked_what_each_deletes_is_evicted_by_all(running: Mesh) -> None:
    start(running, settles=False)
    tell_all(running, "met")


def test_when_not_all_hosts_are_linked_what_each_deletes_is_evicted_by_all(mesh: Mesh) -> None:
    for number in range(5):
        tell_all(mesh, f"parted {number}")


def test_cachee_peers_shows_which_host_relays_which(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    source, relay, reader = through_a_relay(mesh)
    assert peers(reader)[relay.name]["state"] == "up"
    assert main(["peers", "--config", str(reader.config)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(source.name)]
    assert f"  relayed by {relay.name}  " in line


def test_a_burst_longer_than_the_ring_loses_nothing_on_its_way_through_relays(mesh: Mesh) -> None:
    source, _, reader = through_a_relay(mesh)
    writer, cache = source.attach(), reader.attach()
    keys = [f"burst {number}" for number in range(200)]
    fill(cache, keys)
    for number, key in enumerate(keys):
        writer.delete_many([f"other {number} {more}" for more in range(5 * writer.ring_slots // len(keys))])
        writer.delete(key)
    gone(cache, keys, said(mesh))


def test_a_write_that_is_waited_for_is_evicted_at_hosts_that_are_not_linked(mesh: Mesh) -> None:
    well(*mesh)
    writer = mesh[0].attach()
    readers = [host.attach() for host in mesh[1:]]
    for number in range(20):
        keys = [f"waited {number} {more}" for more in range(5)]
        for reader in readers:
            fill(reader, keys)
        writer.delete_many(keys)
        assert writer.wait_synced(WAIT_S)
        assert [reader.get_many(keys) for reader in readers] == [{}] * len(readers)


def test_a_hung_host_that_is_not_linked_is_waited_for(mesh: Mesh) -> None:
    source, _, reader = through_a_relay(mesh)
    writer = source.attach()
    reader.signal(signal.SIGSTOP)
    try:
        writer.delete("k")
        assert not writer.wait_synced(SHORT_S)
    finally:
        reader.signal(signal.SIGCONT)
    assert writer.wait_synced(WAIT_S)


def test_a_relay_that_is_killed_loses_nothing_and_nobody(mesh: Mesh) -> None:
    source, relay, reader = through_a_relay(mesh)
    writer, cache, relaying = source.attach(), reader.attach(), relay.attach()
    keys = [f"killed {number}" for number in range(100)]
    fill(cache, keys)
    fill(relaying, keys)
    for number, key in enumerate(keys):
        if number == len(keys) // 2:
            relay.kill()
        writer.delete(key)
        time.sleep(0.001)
    gone(cache, keys, said(mesh))
    start(mesh, settles=False)
    gone(relaying, keys, said(mesh))
    tell_all(mesh, "after a kill")


def test_a_relay_that_hangs_loses_nothing(mesh: Mesh) -> None:
    source, relay, reader = through_a_relay(mesh)
    writer, cache = source.attach(), reader.attach()
    keys = [f"hung {number}" for number in range(100)]
    fill(cache, keys)
    relay.signal(signal.SIGSTOP)
    try:
        writer.delete_many(keys)
        gone(cache, keys, said(mesh))
    finally:
        relay.signal(signal.SIGCONT)
    start(mesh, settles=False)
    tell_all(mesh, "after it hung")


def test_what_one_region_writes_the_other_evicts_though_few_of_them_are_linked(tmp_path: Path) -> None:
    with hosts(tmp_path, 6) as mesh:
        for number, host in enumerate(mesh):
            text = host.config.read_text()
            host.config.write_text(
                text.replace("[host]", f'[host]\nregion = "{["east", "west"][number % 2]}"')
            )
        start(mesh, settles=False)
        tell_all(mesh, "met")
        until(lambda: any(relays(host) for host in mesh), said(mesh))
        for number in range(5):
            tell_all(mesh, f"apart {number}")
        writer = mesh[0].attach()
        fill(mesh[1].attach(), ["k"])
        writer.delete("k")
        assert writer.wait_synced(WAIT_S)
        assert mesh[1].attach().get("k") is None
