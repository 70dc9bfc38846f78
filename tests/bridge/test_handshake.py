"""The handshake: who is believed to be whom, what is proven by it, and what bears no seal."""

import pytest

from cachee_bridge.links.states import LinkState
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, VERSION_MIN, encode
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import (
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
from tests.bridge.link_ends import OTHER, hello, link_of, pair, shake, words
from tests.bridge.meshes import SECRET


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
        link.shake(hello("a"))
        link.accept([State(())])
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
        with pytest.raises(AuthError, match="names namespace 'news', but its certificate allows shop"):
            link.handshake.check_allowed(message)

    @pytest.mark.parametrize("message", [Sync(), Leave("bye", ()), Replay("shop", "b", 1, 1), State(())])
    def test_what_is_allowed_is_not(self, message):
        link = link_of("b", False, identity=self.SHOP)
        link.shake(hello("a"))
        link.handshake.check_allowed(message)
