"""Meshes whose hosts have to prove something, and how much of each other they bear."""

import random

import pytest

from cachee_bridge.effects import Close
from cachee_bridge.frames import NUMBERS, Leave
from cachee_bridge.identity import Identity
from cachee_bridge.mesh import HANDSHAKES_MAX, Mesh, Settings
from cachee_shm.errors import AuthError
from tests.bridge.meshes import SECRET, Cable, FakeStore, key
from tests.bridge.test_mesh import two


@pytest.fixture
def cable() -> Cable:
    return Cable()


class TestLinksThatDoNotComeUp:
    def test_are_told_once_for_each_reason(self, cable):
        a = cable.node("a", ("b",))
        told = ["b:1 cannot be reached: refused; it is dialled again"]
        cable.run(3.0)
        assert [log.text for log in a.said if "dialled again" in log.text] == told
        for reason in ("no TLS there", "no TLS there", "another CA", "another CA"):
            a.mesh.connect_failed("b:1", reason, cable.now)
        cable.settle()
        assert [log.text.split(": ")[1] for log in a.said if "dialled again" in log.text] == [
            "refused; it is dialled again",
            "no TLS there; it is dialled again",
            "another CA; it is dialled again",
        ]

    def test_and_end_without_a_word_are_told_with_the_reason(self, cable):
        a = cable.node("a", ("b",))
        a.mesh.link_opened(7, "b:1", cable.now, "10.0.0.2")
        a.mesh.link_closed(7, "the other end refuses this host's TLS: unknown ca", cable.now)
        cable.settle()
        assert "b:1 ended the link before it was up: the other end refuses" in a.texts("warning")

    def test_of_strangers_the_oldest_gives_way_to_who_proves_himself(self, cable):
        a = cable.node("a", secrets=(SECRET,))
        for link in range(1000, 1001 + HANDSHAKES_MAX):
            a.mesh.link_opened(link, None, cable.now, "10.0.0.9")
        assert [effect.link for effect in a.mesh.effects() if isinstance(effect, Close)] == [1000]
        cable.node("b", ("a",), secrets=(SECRET,))
        cable.run(0.5)
        assert a.state_of("b") == "up"


def certified(cable, name, certificate, stores=("shop", "news"), **settings):
    """A host that shows `certificate` (host -> namespaces) at every link."""
    cable.identities[name] = Identity(certificate)
    made = {namespace: FakeStore() for namespace in stores}
    return cable.node(name, ("a", "b"), made, namespaces=certificate.get(name), **settings)


SHOP = frozenset({"shop"})
LEAVE = NUMBERS[Leave]


class TestCertificates:
    def test_a_peer_is_told_of_no_namespace_but_its_own(self, cable):
        a = certified(cable, "a", {"a": None})
        b = certified(cable, "b", {"b": SHOP}, ("shop",))
        cable.run(1.0)
        a.write(key(1), namespace="shop")
        a.write(key(2), namespace="news")
        cable.run(1.0)
        assert b.stores["shop"].payloads()[-1] == key(1)
        assert b"news" not in b"".join(cable.carried["a", "b"])
        assert not a.isolated("news")

    def test_a_peer_that_speaks_of_another_is_closed_and_nothing_of_it_applied(self, cable):
        a = certified(cable, "a", {"a": None})
        b = certified(cable, "b", {"b": SHOP})
        b.mesh = Mesh("b", b.stores, Settings(address="b:1"), random.Random(5))  # it heeds no certificate
        b.mesh.start(cable.now)
        b.mesh.add_peers(["a:1"], cable.now)
        b.write(key(1), namespace="news")
        cable.run(2.0)
        assert "b speaks of namespace 'news', and its certificate allows shop" in a.texts("warning", "error")
        assert "b speaks of namespace 'news'" in b.texts()
        assert a.stores["news"].applied == a.stores["shop"].applied == []
        assert not [data for data in cable.carried["a", "b"] if data[4] != LEAVE and b"news" in data]
        assert a.state_of("b") != "up"

    def test_a_namespace_that_a_hosts_own_does_not_allow_stays_isolated_there_and_is_said(self, cable):
        a = certified(cable, "a", {"a": None})
        b = certified(cable, "b", {"b": SHOP})
        cable.run(1.0)
        assert (a.isolated("shop"), a.isolated("news")) == (False, False)
        assert (b.isolated("shop"), b.isolated("news")) == (False, True)
        assert "namespace news is not in this host's own certificate" in b.texts("warning")
        assert b"news" not in b"".join(cable.carried["b", "a"])

    def test_a_host_cannot_take_the_name_of_another(self, cable):
        a = certified(cable, "a", {"a": None})
        c = certified(cable, "c", {"b": None})
        cable.run(1.0)
        assert "it calls itself 'c', and its certificate is for 'b'" in a.texts("warning")
        assert a.state_of("c") == "unknown"
        assert c.state_of("a") != "up"

    def test_a_changed_secret_holds_for_links_that_begin_from_then_on(self, cable):
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

    def test_a_secret_that_protects_nothing_is_not_taken(self, cable):
        a, _ = two(cable, secrets=(SECRET,))
        with pytest.raises(AuthError):
            a.mesh.renew((b"short",))
