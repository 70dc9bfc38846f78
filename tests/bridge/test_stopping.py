"""How a bridge ends: with its workers, before them, and whatever names do. Real processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.hosts import WAIT_S, Host, hosts, until
from tests.bridge.test_two_bridges import isolated, meet

SILENT_NAMES = """
import time
from cachee_bridge.carriers import names
names.look_up = lambda name: time.sleep(1000)
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Host]]:
    with hosts(tmp_path, bridge='drain = "1h"') as both:
        meet(*both)
        yield both


def asked_to_stop(host: Host) -> None:
    host.signal(signal.SIGTERM)
    until(lambda: "workers are attached: the bridge goes on" in host.log)


def test_a_bridge_that_is_told_to_stop_serves_until_the_last_worker_has_left_and_then_leaves(
    pair: list[Host],
) -> None:
    staying, going = pair
    cache, worker = staying.attach(), going.attach()
    asked_to_stop(going)
    for number in range(3):
        cache.get_or_load("k", lambda: b"old")
        worker.set("k", b"%d" % number)
        until(lambda: cache.get("k") is None)
    assert not isolated(cache)
    assert not isolated(worker)
    cache.get_or_load("last", lambda: b"old")
    worker.delete("last")
    going.detach()
    assert going.process is not None
    assert going.process.wait(WAIT_S) == 0
    assert "left for good" in going.log
    assert cache.get("last") is None
    until(lambda: not cache.health().peers)
    time.sleep(3)  # lost_after is 2 s
    assert not isolated(cache)


def test_a_second_signal_ends_it_at_once(pair: list[Host]) -> None:
    asked_to_stop(pair[1])
    assert pair[1].stop() == 0
    assert "peers go on waiting for this host" in pair[1].log


def test_with_workers_that_stay_it_ends_after_the_drain_and_is_expected_back(tmp_path: Path) -> None:
    with hosts(tmp_path, bridge='drain = "500ms"') as both:
        meet(*both)
        assert both[1].stop() == 0
        assert "the bridge goes on for up to 0.5 s" in both[1].log
        assert "peers go on waiting for this host" in both[1].log


def test_names_without_an_answer_delay_neither_a_good_peer_nor_a_stop(tmp_path: Path) -> None:
    with hosts(tmp_path) as (one, other):
        text = one.config.read_text()
        names = ", ".join(f'"host-{number}.invalid:7946"' for number in range(60))
        one.config.write_text(text.replace("peers = [", f"peers = [{names}, "))
        other.start()
        one.start(SILENT_NAMES)
        until(lambda: f"{other.name} is up" in one.log)
        one.signal(signal.SIGTERM)
        assert one.process is not None
        assert one.process.wait(5) == 0
