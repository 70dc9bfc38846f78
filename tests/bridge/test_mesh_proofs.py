"""Meshes whose hosts must prove who they are, and the budgets that limit a peer."""

import random

import pytest

from cachee_bridge.ports.effects import Send
from cachee_bridge.protocol.mesh import Mesh, Settings
from cachee_bridge.streams.buckets import EVICT_WORDS, read_piece
from cachee_bridge.wire.frames import NUMBERS, encode
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import Frame, Leave, Replay, Sync
from tests.bridge.meshes import Cable, FakeStore, key, two
from tests.stand_in.ring import Shape


@pytest.fixture
def cable() -> Cable:
    return Cable()


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
        b.mesh.set_peers(["a:1"], cable.now)
        b.write(key(1), namespace="news")
        cable.run(2.0)
        assert "b names namespace 'news', but its certificate allows shop" in a.texts("warning", "error")
        assert "b names namespace 'news'" in b.texts()
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
        assert "it calls itself 'c', and its certificate is for 'b'" in a.texts("debug")
        assert a.state_of("c") == "unknown"
        assert c.state_of("a") != "up"


class TestBudget:
    """Of 1 MiB a second; messages are small, so that it is the number that counts."""

    def flood(self, cable, number, message=None):
        """`b` says `number` messages at once; the two hosts."""
        a, b = two(cable, peer_budget=float(1 << 20))
        link = next(number for number, (other, _) in cable.ends.items() if other is a)
        there = cable.ends[link][1]
        a.mesh.received(there, encode(message or Sync()) * number, cable.now)
        cable.settle()
        return a, b, there

    def test_who_is_within_it_is_read_on(self, cable):
        a, _, _ = self.flood(cable, 500)
        assert a.paused == set()
        assert "peer_budget" not in a.texts()

    def test_who_is_over_it_is_not_read_for_a_while_and_that_is_said_once(self, cable):
        a, _, there = self.flood(cable, 3000)
        assert a.paused == {there}
        cable.run(5.0)
        assert a.paused == set()
        assert a.texts("warning").count("b is over its peer_budget (1 MiB a second)") == 1
        assert a.mesh.views.peers()[0].held >= 2

    def test_all_that_it_has_sent_is_looked_at_in_the_end(self, cable):
        a, b, _ = self.flood(cable, 3000)
        closed = len(a.closed)
        b.write(key(9))
        cable.run(5.0)
        assert a.store.payloads()[-1] == key(9)
        assert not a.isolated()
        assert len(a.closed) == closed

    def test_the_last_of_it_too_though_nothing_more_comes(self, cable):
        a, b, there = self.flood(cable, 3000)
        cable.deaf.add(("b", "a"))
        tail = b.store.tail
        frame = Frame("shop", "b", b.store.incarnation, tail + 1, tail + 1, key(9))
        a.mesh.received(there, encode(Sync()) * 3000 + encode(frame), cable.now)
        cable.settle()
        assert key(9) not in a.store.payloads()
        cable.run(8.0)
        assert key(9) in a.store.payloads()

    def test_what_it_asks_for_again_counts_as_its_own(self, cable):
        a, _ = two(cable, peer_budget=float(1 << 20))
        a.store.shape = Shape(ring_slots=1 << 20)
        a.write(*[key(number) for number in range(10_000)])
        link, (_, there) = next((ours, end) for ours, end in cable.ends.items() if end[0] is a)
        again = encode(Replay("shop", "a", a.store.incarnation, 1))
        sent = 0
        for _ in range(50):
            a.mesh.received(there, again * 10, cable.now)
            for _ in range(10):
                a.mesh.go_on(cable.now)
                sent += sum(len(effect.data) for effect in a.mesh.effects() if isinstance(effect, Send))
                a.mesh.writable((there,), cable.now)
        assert 1 << 19 < sent < 2 << 20  # the 500 requests are charged, too
        assert link in cable.ends

    def test_a_map_that_it_asks_for_again_counts_as_the_work_that_it_is(self, cable):
        a, _ = two(cable, peer_budget=float(1 << 20))
        a.write(*[key(number) for number in range(1000)])
        link, (_, there) = next((ours, end) for ours, end in cable.ends.items() if end[0] is a)
        again = encode(Replay("shop", "a", a.store.incarnation, 1))
        sent = 0
        for _ in range(50):
            a.mesh.received(there, again, cable.now)
            sent += sum(isinstance(effect, Send) for effect in a.mesh.effects())
            a.mesh.writable((there,), cable.now)
        assert 2 <= sent < 10
        assert link in cable.ends

    def test_the_index_that_its_maps_make_this_host_read_counts_too(self, cable):
        a, b = two(cable, peer_budget=float(1 << 20))
        a.store.words = 20 * EVICT_WORDS
        frame = Frame("shop", "b", b.store.incarnation, 1, b.store.tail + 1000, read_piece(b.store, 0, 1))
        _, there = next(end for end in cable.ends.values() if end[0] is a)
        a.mesh.received(there, encode(frame), cable.now)
        cable.settle()
        assert a.store.cursor_of("b") == frame.last
        a.mesh.received(there, encode(Sync()), cable.now)
        cable.settle()
        assert a.paused == {there}

    def test_the_fences_that_its_maps_may_raise_count_too(self, cable):
        a, b = two(cable, peer_budget=float(1 << 20))
        frame = Frame("shop", "b", b.store.incarnation, 1, b.store.tail + 1000, read_piece(b.store, 0, 1))
        a.store.map = bytes(1 << 20)
        _, there = next(end for end in cable.ends.values() if end[0] is a)
        a.mesh.received(there, encode(Sync()), cable.now)  # nothing refills from now on
        a.mesh.received(there, encode(frame), cable.now)
        cable.settle()
        a.mesh.received(there, encode(Sync()), cable.now)
        cable.settle()
        assert a.paused == {there}

    def test_others_are_heard_meanwhile(self, cable):
        a, _, _ = self.flood(cable, 3000)
        c = cable.node("c", ("a",))
        cable.run(0.3)
        c.write(key(5))
        assert a.store.payloads()[-1] == key(5)
