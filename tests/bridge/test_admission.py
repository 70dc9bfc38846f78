"""A peer has proven its name: another host, this host itself, or a second one of its name."""

import pytest

from tests.bridge.meshes import Cable, FakeStore, Node, two


@pytest.fixture
def cable() -> Cable:
    return Cable()


def test_a_host_that_finds_its_own_name_at_another_says_so(cable):
    a, _ = two(cable)
    twin = Node(cable, "a", {"shop": FakeStore()}, address="")
    cable.nodes["twin"] = twin
    twin.mesh.set_peers(["a:1"], cable.now)
    cable.run(0.5)
    assert "another host is named 'a' too" in twin.texts()
    assert a.state_of("b") == "up"
