"""The checks of a configuration before a bridge opens or changes anything."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cachee_bridge.daemon.in_force import credentials_of
from cachee_bridge.daemon.in_force import settings as settings_of
from cachee_bridge.protocol.mesh import Settings
from cachee_shm.config import Config
from cachee_shm.errors import ListenRefused

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
    """But for the checker: a mesh that is made by hand checks nothing unless it is told to."""
    made = Settings(address="127.0.0.1:7946", check_every_s=30.0)
    assert settings(config_of(listen="127.0.0.1:7946")) == made


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
    monkeypatch.setattr("cachee_bridge.daemon.in_force.LOOK_UP_S", 0.05)
    settings(config_of(listen="127.0.0.1:1", peers=[f"web-{number}:1" for number in range(60)]))
    ended.set()


def test_numbers_reach_the_mesh_in_seconds() -> None:
    told = settings(config_of(listen="127.0.0.1:1", heartbeat="50ms", lost_after="1s", fanout=5))
    assert (told.heartbeat_s, told.lost_after_s, told.fanout) == (0.05, 1.0, 5)
