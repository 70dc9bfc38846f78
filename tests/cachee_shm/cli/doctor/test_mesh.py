"""Peers that are dead, cut off, unauthenticated, of another release or of one name; and what isolates."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.namespaces import network
from cachee_shm.cli.main import main
from tests.bridge.hosts import hosts, until
from tests.bridge.releases import release_before
from tests.bridge.test_checking import LOSES, OFTEN
from tests.hosts.places import PORT, PlacedHost


@pytest.fixture
def pair(tmp_path):
    """Two hosts that are linked, of which the doctor sees the first."""
    with hosts(tmp_path) as (first, second):
        first.start()
        second.start()
        cache = first.attach()
        until(lambda: cache.serve_until > cache.now_ms())
        yield first, second


def named(doctor, host, check, words):
    """The finding of that check, once there is one that says so."""
    seen = []

    def is_named():
        seen[:] = [each for each in doctor(host.config, check) if re.search(words, each["what"])]
        return seen

    until(is_named, words)
    return seen[0]


def test_a_mesh_that_is_well_has_no_problem(pair, doctor, capsys):
    assert [each for each in doctor(pair[0].config) if each["level"] != "note"] == []
    assert main(["doctor", "--config", str(pair[0].config)]) == 0


def test_a_peer_that_is_dead_is_named_and_what_isolates_and_the_command_ends_it(pair, doctor):
    first, second = pair
    second.kill()
    found = named(doctor, first, "isolation", "namespace shop is isolated for")
    assert f"it waits for {second.name} (silent)" in found["what"]
    peer = named(doctor, first, "peers", "Connection refused")
    assert (peer["level"], peer["state"]) == ("problem", "it isolates this host in shop")
    assert peer["mend"].endswith(f"cachee peers forget {second.name}")
    assert f"`cachee peers forget {second.name}`" in found["mend"]
    first.config.write_text(first.config.read_text().replace('"1h"', '"100ms"'))
    assert main(["peers", "forget", second.name, "--config", str(first.config)]) == 0


def with_secret(host, secret):
    path = host.folder / "secret"
    path.write_text(secret * 64)
    path.chmod(0o600)
    host.config.write_text(host.config.read_text().replace("[bridge]", f'[bridge]\nsecret_file = "{path}"'))


def test_hosts_with_two_secrets_are_named_on_both_sides(tmp_path, doctor):
    with hosts(tmp_path) as (first, second):
        for host, secret in ((first, "a"), (second, "b")):
            with_secret(host, secret)
            host.start()
        found = named(doctor, first, "peers", "secret|proof")
        assert found["mend"].startswith("secrets differ: copy the same secret_file to both hosts")
        turned_away = named(doctor, second, "refused links", "does not know this host's secret")
        assert turned_away["level"] == "problem"


def test_a_host_with_a_secret_and_one_without_are_named(tmp_path, doctor):
    with hosts(tmp_path) as (first, second):
        with_secret(first, "a")
        first.start()
        second.start()
        for host in (first, second):
            assert named(doctor, host, "peers", "authentication is")["mend"].startswith("secrets differ")


def test_a_peer_that_speaks_no_wire_of_ours_is_named(tmp_path, doctor):
    with hosts(tmp_path) as (first, second):
        first.start()
        second.start("import cachee_bridge.wire.frames as frames; frames.VERSION_MIN = frames.VERSION = 99")
        assert "upgrade the older host" in named(doctor, first, "peers", "protocol 99 there")["mend"]


def test_a_peer_of_the_release_before_is_a_note_and_no_problem(tmp_path, doctor):
    with hosts(tmp_path) as (first, second):
        second.release = release_before()
        second.start()
        first.start()
        cache = first.attach()
        until(lambda: cache.serve_until > cache.now_ms())
        (found,) = doctor(first.config, "releases")
        assert (found["level"], found["mend"]) == ("note", f"upgrade {second.name}")
        assert f"{second.name} speaks wire 2, this host 3" in found["what"]


@pytest.mark.needs("mount namespaces", "IPC namespaces")
def test_two_hosts_of_one_name_are_named(pair, doctor, tmp_path):
    first, second = pair
    twin = tmp_path / "twin.toml"
    port = first.port  # of which the twin is told, and on which it does not listen
    text = second.config.read_text().replace(f'listen = "127.0.0.1:{second.port}"', 'listen = "127.0.0.1:0"')
    assert str(port) in text
    twin.write_text(text.replace('"127.0.0.1:0"', f'"127.0.0.3:{second.port}"'))
    script = (
        f"mount -t tmpfs -o mode=1777 tmpfs /dev/shm; exec {sys.executable} -m cachee_bridge --config {twin}"
    )
    bridge = subprocess.Popen(["unshare", "--mount", "--ipc", "sh", "-c", script], stderr=subprocess.DEVNULL)
    try:
        found = named(doctor, first, "refused links", "two live hosts are named")
        assert second.name in found["what"]
        assert found["mend"].startswith("two hosts have one name: give each its own [host] name")
    finally:
        bridge.kill()
        bridge.wait()


@pytest.mark.needs("network namespaces")
def test_a_peer_behind_a_cut_cable_is_named(tmp_path, doctor):
    secret = Path(tmp_path / "secret")
    secret.write_text("s" * 64)
    secret.chmod(0o600)
    with network("abc") as places:
        made = [
            PlacedHost(tmp_path, f"{tmp_path.name[-8:]}-{name}", place, places[:2], secret)
            for name, place in zip("ab", places, strict=False)
        ]
        try:
            for host in made:
                host.start()
            cache = made[0].cache
            until(lambda: cache.serve_until > cache.now_ms())
            with places[1].unplugged():
                found = named(doctor, made[0], "isolation", "it waits for")
                assert made[1].name in found["what"]
                peer = named(
                    doctor,
                    made[0],
                    "peers",
                    f"{made[1].name} .*is not linked for .*:.*(no answer in time|route|reach)",
                )
                assert f":{PORT}" in peer["what"]
            until(lambda: doctor(made[0].config, "isolation") == [])
        finally:
            for host in made:
                host.clean_up()


def test_a_peer_that_suppresses_an_invalidation_is_named_with_its_trace(tmp_path, doctor):
    with hosts(tmp_path, bridge=OFTEN) as (first, second):
        first.start()
        second.start(LOSES)
        first.attach()
        found = named(
            doctor,
            first,
            "staleness",
            f"{second.name} held an older value in namespace shop: invalidation lost",
        )
        assert f"on {second.name}: cachee segment rm --force shop" in found["mend"]
        assert "holds version" in found["trace"][0]


def test_an_unknown_name_is_told_from_a_host_that_is_down(tmp_path, doctor):
    with hosts(tmp_path, 1) as (host,):
        with_secret(host, "a")
        text = host.config.read_text()
        host.config.write_text(text.replace("peers = [", 'peers = ["no-such-host.invalid:7946", '))
        host.start()
        why = "(?!it has not come back)"  # so it says until the first look-up has failed
        found = named(doctor, host, "peers", f"no-such-host.invalid:7946 is not linked: {why}")
        assert "getent hosts NAME" in found["mend"]
