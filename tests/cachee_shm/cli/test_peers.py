"""`cachee peers`: what an operator sees of a running bridge, of none, and what he can tell it."""

import json
import os
import signal

import pytest

from cachee_shm import asking
from cachee_shm import config as config_module
from cachee_shm.cli.main import main
from cachee_shm.config import Config
from tests.bridge.hosts import hosts, until

FAILED = 3


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two hosts whose bridges run; commands are of the first one."""
    with hosts(tmp_path) as both:
        for host in both:
            host.config.write_text(host.config.read_text().replace('"1h"', '"200ms"'))
            host.start()
        monkeypatch.setenv("CACHEE_CONFIG", str(both[0].config))
        cache = both[0].attach()
        until(lambda: cache.serve_until > cache.now_ms())
        yield both


def rows(capsys):
    assert main(["peers"]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_it_shows_the_peers_that_the_bridge_knows_and_their_states(pair, capsys):
    lines = rows(capsys)
    assert lines[0] == ["namespace", "shop:", "not", "isolated"]
    (row,) = [line for line in lines if line[0] == pair[1].name]
    assert row[1:3] == [f"127.0.0.1:{pair[1].port}", "up"]
    assert row[5] == "shop"


def test_as_json_it_shows_the_same(pair, capsys):
    assert main(["peers", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert next((peer["name"], peer["state"]) for peer in told["peers"]) == (pair[1].name, "up")


def test_a_dead_host_is_forgotten_at_the_operators_word_and_the_others_serve_on(pair, capsys):
    first, second = pair
    cache = first.attach()
    second.kill()
    until(lambda: cache.serve_until < cache.now_ms())
    until(lambda: any(line[-3:] == ["isolates", "this", "host"] for line in rows(capsys)))
    refused = [second.name, *["is", "not", "linked:", "[Errno", "111]", "Connection", "refused"]]
    until(lambda: refused in rows(capsys))
    assert main(["peers", "forget", second.name]) == 0
    assert "is removed as soon as" in capsys.readouterr().out
    until(lambda: f"the operator forgets '{second.name}'" in first.log)
    until(lambda: cache.serve_until > cache.now_ms() and not cache.sources(), first.log)
    assert all(
        line[2] in ("waiting", "connecting")
        for line in rows(capsys)
        if line[0] == second.name and line[1] != "is"
    )
    assert [name for _, name, _, _ in cache.forgotten()] == [second.name]


def test_a_forgotten_host_that_comes_back_is_met_again(pair):
    first, second = pair
    reader, writer = first.attach(), second.attach()
    second.kill()
    until(lambda: reader.serve_until < reader.now_ms())
    assert main(["peers", "forget", second.name]) == 0
    until(lambda: not reader.sources())
    assert reader.get_or_load("k", lambda: b"old") == b"old"
    writer.delete("k")
    second.start()
    until(lambda: [name for _, name, _, _ in reader.sources()] == [second.name])
    until(lambda: reader.get("k") is None)


def test_neither_a_linked_host_nor_an_unknown_one_is_forgotten(pair, capsys):
    for who, why in (
        (pair[1].name, "is linked; nothing was changed"),
        ("web-9", "no peer web-9 is waited for"),
    ):
        until(lambda who=who: main(["peers", "forget", who]) == FAILED)  # both dial, and one link ends
        assert why in capsys.readouterr().err


SLOW_DOOR = """
import asyncio, cachee_bridge.daemon.operator_socket as control
opened = control.OperatorSocket.open
async def slowly(self):
    await asyncio.sleep(0.5)
    await opened(self)
control.OperatorSocket.open = slowly
"""


def test_a_bridge_that_says_it_is_ready_answers(tmp_path, monkeypatch, capsys):
    with hosts(tmp_path, 1) as (host,):
        monkeypatch.setenv("CACHEE_CONFIG", str(host.config))
        host.start(SLOW_DOOR)
        assert rows(capsys)


def test_a_segment_that_no_bridge_has_served_is_said_to_be_so(tmp_path, monkeypatch, capsys):
    with hosts(tmp_path, 1) as (host,):
        monkeypatch.setenv("CACHEE_CONFIG", str(host.config))
        host.attach()
        assert main(["peers"]) == 1
        assert (
            "isolated, as no bridge has ever told it otherwise; it has met nobody" in capsys.readouterr().out
        )


def test_an_address_where_nobody_answers_can_be_given_up(tmp_path, monkeypatch, capsys):
    with hosts(tmp_path) as (first, second):
        first.config.write_text(first.config.read_text().replace('"1h"', '"200ms"'))
        first.start()
        monkeypatch.setenv("CACHEE_CONFIG", str(first.config))
        cache = first.attach()
        silent = f"127.0.0.1:{second.port}"
        until(lambda: ["not", "ready:", "not", "met", "yet:", silent] in rows(capsys))
        assert main(["peers", "forget", silent]) == 0
        until(lambda: cache.serve_until > cache.now_ms())


def test_where_no_bridge_runs_it_says_so_and_shows_what_the_segments_know(pair, capsys):
    first, second = pair
    cache = first.attach()
    first.kill()
    until(lambda: cache.serve_until < cache.now_ms())
    assert main(["peers"]) == 1
    told = capsys.readouterr()
    assert "no bridge runs for host" in told.err
    assert "namespace shop: isolated for" in told.out
    assert f"it has met {second.name}" in told.out
    assert main(["peers", "forget", second.name]) == FAILED
    assert "nothing was changed" in capsys.readouterr().err


def test_a_bridge_that_hangs_is_told_from_none(pair, capsys, monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE_S", 0.2)
    pair[0].signal(signal.SIGSTOP)
    assert main(["peers"]) == 1
    told = capsys.readouterr()
    assert "does not answer" in told.err
    assert f"it has met {pair[1].name}" in told.out
    pair[0].signal(signal.SIGCONT)


def test_nothing_of_the_socket_is_left_behind(pair):
    path = f"/dev/shm/cachee.{pair[0].name}.sock"
    assert os.path.exists(path)
    assert pair[0].stop() == 0
    assert not os.path.exists(path)


def test_without_a_configuration_there_is_no_bridge_to_ask(monkeypatch, capsys):
    monkeypatch.setenv("CACHEE_CONFIG", "/nonexistent.toml")
    assert main(["peers"]) == 2
    assert "/nonexistent.toml" in capsys.readouterr().err


def test_a_configuration_may_be_named_before_or_after_the_verb(monkeypatch):
    asked = []
    monkeypatch.setattr(
        config_module, "load", lambda path: asked.append(path) or Config.parse({"defaults": {}})
    )
    for words in (["peers", "--config", "a", "forget", "x"], ["peers", "forget", "x", "--config", "a"]):
        assert main(words) == FAILED
    assert asked == ["a", "a"]
