"""What the mesh wants done is done: serving until, lines of the log, dials and closes."""

from __future__ import annotations

import logging

import pytest

from cachee_bridge.ports.effects import Close, Connect, Log, ServeUntil
from tests.bridge.shells import Side, perform, run


def test_serve_until_reaches_the_segment_in_its_own_milliseconds() -> None:
    async def test(left: Side, right: Side) -> None:
        shell = left.shell
        for until_s, ms in ((12.5, 12500), (float("inf"), 1 << 63)):
            perform(shell, [ServeUntil(("shop",), until_s)])
            assert left.cache.serve_until == ms

    run(test)


def test_a_log_is_one_line_whatever_a_peer_calls_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def test(left: Side, right: Side) -> None:
        with caplog.at_level(logging.INFO, logger="cachee_bridge"):
            perform(left.shell, [Log("warning", "a\nb is up", {"peer": "x\x1b[2Jy", "links": 3})])
        assert caplog.records[-1].getMessage() == "a?b is up"
        assert caplog.records[-1].fields == {"peer": "x?[2Jy", "links": 3}  # type: ignore[attr-defined]

    run(test)


def test_an_inbound_link_that_is_closed_for_a_reason_is_logged_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(left: Side, right: Side) -> None:
        turned_away: list[tuple[str, str]] = []
        monkeypatch.setattr(left.shell.performer, "_refused", lambda *told: turned_away.append(told))
        monkeypatch.setattr(left.shell.network, "stranger", lambda link: "10.0.0.9:5\n" if link < 92 else "")
        with caplog.at_level(logging.INFO, logger="cachee_bridge"):
            caplog.clear()
            closes = (Close(90, "it lies", False), Close(91, "it lies", True), Close(92, "it lies", False))
            perform(left.shell, [*closes, Close(90, "", False)])
        assert caplog.messages == ["closed inbound link 90 from 10.0.0.9:5?: it lies"]
        assert turned_away == [("10.0.0.9:5\n", "it lies")]

    run(test)


def test_an_address_that_cannot_be_dialled_is_a_failed_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        failed: list[str] = []
        monkeypatch.setattr(left.shell.mesh, "connect_failed", lambda *told: failed.append(told[0]))
        perform(left.shell, [Connect("host:99999"), Connect("nonsense")])
        assert failed == ["host:99999", "nonsense"]
        assert not left.broken

    run(test)
