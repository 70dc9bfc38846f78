"""Seals: each fits one message, in one place, of one link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.wire.seal import SEAL_BYTES, Seal, seal_each
from cachee_shm.errors import AuthError

KEY, OTHER = b"k" * 32, b"o" * 32
SENT = (b"first", b"second", b"third")


def sealed(key=KEY, messages=SENT):
    seal = Seal(key)
    return [(message, seal.of(message)) for message in messages]


def test_what_was_sealed_in_this_order_is_accepted():
    seal = Seal(KEY)
    for message, mark in sealed():
        assert len(mark) == SEAL_BYTES
        seal.check(message, mark)


@pytest.mark.parametrize(
    "order", [(1,), (2,), (0, 0), (0, 2), (0, 1, 1), (0, 1, 0)], ids=lambda order: "".join(map(str, order))
)
def test_what_is_left_out_repeated_or_out_of_order_is_not(order):
    seal, marked = Seal(KEY), sealed()
    for place in order[:-1]:
        seal.check(*marked[place])
    with pytest.raises(AuthError, match="seal does not fit"):
        seal.check(*marked[order[-1]])


def test_another_links_seal_is_not():
    with pytest.raises(AuthError):
        Seal(OTHER).check(*sealed()[0])


@given(st.binary(max_size=50), st.integers(0), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_noticed(message, place, difference):
    marked = bytearray(message + Seal(KEY).of(message))
    marked[place % len(marked)] ^= difference
    with pytest.raises(AuthError):
        Seal(KEY).check(bytes(marked[:-SEAL_BYTES]), bytes(marked[-SEAL_BYTES:]))


def test_a_message_that_was_refused_is_still_the_next_one() -> None:
    """Else one that was left out on the way could be hidden by trying twice."""
    sender, receiver = Seal(b"k" * 32), Seal(b"k" * 32)
    first, second = sender.of(b"first"), sender.of(b"second")
    for _ in range(2):
        with pytest.raises(AuthError):
            receiver.check(b"second", second)
    receiver.check(b"first", first)
    receiver.check(b"second", second)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=64), st.integers(0, 3)), max_size=9), st.binary())
def test_a_message_for_many_links_has_the_seal_of_each(
    links: list[tuple[bytes, int]], message: bytes
) -> None:
    seals, oracles = [Seal(key) for key, _ in links], [Seal(key) for key, _ in links]
    for (_, count), *both in zip(links, seals, oracles, strict=True):
        for seal in both:
            for _ in range(count):
                seal.of(b"said before")
    for _ in range(2):
        assert seal_each(message, seals) == [message + seal.of(message) for seal in oracles]


@pytest.mark.parametrize("number", [255, 256, 2**32, 2**63, 2**64 - 1])
def test_every_byte_of_a_number_counts(number: int) -> None:
    one, other = Seal(KEY), Seal(KEY)
    one._number = other._number = number
    assert seal_each(b"message", [one]) == [b"message" + other.of(b"message")]
