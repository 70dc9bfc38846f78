"""A table of sources without room for one more."""

import pytest

from cachee_bridge.protocol.rounds import GOSSIP_S
from cachee_bridge.wire.frames import NUMBERS
from cachee_bridge.wire.messages import Replay
from cachee_shm.errors import SegmentError
from tests.bridge.meshes import Cable, FakeStore
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def test_a_full_source_table_is_told_and_isolates():
    def full(name):
        raise SegmentError("the source table is full")

    cable = Cable()
    store = FakeStore()
    store.source_open = full
    a = cable.node("a", ("a", "b"), {"shop": store})
    cable.node("b", ("a", "b"))
    cable.run(3.0)
    assert "table is full" in a.texts("error")
    assert a.isolated()


def test_it_is_met_again_when_there_is_room(monkeypatch):
    cable = Cable()
    store = FakeStore()
    opens, store.source_open = store.source_open, None

    def full(name):
        raise SegmentError("the source table is full")

    store.source_open = full
    a = cable.node("a", ("a", "b"), {"shop": store})
    cable.node("b", ("a", "b"))
    cable.run(3.0)
    assert a.isolated()
    store.source_open = opens
    cable.run(GOSSIP_S)
    assert not a.isolated()


def test_a_peer_that_had_room_is_not_asked_for_its_records_again_because_another_had_none():
    cable, store = Cable(), FakeStore()
    opens = store.source_open

    def full_for_c(name):
        if name == "c":
            raise SegmentError("the source table is full")
        return opens(name)

    store.source_open = full_for_c
    a = cable.node("a", ("a", "b", "c"), {"shop": store})
    for name in "bc":
        cable.node(name, ("a", "b", "c"))
    cable.run(1.0)
    assert "table is full" in a.texts("error")
    cable.carried.clear()
    store.source_open = opens
    cable.run(GOSSIP_S)
    assert not a.isolated()
    asked = {to for to in "bc" for message in cable.carried["a", to] if message[4] == NUMBERS[Replay]}
    assert asked == {"c"}
