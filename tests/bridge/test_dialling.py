"""Dials over real TCP: which address is tried, for how long, and what is told of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from cachee_bridge.carriers import dialling
from cachee_bridge.carriers.names import Names
from cachee_bridge.carriers.own import Own
from tests.bridge.networks import Side, linked, run, until
from tests.workers import free_ports


def test_a_link_that_is_made_as_its_time_runs_out_is_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "CONNECT_TIMEOUT_S", 0.05)

    async def test(left: Side, right: Side) -> None:
        connect = left.network.dialler._loop.create_connection

        async def slowly(*arguments: object) -> object:
            made, protocol = await connect(*arguments)  # type: ignore[call-overload]
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                made.abort()  # as uvloop does, which does not even tell
                raise
            return made, protocol

        left.network.dialler._loop = Slow(left.network.dialler._loop, slowly)  # type: ignore[assignment]
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
    monkeypatch.setattr(dialling, "CONNECT_TIMEOUT_S", 0.3)

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


def test_a_dial_whose_name_does_not_resolve_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        hangs = asyncio.Event()

        async def addresses(names: Names, name: str) -> list[str]:
            if name != "good":
                await hangs.wait()
            return ["127.0.0.1"]

        monkeypatch.setattr(Names, "addresses", addresses)
        for number in range(100):
            left.network.connect(f"bad-{number}:1", f"bad-{number}", 1)
        left.network.connect("good:1", "good", right.port)
        await until(lambda: left.seen.events("opened"))
        left.network.stop()
        assert not left.seen.events("failed")

    run(test)


def test_without_credentials_nothing_beyond_loopback_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        async def addresses(names: Names, name: str) -> list[str]:
            return ["127.0.0.1", "192.0.2.1"] if name == "lies" else [name]

        dialled: list[object] = []
        monkeypatch.setattr(Names, "addresses", addresses)
        monkeypatch.setattr(left.network.dialler._loop, "create_connection", dialled.append, raising=False)
        left.network.dialler.only_loopback = True
        left.network.connect("lies:1", "lies", 1)
        left.network.connect("192.0.2.1:1", "192.0.2.1", 1)
        await until(lambda: len(left.seen.events("failed")) == 2)
        assert all("beyond loopback" in str(event[2]) for event in left.seen.events("failed"))
        assert dialled == []
        assert left.seen.dialled == {"lies:1": ["127.0.0.1", "192.0.2.1"], "192.0.2.1:1": ["192.0.2.1"]}

    run(test)


def test_a_name_with_a_dead_address_before_a_live_one_is_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        async def addresses(names: Names, name: str) -> list[str]:
            return ["127.0.0.3", "127.0.0.1"]

        monkeypatch.setattr(Names, "addresses", addresses)
        left.network.connect("two:1", "two", right.port)
        await until(lambda: left.seen.events("opened"))

    run(test)


def test_a_name_of_this_host_and_of_another_leads_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        async def addresses(names: Names, name: str) -> list[str]:
            return ["127.0.0.2", "127.0.0.1"]

        await left.network.listen("127.0.0.2", right.port)
        monkeypatch.setattr(Names, "addresses", addresses)
        left.network.connect("service:1", "service", right.port)
        await until(lambda: left.seen.events("opened"))
        assert left.seen.events("opened")[0][3] == "127.0.0.1"

    run(test)


def test_a_dial_that_cannot_look_at_the_interfaces_is_told_and_may_be_made_again() -> None:
    async def test(left: Side, right: Side) -> None:
        def out_of_descriptors() -> list[str]:
            raise OSError(24, "Too many open files")

        left.network.dialler.own = Own(out_of_descriptors)
        left.network.dialler.own.listens([("0.0.0.0", right.port)])
        left.dial(right.port)
        await until(lambda: left.seen.events("failed"))
        assert "Too many open files" in str(left.seen.events("failed")[0][2])
        assert list(left.seen.dialled.values()) == [[]]

    run(test)
