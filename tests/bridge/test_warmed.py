"""What /metrics tells of loads ahead: how many, what came of them, and how much of the budget is left."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from cachee_bridge.http.exposition import Exposition
from cachee_bridge.http.hottest import RECORDS_MAX
from cachee_bridge.http.warmed import WarmedTold
from cachee_shm import Cache, attach
from cachee_shm.orders import Orders
from tests.bridge.test_metrics import samples

SHOP = (("namespace", "shop"),)
LEFT, SPENT = "cachee_prewarm_budget_left_ratio", "cachee_prewarm_budget_spent_loads"
DEMANDED = 12_000
"""Loads that fill the budget of a segment of 2 MiB."""


@pytest.fixture
def warm(config: dict[str, Any]) -> Iterator[Cache]:
    config["namespaces"]["shop"] |= {"prewarm": True, "memory": "2MiB"}
    with attach(config=config) as cache:
        yield cache


def demanded(cache: Cache) -> list[str]:
    """Keys that were loaded because somebody asked for them."""
    keys = [f"k{number}" for number in range(DEMANDED)]
    for key in keys:
        cache.get_or_load(key, int)
    return keys


def told(by: WarmedTold, cache: Cache) -> bytes:
    made = Exposition()
    by.tell(made, {"shop": cache})
    return made.text()


def written_elsewhere(cache: Cache, *keys: str) -> None:
    peer = cache.source_open("peer")
    cache.apply(peer, b"".join(b"\x01" + struct.pack("<Q", cache._hash(key)) for key in keys))


def test_what_was_loaded_ahead_is_told_of_namespaces_that_do_it(warm: Cache) -> None:
    text = told(WarmedTold(), warm)
    assert samples(text, "cachee_prewarm_loads_total") == {SHOP: 0}
    assert len(samples(text, "cachee_prewarm_outcomes_total")) == 2
    assert samples(text, SPENT) == {SHOP: 0}


def test_and_of_no_other(cache: Cache) -> None:
    assert b"prewarm" not in told(WarmedTold(), cache)


def test_the_budget_is_told_once_a_cached_key_was_written_elsewhere(warm: Cache) -> None:
    by = WarmedTold()
    warm.get_or_load("k", lambda: 1)
    assert samples(told(by, warm), LEFT) == {}
    written_elsewhere(warm, "k")
    assert 0 < samples(told(by, warm), LEFT)[SHOP] < 0.1
    demanded(warm)
    assert samples(told(by, warm), LEFT) == {SHOP: 1}
    for number in range(2 * RECORDS_MAX):  # its own record has left the ring's end, and is known all the same
        warm.set(f"{number}", 1)
    assert samples(told(by, warm), LEFT) == {SHOP: 1}


def test_a_load_ahead_spends_budget_until_its_value_is_read(warm: Cache) -> None:
    by, orders = WarmedTold(), Orders(warm)
    written_elsewhere(warm, *demanded(warm)[-30:])
    before = samples(told(by, warm), LEFT)[SHOP]
    orders.take(warm.now_ms())
    ahead = orders.due(warm.now_ms() + (1 << 18))
    assert ahead
    text = told(by, warm)
    assert samples(text, SPENT) == {SHOP: len(ahead)} == samples(text, "cachee_prewarm_loads_total")
    assert samples(text, LEFT)[SHOP] < before


def test_where_nothing_bounds_the_loads_no_share_is_left(config: dict[str, Any]) -> None:
    config["namespaces"]["shop"] |= {"prewarm": True, "prewarm_budget": 0.0}
    with attach(config=config) as cache:
        cache.get_or_load("k", lambda: 1)
        written_elsewhere(cache, "k")
        assert samples(told(WarmedTold(), cache), LEFT) == {}
