"""`cachee stat`: numbers of the real segment, at rates of the time between two looks."""

import json
import os

import cachee_shm
from cachee_shm.cli import stat as stat_module
from cachee_shm.cli.main import main

SHORT = ["--interval", "0.1"]


def told(capsys, *words):
    assert main(["stat", *SHORT, *words]) == 0
    return capsys.readouterr().out


def test_counters_stand_with_their_rates_of_a_second(host, capsys, monkeypatch):
    with cachee_shm.attach("shop") as shop:

        def work(seconds):
            assert seconds == 0.1
            for _ in range(50):
                shop.get("a")
            real_sleep(seconds)

        real_sleep = stat_module.time.sleep
        shop.set("a", "x" * 1000)
        monkeypatch.setattr(stat_module.time, "sleep", work)
        lines = told(capsys).splitlines()
    (hits,) = [line.split() for line in lines if line.split()[:1] == ["hits"]]
    assert 0 < float(hits[1].replace(",", "")) <= 500
    assert hits[2] == "50"
    assert f"  segment    {shop.name}, 2.0 MiB" in lines
    assert "  hit ratio  100.0 % now, 100.0 % since the segment was made" in lines
    assert "  bridge     none is configured: this host alone" in lines
    assert max(map(len, lines)) <= 80


def test_who_else_is_attached_is_shown_and_the_look_itself_is_not(host, capsys):
    with cachee_shm.attach("shop"):
        lines = told(capsys).splitlines()
    at = next(at for at, line in enumerate(lines) if line.split()[:1] == ["PID"])
    (mine,) = lines[at + 1 :]
    assert mine.split()[:2] == [str(os.getpid()), "worker"]
    assert told(capsys).endswith("  nobody is attached\n")


def test_the_only_namespace_is_meant_where_none_is_named(host, capsys):
    with cachee_shm.attach("news"):
        assert told(capsys).startswith("namespace news\n")


def test_several_namespaces_are_listed_with_the_busiest_first(host, capsys, monkeypatch):
    with cachee_shm.attach("news"), cachee_shm.attach("shop") as shop, cachee_shm.attach("n" * 64):

        def work(seconds):
            for _ in range(1000):
                shop.get("a")
            real_sleep(seconds)

        real_sleep = stat_module.time.sleep
        monkeypatch.setattr(stat_module.time, "sleep", work)
        lines = told(capsys).splitlines()
    assert lines[0].split()[:3] == ["NAMESPACE", "READ/S", "HIT"]
    assert [line.split()[0][:5] for line in lines[1:4]] == ["shop", "news", "nnnnn"]
    assert lines[1].split()[2:4] == ["0.0", "%"]
    assert max(map(len, lines)) <= 80


def test_the_default_namespace_is_shown_and_the_others_are_named(host, capsys):
    with cachee_shm.attach(), cachee_shm.attach("shop"):
        shown = told(capsys)
    assert shown.startswith("namespace default\n")
    assert shown.endswith("\nOther namespaces of this host: shop (cachee stat -n NAME)\n")


def test_programs_get_every_counter_in_one_shape(host, capsys):
    with cachee_shm.attach("shop") as shop, cachee_shm.attach("news"):
        shop.set("a", 1)
        both = json.loads(told(capsys, "--json"))["namespaces"]
        one = json.loads(told(capsys, "--json", "-n", "shop"))["namespaces"]
        assert (both.keys(), one.keys()) == ({"news", "shop"}, {"shop"})
        assert one["shop"]["sets"] == 1
        assert shop.stats().keys() <= one["shop"].keys()
        assert one["shop"]["state"] == "ok"
        assert one["shop"]["used_bytes"] > 0


def test_where_there_is_none_it_says_so(host, capsys):
    assert main(["stat"]) == 1
    assert f"nor any other of host {host.name}: no process has attached" in capsys.readouterr().err


def test_a_bridge_that_is_configured_and_not_there_is_named(host, capsys):
    host.write("2MiB", '[bridge]\nlisten = "127.0.0.1:7946"\n')
    with cachee_shm.attach("shop"):
        assert "  bridge     down; isolated; no peer yet\n" in told(capsys)
