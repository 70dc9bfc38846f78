"""The network over real TCP on loopback: links, their numbers, and what a handler is told."""

from __future__ import annotations

import asyncio
import functools
import os
import socket

import pytest

from cachee_bridge.carriers import transport
from tests.bridge.networks import Side, linked, run, told_times, until


def test_both_sides_are_told_of_a_link_and_only_the_dialler_has_its_address() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        assert left.seen.told == [("opened", 1, f"127.0.0.1:{right.port}", "127.0.0.1")]
        assert right.seen.told == [("opened", 1, None, "127.0.0.1")]

    run(test)


@pytest.mark.parametrize("both_families", [True, False])
def test_everywhere_is_every_address_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, both_families: bool
) -> None:
    both_families = both_families and socket.has_dualstack_ipv6()
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: both_families)

    async def test(left: Side, right: Side) -> None:
        (port,) = await left.network.listen("", 0)
        dialled = ["127.0.0.1", "127.0.0.2", *(["::1"] if both_families else [])]
        for number, host in enumerate(dialled, 1):
            right.network.connect(host, host, port)
            await until(functools.partial(told_times, left, number))
        assert [event[3] for event in left.seen.told] == ["127.0.0.1", "127.0.0.1", "::1"][: len(dialled)]

    run(test)


def test_bytes_arrive_in_order_and_a_small_send_is_taken_at_once() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        assert all(left.network.send(1, bytes([number])) for number in range(200))
        await until(lambda: right.seen.data.get(1) == bytes(range(200)))

    run(test)


def test_what_is_sent_to_each_arrives_whole_and_in_order_with_what_is_sent_to_one() -> None:
    async def test(left: Side, right: Side) -> None:
        for number in (1, 2):
            left.dial(right.port)
            await until(functools.partial(told_times, right, number))
        for number in range(0, 100, 2):
            assert left.network.send_each([1, 2, 7], [bytes([number])] * 3) == [(7, bytes([number]))]
            assert left.network.send(1, bytes([number + 1])) and left.network.send(7, b"to nobody")
        await until(lambda: right.seen.data.get(1) == bytes(range(100)))
        await until(lambda: right.seen.data.get(2) == bytes(range(0, 100, 2)))

    run(test)


def test_what_a_socket_does_not_take_of_a_send_to_each_is_returned_and_later_sends_keep_their_order() -> None:
    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", left.port)) as slow:
            await until(lambda: left.seen.told)
            block, sent, rests = bytes(range(256)) * 4096, bytearray(), []
            while not rests:
                rests = left.network.send_each([1], [block])
                sent += block
                assert len(sent) < 1 << 30
            (rest,) = rests
            assert rest[0] == 1 and block.endswith(rest[1])
            assert not left.network.send(*rest)  # it waits in the transport
            assert left.network.send_each([1], [b"after it"]) == [(1, b"after it")]
            assert not left.network.send(1, b"after it")
            sent += b"after it"
            slow.setblocking(False)
            loop, came = asyncio.get_running_loop(), bytearray()
            while len(came) < len(sent):
                came += await loop.sock_recv(slow, 1 << 20)
            assert came == sent
            await until(lambda: left.seen.events("writable"))
            assert left.network.send_each([1], [b"at once"]) == []

    run(test)


@pytest.mark.parametrize("end", ["abort", "reset"])
def test_a_link_that_has_ended_is_sent_nothing_though_its_descriptor_is_used_again(end: str) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        descriptor = left.network._links[1].socket
        if end == "abort":
            left.network.abort(1)
        else:
            right.network.abort(1)
            await until(lambda: left.seen.events("closed"))
        await until(lambda: not is_open(descriptor))
        near, far = socket.socketpair()
        with near, far:
            if near.fileno() != descriptor:
                os.dup2(near.fileno(), descriptor)
            assert left.network.send_each([1], [b"for another"]) == [(1, b"for another")]
            if near.fileno() != descriptor:
                os.close(descriptor)
            far.setblocking(False)
            with pytest.raises(BlockingIOError):
                far.recv(1)

    run(test)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_numbers_of_links_are_never_used_twice() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        left.network.close(1)
        await until(lambda: right.seen.events("closed"))
        left.dial(right.port)
        await until(lambda: len(right.seen.events("opened")) == 2)
        assert [event[1] for event in left.seen.events("opened")] == [1, 2]
        assert [event[1] for event in right.seen.events("opened")] == [1, 2]

    run(test)


def test_beyond_the_limit_a_link_is_refused_and_the_dialler_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LINKS_MAX", 1)

    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        left.dial(right.port)
        await until(lambda: left.seen.events("failed"))
        assert "1 links are open" in str(left.seen.events("failed")[0][2])
        with socket.create_connection(("127.0.0.1", right.port)) as extra:
            extra.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(extra, 1) == b""
        assert len(right.seen.events("opened")) == 1

    run(test)


def test_a_port_in_use_is_an_error_that_says_so() -> None:
    async def test(left: Side, right: Side) -> None:
        with pytest.raises(OSError, match="in use"):
            await left.network.listen("127.0.0.1", right.port)

    run(test)


def test_after_a_stop_nobody_is_accepted_and_nothing_is_told() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.network.stop()
        await until(lambda: left.seen.events("closed"))
        left.dial(right.port)
        await until(lambda: left.seen.events("failed"))
        assert [event[0] for event in right.seen.told] == ["opened"]

    run(test)
