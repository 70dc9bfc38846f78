"""`cachee get`, `set`, `del`, `tags del`: what another process sees, and what each exit code says."""

import io
import os
import shlex
import subprocess
import sys
import types

import pytest

import cachee_shm
from cachee_shm import _core
from cachee_shm.cli.main import main
from tests.cachee_shm.cli.terminals import on_a_terminal


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
    yield f"/dev/shm/cachee.test-none-{os.getpid()}.default.{_core.LAYOUT}"


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


@pytest.mark.parametrize("words", [["stat"], ["get", "a"]])
def test_a_look_makes_no_segment(nothing, capsys, words):
    assert main(words) == 1
    assert "no process has attached" in capsys.readouterr().err
    assert not os.path.exists(nothing)


def test_tags_del_deletes_all_that_has_one_of_them(cache):
    for key, tag in (("a", "red"), ("b", "green"), ("c", "blue")):
        cache.set(key, 1, tags=[tag])
    assert main(["tags", "del", "red", "green"]) == 0
    assert cache.get_many(["a", "b", "c"]) == {"c": 1}


def test_a_writer_from_outside_is_told_when_it_has_most_likely_meant_another_namespace(nothing, capsys):
    with cachee_shm.attach("shop") as shop:
        shop.set("a", 1, tags=["t"])
        for words in (["del", "a"], ["tags", "del", "t"], ["set", "a", "2"], ["get", "a"]):
            assert main(words) == 2
            assert (
                "which namespace? 'default' has no segment; others here have: shop" in capsys.readouterr().err
            )
        assert shop.get("a") == 1
        assert not os.path.exists(nothing)
        assert main(["del", "a", "-n", "shop"]) == 0
        os.unlink(f"/dev/shm{shop.name}")


NASTY = "\x1b]0;owned\x07\x9b31m\u202e\r"


def test_no_character_of_a_key_moves_a_terminal(cache, capsys):
    cache.set(NASTY, "v", tags=[NASTY])
    for words in (["get", f"{NASTY}?"], ["del", f"{NASTY}?"], ["get", NASTY * 200], ["stat", "-n", NASTY]):
        assert main(words) != 0
        told = capsys.readouterr()
        assert all(each.isprintable() or each == "\n" for each in told.out + told.err)
    for words in ([NASTY], ["get", "a", NASTY], ["set", "a", "b", "--ttl", NASTY]):
        with pytest.raises(SystemExit):
            main(words)
        assert all(each.isprintable() or each == "\n" for each in capsys.readouterr().err)


def test_a_program_gets_a_value_as_it_is_and_a_terminal_gets_none_of_its_control_characters(cache):
    cache.set("k", f"one\ttwo\n{NASTY}")
    cache.set("bytes", NASTY.encode())
    command = [sys.executable, "-m", "cachee_shm.cli", "get"]
    assert subprocess.check_output([*command, "k"]).decode() == f"one\ttwo\n{NASTY}\n"
    for key, rest in (("k", "\n\t"), ("bytes", "\n")):
        seen = on_a_terminal([*command, key]).replace("\r\n", "\n")  # as a terminal ends its lines
        assert "owned" in seen
        assert [each for each in seen if not each.isprintable() and each not in rest] == []


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
    for words in (
        [],
        ["stat"],
        ["top"],
        ["get"],
        ["set"],
        ["del"],
        ["tags", "del"],
        ["segment", "ls"],
        ["segment", "rm"],
        ["init"],
    ):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
