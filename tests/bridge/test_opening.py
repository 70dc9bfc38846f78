"""The beginning of a link: how much a stranger can make this host store, and what a HELLO contains."""

import pytest

from cachee_bridge.ports.effects import Close, Send
from cachee_bridge.protocol.link_ends import HANDSHAKE_S
from cachee_bridge.protocol.opening import HANDSHAKES_MAX
from cachee_bridge.wire.frames import Decoder
from cachee_shm.errors import AuthError
from tests.bridge.meshes import SECRET, Cable, two


@pytest.fixture
def cable() -> Cable:
    return Cable()


def test_from_many_who_prove_nothing_are_bounded(cable):
    a = cable.node("a")
    for link in range(1000, 1000 + 2 * HANDSHAKES_MAX):
        a.mesh.link_opened(link, None, cable.now, "10.0.0.9")
    cable.settle()
    assert len(a.closed) == HANDSHAKES_MAX
    cable.run(HANDSHAKE_S + 0.2)
    assert len(a.closed) == 2 * HANDSHAKES_MAX


def test_a_hello_says_where_this_host_can_be_dialled(cable):
    a = cable.node("a", address=":7946")
    a.mesh.link_opened(7, None, cable.now, "10.0.0.9")
    (sent,) = [effect for effect in a.mesh.effects() if isinstance(effect, Send)]
    (hello,) = Decoder(4096).feed(sent.data)
    assert hello.address == ":7946"


def test_of_strangers_the_oldest_gives_way_to_who_proves_himself(cable):
    a = cable.node("a", secrets=(SECRET,))
    for link in range(1000, 1001 + HANDSHAKES_MAX):
        a.mesh.link_opened(link, None, cable.now, "10.0.0.9")
    assert [effect.link for effect in a.mesh.effects() if isinstance(effect, Close)] == [1000]
    cable.node("b", ("a",), secrets=(SECRET,))
    cable.run(0.5)
    assert a.state_of("b") == "up"


def test_a_changed_secret_holds_for_links_that_begin_from_then_on(cable):
    a, b = two(cable, secrets=(SECRET,))
    closed = len(a.closed), len(b.closed)
    for node in (a, b):
        node.mesh.renew((b"another secret of 16 bytes",))
    cable.run(1.0)
    assert a.state_of("b") == "up"
    assert (len(a.closed), len(b.closed)) == closed
    cable.break_link(a, b)
    cable.run(1.0)
    assert a.state_of("b") == "up"
    c = cable.node("c", ("a",), secrets=(SECRET,))
    cable.run(1.0)
    assert c.state_of("a") != "up"


def test_a_secret_that_protects_nothing_is_not_taken(cable):
    a, _ = two(cable, secrets=(SECRET,))
    with pytest.raises(AuthError):
        a.mesh.renew((b"short",))
