"""Who is sent a write."""

from cachee_bridge.fanout import Fanout


def test_every_linked_peer_is_sent_to_directly():
    assert Fanout(2).targets(iter("abc")) == ["a", "b", "c"]


def test_more_peers_than_fanout_is_said_once():
    fanout = Fanout(2)
    assert fanout.warning(2) is None
    assert "3 peers" in (fanout.warning(3) or "")
    assert fanout.warning(4) is None


def test_and_again_when_it_happens_again():
    fanout = Fanout(2)
    fanout.warning(3)
    fanout.warning(2)
    assert fanout.warning(3) is not None
