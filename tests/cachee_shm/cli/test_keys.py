"""`cachee get`, `set`, `del`, `stat`: what another process sees, and what each exit code says."""

import io
import json
import os
import shlex
import subprocess
import sys
import types

import pytest

import cachee_shm
from cachee_shm.cli.main import main


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A namespace of this test alone, as a process would find it by $CACHEE_CONFIG."""
    path = tmp_path / "cachee.toml"
    path.write_text(f'[host]\nname = "test-cli-{os.getpid()}"\n[namespaces.shop]\nmemory = "2MiB"\n')
    monkeypatch.setenv("CACHEE_CONFIG", str(path))
    with cachee_shm.attach() as attached:
        yield attached
    os.unlink(f"/dev/shm{attached.name}")


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A configuration whose segment nobody has made."""
    path = tmp_path / "cachee.toml"
    path.write_text(f'[host]\nname = "test-none-{os.getpid()}"\n[defaults]\nmemory = "2MiB"\n')
    monkeypatch.setenv("CACHEE_CONFIG", str(path))
    yield f"/dev/shm/cachee.test-none-{os.getpid()}.default.1"


def test_what_set_stores_another_process_reads(cache):
    assert main(["set", "user:1", "Anna", "--ttl", "60", "--tag", "team:7", "--tag", "all"]) == 0
    assert cache.get("user:1") == "Anna"
    cache.delete_tags("team:7")
    assert cache.get("user:1") is None


def test_a_value_can_be_json(cache):
    assert main(["set", "a", '{"n": [1, null]}', "--json"]) == 0
    assert cache.get("a") == {"n": [1, None]}


def test_a_value_can_come_from_standard_input(cache, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("long"))
    assert main(["set", "a", "-"]) == 0
    assert cache.get("a") == "long"


def test_a_value_that_is_no_json_is_wrong_usage(cache, capsys):
    assert main(["set", "a", "{", "--json"]) == 2
    assert "no JSON" in capsys.readouterr().err
    assert cache.get("a") is None


@pytest.mark.parametrize(
    ("value", "printed"),
    [("Anna", "Anna\n"), ("", "\n"), (None, "None\n"), ({"a": 1}, "{'a': 1}\n"), (7, "7\n")],
)
def test_get_prints_a_value(cache, capsys, value, printed):
    cache.set("k", value)
    assert main(["get", "k"]) == 0
    assert capsys.readouterr().out == printed


def test_get_writes_bytes_as_they_are(cache):
    cache.set("k", b"\x00\xff")
    done = subprocess.run([sys.executable, "-m", "cachee_shm.cli", "get", "k"], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"\x00\xff")


def test_a_miss_is_exit_code_one(cache, capsys):
    assert main(["get", "none"]) == 1
    assert capsys.readouterr().err == "cachee: no value under 'none'\n"


def test_del_deletes_and_says_when_there_was_nothing(cache, capsys):
    cache.set("a", 1)
    assert main(["del", "a", "b"]) == 0
    assert cache.get("a") is None
    assert main(["del", "a", "b"]) == 1
    assert "the others were told" in capsys.readouterr().err


def test_stat_prints_every_number(cache, capsys):
    cache.set("a", 1)
    cache.get("a")
    assert main(["stat"]) == 0
    shown = capsys.readouterr().out.splitlines()[1:]
    lines = dict(line.split() for line in shown if len(line.split()) == 2)
    assert any(str(os.getpid()) in line and "worker" in line for line in shown)
    assert (lines["hits"], lines["sets"], lines["memory_bytes"]) == ("1", "1", str(2 << 20))


def test_stat_prints_json_for_programs(cache, capsys):
    assert main(["stat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sets"] == 0


@pytest.mark.parametrize("words", [["stat"], ["get", "a"]])
def test_a_look_makes_no_segment(nothing, capsys, words):
    assert main(words) == 1
    assert "nobody has attached" in capsys.readouterr().err
    assert not os.path.exists(nothing)


@pytest.mark.parametrize("words", [["stat"], ["get", "a"], ["set", "a", "b"], ["del", "a"]])
def test_an_unknown_namespace_is_exit_code_two(cache, capsys, words):
    assert main([*words, "--namespace", "shpo"]) == 2
    told = capsys.readouterr().err
    assert "namespaces.shpo" in told
    assert "accepted: shop" in told


def test_a_configuration_that_is_not_there_is_exit_code_two(capsys):
    assert main(["stat", "--config", "/none.toml"]) == 2
    assert "/none.toml: cannot be read" in capsys.readouterr().err


def test_any_other_error_of_the_cache_is_exit_code_three(cache, capsys):
    assert main(["get", "k" * 1025]) == 3
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["nonsense"], ["get"], ["set", "a", "b", "--ttl", "-1"], ["segment"]])
def test_wrong_usage_is_exit_code_two(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_demo_gets_its_own_options_and_gives_its_own_code(monkeypatch):
    demo = types.SimpleNamespace(main=lambda words: 7 if words == ["--cut"] else 0)
    monkeypatch.setitem(sys.modules, "cachee_shm.cli.demo", demo)
    assert main(["demo", "--cut"]) == 7


def test_a_reader_that_stops_reading_is_no_error(cache):
    command = f"{shlex.quote(sys.executable)} -m cachee_shm.cli stat | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_of_every_command_is_there(capsys):
    for words in ([], ["stat"], ["get"], ["set"], ["del"], ["segment", "ls"], ["segment", "rm"], ["init"]):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
