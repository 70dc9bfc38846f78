"""Strangers at the network's door, over real sockets: floods, half-open links, no descriptors, odd bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from cachee_bridge.carriers import accepting, gate
from tests.bridge.networks import Side, descriptors, linked, run, stranger, until


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
