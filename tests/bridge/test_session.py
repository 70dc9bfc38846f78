"""What a peer may say on a link that is up, one message at a time."""

import pytest

from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    Hello,
)
from tests.bridge.meshes import key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def kinds(messages):
    return [type(message) for message in messages]


def test_a_second_hello_closes_the_link(peer):
    peer.say(Hello("cachee", 2, "web-2", 5, bytes(32), "none", "", ""))
    assert peer.closed


def test_whatever_else_comes_is_applied_or_dropped_without_a_word(peer):
    peer.frame(21, 22, key(1) + key(2))
    peer.frame(23, 24)
    said = len(peer.node.said)
    peer.frame(21, 22, key(1) + key(2))  # again
    peer.frame(25, 25, key(3))
    peer.frame(21, 25, PAYLOAD_ALL)  # again, in other words
    assert peer.cursor == 25
    assert len(peer.node.said) == said
