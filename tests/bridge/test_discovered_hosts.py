"""Hosts that find each other by DNS: real bridges, a DNS server, and what becomes of the dead."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachee_shm import Cache
from cachee_shm.ports import free_ports
from tests.bridge.dns_server import DnsServer
from tests.bridge.hosts import Host, until

Mesh = tuple[DnsServer, list[Host]]
TTL_S = 1.0


def made(folder: Path, server: DnsServer, number: int, kind: str) -> list[Host]:
    """`dns`: each at an address of its own and one port; `srv`: each at a port of its own."""
    run = uuid.uuid4().hex[:8]
    ports = free_ports(number)
    found = []
    for index in range(number):
        address, port = (f"127.0.0.{index + 2}", ports[0]) if kind == "dns" else ("127.0.0.1", ports[index])
        host = Host(folder, f"{chr(ord('a') + index)}-{run}", port, [])
        discover = f"dns:cachee.test:{port}" if kind == "dns" else "srv:cachee.test"
        text = host.config.read_text().replace("127.0.0.1", address).replace('"1h"', f'"{TTL_S:g}s"')
        text = text.replace("peers = []", f'discover = "{discover}"\nnameserver = "{server.address}"')
        host.config.write_text(text)
        found.append(host)
    return found


def name(server: DnsServer, hosts: list[Host]) -> None:
    """What the DNS says from now on."""
    addresses = [re.search(r'listen = "([0-9.]+):', host.config.read_text()) for host in hosts]
    if "srv:" in hosts[0].config.read_text():
        server.targets = {"here.test.": ["127.0.0.1"]}
        server.names(*[f"0 0 {host.port} here.test." for host in hosts], kind="SRV")
    else:
        server.names(*[found[1] for found in addresses if found is not None])


@contextlib.contextmanager
def discovering(folder: Path, number: int, kind: str = "dns") -> Iterator[Mesh]:
    with DnsServer() as server:
        hosts = made(folder, server, number, kind)
        try:
            name(server, hosts)
            yield server, hosts
        finally:
            for host in hosts:
                host.clean_up()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Three hosts, up, linked, and none of them isolated."""
    with discovering(tmp_path, 3) as (server, hosts):
        for host in hosts:
            host.start()
        for host in hosts:
            whole(host)
        yield server, hosts


def whole(host: Host) -> Cache:
    cache = host.attach()
    until(lambda: not isolated(cache), f"{host.name}\n{host.log}")
    return cache


def isolated(cache: Cache) -> bool:
    return cache.serve_until < cache.now_ms()


def members(cache: Cache) -> set[str]:
    return {source for _, source, _, _ in cache.sources()}


def tell(writer: Host, reader: Host) -> None:
    cache = reader.attach()
    cache.get_or_load("told", lambda: b"old", ttl=3600)
    writer.attach().delete("told")
    until(lambda: cache.get("told") is None, f"{writer.log}\n{reader.log}")


@pytest.mark.parametrize("kind", ["dns", "srv"])
def test_hosts_find_each_other_by_what_the_dns_names(tmp_path: Path, kind: str) -> None:
    with discovering(tmp_path, 2, kind) as (_, (first, second)):
        first.start(), second.start()
        whole(first), whole(second)
        until(lambda: second.name in members(first.attach()))
        tell(first, second)
        tell(second, first)


def test_a_host_that_is_named_later_is_met_without_a_restart(tmp_path: Path) -> None:
    with discovering(tmp_path, 2) as (server, (first, second)):
        name(server, [first])
        first.start()
        whole(first)
        second.start()
        name(server, [first, second])
        until(lambda: second.name in members(first.attach()), first.log)
        tell(second, first)


def test_a_host_whose_dns_does_not_answer_is_isolated_until_it_does(tmp_path: Path) -> None:
    with discovering(tmp_path, 1) as (server, (host,)):
        server.behaviour = "fails"
        host.start()
        until(lambda: "no answer from dns:cachee.test" in host.log)
        time.sleep(1.0)
        assert isolated(host.attach())
        server.behaviour = "answers"
        whole(host)


@pytest.mark.parametrize("behaviour", ["fails", "is silent"])
def test_a_dns_that_stops_answering_changes_nothing(mesh: Mesh, behaviour: str) -> None:
    server, (first, second, _) = mesh
    server.behaviour = behaviour
    until(lambda: "known hosts stay" in first.log)
    assert len(members(whole(first))) == 2
    tell(first, second)


def test_a_host_that_dies_for_good_is_forgotten_without_a_person_and_without_emptying_a_cache(
    mesh: Mesh,
) -> None:
    server, (first, second, dead) = mesh
    caches = [first.attach(), second.attach()]
    for cache in caches:
        cache.get_or_load("before", lambda: b"x", ttl=3600)
    dead.kill()
    until(lambda: all(isolated(cache) for cache in caches))
    name(server, [first, second])
    for host, cache in zip((first, second), caches, strict=True):
        until(lambda host=host: f"{dead.name} is no longer a member" in host.log)
        for number in range(100):
            assert cache.get_or_load(f"since{number}", lambda: b"x", ttl=3600) == b"x"
    evicted = [cache.stats()["invalidated"] for cache in caches]
    for host in (first, second):
        whole(host)
    time.sleep(TTL_S + 0.5)
    for cache, before in zip(caches, evicted, strict=True):
        keys = [f"since{number}" for number in range(100)]
        until(lambda cache=cache, keys=keys: len(cache.get_many(keys)) == 100, "no isolation")
        assert cache.get("before") is None
        assert cache.stats()["invalidated"] == before
        assert dead.name not in members(cache)
    tell(first, second)


def test_a_host_that_takes_a_dead_hosts_place_empties_no_cache(mesh: Mesh, tmp_path: Path) -> None:
    server, (first, second, dead) = mesh
    cache = first.attach()
    dead.kill()
    name(server, [first, second])
    until(lambda: dead.name not in members(cache), first.log)
    whole(first)
    cache.get_or_load("kept", lambda: b"x", ttl=3600)
    other = Host(tmp_path, f"d-{dead.name[2:]}", dead.port, [])
    try:
        other.config.write_text(dead.config.read_text().replace(dead.name, other.name))
        other.start()
        name(server, [first, second, other])
        until(lambda: other.name in members(cache), first.log)
        tell(other, second)
        until(lambda: cache.get("kept") == b"x", "no isolation")
    finally:
        other.clean_up()


def test_a_host_that_was_only_cut_off_goes_on_where_it_was(mesh: Mesh) -> None:
    server, (first, second, other) = mesh
    cache, there = first.attach(), other.attach()
    other.signal(signal.SIGSTOP)
    name(server, [first, second])
    until(lambda: other.name not in members(cache), first.log)
    whole(first)
    cache.get_or_load("k", lambda: b"old", ttl=3600)
    cache.get_or_load("kept", lambda: b"x", ttl=3600)
    there.delete("k")
    other.signal(signal.SIGCONT)
    until(lambda: cache.get("k") is None, f"{first.log}\n{other.log}")
    until(lambda: cache.get("kept") == b"x", "no isolation")
    assert other.name in members(cache)


READER = """
import sys, cachee_shm
cache = cachee_shm.attach("shop", config=sys.argv[1])
while True:
    print(cache.get("k"), flush=True)
    sys.stdin.readline()
"""


def test_a_host_all_of_whose_processes_were_stopped_serves_nothing_old_as_it_wakes(mesh: Mesh) -> None:
    _, (writer, host, _) = mesh
    host.attach().get_or_load("k", lambda: b"old", ttl=3600)
    command = [sys.executable, "-c", READER, str(host.config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "b'old'\n"
        worker.send_signal(signal.SIGSTOP)
        host.signal(signal.SIGSTOP)
        writer.attach().delete("k")
        time.sleep(TTL_S + 2.5)  # isolation_ttl, and lost_after
        worker.send_signal(signal.SIGCONT)
        for _ in range(3):
            worker.stdin.write("\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "None\n"
        host.signal(signal.SIGCONT)
        whole(host)
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "None\n"
        worker.kill()


@pytest.mark.parametrize("policy", ["flush", "serve"])
def test_the_other_policies_hold_while_the_bridge_is_dead(tmp_path: Path, policy: str) -> None:
    with discovering(tmp_path, 1) as (_, (host,)):
        text = host.config.read_text().replace("[defaults]", f'[defaults]\non_isolation = "{policy}"')
        host.config.write_text(text)
        host.start()
        cache = whole(host)
        until(lambda: cache.get_or_load("k", lambda: b"x", ttl=3600) and not isolated(cache))
        host.kill()
        until(lambda: isolated(cache))
        if policy == "flush":
            assert cache.get("k") is None
            cache.set("since", b"x", ttl=3600)
            host.start()
            whole(host)
            assert cache.get("since") is None
        else:
            time.sleep(TTL_S + 0.5)
            assert cache.get("k") == b"x"
            assert cache.stats()["isolated"] > 0
