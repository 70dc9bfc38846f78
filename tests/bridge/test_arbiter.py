"""Two links to one name: which one stays."""

import pytest

from tests.bridge.meshes import Cable, FakeStore, Node, key, three, two


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
