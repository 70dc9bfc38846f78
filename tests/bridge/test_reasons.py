"""Every reason for isolation has an end, and a test that shows it: the table of bridge/README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from cachee_bridge.daemon.snapshot import snapshot
from cachee_bridge.ports.reasons import ENDS, Reason
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import PAYLOAD_ALL
from cachee_shm.health import BridgeState
from tests.bridge.meshes import Cable, FakeStore, key

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "bridge"
HEADING = "## Why a host is isolated, and what ends that"
OF_HEALTH = {*get_args(BridgeState), "segment"} - {"none", "up"}


def table() -> dict[str, list[str]]:
    """By reason, the other cells of its row."""
    text = (BRIDGE / "README.md").read_text().split(HEADING)[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if "|" in line
    ]
    return {row[0].strip("| "): row[1:] for row in rows[2:]}


def test_each_reason_that_the_code_can_give_has_a_row_and_no_row_is_of_another():
    assert set(table()) == {reason.value for reason in Reason} | OF_HEALTH


@pytest.mark.parametrize("reason", sorted(table()))
def test_each_row_says_what_ends_it_and_names_a_test_that_is_there(reason):
    what, end, shown_by = table()[reason]
    assert what and end
    path, name = re.fullmatch(r"`(tests/[\w/]+\.py)::(\w+)`", shown_by.rstrip(" |")).groups()
    assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_given_somewhere_and_says_its_end(reason):
    given = [path for path in (BRIDGE / "cachee_bridge").rglob("*.py") if path.name != "reasons.py"]
    assert any(f"Reason.{reason.name}" in path.read_text() for path in given)
    assert "{" not in ENDS[reason].format(who="web-1")


def test_each_place_that_holds_serve_until_back_is_known():
    """Who adds one gives it a reason, then counts it here."""
    horizon = (BRIDGE / "cachee_bridge" / "sources" / "horizon.py").read_text()
    heard = horizon.split("def _heard(")[1].split("\n    def ")[0]
    assert re.findall(r"\bif (.*):", heard) == ["hindered or self._refused.keys() - self._removal.names"]
    assert re.findall(r"return (.*)", heard) == ['float("-inf")', "fresh + self._lost_after_s"]
    extended = horizon.split("def extended(")[1].split("\n    def ")[0]
    assert "if heard <= self.until or self._removal.under_way:" in extended


@pytest.fixture
def cable() -> Cable:
    return Cable()


def why(cable, node, namespace="shop"):
    """(reason, who, end) of all that `cachee peers` tells."""
    rows = snapshot(node.name, node.mesh, cable.now)["namespaces"]
    (row,) = [row for row in rows if row["namespace"] == namespace]
    return [(each["reason"], each["who"], each["end"]) for each in row["why"]]


def reasons(cable, node, namespace="shop"):
    return [(reason, who) for reason, who, _ in why(cable, node, namespace)]


def test_what_is_well_has_no_reason(cable):
    nodes = [cable.node(name, ("a", "b")) for name in "ab"]
    cable.run(2.0)
    assert [why(cable, node) for node in nodes] == [[], []]


def test_a_reason_is_given_for_each_peer_and_address_with_what_ends_it(cable):
    a, b = (cable.node(name, ("a", "b", "c")) for name in "ab")
    cable.run(2.0)
    assert reasons(cable, a) == [("unanswered", "c:1")]
    cable.remove(b)
    cable.break_link(a, b)
    cable.run(3.0)
    assert reasons(cable, a) == [("unanswered", "c:1"), ("silent", "b")]
    ends = [end for _, _, end in why(cable, a)]
    assert "cachee peers forget c:1" in ends[0]
    assert "cachee peers forget b" in ends[1]
    a.mesh.forget("c:1", cable.now)
    a.mesh.forget("b", cable.now)
    cable.run(1.0)
    assert [reason for reason, _ in reasons(cable, a)] == ["removal"]
    cable.run(12.0)
    assert reasons(cable, a) == []
    assert not a.isolated()


def test_discovery_that_has_not_answered_is_a_reason(cable):
    cable.dns = None
    a = cable.node("a", discovers=True)
    cable.run(1.0)
    assert reasons(cable, a) == [("discovery", "dns:mesh:1")]


def test_a_linked_peer_that_is_behind_is_a_reason_until_its_ring_is_healed(cable):
    a, b = (cable.node(name, ("a", "b")) for name in "ab")
    cable.run(2.0)
    cable.deaf = {("b", "a")}
    b.store.pack = lambda *arguments: (arguments[0], b"")
    b.store.announce(key(1))
    cable.deaf.clear()
    for _ in range(60):
        cable.run(0.05)
        b.store.pump_cursor = 0
    assert reasons(cable, a) == [("behind", "b")]
    assert reasons(cable, b)[0] == ("own pump", "")
    del b.store.pack
    b.store.pump_cursor = b.store.tail
    b.mesh.ring_moved("shop", cable.now)
    cable.run(1.0)
    assert reasons(cable, a) == reasons(cable, b) == []


def test_another_hash_key_ends_with_one_key_or_with_a_farewell(cable):
    a = cable.node("a", ("a", "b"))
    other = FakeStore()
    other.hash_key_fingerprint = 8
    b = cable.node("b", ("a", "b"), {"shop": other})
    cable.run(3.0)
    assert reasons(cable, a) == [("hash key", "b")]
    b.mesh.leave(cable.now)
    cable.settle()
    cable.run(1.0)
    assert not a.isolated()
    b.mesh.stop(cable.now)
    cable.settle()
    cable.remove(b)
    b = cable.node("b", ("a", "b"), {"shop": other})
    cable.run(3.0)
    assert reasons(cable, a) == [("hash key", "b")]
    cable.remove(b)
    cable.break_link(a, b)
    b = cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=2)})
    cable.run(3.0)
    assert not (a.isolated() or b.isolated())


def test_a_surplus_ends_when_the_peer_has_fewer_namespaces(cable, monkeypatch):
    monkeypatch.setattr("cachee_bridge.protocol.meeting.NAMESPACES_MAX", 2)
    names = ["n1", "n2", "shop"]
    a, b = (cable.node(name, ("a", "b"), {each: FakeStore() for each in names}) for name in "ab")
    cable.run(3.0)
    assert reasons(cable, a) == [("surplus", "b")]
    cable.remove(b)
    cable.break_link(a, b)
    cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=2)})
    cable.run(5.0)
    assert not any(a.isolated(each) for each in names)


def test_a_certificate_that_allows_the_namespace_again_ends_it(cable):
    cable.identities.update({name: Identity({name: None}) for name in "ab"})
    a, b = (cable.node(name, ("a", "b")) for name in "ab")
    cable.run(2.0)
    cable.remove(b)
    cable.break_link(a, b)
    cable.identities["b"] = Identity({"b": frozenset({"news"})})
    b = cable.node("b", ("a", "b"), namespaces=frozenset({"news"}))
    cable.run(3.0)
    assert reasons(cable, a) == [("certificate", "b")]
    assert reasons(cable, b) == [("own certificate", "(this host's own certificate does not allow it)")]
    cable.remove(b)
    cable.break_link(a, b)
    cable.identities["b"] = Identity({"b": None})
    cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=2)})
    cable.run(5.0)
    assert not a.isolated()


def test_an_own_certificate_that_allows_the_namespace_ends_it(cable):
    a = cable.node("a", namespaces=frozenset({"news"}))
    cable.run(3.0)
    assert a.isolated()
    cable.remove(a)
    a = cable.node("a", stores=a.stores, namespaces=frozenset({"shop"}))
    cable.run(3.0)
    assert not a.isolated()


@pytest.mark.parametrize("newest", [2, 3])
def test_a_segment_that_its_bridge_cannot_open_isolates_until_it_can(cable, newest):
    """As after a restart of that bridge: a worker goes on writing, and nothing of it can be announced."""
    a, b = (cable.node(name, ("a", "b"), newest_wire=newest) for name in "ab")
    cable.run(2.0)
    cable.remove(b)
    cable.break_link(a, b)
    kept, b = b.store, cable.node("b", ("a", "b"), {}, newest_wire=newest)
    b.mesh.tell_unserved(frozenset({"shop"}))
    cable.run(3.0)
    assert reasons(cable, a) == [("unserved", "b")]
    assert "log" in why(cable, a)[0][2]
    kept.write(key(5))
    b.stores["shop"] = kept
    b.mesh.add_namespace("shop", kept, cable.now)
    b.mesh.tell_unserved(frozenset())
    cable.settle()
    cable.run(2.0)
    assert not a.isolated() and not b.isolated()
    assert a.store.cursor_of("b") == kept.tail
    assert key(5) in a.store.payloads()


def test_an_unserved_segment_that_is_removed_isolates_no_longer_and_all_of_it_is_evicted(cable):
    a, b = cable.node("a", ("a", "b")), cable.node("b", ("a", "b"), {"news": FakeStore()})
    cable.run(2.0)
    assert not a.isolated()
    b.mesh.tell_unserved(frozenset({"shop"}))
    cable.settle()
    cable.run(3.0)
    assert reasons(cable, a) == [("unserved", "b")]
    before = len(a.store.payloads())
    b.mesh.tell_unserved(frozenset())
    cable.settle()
    cable.run(1.0)
    assert not a.isolated()
    assert a.store.payloads()[before:] == [PAYLOAD_ALL]


def test_an_unserved_segment_isolates_no_longer_when_the_peer_leaves(cable):
    a, b = cable.node("a", ("a", "b")), cable.node("b", ("a", "b"), {"news": FakeStore()})
    b.mesh.tell_unserved(frozenset({"shop"}))
    cable.run(3.0)
    assert reasons(cable, a) == [("unserved", "b")]
    b.mesh.leave(cable.now)
    cable.settle()
    cable.run(1.0)
    assert not a.isolated()
