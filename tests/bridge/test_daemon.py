"""What the daemon judges before it touches anything; its life is in test_two_bridges.py."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cachee_bridge.daemon import daemon as daemon_module
from cachee_bridge.daemon.daemon import Daemon, credentials_of
from cachee_bridge.daemon.daemon import settings as settings_of
from cachee_bridge.protocol.mesh import Settings
from cachee_bridge.system.notify import Notifier
from cachee_shm.config import Config
from cachee_shm.errors import BridgeRunning, ConfigError, ListenRefused, SegmentRetired

DEFAULTS = {"memory": "4MiB"}


def config_of(**bridge: object) -> Config:
    return Config.parse({"defaults": DEFAULTS, "bridge": bridge})


def settings(config: Config) -> Settings:
    return settings_of(config, credentials_of(config))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"sixteen bytes or more\r\n")
    path.chmod(0o640)
    return path


def test_what_the_file_leaves_out_is_the_same_to_the_mesh_as_to_the_file() -> None:
    assert settings(config_of(listen="127.0.0.1:7946")) == Settings(address="127.0.0.1:7946")


@pytest.mark.parametrize("listen", ["127.0.0.1:7946", "[::1]:7946", "localhost:7946", "127.8.9.10:1"])
def test_on_loopback_no_secret_is_asked_for(listen: str) -> None:
    assert settings(config_of(listen=listen)).address == listen


@pytest.mark.parametrize(
    "listen",
    [":7946", "0.0.0.0:7946", "[::]:7946", "192.0.2.1:7946", "[2001:db8::1]:7946", "no.such.host.invalid:1"],
)
def test_beyond_loopback_a_listener_without_a_secret_is_refused(listen: str) -> None:
    with pytest.raises(ListenRefused, match="secret_file"):
        settings(config_of(listen=listen))


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        (":7946", ":7946"),
        ("0.0.0.0:7946", ":7946"),
        ("[::]:7946", ":7946"),
        ("192.0.2.1:7946", "192.0.2.1:7946"),
        ("[2001:db8::1]:7946", "[2001:db8::1]:7946"),
    ],
)
def test_peers_are_told_an_address_that_they_can_dial(listen: str, address: str, secret: Path) -> None:
    told = settings(config_of(listen=listen, secret_file=str(secret)))
    assert told.address == address
    assert told.secrets == (b"sixteen bytes or more",)


@pytest.mark.parametrize(
    "peer",
    ["192.0.2.1:7946", "[2001:db8::1]:7946", "10.0.0.1:1", "web-2.far:7946", "half.far:7946", "[::]:7946"],
)
def test_beyond_loopback_a_peer_without_a_secret_is_refused(
    peer: str, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"web-2.far": ["192.0.2.7"], "half.far": ["127.0.0.1", "192.0.2.7"]}
    monkeypatch.setattr("cachee_bridge.carriers.names.look_up", names.__getitem__)
    with pytest.raises(ListenRefused, match=r"bridge\.peers: .* is beyond this machine.*nothing was started"):
        settings(config_of(listen="127.0.0.1:1", peers=["127.0.0.1:2", peer]))
    settings(config_of(listen="127.0.0.1:1", peers=[peer], secret_file=str(secret)))


def test_hosts_that_discovery_names_are_refused_without_a_secret(secret: Path) -> None:
    discover = "dns:cachee.test:7946"
    for more in ({}, {"nameserver": "192.0.2.1:53"}):
        with pytest.raises(ListenRefused, match=r"bridge\.discover"):
            settings(config_of(listen="127.0.0.1:1", discover=discover, **more))
        settings(config_of(listen="127.0.0.1:1", discover=discover, secret_file=str(secret), **more))
    settings(config_of(listen="127.0.0.1:1", discover=discover, nameserver="127.0.0.1:53"))


def test_names_that_do_not_resolve_hold_up_no_start_and_are_judged_when_they_are_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    monkeypatch.setattr("cachee_bridge.carriers.names.look_up", lambda name: ended.wait(60) and [])
    monkeypatch.setattr("cachee_bridge.daemon.daemon.LOOK_UP_S", 0.05)
    settings(config_of(listen="127.0.0.1:1", peers=[f"web-{number}:1" for number in range(60)]))
    ended.set()


def test_a_configuration_without_a_bridge_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[bridge\]"):
        Daemon(Config.parse({"defaults": DEFAULTS}), Notifier({}))


def test_numbers_reach_the_mesh_in_seconds() -> None:
    told = settings(config_of(listen="127.0.0.1:1", heartbeat="50ms", lost_after="1s", fanout=5))
    assert (told.heartbeat_s, told.lost_after_s, told.fanout) == (0.05, 1.0, 5)


def test_however_often_it_is_told_to_reload_files_are_read_once_in_a_second(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(daemon_module.time, "monotonic", lambda: now[0])
    daemon = Daemon(config_of(listen="127.0.0.1:1", secret_file=str(secret)), Notifier({}))
    read: list[float] = []
    monkeypatch.setattr(daemon._credentials, "reload", lambda: read.append(now[0]))
    wakes = 0
    for _ in range(300):
        daemon._on_reload()
        wakes += daemon._wake.is_set()
        daemon._wake.clear()
        daemon._renew(None)  # type: ignore[arg-type]
        now[0] += 0.01
    assert read == pytest.approx([100.0, 101.0, 102.0], abs=0.015)
    assert wakes == len(read)
    now[0] += 1.0  # the look of every second
    daemon._renew(None)  # type: ignore[arg-type]
    assert len(read) == 4
    daemon._renew(None)  # type: ignore[arg-type]
    assert len(read) == 4


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
