"""What the daemon judges before it touches anything; its life is in test_two_bridges.py."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cachee_bridge.daemon import Daemon, settings
from cachee_bridge.notify import Notifier
from cachee_shm.config import Config
from cachee_shm.errors import ConfigError, ListenRefused

DEFAULTS = {"memory": "4MiB"}


def config_of(**bridge: object) -> Config:
    return Config.parse({"defaults": DEFAULTS, "bridge": bridge})


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"sixteen bytes or more\r\n")
    path.chmod(0o640)
    return path


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


def test_both_secrets_are_read_while_one_is_rolled(secret: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"the one before this one")
    old.chmod(0o600)
    both = settings(config_of(secret_file=str(secret), previous_secret_file=str(old)))
    assert both.secrets == (b"sixteen bytes or more", b"the one before this one")


@pytest.mark.parametrize("content", [b"", b"too short\n", b"x" * 5000])
def test_a_secret_of_a_useless_length_is_refused_with_its_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        settings(config_of(secret_file=str(path)))


def test_a_secret_that_cannot_be_read_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such-file.*cannot be read"):
        settings(config_of(secret_file=str(tmp_path / "no-such-file")))


def test_a_secret_that_everybody_may_read_is_warned_of(
    secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret.chmod(0o644)
    with caplog.at_level(logging.WARNING, logger="cachee_bridge"):
        settings(config_of(secret_file=str(secret)))
    assert str(secret) in caplog.text


def test_a_configuration_without_a_bridge_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[bridge\]"):
        Daemon(Config.parse({"defaults": DEFAULTS}), Notifier({}))


def test_numbers_reach_the_mesh_in_seconds() -> None:
    told = settings(config_of(listen="127.0.0.1:1", heartbeat="50ms", lost_after="1s", fanout=5))
    assert (told.heartbeat_s, told.lost_after_s, told.fanout) == (0.05, 1.0, 5)
