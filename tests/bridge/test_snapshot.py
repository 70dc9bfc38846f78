"""The snapshot: what a bridge reports about itself and its peers."""

import json

import pytest

from cachee_bridge.daemon.snapshot import refused, snapshot
from cachee_bridge.wire.frames import VERSION
from tests.bridge.meshes import Cable, Node, key


@pytest.fixture
def cable() -> Cable:
    return Cable()


def told(cable: Cable, node: Node) -> dict:
    found = snapshot(node.name, node.mesh, cable.now)
    return json.loads(json.dumps(found, allow_nan=False))


def peer(found: dict, name: str) -> dict:
    return next(each for each in found["peers"] if each["name"] == name)


def pair(cable: Cable) -> list[Node]:
    nodes = [cable.node(name, ("a", "b")) for name in ("a", "b")]
    cable.run(2.0)
    return nodes


def lose(cable: Cable, one: Node, other: Node) -> None:
    cable.remove(other)
    cable.break_link(one, other)


def test_it_shows_for_each_linked_peer_where_it_is_since_when_and_how_far_behind(cable):
    a, _ = pair(cable)
    a.write(key(1))
    cable.run(1.0)
    b = peer(told(cable, a), "b")
    assert (b["address"], b["state"], b["isolates"]) == ("b:1", "up", [])
    assert 1.0 < b["for_s"] < 3.0
    stream = b["namespaces"]["shop"]
    assert (stream["lag"], stream["behind"]) == (0, 0)
    assert stream["fresh_ago_s"] < 0.3


def test_a_host_alone_is_ready_and_not_isolated(cable):
    a = cable.node("a")
    cable.run(1.0)
    found = told(cable, a)
    assert (found["host"], found["ready"], found["unmet"], found["discovery"]) == ("a", True, [], None)
    (shop,) = found["namespaces"]
    assert (shop["namespace"], shop["isolated"], shop["isolated_for_s"]) == ("shop", False, None)


def test_it_shows_what_discovery_has_answered_and_when(cable):
    cable.dns = ["a", "b"]
    a = cable.node("a", discovers=True)
    cable.run(1.0)
    found = told(cable, a)["discovery"]
    assert (found["what"], found["named"], found["failure"]) == ("dns:mesh:1", 2, "")
    assert 0 <= found["answered_ago_s"] <= 1.0


def test_it_shows_since_when_a_peer_is_lost_and_that_it_isolates(cable):
    a, b = pair(cable)
    lose(cable, a, b)
    a.write(key(1))
    cable.run(5.0)
    found = told(cable, a)
    assert peer(found, "b")["state"] == "down"
    assert 4.5 < peer(found, "b")["for_s"] < 5.5
    assert peer(found, "b")["isolates"] == ["shop"]
    assert peer(found, "b")["namespaces"]["shop"]["lag"] > 0
    (shop,) = found["namespaces"]
    assert (shop["isolated"], shop["silent"]) == (True, ["b"])
    assert 2.5 < shop["isolated_for_s"] < 3.5


def test_it_shows_the_relay_of_a_peer_that_is_no_longer_linked(cable):
    names = ("a", "b", "c", "d", "e", "f")
    a, *_ = (cable.node(name, names, fanout=2) for name in names)
    cable.run(20.0)
    peers = {each["name"]: each for each in told(cable, a)["peers"] if each["name"] in names[1:]}
    assert {(each["state"], each["through"] != "") for each in peers.values()} == {
        ("up", False),
        ("relayed", True),
    }
    assert all(peers[each["through"]]["state"] == "up" for each in peers.values() if each["through"])


def test_it_shows_which_hosts_are_being_forgotten_and_for_how_long_yet(cable):
    a, b = pair(cable)
    lose(cable, a, b)
    cable.run(5.0)
    a.mesh.forget("b", cable.now)
    cable.run(1.0)
    found = told(cable, a)
    (shop,) = found["namespaces"]
    assert (shop["removing"], peer(found, "b")["removed_from"]) == (["b"], ["shop"])
    assert 8.5 < shop["removed_in_s"] < 9.5
    cable.run(10.0)
    found = told(cable, a)
    (shop,) = found["namespaces"]
    assert (shop["removing"], shop["removed_in_s"], shop["isolated"]) == ([], None, False)


def test_it_is_not_ready_before_everybody_known_was_met_and_stays_ready_when_they_die(cable):
    a = cable.node("a", ("a", "b"))
    cable.run(1.0)
    assert (told(cable, a)["ready"], told(cable, a)["unmet"]) == (False, ["b:1"])
    b = cable.node("b", ("a", "b"))
    cable.run(3.0)
    assert told(cable, a)["ready"]
    lose(cable, a, b)
    cable.run(5.0)
    assert told(cable, a)["ready"]


def test_a_host_that_is_only_known_from_peers_must_be_met_too_if_it_answers_at_once(cable):
    b = cable.node("b")
    cable.run(1.0)
    cable.cut.add(frozenset("ac"))
    cable.node("c", ("b",))
    cable.run(2.0)
    a = cable.node("a", ("b",))
    seen = []
    for _ in range(60):
        cable.run(0.05)
        seen.append(told(cable, a)["unmet"])
    assert told(cable, b)["ready"]
    assert ["c:1"] in seen
    assert seen[-1] == []


def test_it_is_not_ready_before_discovery_has_answered(cable):
    cable.dns = None
    a = cable.node("a", discovers=True)
    cable.run(1.0)
    found = told(cable, a)
    assert (found["ready"], found["unmet"]) == (False, ["dns:mesh:1"])
    assert (found["discovery"]["answered_ago_s"], found["discovery"]["failure"]) == (
        None,
        "no server answers",
    )
    cable.dns = ["a"]
    cable.run(30.0)
    found = told(cable, a)
    assert (found["ready"], found["discovery"]["named"], found["discovery"]["failure"]) == (True, 1, "")


def test_it_shows_why_a_host_is_not_linked_and_which_wire_a_link_speaks(cable):
    a, b = pair(cable)
    assert (peer(told(cable, a), "b")["failure"], peer(told(cable, a), "b")["wire"]) == ("", VERSION)
    lose(cable, a, b)
    a.mesh.connect_failed("b:1", "nobody listens there", cable.now)
    assert (peer(told(cable, a), "b")["failure"], peer(told(cable, a), "b")["wire"]) == (
        "nobody listens there",
        0,
    )


def test_peers_that_go_beyond_what_they_may_are_named_with_the_reason(cable):
    a, _ = pair(cable)
    assert a.mesh.views.refusals() == []
    (link,) = a.mesh._links.up.values()
    a.mesh.received(link.number, b"\x00\x00\x00\x05no no", cable.now)
    (row,) = refused(a.mesh.views.refusals(), cable.now + 1)
    assert row["who"].startswith("b (")
    assert (row["times"], row["ago_s"]) == (1, 1.0)
    assert "link is closed" in row["reason"]
