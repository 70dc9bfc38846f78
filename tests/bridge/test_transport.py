"""The network over real TCP on loopback: links, their numbers, and what a handler is told."""

from __future__ import annotations

import asyncio
import functools
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
