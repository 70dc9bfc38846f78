"""What a peer is sent of this host's ring, and what of that is charged to it."""

import pytest

from cachee_bridge.streams.buckets import read_piece
from cachee_bridge.wire.budget import MESSAGE_BYTES
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import (
    Frame,
    Replay,
)
from tests.bridge.meshes import key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def test_a_request_is_answered_from_the_ring(peer):
    peer.store.write(key(1), key(2))
    first = peer.store.tail - 1
    assert peer.say(Replay("shop", "web-1", 7, first)) == [
        Frame("shop", "web-1", 7, first, first + 1, key(1) + key(2))
    ]


def test_what_is_sent_for_the_first_time_is_charged_to_nobody_and_what_is_asked_for_again_is(peer):
    budget = peer.node.mesh._links.by_number[1].throttle.budget
    peer.say(Replay("shop", "web-1", 7, 1))
    before = budget.owed
    assert [len(peer.write(key(number))) for number in (1, 2, 3)] == [1, 1, 1]
    assert budget.owed == before
    request = Replay("shop", "web-1", 7, 1)
    (again,) = peer.say(request)
    came, positions = MESSAGE_BYTES + len(encode(request)), peer.store.tail
    assert budget.owed - before == came + positions + len(again.payload)


def test_a_request_for_a_lapped_range_is_answered_by_a_map(peer):
    peer.store.write(*[key(number) for number in range(200)])
    (answer,) = peer.say(Replay("shop", "web-1", 7, 1))
    assert (answer.first, answer.last) == (1, peer.store.tail)
    assert answer.payload == read_piece(peer.store, 0, 1)
    assert f"web-2, namespace shop: lapped; a map of buckets stands for 1..{answer.last}" in peer.node.texts(
        "info"
    )
    assert peer.view.lapped == 1
