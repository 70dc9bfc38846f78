"""Which bridge process of a peer started last."""

import pytest

from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import (
    Hello,
    NamespaceState,
    State,
)
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def test_the_late_word_of_a_host_that_came_back_as_another_is_no_news(peer):
    mesh, now = peer.node.mesh, peer.cable.now

    def opens(link, instance, incarnation):
        for message in (
            Hello("cachee", 2, "web-3", instance, bytes(32), "none", "", ""),
            State((NamespaceState("shop", incarnation, 20, 7),)),
        ):
            mesh.received(link, encode(message), now + 0.2)

    mesh.link_opened(2, None, now, "10.0.0.3")
    mesh.link_opened(3, None, now + 0.1, "10.0.0.3")
    opens(3, 8, 5)
    mesh.link_closed(3, "reset", now + 0.2)
    opens(2, 7, 4)
    peer.hear()
    assert peer.node.closed == ["another bridge of that name was up meanwhile; come again"]
    assert not peer.node.texts("error")
    assert not mesh._session.namespaces.members["shop"].refused
    mesh.link_opened(4, None, now + 0.3, "10.0.0.3")
    opens(4, 7, 6)
    assert "web-3" in mesh._links.up
