"""The command, its exit codes and what is shipped beside it."""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cachee_shm
from cachee_bridge import __main__ as command
from cachee_bridge.daemon.daemon import CARE_S
from cachee_bridge.daemon.in_force import credentials_of, settings
from cachee_shm.config import Config, load
from cachee_shm.errors import ConfigError
from tests.bridge.certificates import Authority, table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CERTIFICATES = """
[bridge.tls]
cert = "/etc/cachee/host.pem"
key = "/etc/cachee/host.key"
ca = "/etc/cachee/ca.pem"
"""
SHIPPED = Path(__file__).resolve().parents[2] / "bridge"
EVERYTHING = """
[host]
name = "web-1"
region = 'quote " and backslash \\ and é'
[defaults]
memory = "3MiB"
default_ttl = "90s"
[namespaces.shop]
default_ttl = "never"
isolation_ttl = "1500ms"
compress = "4KiB"
[namespaces.news]
memory = "1GiB"
pickle = true
[bridge]
listen = "127.0.0.1:7946"
peers = ["web-1:7946", "[::1]:7"]
heartbeat = "20ms"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cachee.toml"
    path.write_text(EVERYTHING)
    return path


def merged(config: Config) -> object:
    namespaces = [config.namespace(name) for name in (*sorted(config.namespaces), "other")]
    return config.host, namespaces, config.bridge


@pytest.mark.parametrize("more", ["", CERTIFICATES])
def test_what_is_printed_is_a_configuration_that_says_the_same(
    file: Path, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(EVERYTHING + more)
    assert command.main(["--config", str(file), "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert merged(Config.parse(tomllib.loads(printed))) == merged(load(str(file)))
    assert 'lost_after = "2000ms"' in printed
    assert (
        printed.count("pickle = ") == printed.count("may then run code in every process that reads it") == 2
    )


def test_a_check_says_that_there_is_no_fault(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--config", str(file), "--check"]) == 0
    assert "no fault" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('heartbeat = "20ms"', 'heartbeat = "20"'), "bridge.heartbeat"),
        (("127.0.0.1:7946", ":7946"), "secret_file"),
        (("[bridge]", '[host]\ngroup = "x"\n[bridge]'), "not TOML"),
        (("region = ", 'hash_key_file = "none.key"\nregion = '), "none.key"),
        (("region = ", 'group = "no-such-group"\nregion = '), "no-such-group"),
    ],
)
def test_a_fault_is_named_and_the_exit_code_says_so(
    file: Path, change: tuple[str, str], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(EVERYTHING.replace(*change))
    assert command.main(["--config", str(file), "--check"]) == command.EXIT_CONFIG
    assert complaint in caplog.text


def test_a_check_reads_the_certificates_too(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(file.parent / "ca")
    for name, code in (("web-1", 0), ("web-2", command.EXIT_CONFIG)):
        file.write_text(EVERYTHING + table(authority.issue(name)))
        assert command.main(["--config", str(file), "--check"]) == code
    assert "found 'web-2'; accepted: one for 'web-1'" in caplog.text


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert command.main(["--config", str(tmp_path / "none.toml")]) == command.EXIT_CONFIG
    assert "none.toml" in caplog.text


def test_its_log_goes_into_no_file_that_got_the_number_of_a_closed_standard_stream() -> None:
    code = (
        "import os\nfor stream in (0, 1, 2): os.close(stream)\n"
        "from cachee_bridge.__main__ import main\nmain(['--config', '/none.toml'])\n"
        "assert [os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)] == ['/dev/null'] * 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_reload_that_is_told_before_it_serves_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def reload_comes(path: str | None) -> Config:
        os.kill(os.getpid(), signal.SIGHUP)
        raise ConfigError("read, and of no use")

    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(command, "load", reload_comes)
    try:
        assert command.main([]) == command.EXIT_CONFIG
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_shipped_example_is_without_fault() -> None:
    config = load(str(SHIPPED / "cachee.toml"))
    assert settings(config, credentials_of(config)).address == "127.0.0.1:7946"


def test_the_shipped_example_with_every_line_in_force_is_without_fault(tmp_path: Path) -> None:
    lines = (SHIPPED / "cachee.toml").read_text().splitlines()
    names = ("name", "hash_key_file", "secret_file", "discover", "nameserver", "forget_after")
    keys = [f"# {key} =" for key in (*names, "cert", "key", "ca")]
    text = "\n".join(line[2:] if line.startswith((*keys, "# [bridge.tls]")) else line for line in lines)
    Authority(tmp_path).issue("web-1", file="host")
    for name in ("hash.key", "secret"):
        (tmp_path / name).write_bytes(b"0123456789abcdef0123456789abcdef\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "cachee.toml").write_text(text)
    config = load(str(tmp_path / "cachee.toml"))
    assert config.host.name == "web-1"
    credentials = credentials_of(config)
    assert len(settings(config, credentials).secrets) == 1
    assert credentials.tls is not None


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SHIPPED / "systemd" / "cachee-bridge.service")
    return parser


def test_the_unit_waits_for_ready_and_watches_for_longer_than_the_bridge_is_silent() -> None:
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert float(service["WatchdogSec"].removesuffix("s")) > 5 * CARE_S
    assert service["RestartPreventExitStatus"] == str(command.EXIT_CONFIG)


def test_the_unit_shares_memory_and_message_queues_with_the_workers() -> None:
    service = unit()["Service"]
    assert service["User"] == "cachee"
    assert not {"PrivateIPC", "DynamicUser", "TemporaryFileSystem", "InaccessiblePaths"} & set(service)
    assert service["RemoveIPC"] == "no"


def test_it_says_its_version_and_the_layouts_and_wires_that_it_knows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert ended.value.code == 0
    said = f"cachee-bridge {cachee_shm.__version__} (segment layout {cachee_shm._core.LAYOUT}, wire 2 to 3)\n"
    assert capsys.readouterr().out == said
