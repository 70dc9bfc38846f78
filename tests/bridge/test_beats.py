"""The contents of this host's beats."""

import pytest

from cachee_bridge.ports.settings import Settings
from cachee_bridge.wire.messages import (
    Beat,
    Cursor,
    Head,
    Replay,
    Sync,
)
from tests.bridge.meshes import key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def kinds(messages):
    return [type(message) for message in messages]


def test_what_the_peer_has_not_acknowledged_is_told_at_each_heartbeat_until_it_has(peer):
    def told():
        peer.cable.now += Settings().heartbeat_s
        return any(isinstance(message, Beat) and message.heads for message in peer.tick())

    peer.say(Replay("shop", "web-1", 7, 1))
    peer.write(key(1))
    told()
    assert all(told() for _ in range(5))
    peer.beat(20, (Cursor("shop", "web-1", 7, peer.store.tail, "web-2"),))
    told()
    assert [told() for _ in range(6)].count(True) == 2  # calm ones


def test_a_sync_is_answered_by_a_beat_with_cursors(peer):
    peer.frame(21, 22)
    (beat,) = peer.say(Sync())
    assert beat.cursors == (Cursor("shop", "web-2", 4, 22, "web-1"),)
    assert beat.heads == (Head("shop", "web-1", 7, peer.store.tail, 0, 0),)


def test_a_beat_says_the_tail_of_the_ring_and_not_how_far_it_was_healed(peer):
    peer.store.announce(key(1), key(2))
    (beat,) = peer.say(Sync())
    assert beat.heads[0].head == peer.store.tail > peer.store.pump_cursor


def test_a_beat_echoes_the_newest_stamp(peer):
    peer.say(Beat(77, 0, (), ()))
    (beat,) = peer.say(Sync())
    assert beat.echo == 77
