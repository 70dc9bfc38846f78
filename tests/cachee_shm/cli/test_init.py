"""`cachee init`: what it writes can be read back, and what was there stays."""

import grp
import os
import pwd
import stat
import subprocess
import sys

import pytest

from cachee_shm import config
from cachee_shm.cli.main import main


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_it_writes_a_configuration_that_loads_with_a_secret_and_a_hash_key(tmp_path, capsys):
    assert main(["init", "--path", str(tmp_path / "etc" / "cachee.toml")]) == 0
    folder = tmp_path / "etc"
    read = config.load(folder / "cachee.toml")
    assert read.bridge is None
    assert read.namespace("any").memory == 256 << 20
    assert read.host.hash_key_file == str(folder / "hash.key")
    assert (mode(folder / "cachee.toml"), mode(folder / "secret"), mode(folder / "hash.key")) == (
        0o644,
        0o600,
        0o600,
    )
    assert capsys.readouterr().out.count("wrote ") == 3
    assert sorted(os.listdir(folder)) == ["cachee.toml", "hash.key", "secret"]


def test_two_runs_make_two_secrets(tmp_path):
    for name in ("one", "two"):
        main(["init", "--path", str(tmp_path / name / "cachee.toml")])
    for name in ("secret", "hash.key"):
        assert (tmp_path / "one" / name).read_text() != (tmp_path / "two" / name).read_text()


def test_with_peers_the_bridge_is_configured(tmp_path):
    main(["init", "--path", str(tmp_path / "cachee.toml"), "--peers", "web-1:7946, web-2:7946"])
    read = config.load(tmp_path / "cachee.toml")
    assert read.bridge.peers == ["web-1:7946", "web-2:7946"]
    assert read.bridge.secret_file == str(tmp_path / "secret")


def test_with_a_group_its_processes_can_read_the_hash_key_and_not_the_secret(tmp_path):
    group = grp.getgrgid(os.getgid()).gr_name
    assert main(["init", "--path", str(tmp_path / "cachee.toml"), "--group", group]) == 0
    assert (mode(tmp_path / "hash.key"), mode(tmp_path / "secret")) == (0o640, 0o600)
    assert config.load(tmp_path / "cachee.toml").host.gid() == os.getgid()


@pytest.mark.needs("other users")
def test_the_bridges_user_gets_the_secret(tmp_path, monkeypatch):
    monkeypatch.setattr("cachee_shm.cli.init.BRIDGE_USER", "daemon")
    assert main(["init", "--path", str(tmp_path / "cachee.toml"), "--group", "daemon"]) == 0
    assert (tmp_path / "secret").stat().st_uid == pwd.getpwnam("daemon").pw_uid
    assert (tmp_path / "hash.key").stat().st_uid == 0


@pytest.mark.needs("other users")
def test_the_workers_user_does_not_get_the_secret(tmp_path, monkeypatch):
    """By custom a group has the name of its user: www-data."""
    monkeypatch.setattr("cachee_shm.cli.init.BRIDGE_USER", "no-such-user")
    assert main(["init", "--path", str(tmp_path / "cachee.toml"), "--group", "daemon"]) == 0
    assert (tmp_path / "secret").stat().st_uid == 0


def test_it_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "cachee.toml").symlink_to(tmp_path / "elsewhere")
    assert main(["init", "--path", str(tmp_path / "cachee.toml")]) == 0
    assert (tmp_path / "secret").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    told = capsys.readouterr().out
    assert told.count("kept ") == 2
    assert told.count("wrote ") == 1


@pytest.mark.parametrize("peers", ["web 1", 'a:1,"b:2', "a\\:1", "a:0"])
def test_peers_that_are_none_are_refused_and_nothing_is_written(tmp_path, capsys, peers):
    assert main(["init", "--path", str(tmp_path / "cachee.toml"), "--peers", peers]) == 2
    assert "bridge.peers[" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_group_that_is_none_is_refused_and_nothing_is_written(tmp_path, capsys):
    assert main(["init", "--path", str(tmp_path / "cachee.toml"), "--group", "no-such-group"]) == 2
    assert "groupadd --system no-such-group" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_three(capsys):
    assert main(["init", "--path", "/proc/none/cachee.toml"]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_a_port_that_is_left_out_is_the_usual_one(tmp_path):
    main(["init", "--path", str(tmp_path / "cachee.toml"), "--peers", "web-1,web-2:8000,[::1],[::2]:9"])
    assert config.load(tmp_path / "cachee.toml").bridge.peers == [
        "web-1:7946",
        "web-2:8000",
        "[::1]:7946",
        "[::2]:9",
    ]


@pytest.mark.parametrize(
    ("peers", "is_told"), [("127.0.0.9,198.51.100.7", False), ("198.51.100.7,198.51.100.8", True)]
)
def test_it_says_when_this_machine_is_not_among_the_peers(tmp_path, capsys, peers, is_told):
    main(["init", "--path", str(tmp_path / "cachee.toml"), "--peers", peers])
    assert ("is its own address missing?" in capsys.readouterr().out) == is_told


def test_the_bridges_group_is_taken_where_the_machine_has_it(tmp_path, capsys, monkeypatch):
    group = grp.getgrgid(os.getgid()).gr_name
    monkeypatch.setattr("cachee_shm.cli.init.BRIDGE_USER", group)
    assert main(["init", "--path", str(tmp_path / "cachee.toml")]) == 0
    assert config.load(tmp_path / "cachee.toml").host.group == group
    assert f"Members of group {group}, which this machine has, can attach" in capsys.readouterr().out


@pytest.mark.needs("mount namespaces")
def test_in_a_small_shared_memory_a_namespace_gets_half_of_it(tmp_path):
    program = f"{sys.executable} -m cachee_shm.cli init --path {tmp_path}/cachee.toml"
    script = f"mount -t tmpfs -o size=64m tmpfs /dev/shm; exec {program}"
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True)
    assert config.load(tmp_path / "cachee.toml").namespace("any").memory == 32 << 20
