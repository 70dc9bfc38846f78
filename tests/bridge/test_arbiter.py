"""Two links to one name: which one stays."""

import pytest

from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import Hello, NamespaceState, State
from tests.bridge.meshes import Cable, FakeStore, Node, key, three, two
from tests.bridge.peers import linked_peer


@pytest.fixture
def cable() -> Cable:
    return Cable()


def test_between_two_hosts_one_link_stays_whoever_dialled_first(cable):
    nodes = three(cable)
    cable.run(5.0)
    assert len(cable.ends) == 2 * 3
    assert all(node.state_of(other.name) == "up" for node in nodes for other in nodes if node is not other)


def test_a_host_under_a_name_that_is_taken_is_refused_aloud(cable):
    a, b = two(cable)
    impostor = Node(cable, "b", {"shop": FakeStore()}, address="")
    cable.nodes["b-again"] = impostor
    impostor.mesh.set_peers(["a:1"], cable.now)
    cable.run(3.0)
    assert "two live hosts are named 'b'" in a.texts("error")
    assert "two live hosts" in impostor.texts("warning")
    assert impostor.isolated()
    assert a.state_of("b") == "up"
    b.write(key(5))
    assert a.store.payloads()[-1] == key(5)


def test_a_restarted_bridge_whose_old_link_nobody_closed_is_taken_back(cable):
    a, b = two(cable)
    cable.remove(b)
    b2 = cable.node("b", ("a", "b"), b.stores)
    cable.run(4.0)
    assert a.state_of("b") == "up"
    b2.write(key(5))
    assert a.store.payloads()[-1] == key(5)
    assert "two live hosts" not in a.texts()


def test_of_two_links_that_one_life_of_a_peer_dialled_the_first_is_closed_when_the_second_is_up():
    """Else its socket stays open, and counts as a link, until it has been silent for too long."""
    peer = linked_peer()
    mesh, now = peer.node.mesh, peer.cable.now
    mesh.link_opened(2, None, now, "10.0.0.9")
    mesh.received(2, encode(Hello("cachee", 2, "web-2", 5, bytes(32), "none", "", "")), now)
    mesh.received(2, encode(State((NamespaceState("shop", 4, 20, 7),))), now)
    peer.hear()
    assert peer.node.closed == ["replaced by another link"]
    assert list(mesh._links.by_number) == [2]
    assert peer.node.state_of("web-2") == "up"
