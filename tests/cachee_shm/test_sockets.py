"""One call that writes to many sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cachee_shm._core import send_each

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(3)]
        for pair in made:
            for end in pair:
                stack.enter_context(end)
                end.setblocking(False)
        yield made


def test_each_socket_gets_its_own_bytes(pairs: list[Pair]) -> None:
    data = [b"one", b"", b"three"]
    assert send_each([near.fileno() for near, _ in pairs], data) is None
    assert pairs[0][1].recv(99) == b"one"
    assert pairs[2][1].recv(99) == b"three"
    with pytest.raises(BlockingIOError):
        pairs[1][1].recv(99)
    assert send_each([], []) is None


def test_a_full_socket_takes_a_part_and_then_nothing_and_the_others_all(pairs: list[Pair]) -> None:
    descriptors, large = [near.fileno() for near, _ in pairs], bytes(1 << 22)
    taken = send_each(descriptors, [b"one", large, b"three"])
    assert taken is not None
    assert taken[0] == 3 and 0 < taken[1] < len(large) and taken[2] == 5
    assert send_each(descriptors, [b"one", b"more", b"three"]) == [3, 0, 5]


def test_a_socket_whose_other_end_has_gone_takes_nothing(pairs: list[Pair]) -> None:
    pairs[1][1].close()
    assert send_each([near.fileno() for near, _ in pairs], [b"one", b"two", b"three"]) == [3, 0, 5]


@pytest.mark.parametrize("descriptor", [-1, -(1 << 70), 1 << 31, 1 << 70])
def test_what_is_no_descriptor_is_passed_over(pairs: list[Pair], descriptor: int) -> None:
    assert send_each([descriptor, pairs[0][0].fileno()], [b"one", b"two"]) == [0, 3]
    assert pairs[0][1].recv(99) == b"two"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ([],),
        ([], [], []),
        ((), ()),
        ([1], []),
        ([1], ["text"]),
        ([1], [bytearray(1)]),
        ([1.0], [b""]),
        ([True], [b""]),
    ],
    ids=repr,
)
def test_anything_else_is_a_mistake_and_nothing_is_sent(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="send_each takes"):
        send_each(*arguments)  # type: ignore[arg-type, call-arg]


def test_nothing_is_sent_if_any_of_it_cannot_be(pairs: list[Pair]) -> None:
    with pytest.raises(TypeError):
        send_each([pairs[0][0].fileno(), 1], [b"one", "two"])  # type: ignore[list-item]
    with pytest.raises(BlockingIOError):
        pairs[0][1].recv(99)
