"""One socket over real TCP: how it is written and read, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest

from cachee_bridge.carriers import connection
from tests.bridge.networks import WAIT_S, Side, linked, run, stranger, until


def test_a_slow_reader_leaves_the_send_unfinished_until_it_reads() -> None:
    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", left.port)) as slow:
            await until(lambda: left.seen.told)
            sent = 0
            while left.network.send(1, bytes(1 << 20)):
                sent += 1 << 20
                assert sent < 1 << 30
            sent += 1 << 20
            await asyncio.sleep(0.05)
            assert not left.seen.events("writable")
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            while sent:
                sent -= len(await loop.sock_recv(slow, 1 << 20))
            await until(lambda: left.seen.events("writable") == [("writable", 1)])

    run(test)


def test_a_paused_connection_is_not_read_until_it_is_resumed() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.network.pause(1)
        left.network.send(1, b"waits")
        await asyncio.sleep(0.05)
        assert right.seen.data == {}
        right.network.resume(1)
        await until(lambda: right.seen.data.get(1) == b"waits")
        right.network.pause(99)
        right.network.resume(99)

    run(test)


def test_the_kernel_holds_little_that_has_not_been_sent() -> None:
    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", left.port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await until(lambda: left.seen.told)
            sent = 0
            while left.network.send(1, bytes(4096)):
                sent += 4096
            assert sent < (8 << 20)

    run(test)


def test_closing_sends_the_last_bytes_first_and_tells_only_the_other_side() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        left.network.send(1, b"your frame is malformed")
        left.network.close(1)
        left.network.close(1)
        await until(lambda: right.seen.events("closed") == [("closed", 1, "closed by the other end")])
        assert right.seen.data[1] == b"your frame is malformed"
        assert not left.seen.events("closed")
        assert left.network.send(1, b"to nobody")

    run(test)


def test_a_peer_that_reads_nothing_cannot_hold_up_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FLUSH_S", 0.1)

    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", left.port)) as slow:
            await until(lambda: left.seen.told)
            while left.network.send(1, bytes(1 << 20)):
                pass
            left.network.close(1)
            await asyncio.sleep(5 * connection.FLUSH_S)
            slow.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionResetError):
                while slow.recv(1 << 20):
                    pass

    run(test)


def test_nothing_that_came_before_a_close_is_told_after_it() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.seen.on_received = lambda link, data: right.network.close(link)
        left.network.send(1, bytes(1 << 20))
        await until(lambda: left.seen.events("closed"))
        assert len(right.seen.data[1]) < 1 << 20
        assert not right.seen.events("closed")

    run(test)


@pytest.mark.parametrize("at", ["at once", "half of a message", "after a word"])
def test_a_link_that_is_reset_ends_and_no_other(at: str) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        for _ in range(20):
            sock = stranger(right.port)
            if at != "at once":
                sock.send(b"\x00" * (3 if at == "half of a message" else 4096))
                await asyncio.sleep(0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        left.network.send(1, b"still there")
        await until(lambda: right.seen.data.get(1) == b"still there")

    run(test)


@pytest.mark.parametrize("method", ["opened", "received", "closed", "connect_failed"])
def test_a_handler_that_raises_costs_its_connection_only(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right_one = getattr(right.seen, method)
        met: list[object] = []
        uncaught: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: uncaught.append(told))

        def mistaken(*arguments: object) -> None:
            if len(met) < 3:
                met.append(arguments)
                raise ZeroDivisionError("on purpose")
            right_one(*arguments)

        monkeypatch.setattr(right.seen, method, mistaken)
        for _ in range(3):
            if method == "connect_failed":
                right.network.connect("nowhere:1", "127.0.0.1", 1)
            else:
                sock = stranger(right.port)
                sock.send(b"bytes")
                if method == "closed":
                    await asyncio.sleep(0.02)
                    sock.close()
        await until(lambda: len(met) == 3)
        left.network.send(1, b"still there")
        await until(lambda: right.seen.data.get(1) == b"still there")
        left.dial(right.port)
        await until(lambda: len(left.seen.events("opened")) == 2)
        assert uncaught == []

    run(test)
