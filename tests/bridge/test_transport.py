"""The transport over real TCP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Collection

import pytest
import uvloop

from cachee_bridge.carriers import transport
from cachee_bridge.carriers.transport import Network
from cachee_bridge.wire.identity import Identity
from tests.workers import free_ports

WAIT_S = 20.0


class Recorder:
    """A handler that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.data: dict[int, bytes] = {}
        self.identities: dict[int, Identity | None] = {}
        self.wire_bytes = 0
        self.dialled: dict[str, list[str]] = {}
        """By address that could not be reached, the IP addresses that were tried."""
        self.on_received: Callable[[int, bytes], None] = lambda link, data: None

    def opened(self, link: int, address: str | None, remote_host: str, identity: Identity | None) -> None:
        self.told.append(("opened", link, address, remote_host))
        self.identities[link] = identity

    def refused(self, stranger: str, reason: str) -> None:
        self.told.append(("refused", stranger, reason))

    def connect_failed(self, address: str, reason: str, dialled: Collection[str]) -> None:
        self.told.append(("failed", address, reason))
        self.dialled[address] = list(dialled)

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        self.wire_bytes += wire_bytes
        self.data[link] = self.data.get(link, b"") + data
        self.on_received(link, data)

    def writable(self, link: int) -> None:
        self.told.append(("writable", link))

    def closed(self, link: int, reason: str) -> None:
        self.told.append(("closed", link, reason))

    def events(self, name: str) -> list[tuple[object, ...]]:
        return [event for event in self.told if event[0] == name]


class Side:
    """One network with its recorder, listening on a port of its own."""

    def __init__(self) -> None:
        self.seen = Recorder()
        self.network = Network(asyncio.get_running_loop(), self.seen)
        self.port = 0

    async def listen(self) -> None:
        (self.port,) = await self.network.listen("127.0.0.1", 0)

    def dial(self, port: int) -> str:
        address = f"127.0.0.1:{port}"
        self.network.connect(address, "127.0.0.1", port)
        return address


def run(test: Callable[[Side, Side], Awaitable[None]]) -> None:
    async def main() -> None:
        left, right = Side(), Side()
        await left.listen()
        await right.listen()
        await test(left, right)
        left.network.stop()
        right.network.stop()

    uvloop.run(main())


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), WAIT_S)


async def linked(left: Side, right: Side) -> None:
    left.dial(right.port)
    await until(lambda: left.seen.told and right.seen.told)


def told_times(side: Side, times: int) -> bool:
    return len(side.seen.told) == times


def test_a_link_that_is_made_as_its_time_runs_out_is_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.05)

    async def test(left: Side, right: Side) -> None:
        connect = left.network._loop.create_connection

        async def slowly(*arguments: object) -> object:
            made, protocol = await connect(*arguments)  # type: ignore[call-overload]
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                made.abort()  # as uvloop does, which does not even tell
                raise
            return made, protocol

        left.network._loop = Slow(left.network._loop, slowly)  # type: ignore[assignment]
        await linked(left, right)
        await asyncio.sleep(0.3)
        left.network.send(1, b"still there")
        await until(lambda: right.seen.data.get(1) == b"still there")
        assert not left.seen.events("closed")

    run(test)


class Slow:
    """An event loop, but for how it connects."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect: Callable[..., object]) -> None:
        self._loop, self.create_connection = loop, connect

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


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


def test_who_is_paused_is_not_read_until_it_is_resumed() -> None:
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
    monkeypatch.setattr(transport, "FLUSH_S", 0.1)

    async def test(left: Side, right: Side) -> None:
        with socket.create_connection(("127.0.0.1", left.port)) as slow:
            await until(lambda: left.seen.told)
            while left.network.send(1, bytes(1 << 20)):
                pass
            left.network.close(1)
            await asyncio.sleep(5 * transport.FLUSH_S)
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


def test_a_port_where_nobody_listens_is_a_failed_dial_with_a_reason() -> None:
    async def test(left: Side, right: Side) -> None:
        address = left.dial(free_ports(1)[0])
        await until(lambda: left.seen.told)
        name, at, reason = left.seen.told[0]
        assert (name, at) == ("failed", address)
        assert "refused" in str(reason)

    run(test)


def test_a_name_that_does_not_resolve_is_a_failed_dial() -> None:
    async def test(left: Side, right: Side) -> None:
        left.network.connect("no.such.host.invalid:1", "no.such.host.invalid", 1)
        left.network.connect("a" * 70 + ".x:1", "a" * 70 + ".x", 1)
        await until(lambda: len(left.seen.events("failed")) == 2)

    run(test)


def test_a_host_that_does_not_answer_is_a_failed_dial_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.3)

    async def test(left: Side, right: Side) -> None:
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        address = left.dial(full.getsockname()[1])
        await until(lambda: left.seen.told)
        assert left.seen.told == [("failed", address, "no answer in time")]
        for sock in (full, *fillers):
            sock.close()

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
