"""How many connections are accepted, in all and from one address."""

from __future__ import annotations

import pytest

from cachee_bridge.carriers import gate as gate_module
from cachee_bridge.carriers.gate import (
    ACCEPTS_BURST,
    ACCEPTS_PER_S,
    ADDRESS_PER_S,
    ADDRESSES_MAX,
    HEARD_BURST,
    HEARD_PER_S,
    Gate,
    network_of,
)


def heard(gate: Gate, host: str, times: int, now: float) -> int:
    return sum(not gate.hears(host, now) for _ in range(times))


def test_connections_are_taken_at_a_rate_after_a_burst() -> None:
    gate = Gate(0.0)
    assert sum(not gate.accepts_in_s(0.0) for _ in range(2 * ACCEPTS_BURST)) == ACCEPTS_BURST
    wait_s = gate.accepts_in_s(0.0)
    assert wait_s == pytest.approx(1 / ACCEPTS_PER_S)
    assert gate.accepts_in_s(1.01 * wait_s) == 0.0
    assert gate.accepts_in_s(1.01 * wait_s) > 0


def test_one_address_that_proves_nothing_is_heard_at_a_rate_of_its_own() -> None:
    gate = Gate(0.0)
    assert heard(gate, "10.0.0.9", 2 * HEARD_BURST, 0.0) == HEARD_BURST
    assert heard(gate, "10.0.0.9", 1000, 1.0) == ADDRESS_PER_S
    assert heard(gate, "10.0.0.8", 1, 1.0) == 1
    assert "one address" in gate.hears("10.0.0.9", 1.0)


def test_many_addresses_that_prove_nothing_are_heard_at_a_rate() -> None:
    gate = Gate(0.0)
    hosts = [f"10.0.{n // 256}.{n % 256}" for n in range(4 * HEARD_BURST)]
    assert sum(heard(gate, host, 1, 0.0) for host in hosts) == HEARD_BURST
    assert sum(heard(gate, host, 1, 1.0) for host in hosts) == HEARD_PER_S
    assert len(gate._addresses) <= ADDRESSES_MAX


def test_a_peer_that_proves_itself_gives_back_its_turn() -> None:
    gate = Gate(0.0)
    for _ in range(HEARD_BURST):
        assert not gate.hears("10.0.0.9", 0.0)
        gate.proven("10.0.0.9", 0.0)
    assert heard(gate, "10.0.0.9", 2 * HEARD_BURST, 0.0) == HEARD_BURST


def test_a_peer_that_connects_without_end_is_heard_at_a_rate_as_well() -> None:
    gate = Gate(0.0)
    times = 0
    while not gate.hears("10.0.0.9", 0.0):
        gate.proven("10.0.0.9", 0.0)
        times += 1
    assert times == 2 * HEARD_BURST


def test_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "ADDRESSES_MAX", 3)
    gate = Gate(0.0)
    for number in range(20):
        gate.hears(f"10.0.0.{number}", 0.0)
        gate.hears("10.0.0.0", 0.0)
    assert len(gate._addresses) == 3
    assert "10.0.0.0" in gate._addresses


def test_all_addresses_of_a_network_of_ipv6_count_as_one() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
