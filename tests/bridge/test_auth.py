"""Both sides prove that they have the secret. No message that was seen on a link proves it again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.wire.auth import ACCEPTOR, DIALLER, check_secrets, prove, seals, transcript, verify
from cachee_bridge.wire.messages import Hello
from cachee_shm.errors import AuthError

OLD, NEW, OTHER = (bytes([byte]) * 16 for byte in b"one")


def hello(name="web-1", nonce=bytes(32), instance=1, mode="secret", address=""):
    return Hello("cachee", 2, name, instance, nonce, mode, address, "")


SAID = transcript(hello("web-1"), hello("web-2"))


def test_whoever_holds_the_secret_is_believed():
    assert verify([OLD], DIALLER, SAID, prove([OLD], DIALLER, SAID))


def test_whoever_does_not_is_not():
    assert not verify([OLD], DIALLER, SAID, prove([OTHER], DIALLER, SAID))
    assert not verify([OLD], DIALLER, SAID, (bytes(32),))


def test_a_sides_own_proof_cannot_be_sent_back_to_it():
    assert not verify([OLD], ACCEPTOR, SAID, prove([OLD], DIALLER, SAID))


@pytest.mark.parametrize(
    "changed",
    [
        hello("web-3"),
        hello(nonce=b"n" * 32),
        hello(instance=2),
        hello(mode="none"),
        hello(address="web-9:1"),
    ],
)
def test_whatever_is_changed_on_the_way_spoils_the_proof(changed):
    proof = prove([OLD], DIALLER, SAID)
    assert not verify([OLD], DIALLER, transcript(changed, hello("web-2")), proof)
    assert not verify([OLD], DIALLER, transcript(hello("web-1"), changed), proof)


def test_the_two_sides_cannot_be_exchanged():
    assert transcript(hello("web-1"), hello("web-2")) != transcript(hello("web-2"), hello("web-1"))


@pytest.mark.parametrize("there", [(OLD,), (NEW, OLD), (OLD, NEW)])
@pytest.mark.parametrize("here", [(OLD,), (NEW, OLD)])
def test_while_a_secret_is_changed_hosts_understand_each_other_in_any_order(here, there):
    used = verify(there, DIALLER, SAID, prove(here, DIALLER, SAID))
    assert used == next(secret for secret in here if secret in there)
    assert verify(here, ACCEPTOR, SAID, prove((used,), ACCEPTOR, SAID)) == used


def test_after_the_change_the_old_secret_alone_is_refused():
    assert not verify((NEW,), DIALLER, SAID, prove((OLD,), DIALLER, SAID))


@pytest.mark.parametrize("secrets", [(b"short",), (OLD, b""), (OLD, NEW, OTHER)])
def test_secrets_that_protect_nothing_are_refused(secrets):
    with pytest.raises(AuthError):
        check_secrets(secrets)


@given(st.binary(min_size=32, max_size=32))
def test_no_other_proof_is_accepted(mac):
    assert verify([OLD], DIALLER, SAID, (mac,)) is None


def test_the_seals_of_the_two_directions_differ_and_are_the_same_at_both_ends():
    (dialler, acceptor), (dialler_too, acceptor_too) = seals(OLD, SAID), seals(OLD, SAID)
    sent = dialler.of(b"message")
    dialler_too.check(b"message", sent)
    with pytest.raises(AuthError):
        acceptor_too.check(b"message", sent)
    assert acceptor.of(b"message") != sent


def test_another_link_has_other_seals():
    other = seals(OLD, transcript(hello("web-1", nonce=b"n" * 32), hello("web-2")))
    assert seals(OLD, SAID)[0].of(b"message") != other[0].of(b"message")
