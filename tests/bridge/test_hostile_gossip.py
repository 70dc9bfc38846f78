"""A peer that makes up hosts and addresses: it costs dials, and nobody's readiness or trust in newcomers."""

from __future__ import annotations

import pytest

from cachee_bridge.membership.dials import TOLD_DIALS_MAX
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import PeerAddress, Peers
from tests.bridge.meshes import Cable, FakeStore, Node


@pytest.fixture
def cable() -> Cable:
    return Cable()


def tell(cable: Cable, node: Node, liar: Node, *rows: PeerAddress) -> None:
    """As if the liar had said so on its link to the node."""
    there = next(back for other, back in cable.ends.values() if other is node)
    for number, (other, back) in cable.ends.items():
        if other is node and cable.ends[back][0] is liar and number in liar.mesh._links.by_number:
            there = back
    node.mesh.received(there, encode(Peers(rows)), cable.now)
    cable.settle()


def two(cable: Cable) -> tuple[Node, Node]:
    stores = [{"shop": FakeStore(), "news": FakeStore()} for _ in "ab"]
    a, liar = cable.node("a", ("b",), stores[0]), cable.node("b", ("a",), stores[1])
    cable.run(1.0)
    assert a.state_of("b") == "up"
    return a, liar


def first_contact(node: Node, name: str, namespace: str) -> str:
    """What the node said as it met the namespace."""
    (said,) = [
        log.text for log in node.said if log.text.startswith(f"{name}, namespace {namespace}, incarnation")
    ]
    return said


def made_up(number: int) -> PeerAddress:
    return PeerAddress(f"made-up-{number}", f"10.9.9.{number}:1")


def test_an_endless_number_of_made_up_hosts_does_not_keep_a_host_from_being_ready(cable: Cable) -> None:
    a, liar = two(cable)
    a.mesh._readiness._was_ready = False
    for number in range(200):
        tell(cable, a, liar, made_up(number))
        cable.run(0.1)
        if not a.mesh.views.unmet():
            break
    assert a.mesh.views.unmet() == []
    assert number < 150


def test_made_up_hosts_do_not_make_a_newcomer_suspect(cable: Cable) -> None:
    a, liar = two(cable)
    tell(cable, a, liar, *map(made_up, range(100)))
    cable.run(5.0)
    cable.node("c", ("a", "b"), {"shop": FakeStore(), "news": FakeStore()})
    cable.run(2.0)
    assert a.state_of("c") == "up"
    for namespace in a.stores:
        assert "followed from its first record" in first_contact(a, "c", namespace)
    assert not a.isolated("shop")


def test_a_host_that_was_named_long_before_it_could_be_reached_may_have_had_a_former_incarnation(
    cable: Cable,
) -> None:
    a, liar = two(cable)
    cable.cut.add(frozenset("ac"))
    tell(cable, a, liar, PeerAddress("c", "c:1"))
    cable.run(5.0)
    cable.cut.clear()
    c = cable.node("c", (), {"shop": FakeStore(incarnation=5)})
    c.store.write(b"")
    tell(cable, a, liar, PeerAddress("c", "c:1"))
    cable.run(2.0)
    assert a.state_of("c") == "up"
    assert "evicted all" in first_contact(a, "c", "shop")


def test_made_up_addresses_are_dialled_at_a_bounded_rate(cable: Cable) -> None:
    a, liar = two(cable)
    before = len(a.dialled)
    for at in range(0, 2000, 500):
        tell(cable, a, liar, *(PeerAddress(f"m-{n}", f"10.9.9.9:{n + 1}") for n in range(at, at + 500)))
    cable.run(2.0)  # 40 ticks
    assert len(a.dialled) - before <= 41 * TOLD_DIALS_MAX
