"""A peer that knows more of this host's ring than it holds: a higher incarnation is drawn."""

import pytest

from cachee_bridge.protocol.incarnations import RAISE_S
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL_KNOWN,
    Cursor,
    NamespaceState,
    Replay,
    State,
)
from tests.bridge.meshes import Cable, FakeStore, key, two
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


@pytest.fixture
def cable() -> Cable:
    return Cable()


class TestAnIncarnation:
    def test_of_a_lower_number_is_answered_by_a_higher_one_on_the_same_link(self, cable):
        a, b = two(cable)
        a.stores["shop"].incarnation = 5_000
        cable.remove(b)
        cable.break_link(a, b)
        b = cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=0)})
        cable.run(3.0)
        assert "applied here already; refused until it has a higher one" in a.texts("warning")
        assert "was the clock set back" in b.texts("warning")
        assert b.store.incarnation > 1
        assert not (a.isolated() or b.isolated() or a.texts("error") or b.texts("error"))
        b.write(key(9))
        assert a.store.payloads()[-2:] == [PAYLOAD_ALL_KNOWN, key(9)]
        assert a.store.table[1][1:] == (b.store.incarnation, b.store.tail)

    def test_of_a_lower_number_costs_no_other_namespace(self, cable):
        stores = {
            "a": {"shop": FakeStore(), "news": FakeStore()},
            "b": {"shop": FakeStore(), "news": FakeStore()},
        }
        a, b = (cable.node(name, ("a", "b"), stores[name]) for name in ("a", "b"))
        cable.run(1.0)
        b.stores["shop"] = FakeStore(incarnation=0)
        b.stores["shop"].raise_incarnation = lambda incarnation: None
        b.mesh.add_namespace("shop", b.store, cable.now)
        cable.run(5.0)
        assert a.isolated("shop")
        assert not a.isolated("news")
        b.write(key(4), namespace="news")
        assert a.stores["news"].payloads()[-1] == key(4)
        a.write(key(5))
        assert b.store.payloads()[-1] == key(5)
        assert a.state_of("b") == "up"
        assert not a.texts("error")

    def test_of_a_copied_segment_that_has_written_less_than_a_peer_knows_is_replaced_by_a_higher_one(
        self, cable
    ):
        a, b = two(cable)
        a.write(key(1), key(2), key(3))
        cable.remove(a)
        cable.break_link(a, b)
        a = cable.node("a", ("a", "b"), {"shop": FakeStore(incarnation=1)})
        cable.run(3.0)
        assert "has applied namespace shop of this host, incarnation 1, up to 4" in a.texts("warning")
        assert not (a.isolated() or b.isolated())
        a.write(key(9))
        assert b.store.payloads()[-2:] == [PAYLOAD_ALL_KNOWN, key(9)]

    def test_that_both_draw_at_once_ends_with_both_linked(self, cable):
        a, b = two(cable)
        for node in (a, b):
            cable.remove(node)
        cable.break_link(a, b)
        for node in (a, b):
            born = FakeStore(incarnation=0)
            born.slots = node.store.slots  # whoever was known is known
            node.stores["shop"] = born
        a, b = (cable.node(node.name, ("a", "b"), node.stores) for node in (a, b))
        cable.run(4.0)
        assert not (a.isolated() or b.isolated())
        assert a.store.incarnation > 1 < b.store.incarnation


@pytest.mark.parametrize("incarnation_and_first", [(8, 1), (7, 1000)])
def test_a_request_that_knows_more_than_this_host_wrote_raises_the_incarnation(peer, incarnation_and_first):
    incarnation = incarnation_and_first[0]
    answer = peer.say(Replay("shop", "web-1", *incarnation_and_first))
    assert peer.store.incarnation > incarnation
    assert answer == [State((NamespaceState("shop", peer.store.incarnation, peer.store.tail, 7),))]
    assert not peer.closed


def test_so_does_a_cursor_in_a_beat_at_most_once_a_second(peer):
    peer.beat(20, cursors=(Cursor("shop", "web-1", 7, 1000, "web-2"),))
    first = peer.store.incarnation
    assert first > 7
    peer.say(Replay("shop", "web-1", first + 1, 1))
    assert peer.store.incarnation == first
    peer.cable.now += RAISE_S
    peer.say(Replay("shop", "web-1", first + 1, 1))
    assert peer.store.incarnation > first + 1
    assert not peer.closed


def test_what_was_acknowledged_under_the_former_incarnation_counts_no_more(peer):
    peer.store.write(key(1))
    peer.beat(20, cursors=(Cursor("shop", "web-1", 7, 1, "web-2"),))
    link = peer.node.mesh._links.by_number[1]
    assert link.acked == {"shop": 1}
    peer.say(Replay("shop", "web-1", 8, 1))
    assert link.acked == {}
    assert peer.store.acked == {}
    assert not link.outboxes["shop"].asked


def test_the_highest_possible_incarnation_is_a_lie_and_changes_nothing(peer):
    for _ in range(3):
        assert peer.say(Replay("shop", "web-1", 2**64 - 1, 1)) == []
    assert peer.store.incarnation == 7
    assert peer.node.texts("error").count("none is higher") == 1
    assert not peer.closed
