"""Leaving for good: this host's farewell, and a peer's."""

import pytest

from cachee_bridge.wire.messages import (
    Cursor,
    FinalHead,
    Leave,
    Sync,
)
from tests.bridge.meshes import Cable, FakeStore, key, three
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


@pytest.fixture
def cable() -> Cable:
    return Cable()


def test_a_farewell_is_acknowledged_at_once_and_counts_when_all_is_applied(peer):
    (beat,) = peer.say(Leave("leaves", (FinalHead("shop", 4, 22),)))
    assert beat.cursors == (Cursor("shop", "web-2", 4, 20, "web-1"),)
    assert peer.cursor == 20
    peer.frame(21, 22, key(1))
    assert peer.cursor is None
    (beat,) = peer.say(Sync())
    assert beat.cursors == (Cursor("shop", "web-2", 4, 22, "web-1"),)


def test_a_host_that_writes_after_its_farewell_counts_again(peer):
    peer.say(Leave("leaves", (FinalHead("shop", 4, 20),)))
    assert peer.cursor is None
    peer.frame(21, 21, key(1))
    assert peer.cursor == 21
    assert peer.store.payloads()[-1] == key(1)


def test_beats_after_a_farewell_do_not_bring_it_back(peer):
    peer.say(Leave("leaves", (FinalHead("shop", 4, 20),)))
    peer.beat(20)
    assert peer.cursor is None


class TestLeaving:
    def leave(self, cable, node):
        node.mesh.leave(cable.now)
        cable.settle()

    def test_is_done_when_every_linked_peer_has_applied_all(self, cable):
        a, _, c = three(cable)
        cable.deaf.add(("a", "c"))
        a.write(key(1))
        self.leave(cable, a)
        assert not a.mesh.left()
        cable.deaf.clear()
        cable.run(1.0)
        assert a.mesh.left()
        assert key(1) in c.store.payloads()

    def test_isolates_nobody_and_is_not_dialled_for_long(self, cable):
        a, b, c = three(cable)
        self.leave(cable, a)
        a.mesh.stop(cable.now)
        cable.settle()
        cable.remove(a)
        cable.run(10.0)
        assert not b.isolated()
        assert not c.isolated()
        assert b.store.cursor_of("a") is None

    def test_without_a_farewell_isolates(self, cable):
        a, b, _ = three(cable)
        a.mesh.stop(cable.now)
        cable.settle()
        cable.remove(a)
        cable.run(3.0)
        assert b.isolated()

    def test_and_coming_back_misses_nothing_and_empties_nothing(self, cable):
        a, b, _ = three(cable)
        self.leave(cable, a)
        a.mesh.stop(cable.now)
        cable.settle()
        cable.remove(a)
        cable.run(1.0)
        b.store.applied.clear()
        a.store.write(key(9))
        cable.node("a", ("a", "b", "c"), a.stores)
        cable.run(1.0)
        assert b.store.payloads() == [key(9)]
        assert not b.isolated()


def test_a_namespace_that_was_made_anew_is_left_only_when_the_peer_has_applied_its_new_ring() -> None:
    cable = Cable()
    a, b = cable.node("a", ("b",)), cable.node("b", ("a",))
    cable.run(3)
    a.write(*(key(number) for number in range(40)))
    cable.run(2)
    a.stores["shop"] = FakeStore(incarnation=9)
    a.mesh.add_namespace("shop", a.store, cable.now)
    cable.settle()
    cable.deaf.add(("a", "b"))
    a.write(key(7))
    a.mesh.leave(cable.now)
    assert not a.mesh.left()
    cable.deaf.clear()
    cable.run(2)
    assert b.store.payloads()[-1] == key(7) and a.mesh.left()
