"""Records, replays and maps of buckets: applied, asked for again, or the end of the link."""

import pytest

from cachee_bridge.ports.effects import GoOn
from cachee_bridge.streams import buckets
from cachee_bridge.streams.buckets import EVICT_WORDS, read_piece
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    FinalHead,
    Frame,
    Leave,
    NamespaceState,
    Replay,
    State,
)
from tests.bridge.meshes import key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def test_a_gap_is_told_and_counted(peer):
    peer.frame(25, 26, key(1))
    assert "web-2, namespace shop: what follows 20 has not come; asked for again" in peer.node.texts("info")
    assert peer.view.repairs.replays == 1


def test_a_gap_is_asked_for_and_not_applied(peer):
    assert peer.frame(25, 26, key(1)) == [Replay("shop", "web-2", 4, 21)]
    assert (peer.cursor, key(1) in peer.store.payloads()) == (20, False)


def test_frames_behind_a_gap_are_not_asked_for_each(peer):
    peer.frame(25, 26)
    assert peer.frame(27, 30) == []


def test_a_frame_of_another_source_closes_the_link(peer):
    peer.say(Frame("shop", "web-3", 4, 21, 22, key(1)))
    assert peer.closed
    assert key(1) not in peer.store.payloads()


def test_a_frame_of_a_namespace_that_is_not_shared_closes_the_link(peer):
    peer.say(Frame("news", "web-2", 4, 21, 22, key(1)))
    assert peer.closed


def test_a_replay_of_another_source_closes_the_link(peer):
    peer.say(Replay("shop", "web-3", 4, 1))
    assert peer.closed


def test_a_map_is_applied_in_two_steps_where_the_index_is_small(peer):
    peer.store.write(key(1))
    peer.store.hold(1)
    assert peer.frame(21, 90, peer.map()) == []
    peer.finish()
    assert (peer.cursor, peer.store.mended) == (90, [(1, peer.store.map)])
    assert "lapped; what it may have written up to 90 is evicted: 1 entries" in peer.node.texts("info")
    assert peer.view.repairs.maps == 1


def test_a_map_of_which_a_link_brought_one_half_is_not_completed_on_the_next_link(peer, monkeypatch):
    monkeypatch.setattr(buckets, "PIECE_BYTES", 2)
    first, second = (read_piece(peer.store, 0, number) for number in (1, 2))
    peer.frame(21, 90, first)
    peer.meet()
    peer.frame(21, 90, second)
    peer.finish()
    assert peer.cursor == 20
    peer.frame(21, 90, first)
    peer.frame(21, 90, second)
    peer.finish()
    assert peer.cursor == 90


def test_where_it_is_large_other_work_is_done_between_its_parts(peer):
    peer.store.words = 3 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    assert peer.node.mesh.effects() == [GoOn()]
    assert peer.frame(91, 92, key(1)) == []
    assert peer.cursor == 20
    for _ in range(2):
        peer.node.mesh.go_on(peer.cable.now)
        assert (peer.cursor, peer.node.mesh.effects()) == (20, [GoOn()])
    peer.node.mesh.go_on(peer.cable.now)
    assert peer.cursor == 90
    assert peer.hear() == [Replay("shop", "web-2", 4, 91)]
    peer.frame(91, 92, key(1))
    assert (peer.cursor, peer.store.payloads()[-1]) == (92, key(1))


def test_a_map_goes_on_being_applied_when_its_link_has_closed(peer):
    peer.store.words = 2 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    peer.node.mesh.link_closed(1, "broken", peer.cable.now)
    peer.finish()
    assert peer.cursor == 90
    assert GoOn() not in peer.node.mesh.effects()


def test_a_map_of_a_former_incarnation_is_applied_no_further(peer):
    peer.store.words = 3 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    peer.node.mesh.received(1, encode(State((NamespaceState("shop", 5, 3, 7),))), peer.cable.now)
    peer.hear()
    peer.node.mesh.go_on(peer.cable.now)
    assert GoOn() not in peer.node.mesh.effects()
    assert peer.cursor == 3
    assert peer.view.repairs.maps == 0


def test_a_map_of_a_peer_that_was_removed_meanwhile_is_applied_no_further(peer):
    peer.store.words = 3 * EVICT_WORDS
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    peer.node.mesh.link_closed(1, "broken", peer.cable.now)
    peer.node.mesh.forget("web-2", peer.cable.now)
    for _ in range(2):  # lost, then removed
        peer.cable.now += 100.0
        peer.node.mesh.tick(peer.cable.now)
    assert peer.cursor is None
    peer.node.mesh.effects()
    peer.node.mesh.go_on(peer.cable.now)
    assert GoOn() not in peer.node.mesh.effects()


def test_a_malformed_map_closes_the_link_and_moves_nothing(peer):
    peer.store.map = b"\xff"
    peer.frame(21, 90, peer.map())
    assert peer.closed
    assert peer.cursor == 20


def test_a_host_that_left_is_dropped_when_its_map_is_applied(peer):
    peer.store.words = 2 * EVICT_WORDS
    peer.say(Leave("leaves", (FinalHead("shop", 4, 90),)))
    peer.node.mesh.received(1, encode(Frame("shop", "web-2", 4, 21, 90, peer.map())), peer.cable.now)
    assert peer.cursor == 20
    peer.finish()
    assert peer.cursor is None


def test_when_nothing_tells_what_was_missed_all_is_evicted_aloud(peer):
    peer.frame(21, 90, PAYLOAD_ALL)
    assert "no host has the missed records up to 90; evicted all" in peer.node.texts("warning")
    assert peer.view.repairs.flushes == 2


def test_a_request_to_a_former_incarnation_is_not_answered(peer):
    peer.store.write(key(1))
    assert peer.say(Replay("shop", "web-1", 6, 1)) == []
    assert not peer.closed


def test_a_source_that_never_answers_costs_its_link(peer):
    for _ in range(100):
        peer.cable.now += 0.5
        peer.tick()
        if peer.closed:
            break
        peer.beat(22)
    assert "has not sent namespace shop from 21 on" in peer.node.texts("error")


def test_what_a_former_incarnation_still_says_is_dropped(peer):
    peer.beat(3, incarnation=5)
    peer.frame(21, 22, key(1), incarnation=4)
    peer.beat(99, incarnation=4)
    assert peer.store.table[1] == ("web-2", 5, 3)
    assert key(1) not in peer.store.payloads()
