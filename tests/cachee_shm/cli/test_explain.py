"""`cachee explain`: a timeline that people read, JSON, and three lines on a stale read."""

import json
import os
import struct

import pytest

import cachee_shm
from cachee_shm.cli import explain as command
from cachee_shm.cli.main import main
from tests.cachee_shm.test_explain import row, told


@pytest.fixture
def cache(host):
    host.write("2MiB", 'journal = "all"\n')
    with cachee_shm.attach(service="checkout") as attached:
        yield attached


@pytest.fixture
def stale(monkeypatch, cache):
    """Whatever key is asked for, it was read on b after a had written it."""
    found = told(
        row(1, "a", "written", service="checkout\x1b[31m"),
        row(1.5, "b", "received", "not held", source="c"),
        row(3, "b", "first_read", since=0),
        clocks={"a": 0.0, "b": 0.0015},
    )
    monkeypatch.setattr(command, "explained", lambda cache, key: found)


def test_a_key_has_its_time_line(cache, capsys):
    cache.set("user:42", 1)
    cache.delete("user:42")
    assert main(["explain", "user:42"]) == 0
    head, columns, written, deleted = capsys.readouterr().out.splitlines()
    assert head.startswith(f"key 'user:42' in namespace default, hash {cache._hash('user:42'):016x}")
    assert columns.split() == ["TIME", "HOST", "WHAT", "WHO", "POSITION", "LAYER", "WHY"]
    assert written.split()[1:6] == [cache.spec.host, "written", "checkout", str(os.getpid()), "#1"]
    assert deleted.split()[1:6] == [cache.spec.host, "deleted", "checkout", str(os.getpid()), "#2"]


def test_nothing_of_a_key_is_said_and_how_to_learn_more(cache, capsys):
    assert main(["explain", "never"]) == 1
    assert "`cachee explain --watch 60 KEY` watches it" in capsys.readouterr().out


@pytest.mark.parametrize(("mode", "words"), [("sampled", "one key in 256"), ("off", "no key is journalled")])
def test_why_nothing_is_known_depends_on_what_is_journalled(host, mode, words, capsys):
    host.write("2MiB", f'journal = "{mode}"\n')
    with cachee_shm.attach():
        assert main(["explain", "never"]) == 1
    assert words in capsys.readouterr().out


def test_rows_about_all_keys_are_not_taken_for_the_life_of_this_one(host, capsys):
    host.write("2MiB", 'journal = "sampled"\n')
    with cachee_shm.attach() as cache:
        sampled, other = (
            next(key for key in map(str, range(10_000)) if (cache._hash(key) % 256 == 0) is is_sampled)
            for is_sampled in (True, False)
        )
        for key in (sampled, other):
            cache.set(key, 1)
        cache.clear()
        assert main(["explain", other]) == 0
        assert "about all keys. Of this key nothing is known: one key in 256" in capsys.readouterr().out
        assert main(["explain", other, "--why-stale"]) == 1
        assert "one key in 256" in capsys.readouterr().out
        assert main(["explain", sampled]) == 0
        assert "one key in 256" not in capsys.readouterr().out
        assert main(["explain", other, "--watch", "60"]) == 0
        cache.set(other, 2)
        assert main(["explain", other]) == 0
        assert "one key in 256" not in capsys.readouterr().out.splitlines()[-1]


def test_a_key_with_control_characters_is_shown_as_it_is_escaped_once(cache, capsys):
    assert main(["explain", "a\x1b[2J"]) == 1
    assert capsys.readouterr().out.startswith(r"key 'a\x1b[2J' in")


def test_a_key_is_watched_from_now_on(host, capsys):
    host.write("2MiB", 'journal = "off"\n')
    with cachee_shm.attach() as cache:
        cache.set("a", 1)
        assert main(["explain", "a", "--watch", "60"]) == 0
        assert "held" in capsys.readouterr().out
        cache.get("a")
        assert main(["explain", "a", "--json"]) == 0
        assert [each["kind"] for each in json.loads(capsys.readouterr().out)["rows"]] == [
            "held",
            "first_read",
        ]


def test_three_lines_say_why_it_was_stale(stale, capsys):
    assert main(["explain", "a", "--why-stale"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["served by", "held by", "for how long"]


def test_where_nothing_was_stale_three_lines_say_not_observed(cache, capsys):
    assert main(["explain", "never", "--why-stale"]) == 1
    assert capsys.readouterr().out.count("not observed") == 3


def test_names_of_processes_move_no_terminal_and_clocks_are_stated(stale, capsys):
    assert main(["explain", "a"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and r"checkout\x1b[31m 7" in out
    assert "times of b may be wrong by 1.5 ms" in out
    assert "received of c" in out


def test_hosts_that_were_not_heard_are_named(host, capsys):
    host.write("2MiB", 'journal = "all"\n[bridge]\nlisten = "127.0.0.1:7946"\n')
    with cachee_shm.attach() as cache:
        cache.set("a", 1)
        assert main(["explain", "a", "--watch", "5"]) == 0
    said = capsys.readouterr()
    assert "nothing was heard of the other hosts: no bridge runs" in said.out
    assert "not watched on the other hosts: no bridge runs" in said.err


def test_a_namespace_without_a_segment_has_nothing_to_explain(host, capsys):
    assert main(["explain", "a"]) == 1
    assert "no segment" in capsys.readouterr().err


def test_what_pre_warming_knows_of_a_key_is_told(host, capsys):
    host.write("4MiB", "prewarm = true\n")
    with cachee_shm.attach() as cache:
        source = cache.source_open("peer")
        for _ in range(2):
            cache.set("a", 1)
            cache.get("a")
            cache.apply(source, struct.pack("<BQ", 1, cache._hash("a")))
            cache.get("a")
        known = cache.explain("a").ahead
        assert known is not None and known.outcomes[-1] == "read" and 0 < known.p < 1 and 0 < known.price <= 1
        assert list(known.features) == ["frequency", "age", "history", "estimate"]
        main(["explain", "a"])
        ahead, by = (
            line for line in capsys.readouterr().out.splitlines() if "p 0." in line or "bias" in line
        )
        assert ahead.startswith("loading ahead: ") and "price" in ahead
        assert "history" in by and by.endswith("read")
        main(["explain", "--json", "a"])
        assert json.loads(capsys.readouterr().out)["ahead"]["p"] == pytest.approx(known.p)


def test_without_pre_warming_nothing_is_said_of_it(cache, capsys):
    cache.set("a", 1)
    assert cache.explain("a").ahead is None
    main(["explain", "a"])
    assert "loading ahead" not in capsys.readouterr().out
