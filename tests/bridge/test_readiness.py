"""Which hosts have been met."""

import pytest

from tests.bridge.meshes import Cable, two


@pytest.fixture
def cable() -> Cable:
    return Cable()


def test_a_host_that_came_once_and_has_no_address_here_is_forgotten_in_the_end(cable, monkeypatch):
    monkeypatch.setattr("cachee_bridge.protocol.readiness.ADDRESSES_MAX", 5)
    a, _ = two(cable)
    for number in range(20):
        guest = cable.node(f"guest-{number}", ("a",), address="")
        cable.run(0.3)
        cable.break_link(guest, a)
        cable.remove(guest)
    assert len(a.mesh._readiness._met) <= 6
    assert {"b"} < a.mesh._readiness._met
    assert a.state_of("b") == "up"
