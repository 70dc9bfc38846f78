"""What the daemon judges before it touches anything; its life is in test_two_bridges.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cachee_bridge.daemon.daemon import Daemon
from cachee_bridge.system.notify import Notifier
from cachee_shm.config import Config
from cachee_shm.errors import BridgeRunning, ConfigError, SegmentRetired

DEFAULTS = {"memory": "4MiB"}


def config_of(**bridge: object) -> Config:
    return Config.parse({"defaults": DEFAULTS, "bridge": bridge})


def test_a_configuration_without_a_bridge_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[bridge\]"):
        Daemon(Config.parse({"defaults": DEFAULTS}), Notifier({}))


def test_a_task_of_every_second_that_fails_is_tried_again_and_costs_no_other() -> None:
    daemon = Daemon(config_of(listen="127.0.0.1:1"), Notifier({}))
    for error in (OSError(24, "Too many open files"), MemoryError(), ZeroDivisionError()):

        def fails(error: Exception = error) -> None:
            raise error

        daemon._attempt("a task", fails)
    for lost in (SegmentRetired, BridgeRunning):

        def loses(lost: type[Exception] = lost) -> None:
            raise lost("to another")

        with pytest.raises(lost):
            daemon._attempt("a task", loses)


def test_an_exception_in_a_callback_is_logged_and_costs_its_connection_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon = Daemon(config_of(listen="127.0.0.1:1"), Notifier({}))
    aborted: list[str] = []
    transport = SimpleNamespace(abort=lambda: aborted.append("transport"))
    loop: Any = None
    daemon._on_loop_error(loop, {"message": "a handle", "exception": ZeroDivisionError("by none")})
    daemon._on_loop_error(loop, {"message": "a protocol", "exception": KeyError("k"), "transport": transport})
    daemon._on_loop_error(loop, {"message": "a complaint of the loop's own"})
    assert aborted == ["transport"]
    for told in (
        "ZeroDivisionError: by none",
        "KeyError: 'k'",
        "RuntimeError: a complaint of the loop's own",
    ):
        assert told in caplog.text
    assert daemon._broken is None and not daemon._wake.is_set()


@pytest.mark.parametrize("lost", [SegmentRetired, BridgeRunning])
def test_a_lost_segment_in_a_callback_ends_the_turn(lost: type[Exception]) -> None:
    daemon = Daemon(config_of(listen="127.0.0.1:1"), Notifier({}))
    loop: Any = None
    first, second = lost("to another"), lost("again")
    for error in (first, second):
        daemon._on_loop_error(loop, {"message": "a handle", "exception": error})
    assert daemon._broken is first and daemon._wake.is_set()


def test_the_service_manager_is_told_the_status_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    notifier = Notifier({})
    monkeypatch.setattr(notifier, "status", told.append)
    daemon = Daemon(config_of(listen="127.0.0.1:1"), notifier)
    peers = [(0, 1), (0, 1), (1, 1), (1, 1), (0, 1)]
    shell: Any = SimpleNamespace(mesh=SimpleNamespace(views=SimpleNamespace(tally=lambda: peers.pop(0))))
    segments: Any = SimpleNamespace(held={"shop": None})
    while peers:
        daemon._tell_status(shell, segments)
    assert told == [f"1 namespaces, {up} of 1 peers up" for up in (0, 1, 0)]
