"""One link: what may be said when, who is believed, and what is under way."""

import pytest

from cachee_bridge.links.link import ALLOWANCE_BYTES, HEARD_MAX, HEARD_S, UNREAD_BYTES_MAX, Link, LinkState
from cachee_bridge.wire.budget import Budget
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, VERSION_MIN, Decoder, encode
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import (
    AGE_UNKNOWN,
    Auth,
    Beat,
    Cursor,
    FinalHead,
    Frame,
    Head,
    Hello,
    Leave,
    NamespaceState,
    Replay,
    State,
    Sync,
)
from cachee_shm.errors import AuthError, FrameError
from tests.bridge.meshes import SECRET

OTHER = b"another secret of 16"


def hello(name, **fields):
    values = {"version": VERSION_MIN, "instance": hash(name) % 1000, "nonce": name.encode().ljust(32, b".")}
    values.update({"mode": "none", "address": ""} | fields)
    return Hello(
        "cachee",
        values["version"],
        name,
        values["instance"],
        values["nonce"],
        values["mode"],
        values["address"],
        "",
    )


def link_of(name, dials, secrets=(), now=100.0, identity=None, **fields):
    mode = "secret" if secrets else "none"
    said = hello(name, mode=mode, **fields)
    return Link(
        1, "there:1" if dials else None, "10.0.0.9", said, secrets, [], now, Budget(1e9, now), identity
    )


def words(link):
    return [message for data in link.sent() for message in Decoder(FRAME_BYTES_MAX).feed(data)]


def pair(here=(), there=()):
    return link_of("a", True, here), link_of("b", False, there)


def shake(dialler, acceptor):
    """Carries what each says to the other until both have nothing to say."""
    while said := [(acceptor, words(dialler)), (dialler, words(acceptor))]:
        if not any(messages for _, messages in said):
            return
        for target, messages in said:
            for message in messages:
                target.shake(message)


class TestHandshake:
    def test_without_authentication_a_hello_is_enough(self):
        dialler, acceptor = pair()
        shake(dialler, acceptor)
        assert (dialler.state, acceptor.state) == (LinkState.PROVEN, LinkState.PROVEN)
        assert (dialler.name, acceptor.name) == ("b", "a")

    def test_with_a_secret_both_sides_prove_it(self):
        dialler, acceptor = pair((SECRET,), (SECRET,))
        shake(dialler, acceptor)
        assert (dialler.state, acceptor.state) == (LinkState.PROVEN, LinkState.PROVEN)

    def test_the_acceptor_proves_nothing_to_whoever_merely_connects(self):
        dialler, acceptor = pair((SECRET,), (SECRET,))
        acceptor.shake(words(dialler)[0])
        assert [type(message) for message in words(acceptor)] == [Hello]

    def test_a_dialler_with_another_secret_is_refused_and_learns_no_proof(self):
        dialler, acceptor = pair((OTHER,), (SECRET,))
        with pytest.raises(AuthError, match="does not know"):
            shake(dialler, acceptor)
        assert words(acceptor) == []

    def test_an_acceptor_with_another_secret_is_refused(self):
        dialler, acceptor = pair((SECRET,), (SECRET,))
        acceptor.shake(words(dialler)[0])
        dialler.shake(words(acceptor)[0])
        with pytest.raises(AuthError):
            dialler.shake(Auth((bytes(32),)))

    def test_a_reflected_proof_is_refused(self):
        dialler, acceptor = pair((SECRET,), (SECRET,))
        acceptor.shake(words(dialler)[0])
        dialler.shake(words(acceptor)[0])
        with pytest.raises(AuthError):
            dialler.shake(words(dialler)[0])

    def test_a_reflected_hello_is_refused(self):
        dialler, _ = pair((SECRET,))
        with pytest.raises(AuthError, match="own HELLO"):
            dialler.shake(words(dialler)[0])

    def test_a_recorded_proof_does_not_fit_a_later_nonce(self):
        dialler, acceptor = pair((SECRET,), (SECRET,))
        greeting = words(dialler)[0]
        acceptor.shake(greeting)
        dialler.shake(words(acceptor)[0])
        proof = words(dialler)[0]
        later = link_of("b", False, (SECRET,), nonce=b"later".ljust(32, b"."))
        later.shake(greeting)
        with pytest.raises(AuthError):
            later.shake(proof)

    @pytest.mark.parametrize(("here", "there"), [((SECRET,), ()), ((), (SECRET,))])
    def test_both_sides_must_want_the_same_authentication(self, here, there):
        with pytest.raises(AuthError, match="secret_file"):
            shake(*pair(here, there))

    def test_another_version_of_the_protocol_is_refused_by_number(self):
        _, acceptor = pair()
        with pytest.raises(FrameError, match=f"protocol 9 there; this bridge speaks {VERSION_MIN} to"):
            acceptor.shake(hello("a", version=9))

    @pytest.mark.parametrize("message", [Auth((bytes(32),)), State(()), Sync(), Beat(0, 0, (), ())])
    def test_nothing_but_a_hello_comes_first(self, message):
        _, acceptor = pair()
        with pytest.raises(FrameError, match="in state HELLO"):
            acceptor.shake(message)

    def test_a_second_hello_is_refused(self):
        _, acceptor = pair((SECRET,), (SECRET,))
        acceptor.shake(hello("a", mode="secret"))
        with pytest.raises(FrameError, match="in state AUTH"):
            acceptor.shake(hello("a", mode="secret"))

    def test_a_stranger_is_not_read_beyond_what_a_handshake_needs(self):
        link = link_of("b", False)
        assert link.decoder.bytes_max == HANDSHAKE_BYTES_MAX
        link.send_states([State(())])
        assert link.decoder.bytes_max == FRAME_BYTES_MAX


def proven(here=(SECRET,), there=(SECRET,)):
    """Two ends that have shaken hands, and a way to say something from one to the other as bytes."""
    dialler, acceptor = pair(here, there)
    shake(dialler, acceptor)
    return dialler, acceptor


def say(link, *messages):
    for message in messages:
        link.send(message)
    return link.sent()


class TestSeals:
    def test_what_one_end_says_the_other_hears(self):
        dialler, acceptor = proven()
        for one, other in ((dialler, acceptor), (acceptor, dialler)):
            data = b"".join(say(one, Sync(), State(())))
            assert list(other.decoder.feed(data)) == [Sync(), State(())]

    @pytest.mark.parametrize("here", [(SECRET,), (OTHER, SECRET), (SECRET, OTHER)])
    @pytest.mark.parametrize("there", [(SECRET,), (OTHER, SECRET), (SECRET, OTHER)])
    def test_both_ends_agree_by_which_secret_while_it_is_changed(self, here, there):
        dialler, acceptor = proven(here, there)
        assert list(acceptor.decoder.feed(say(dialler, Sync())[0])) == [Sync()]
        assert list(dialler.decoder.feed(say(acceptor, Sync())[0])) == [Sync()]

    def test_what_is_changed_on_the_way_is_refused(self):
        dialler, acceptor = proven()
        data = bytearray(say(dialler, State(()))[0])
        data[5] ^= 1
        with pytest.raises(AuthError, match="seal"):
            list(acceptor.decoder.feed(bytes(data)))

    @pytest.mark.parametrize("order", [(1,), (0, 0), (0, 2)])
    def test_what_is_left_out_or_repeated_is_refused(self, order):
        dialler, acceptor = proven()
        said = say(dialler, Sync(), State(()), Sync())
        with pytest.raises(AuthError, match="seal"):
            list(acceptor.decoder.feed(b"".join(said[number] for number in order)))

    def test_what_was_said_on_another_link_or_comes_back_is_refused(self):
        dialler, acceptor = proven()
        other = link_of("a", True, (SECRET,), nonce=b"later".ljust(32, b".")), link_of("b", False, (SECRET,))
        shake(*other)
        with pytest.raises(AuthError):
            list(acceptor.decoder.feed(say(other[0], Sync())[0]))
        with pytest.raises(AuthError):
            list(dialler.decoder.feed(say(dialler, Sync())[0]))

    def test_what_bears_no_seal_is_not_heard(self):
        dialler, acceptor = proven()
        with pytest.raises(AuthError):
            list(acceptor.decoder.feed(encode(Sync()) * 9))
        with pytest.raises(AuthError):
            list(dialler.decoder.feed(encode(Sync()) * 9))


class TestCertificates:
    SHOP = Identity({"a": frozenset({"shop"}), "c": None})

    def test_the_name_must_be_one_of_the_certificates(self):
        link = link_of("b", False, identity=self.SHOP)
        with pytest.raises(AuthError, match="calls itself 'b2', and its certificate is for 'a', 'c'"):
            link.shake(hello("b2"))
        assert link.name == ""

    def test_the_name_decides_which_namespaces(self):
        limited, unlimited = link_of("b", False, identity=self.SHOP), link_of("b", False, identity=self.SHOP)
        limited.shake(hello("a"))
        unlimited.shake(hello("c"))
        assert [limited.allows("shop"), limited.allows("news")] == [True, False]
        assert unlimited.allows("news")

    @pytest.mark.parametrize(
        "message",
        [
            State((NamespaceState("shop", 1, 0, 7), NamespaceState("news", 1, 0, 7))),
            Frame("news", "a", 1, 1, 1, b""),
            Replay("news", "b", 1, 1),
            Beat(1, 0, (Head("shop", "a", 1, 0, 0, 0), Head("news", "a", 1, 0, 0, 0)), ()),
            Beat(1, 0, (), (Cursor("news", "b", 1, 0, "a"),)),
            Leave("", (FinalHead("news", 1, 0),)),
        ],
        ids=lambda message: type(message).__name__,
    )
    def test_a_message_about_a_namespace_that_is_not_allowed_is_refused_whatever_it_is(self, message):
        link = link_of("b", False, identity=self.SHOP)
        link.shake(hello("a"))
        with pytest.raises(AuthError, match="speaks of namespace 'news', and its certificate allows shop"):
            link.check_allowed(message)

    @pytest.mark.parametrize("message", [Sync(), Leave("bye", ()), Replay("shop", "b", 1, 1), State(())])
    def test_what_is_allowed_is_not(self, message):
        link = link_of("b", False, identity=self.SHOP)
        link.shake(hello("a"))
        link.check_allowed(message)


def test_an_end_that_speaks_tls_to_one_that_does_not_is_told_so():
    link = link_of("b", False)
    for record in (b"\x16\x03\x01\x02\x00" + bytes(512), b"\x15\x03\x03\x00\x02\x02\x46"):
        with pytest.raises(AuthError, match=r"speaks TLS, and this host does not.*\[bridge.tls\]"):
            list(link.decoder.feed(record))


class TestWhichOfTwoLinksStays:
    def test_both_ends_choose_the_one_that_the_smaller_name_dialled(self):
        for a_dials in (True, False):
            at_a, at_b = link_of("a", a_dials), link_of("b", not a_dials)
            at_a.shake(hello("b"))
            at_b.shake(hello("a"))
            assert at_a.prefers_dialler() is at_b.prefers_dialler() is a_dials


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


class TestStamps:
    def beat(self, stamp=0, echo=0):
        return Beat(stamp, echo, (), ())

    def test_an_echo_says_when_the_stamp_was_sent(self):
        link = link_of("a", True)
        stamp = link.stamp(101.5)
        assert link.on_beat(self.beat(echo=stamp), now=109.0) == 101.5

    def test_no_echo_says_nothing(self):
        assert link_of("a", True).on_beat(self.beat(stamp=5), now=101.0) is None

    def test_a_beat_that_was_asked_for_may_be_echoed_after_a_tick_that_was_due_before_it(self):
        link = link_of("a", True)
        asked_for = link.stamp(101.503)
        link.stamp(101.5)  # a late tick's own time
        assert link.on_beat(self.beat(echo=asked_for), now=101.504) == 101.503

    def test_the_first_beat_of_a_link_that_is_younger_than_the_tick_may_be_echoed(self):
        link = link_of("a", True, now=100.0)
        stamp = link.stamp(99.99)
        assert link.on_beat(self.beat(echo=stamp), now=100.1) == 100.0

    def test_the_newest_stamp_is_the_one_to_echo(self):
        link = link_of("a", True)
        for stamp in (5, 9, 7):
            link.on_beat(self.beat(stamp=stamp), now=101.0)
        assert link.heard_stamp == 9

    @pytest.mark.parametrize("echo", [1, 99_000_000, 101_000_001, 2**64 - 1])
    def test_a_stamp_that_was_never_sent_on_this_link_is_refused(self, echo):
        link = link_of("a", True)
        link.stamp(101.0)
        with pytest.raises(FrameError, match="never sent"):
            link.on_beat(self.beat(echo=echo), now=102.0)


class TestAges:
    """How old a relay's word is, by the clock of the peer that is told it: its own newest stamp, less the
    newest stamp of its that had come when the word was current."""

    def heard(self, *beats):
        link = link_of("a", True)
        for now, stamp in beats:
            link.on_beat(Beat(stamp, 0, (), ()), now)
        return link

    def test_a_word_that_was_current_at_the_newest_stamp_has_no_age(self):
        assert self.heard((100.0, 1000), (100.0 + HEARD_S, 2000)).age_of(100.0 + HEARD_S) == 0

    def test_a_word_is_as_old_as_the_newest_stamp_that_had_come_by_then(self):
        link = self.heard((100.0, 1000), (101.0, 2000), (102.0, 5000))
        assert [link.age_of(at) for at in (100.0, 100.9, 101.0, 101.9, 102.0)] == [4000, 4000, 3000, 3000, 0]

    def test_of_what_was_current_before_any_stamp_came_the_age_is_unknown(self):
        assert link_of("a", True).age_of(100.0) == AGE_UNKNOWN
        assert self.heard((100.0, 1000)).age_of(99.9) == AGE_UNKNOWN

    def test_of_stamps_that_come_close_together_the_first_stands_for_all_and_words_seem_older(self):
        link = self.heard((100.0, 1000), (100.0 + HEARD_S / 2, 2000))
        assert link.age_of(100.0 + HEARD_S / 2) == 1000

    def test_a_stamp_that_goes_back_is_not_remembered(self):
        assert self.heard((100.0, 1000), (101.0, 900)).age_of(101.0) == 0

    def test_a_bounded_number_of_stamps_is_remembered(self):
        link = self.heard(*((100.0 + i, 1000 + i) for i in range(HEARD_MAX + 1)))
        assert link.age_of(100.0) == AGE_UNKNOWN
        assert link.age_of(101.0) == HEARD_MAX - 1


class TestSilence:
    def up(self):
        link = link_of("a", True)
        link.shake(hello("b"))
        link.raised()
        return link

    def test_a_handshake_takes_no_longer_than_it_may(self):
        link = link_of("a", True)
        assert link.silent(104.9, 2.0, handshake_s=5.0) is None
        assert link.silent(105.1, 2.0, handshake_s=5.0) == "no handshake in time"

    def test_a_link_on_which_nothing_comes_is_given_up(self):
        link = self.up()
        link.heard_at = link.echoed_at = 101.0
        assert link.silent(103.0, 2.0, 5.0) is None
        assert "nothing heard" in link.silent(103.1, 2.0, 5.0)

    def test_a_link_that_works_in_one_direction_only_is_given_up_too(self):
        link = self.up()
        link.heard_at, link.echoed_at = 110.0, 101.0
        assert "has not heard this host" in link.silent(110.0, 2.0, 5.0)

    @pytest.mark.parametrize("held", [False, True])
    def test_who_asks_and_never_reads_is_given_up_whatever_he_says(self, held):
        link = self.up()
        if held:
            link.hold(100.0)
        answer = Replay("shop", "a", 1, 1)
        while link._under_way + len(encode(answer)) <= UNREAD_BYTES_MAX:
            link.send(answer)
        assert link.silent(100.0, 2.0, 5.0) is None
        link.send(answer)
        assert "does not read" in link.silent(100.0, 2.0, 5.0)
        link.drained()
        assert link.silent(100.0, 2.0, 5.0) is None


def test_who_is_not_read_is_not_silent_and_counts_as_heard_when_it_is_read_again():
    link = link_of("b", False)
    link.budget.owe(2e9)
    link.hold(100.0)
    assert link.silent(200.0, 2.0, 5.0) is None
    assert not link.release(100.1)
    assert link.release(200.0)
    assert (link.heard_at, link.held) == (200.0, 1)
