"""What heads and cursors in a peer's beats change."""

import pytest

from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    Beat,
    Head,
    Replay,
)
from tests.bridge.meshes import key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def test_a_beat_about_another_source_closes_the_link(peer):
    peer.say(Beat(1, 0, (Head("shop", "web-3", 4, 9, 0, 0),), ()))
    assert peer.closed


def test_a_head_beyond_the_cursor_makes_nothing_fresh_until_it_is_applied(peer):
    peer.cable.now += 1.0
    peer.tick()
    was = peer.node.serve_until["shop"]
    peer.beat(22)
    peer.tick()
    assert peer.node.serve_until["shop"] == was
    peer.frame(21, 22, key(1))
    peer.tick()
    assert peer.node.serve_until["shop"] > was


def test_a_head_that_stays_beyond_the_cursor_for_some_beats_is_asked_for_once(peer):
    answers = [peer.beat(22) for _ in range(8)]
    assert [answer for answer in answers if answer] == [[Replay("shop", "web-2", 4, 21)]]


def test_a_beat_of_a_higher_incarnation_flushes_once(peer):
    peer.store.applied.clear()
    peer.beat(3, incarnation=5)
    peer.frame(4, 4, key(1), incarnation=5)
    assert peer.store.payloads() == [PAYLOAD_ALL, key(1)]
    assert peer.store.table[1] == ("web-2", 5, 4)
