"""Questions to a real DNS server, and which hosts its answers name."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from cachee_bridge.shell import resolver as resolver_module
from cachee_bridge.shell.resolver import NONE_TTL_S, TARGETS_AT_ONCE, Answer, Resolver, Unresolved
from cachee_shm.ports import free_ports
from tests.bridge.dns_server import DnsServer
from tests.bridge.hosts import until


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


def ask(server: DnsServer, discover: str = "dns:cachee.test:7946") -> Answer:
    return uvloop.run(Resolver(discover, server.address).ask())  # type: ignore[no-any-return]


def test_every_address_of_a_name_is_a_host_at_the_port(server: DnsServer) -> None:
    server.records = {"A": ["10.0.0.2", "10.0.0.1"], "AAAA": ["fd00::7"]}
    assert ask(server).addresses == ["10.0.0.1:7946", "10.0.0.2:7946", "[fd00::7]:7946"]


def test_every_service_record_is_a_host_at_its_own_port(server: DnsServer) -> None:
    server.names("0 0 7001 one.test.", "0 0 7002 two.test.", kind="SRV")
    server.targets = {"one.test.": ["10.0.0.1"], "two.test.": ["10.0.0.2"]}
    assert ask(server, "srv:cachee.test").addresses == ["10.0.0.1:7001", "10.0.0.2:7002"]


def test_an_answer_says_for_how_long_it_holds(server: DnsServer) -> None:
    server.names("10.0.0.1")
    server.ttl = 17
    assert ask(server).ttl_s == 17


def test_answers_change(server: DnsServer) -> None:
    server.names("10.0.0.1", "10.0.0.2")
    assert len(ask(server).addresses) == 2
    server.names("10.0.0.2")
    assert ask(server).addresses == ["10.0.0.2:7946"]


def test_five_hundred_hosts_are_all_named_though_a_datagram_would_bring_a_part(server: DnsServer) -> None:
    server.names(*[f"10.0.{number // 250}.{number % 250 + 1}" for number in range(500)])
    assert len(ask(server).addresses) == 500


def test_hosts_of_many_targets_are_asked_for_a_few_at_a_time_each_target_once(server: DnsServer) -> None:
    server.targets = {f"t{number}.test.": [f"10.0.0.{number}"] for number in range(1, 41)}
    server.names(*[f"0 0 {port} {name}" for name in server.targets for port in (7001, 7002)], kind="SRV")
    assert len(ask(server, "srv:cachee.test").addresses) == 80
    assert server.asked == 1 + 2 * 40
    assert 1 < server.most_at_once <= 2 * TARGETS_AT_ONCE


def test_more_addresses_than_a_mesh_may_have_are_no_answer(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "ADDRESSES_MAX", 3)
    server.names("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert len(ask(server).addresses) == 3
    server.names("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
    with pytest.raises(Unresolved, match="it names 4 addresses; at most 3 are taken"):
        ask(server)
    server.names("0 0 7001 one.test.", "0 0 7002 one.test.", kind="SRV")
    server.targets = {"one.test.": ["10.0.0.1", "10.0.0.2"]}
    with pytest.raises(Unresolved, match="it names 4 addresses"):
        ask(server, "srv:cachee.test")


def test_an_answer_that_comes_in_drops_is_not_waited_for(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "ASK_S", 0.5)
    server.targets = {f"t{number}.test.": [f"10.0.0.{number}"] for number in range(1, 41)}
    server.names(*[f"0 0 7001 {name}" for name in server.targets], kind="SRV")
    server.delay_s = 0.3
    with pytest.raises(Unresolved, match=r"it took more than 0\.5 s"):
        ask(server, "srv:cachee.test")


def test_a_name_without_records_names_nobody(server: DnsServer) -> None:
    assert ask(server) == Answer([], NONE_TTL_S)
    assert ask(server, "srv:cachee.test") == Answer([], NONE_TTL_S)


@pytest.mark.parametrize("discover", ["dns:other.test:7946", "srv:other.test"])
def test_a_name_that_does_not_exist_is_no_answer(server: DnsServer, discover: str) -> None:
    server.names("10.0.0.1")
    with pytest.raises(Unresolved, match="does not exist"):
        ask(server, discover)


@pytest.mark.parametrize("behaviour", ["fails", "denies", "sends garbage", "is silent"])
def test_a_server_that_does_not_answer_is_told_of_in_one_line(
    server: DnsServer, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "ASK_S", 0.3)
    server.names("10.0.0.1")
    server.behaviour = behaviour
    with pytest.raises(Unresolved) as told:
        ask(server)
    assert str(told.value)
    assert "\n" not in str(told.value)


def test_nobody_at_the_servers_address_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "ASK_S", 0.3)
    with pytest.raises(Unresolved):
        uvloop.run(Resolver("dns:cachee.test:7946", f"127.0.0.1:{free_ports(1)[0]}").ask())


def test_a_target_without_an_address_makes_no_host_disappear(server: DnsServer) -> None:
    server.names("0 0 7001 one.test.", "0 0 7002 two.test.", kind="SRV")
    server.targets = {"one.test.": ["10.0.0.1"], "two.test.": []}
    with pytest.raises(Unresolved, match=r"the target two\.test\. has no address"):
        ask(server, "srv:cachee.test")


@pytest.mark.needs("dnsmasq")
def test_dnsmasq_is_understood(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.1 cachee.test\n10.0.0.2 cachee.test\nfd00::7 cachee.test\n10.0.0.3 three.test\n")
    command = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--local=/test/"]
    command += [
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--conf-file=/dev/null",
        "--local-ttl=7",
    ]
    command += [f"--addn-hosts={hosts}", "--srv-host=_cachee._tcp.test,three.test,7003", "--pid-file="]
    with subprocess.Popen([*command, "--user="], stderr=sys.stderr) as dnsmasq:
        try:
            until(lambda: listens(port))
            one = Resolver("dns:cachee.test:7946", f"127.0.0.1:{port}")
            expected = ["10.0.0.1:7946", "10.0.0.2:7946", "[fd00::7]:7946"]
            assert uvloop.run(one.ask()) == Answer(expected, 7)
            other = Resolver("srv:_cachee._tcp.test", f"127.0.0.1:{port}")
            assert uvloop.run(other.ask()).addresses == ["10.0.0.3:7003"]
        finally:
            dnsmasq.terminate()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
