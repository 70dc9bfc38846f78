"""One link: which of two links stays, at which address the peer is reached, and when the link is given up."""

import pytest

from cachee_bridge.links.link import ALLOWANCE_BYTES, UNREAD_BYTES_MAX, Link
from cachee_bridge.wire.budget import Budget
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import Replay, State, Sync
from cachee_shm.errors import AuthError
from tests.bridge.link_ends import hello, link_of


def test_an_end_that_speaks_tls_to_one_that_does_not_is_told_so():
    link = link_of("b", False)
    for record in (b"\x16\x03\x01\x02\x00" + bytes(512), b"\x15\x03\x03\x00\x02\x02\x46"):
        with pytest.raises(AuthError, match=r"speaks TLS, and this host does not.*\[bridge.tls\]"):
            list(link.decoder.feed(record))


class TestWhichOfTwoLinksStays:
    def links(self, a_dials):
        """At both ends, a link that `a` has dialled or not."""
        at_a, at_b = link_of("a", a_dials), link_of("b", not a_dials)
        at_a.shake(hello("b"))
        at_b.shake(hello("a"))
        return at_a, at_b

    def test_both_ends_keep_the_one_that_the_smaller_name_dialled(self):
        (by_a_at_a, by_a_at_b), (by_b_at_a, by_b_at_b) = self.links(True), self.links(False)
        assert by_a_at_a.replaces(by_b_at_a) and by_a_at_b.replaces(by_b_at_b)
        assert not by_b_at_a.replaces(by_a_at_a) and not by_b_at_b.replaces(by_a_at_b)

    def test_of_two_that_one_end_dialled_it_keeps_its_first_and_the_other_end_follows(self):
        (first_at_a, first_at_b), (last_at_a, last_at_b) = self.links(True), self.links(True)
        assert not last_at_a.replaces(first_at_a)
        assert last_at_b.replaces(first_at_b)


@pytest.mark.parametrize(
    ("told", "reach"),
    [
        ("web-1:7946", "web-1:7946"),
        (":7946", "10.0.0.9:7946"),
        ("0.0.0.0:7946", "10.0.0.9:7946"),
        ("[::]:7946", "10.0.0.9:7946"),
        ("[::1]:7946", "[::1]:7946"),
        ("", ""),
    ],
)
def test_a_peer_is_reached_where_it_says_or_where_it_is_seen(told, reach):
    link = link_of("b", False)
    link.shake(hello("a", address=told))
    assert link.reach == reach


def test_where_it_is_seen_over_ipv6_gets_brackets():
    link = Link(1, None, "fe80::1", hello("b"), (), [], 100.0, Budget(1e9, 100.0))
    link.shake(hello("a", address=":7946"))
    assert link.reach == "[fe80::1]:7946"


class TestAllowance:
    def test_after_an_allowance_nothing_more_is_sent_until_the_socket_has_drained(self):
        link = link_of("a", True)
        frame_bytes = len(encode(Sync()))
        sent = 0
        while link.room():
            link.send(Sync())
            sent += frame_bytes
        assert sent < ALLOWANCE_BYTES + frame_bytes
        link.drained()
        assert link.room()


class TestSilence:
    def up(self):
        link = link_of("a", True)
        link.shake(hello("b"))
        link.accept([])
        link.on_state(State(()))
        return link

    def test_a_handshake_takes_no_longer_than_it_may(self):
        link = link_of("a", True)
        assert link.silent(104.9, 2.0, handshake_s=5.0) is None
        assert link.silent(105.1, 2.0, handshake_s=5.0) == "no handshake in time"

    def test_a_link_on_which_nothing_comes_is_given_up(self):
        link = self.up()
        link.heard_at = link.stamps.echoed_at = 101.0
        assert link.silent(103.0, 2.0, 5.0) is None
        assert "nothing heard" in link.silent(103.1, 2.0, 5.0)

    def test_a_link_that_works_in_one_direction_only_is_given_up_too(self):
        link = self.up()
        link.heard_at, link.stamps.echoed_at = 110.0, 101.0
        assert "has not heard this host" in link.silent(110.0, 2.0, 5.0)

    @pytest.mark.parametrize("held", [False, True])
    def test_who_asks_and_never_reads_is_given_up_whatever_he_says(self, held):
        link = self.up()
        if held:
            link.throttle.hold(100.0)
        answer = Replay("shop", "a", 1, 1)
        while link._under_way + len(encode(answer)) <= UNREAD_BYTES_MAX:
            link.send(answer)
        assert link.silent(100.0, 2.0, 5.0) is None
        link.send(answer)
        assert "does not read" in link.silent(100.0, 2.0, 5.0)
        link.drained()
        assert link.silent(100.0, 2.0, 5.0) is None


def test_a_peer_that_is_not_read_is_not_silent_and_counts_as_heard_when_it_is_read_again():
    link = TestSilence().up()
    link.stamps.echoed_at = 200.0
    link.throttle.budget.owe(2e9)
    link.throttle.hold(100.0)
    assert link.silent(200.0, 2.0, 5.0) is None
    assert link.throttle.release(200.0)
    assert link.silent(202.0, 2.0, 5.0) is None
    assert "nothing heard" in link.silent(202.1, 2.0, 5.0)
