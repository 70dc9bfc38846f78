"""Connections that have proven nothing: how many there may be, and which one gives way."""

from __future__ import annotations

import os
import socket

import pytest

from cachee_bridge.carriers import unproven
from tests.bridge.networks import Side, is_closed, linked, run, stranger, until


def test_a_stranger_displaces_connections_of_its_own_address_and_of_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unproven, "HANDSHAKES_MAX", 4)

    async def test(left: Side, right: Side) -> None:
        with socket.socket() as honest:
            honest.bind(("127.0.0.2", 0))
            honest.connect(("127.0.0.1", right.port))
            honest.setblocking(False)
            await until(lambda: right.seen.events("opened"))
            crowd = [stranger(right.port) for _ in range(30)]
            await until(lambda: sum(map(is_closed, crowd)) >= 27)
            assert not is_closed(honest)
            assert len(right.network.unproven) <= 4
            for sock in crowd:
                sock.close()

    run(test)


def test_a_peer_that_has_proven_itself_is_not_displaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproven, "HANDSHAKES_MAX", 2)

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
        right.network.unproven._descriptor_max = free + 3
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        many = [stranger(right.port) for _ in range(20)]
        await until(lambda: len(right.seen.told) >= 20)
        assert len(right.network.unproven) <= 3
        left.network.send(1, b"still there")
        await until(lambda: right.seen.data.get(1) == b"still there")
        for sock in (*crowd, *many):
            sock.close()

    run(test)
