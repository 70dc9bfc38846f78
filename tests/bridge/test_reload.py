"""A running bridge reads its configuration again: what changes at once, what waits, and what is refused."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachee_bridge.daemon import reload
from cachee_bridge.daemon.in_force import credentials_of, settings
from cachee_bridge.daemon.reload import RELOAD_S, Change, Reloads, When, differences, merged
from cachee_shm.config import Bridge, Config
from cachee_shm.segment import segment_path
from tests.bridge.hosts import Host, hosts, until

BASE: dict[str, Any] = {
    "host": {"name": "web-1"},
    "defaults": {"memory": "4MiB"},
    "namespaces": {"shop": {"default_ttl": "1min"}},
    "bridge": {"listen": "127.0.0.1:7946"},
}


ENDS = ("read again", "nothing was changed", "serving name=")
"""What a bridge says last of a reload."""


def config_of(**tables: dict[str, Any]) -> Config:
    """BASE, its tables with these keys too."""
    return Config.parse({name: {**BASE[name], **tables.get(name, {})} for name in BASE})


@pytest.mark.parametrize(
    ("tables", "change"),
    [
        ({"bridge": {"peers": ["web-2:1"]}}, Change("bridge.peers", [], ["web-2:1"], When.NOW)),
        ({"bridge": {"drain": "1s"}}, Change("bridge.drain", 10.0, 1.0, When.NOW)),
        ({"bridge": {"fanout": 5}}, Change("bridge.fanout", 32, 5, When.LINKS)),
        (
            {"bridge": {"metrics": "127.0.0.1:9946"}},
            Change("bridge.metrics", None, "127.0.0.1:9946", When.LINKS),
        ),
        ({"bridge": {"heartbeat": "50ms"}}, Change("bridge.heartbeat", 0.1, 0.05, When.LINKS)),
        ({"host": {"region": "eu"}}, Change("host.region", None, "eu", When.LINKS)),
        ({"host": {"name": "web-2"}}, Change("host.name", "web-1", "web-2", When.BRIDGE)),
        ({"host": {"group": "cachee"}}, Change("host.group", None, "cachee", When.BRIDGE)),
        ({"namespaces": {"news": {}}}, Change("namespaces.news", None, "a table", When.NOW)),
        ({"defaults": {"memory": "8MiB"}}, Change("defaults.memory", 4 << 20, 8 << 20, When.SEGMENT)),
        ({"defaults": {"jitter": 0.1}}, Change("defaults.jitter", None, 0.1, When.PROCESSES)),
        (
            {"namespaces": {"shop": {"default_ttl": "1h"}}},
            Change("namespaces.shop.default_ttl", 60.0, 3600.0, When.PROCESSES),
        ),
    ],
)
def test_each_change_is_named_with_when_it_is_in_force(tables: dict[str, Any], change: Change) -> None:
    old, new = config_of(), config_of(**tables)
    assert differences(old, new) == [change]
    in_force = merged(old, new)
    assert (differences(old, in_force) == []) is (change.when not in (When.NOW, When.LINKS))
    # What waits is told again.
    assert differences(in_force, new) == ([] if change.when in (When.NOW, When.LINKS) else [change])


def test_a_namespace_that_is_listed_no_more_is_served_until_the_restart() -> None:
    old = config_of(namespaces={"news": {}})
    assert differences(old, config_of()) == [Change("namespaces.news", "a table", None, When.BRIDGE)]
    assert "news" in merged(old, config_of()).namespaces


def test_what_a_namespace_says_for_itself_counts_though_it_is_what_the_defaults_say() -> None:
    old, new = config_of(), config_of(namespaces={"shop": {"default_ttl": "1min", "jitter": 0.0}})
    assert differences(old, new) == [Change("namespaces.shop.jitter", None, 0.0, When.PROCESSES)]


def test_without_certificates_no_value_is_given_though_peer_fill_waits_for_a_restart() -> None:
    """Links follow the file at once, and what a namespace says waits."""
    tls = {"cert": "c", "key": "k", "ca": "a"}
    old = config_of(bridge={"tls": tls}, namespaces={"shop": {"peer_fill": True}})
    used = merged(old, config_of())
    assert used.namespaces["shop"].peer_fill
    assert settings(used, credentials_of(used)).peer_fill == {}


def test_every_key_of_the_bridge_is_in_force_without_a_restart() -> None:
    assert set(reload.BRIDGE_KEYS) == set(Bridge.model_fields)


def test_however_often_it_is_told_to_reload_files_are_read_once_in_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(reload.time, "monotonic", lambda: now[0])
    reloads = Reloads()
    read: list[float] = []
    wakes = 0
    for _ in range(300):
        wakes += reloads.told()
        if reloads.due():
            read.append(now[0])
        now[0] += 0.01
    assert read == pytest.approx([100.0, 101.0, 102.0], abs=0.015)
    assert wakes == len(read)
    now[0] += RELOAD_S  # the look of every second
    assert reloads.due() and not reloads.due()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with hosts(tmp_path, 2, 'drain = "0s"') as (one, two):
        one.start(), two.start()
        yield one, two


def told_to_reload(host: Host, before: str = "", after: str = "") -> str:
    """`before` becomes `after` in its file, and its bridge is told; what it says from then on."""
    text = host.config.read_text()
    assert before in text
    host.config.write_text(text.replace(before, after, 1))
    said = len(host.log)
    host.signal(signal.SIGHUP)
    until(lambda: any(end in host.log[said:] for end in ENDS))
    return host.log[said:]


def linked(*ends: Host) -> None:
    for host in ends:
        cache = host.attach()
        until(lambda c=cache: c.wait_synced(1.0) and c.health().ok, f"{ends[0].log}\n{ends[-1].log}")


def filled(host: Host, *keys: str) -> None:
    cache = host.attach()
    for key in keys:
        until(lambda k=key: cache.get_or_load(k, lambda: "old") == "old" and cache.get(k) == "old")


def test_without_a_change_it_says_so_and_goes_on(pair: tuple[Host, Host]) -> None:
    linked(*pair)
    assert "the configuration has not changed" in told_to_reload(pair[0])


def test_a_fault_changes_nothing_and_is_named(pair: tuple[Host, Host]) -> None:
    linked(*pair)
    said = told_to_reload(pair[0], 'drain = "0s"', 'drain = "0"')
    assert "bridge.drain: found '0'" in said
    assert "the configuration has changed" not in said
    beyond = told_to_reload(pair[0], 'drain = "0"', 'drain = "1s"\nnameserver = "10.0.0.1:53"')
    assert "discover beside it" in beyond
    told_to_reload(pair[0], '\nnameserver = "10.0.0.1:53"', "")
    linked(*pair)


def test_new_peers_and_namespaces_are_served_at_once_and_no_link_is_dropped(tmp_path: Path) -> None:
    with hosts(tmp_path, 3, 'drain = "0s"') as (one, two, three):
        wanted = one.config.read_text()
        one.config.write_text(wanted.replace(f', "127.0.0.1:{three.port}"', ""))
        assert one.config.read_text() != wanted
        two.config.write_text(two.config.read_text().replace(f', "127.0.0.1:{three.port}"', ""))
        three.config.write_text(three.config.read_text().replace("peers = [", "peers = [] # ["))
        for host in (one, two, three):
            host.start()
        linked(one, two)
        filled(two, "k")
        host_log = one.log
        one.config.write_text(wanted.replace("[bridge]", "[namespaces.news]\n[bridge]"))
        said = told_to_reload(one)
        assert "key=bridge.peers" in said and "in force now" in said and "key=namespaces.news" in said
        until(lambda: "serving a new namespace=news" in one.log[len(host_log) :])
        until(lambda: three.name in [peer.name for peer in one.attach().health().peers])
        closed = [line for line in one.log[len(host_log) :].splitlines() if "closed" in line]
        # Two links of one pair, dialled from both ends, may become one now: the pair stays linked.
        assert [line for line in closed if "replaced by another link" not in line] == []
        assert f"{two.name} is down" not in one.log[len(host_log) :]
        assert two.attach().get("k") == "old"


def test_a_peer_that_never_answered_isolates_until_the_configuration_names_it_no_more(tmp_path: Path) -> None:
    """And for isolation_ttl longer: what was loaded before may be what that peer wrote."""
    with hosts(tmp_path, 2, 'drain = "0s"') as (one, gone):
        one.config.write_text(one.config.read_text().replace('"1h"', '"50ms"'))
        one.start()
        cache = one.attach()
        until(lambda: "Connection refused" in one.log)
        assert not cache.health().ok
        told_to_reload(one, f', "127.0.0.1:{gone.port}"', "")
        until(lambda: cache.health().ok, one.log)


def test_links_are_made_anew_by_other_intervals_and_nothing_is_evicted_or_missed(
    pair: tuple[Host, Host],
) -> None:
    linked(*pair)
    one, two = pair
    keys = [f"k{number}" for number in range(100)]
    filled(one, *keys), filled(two, *keys)
    said = told_to_reload(one, 'drain = "0s"', 'drain = "0s"\nfanout = 5\nheartbeat = "50ms"')
    assert "key=bridge.fanout before=32 after=5" in said and "all links are made anew" in said
    for key in keys[:50]:
        one.attach().delete(key) if key[-1] in "02468" else two.attach().delete(key)
    for host in pair:
        cache = host.attach()
        until(lambda c=cache: c.get_many(keys[:50]) == {}, host.log)
        assert len(cache.get_many(keys[50:])) == 50
    linked(*pair)


def test_an_address_at_which_it_cannot_listen_is_taken_back(pair: tuple[Host, Host]) -> None:
    linked(*pair)
    one, _ = pair
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = len(one.log)
        one.config.write_text(
            one.config.read_text().replace(f'"127.0.0.1:{one.port}"', f'"127.0.0.1:{port}"', 1)
        )
        one.signal(signal.SIGHUP)
        until(lambda: "the configuration from before the reload is used again" in one.log[said:])
    until(lambda: f"listen=127.0.0.1:{one.port}" in one.log[said:])
    linked(*pair)


def test_a_namespace_that_cannot_be_served_is_taken_back_with_all_that_was_new(
    pair: tuple[Host, Host],
) -> None:
    linked(*pair)
    one, _ = pair
    with open(f"/dev/shm{segment_path(one.name, 'junk')}", "wb") as file:
        file.write(b"garbage")
    more = "fanout = 5\n[namespaces.junk]\n"
    said = len(one.log)
    one.config.write_text(one.config.read_text() + more)
    one.signal(signal.SIGHUP)
    until(lambda: "the configuration from before the reload is used again" in one.log[said:], one.log)
    until(lambda: "serving name=" in one.log[said:])
    one.config.write_text(one.config.read_text().replace(more, ""))
    linked(*pair)
