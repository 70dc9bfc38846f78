"""Strangers at the network's door, over real sockets: floods, half-open links, no descriptors, odd bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from cachee_bridge.carriers import accepting, gate, transport
from cachee_bridge.carriers.names import Names
from cachee_bridge.carriers.own import Own
from tests.bridge.test_transport import Side, linked, run, until


@contextlib.contextmanager
def descriptors(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def stranger(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_of_many_strangers_only_so_many_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HEARD_BURST", 10)

    async def test(left: Side, right: Side) -> None:
        crowd = [stranger(right.port) for _ in range(100)]
        await until(lambda: len(right.seen.events("refused")) >= 85)
        assert len(right.seen.events("opened")) <= 15
        assert "prove nothing" in str(right.seen.events("refused")[0][2])
        for sock in crowd:
            sock.close()

    run(test)


def test_the_loop_has_its_turn_between_connections_that_come_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(left: Side, right: Side) -> None:
        taken: list[int] = []
        turns: list[int] = []
        listener = right.network._listeners[0]
        listener._taken = lambda sock, host, port: taken.append(1) or sock.close()  # type: ignore[func-returns-value]
        on_readable = listener._on_readable

        def counted() -> None:
            before = len(taken)
            on_readable()
            turns.append(len(taken) - before)

        loop = asyncio.get_running_loop()
        loop.remove_reader(listener._sock.fileno())
        crowd = [stranger(right.port) for _ in range(150)]
        loop.add_reader(listener._sock.fileno(), counted)
        await until(lambda: len(taken) == 150)
        assert max(turns) <= accepting.AT_ONCE
        for sock in crowd:
            sock.close()

    run(test)


def test_connections_are_not_taken_faster_than_the_gate_allows_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "ACCEPTS_BURST", 5)
    monkeypatch.setattr(gate, "ACCEPTS_PER_S", 200.0)

    async def test(left: Side, right: Side) -> None:
        crowd = [stranger(right.port) for _ in range(40)]
        await until(lambda: right.network._listeners[0]._paused is not None)
        await until(lambda: len(right.seen.events("opened")) == 40)
        for sock in crowd:
            sock.close()

    run(test)


def test_a_stranger_pushes_out_its_own_and_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKES_MAX", 4)

    async def test(left: Side, right: Side) -> None:
        with socket.socket() as honest:
            honest.bind(("127.0.0.2", 0))
            honest.connect(("127.0.0.1", right.port))
            honest.setblocking(False)
            await until(lambda: right.seen.events("opened"))
            crowd = [stranger(right.port) for _ in range(30)]
            await until(lambda: sum(map(is_closed, crowd)) >= 27)
            assert not is_closed(honest)
            assert len(right.network._unproven) <= 4
            for sock in crowd:
                sock.close()

    run(test)


def test_who_has_proven_itself_is_pushed_out_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKES_MAX", 2)

    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.network.proven(1)
        crowd = [stranger(right.port) for _ in range(30)]
        await until(lambda: sum(map(is_closed, crowd)) >= 28)
        left.network.send(1, b"still there")
        await until(lambda: right.seen.data.get(1) == b"still there")
        for sock in crowd:
            sock.close()

    run(test)


def test_strangers_that_hold_on_leave_descriptors_to_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.network.proven(1)
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        right.network._descriptor_max = free + 3
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        many = [stranger(right.port) for _ in range(20)]
        await until(lambda: len(right.seen.told) >= 20)
        assert len(right.network._unproven) <= 3
        left.network.send(1, b"still there")
        await until(lambda: right.seen.data.get(1) == b"still there")
        for sock in (*crowd, *many):
            sock.close()

    run(test)


def test_without_any_descriptor_links_go_on_strangers_are_dropped_and_all_is_well_afterwards() -> None:
    async def test(left: Side, right: Side) -> None:
        await linked(left, right)
        right.network.proven(1)
        waiting = [socket.socket() for _ in range(5)]
        with descriptors(max(map(int, os.listdir("/proc/self/fd"))) + 1):
            hoard = []
            with contextlib.suppress(OSError):
                while True:
                    hoard.append(os.open("/dev/null", os.O_RDONLY))
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", right.port))
            await until(lambda: len(right.seen.events("refused")) == 5)
            assert "Too many open files" in str(right.seen.events("refused")[0][2])
            left.network.send(1, b"still there")
            await until(lambda: right.seen.data.get(1) == b"still there")
            left.dial(right.port)
            await until(lambda: left.seen.events("failed"))
            for descriptor in hoard:
                os.close(descriptor)
        opened = len(right.seen.events("opened"))
        left.dial(right.port)
        await until(lambda: len(right.seen.events("opened")) == opened + 1)
        for sock in waiting:
            sock.close()

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
        monkeypatch.setattr(left.network._loop, "create_connection", dialled.append, raising=False)
        left.network.only_loopback = True
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

        left.network._own = Own(out_of_descriptors)
        left.network._own.listens([("0.0.0.0", right.port)])
        left.dial(right.port)
        await until(lambda: left.seen.events("failed"))
        assert "Too many open files" in str(left.seen.events("failed")[0][2])
        assert list(left.seen.dialled.values()) == [[]]

    run(test)
