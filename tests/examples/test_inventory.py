"""The inventory's story: two hosts, FastAPI and SQLAlchemy on one PostgreSQL, real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pytest

from tests.examples.stories import Site, check_guide, story, until

pytestmark = [pytest.mark.needs("PostgreSQL"), pytest.mark.needs("message queues")]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, postgres: dict) -> Iterator[list[Site]]:
    folder: Path = tmp_path_factory.mktemp("inventory")
    place = "{user}@{host}:{port}/{database}".format(**postgres)
    url = {"INVENTORY_DATABASE": f"postgresql+asyncpg://{place}"}
    with story(folder, "inventory", ["uvicorn", "app:app", "--port", "{port}"], **url) as both:
        yield both


def reserve(site: Site, sku: str, quantity: int = 1) -> int:
    return site.http.post(f"/items/{sku}/reservations", json={"quantity": quantity}).status_code


def test_a_reservation_on_one_host_is_seen_on_the_other(sites: list[Site]) -> None:
    one, other = sites
    assert [site.json("/items/sku-1")["stock"] for site in sites] == [25, 25]
    assert [site.json("/warehouses/north")[0]["stock"] for site in sites] == [25, 25]
    assert reserve(one, "sku-1", 3) == 200
    assert one.json("/items/sku-1")["stock"] == 22
    until(lambda: other.json("/items/sku-1")["stock"] == 22)
    until(lambda: other.json("/warehouses/north")[0]["stock"] == 22)


def test_a_row_is_loaded_once_a_host(sites: list[Site]) -> None:
    one, _ = sites
    before = one.cache.stats()["loads"]
    with ThreadPoolExecutor(8) as threads:
        assert {row["stock"] for row in threads.map(one.json, ["/items/sku-2"] * 40)} == {25}
    assert one.cache.stats()["loads"] - before == 1


def test_what_is_refused_changes_nothing(sites: list[Site]) -> None:
    one, other = sites
    assert reserve(one, "sku-3", 26) == 409
    assert reserve(one, "nothing") == 409
    assert [site.json("/items/sku-3")["stock"] for site in (one, other)] == [25, 25]
    assert one.get("/items/nothing").status_code == 404


def test_two_hosts_that_both_show_the_last_ones_sell_them_once(sites: list[Site]) -> None:
    hosts = cycle(sites)
    with ThreadPoolExecutor(10) as threads:
        statuses = list(threads.map(lambda site: reserve(site, "sku-4"), [next(hosts) for _ in range(40)]))
    assert (statuses.count(200), statuses.count(409)) == (25, 15)
    for site in sites:
        until(lambda site=site: site.json("/items/sku-4")["stock"] == 0)


def test_an_item_that_moves_leaves_one_list_and_comes_into_the_other(sites: list[Site]) -> None:
    one, other = sites

    def listed(site: Site, name: str) -> bool:
        return "sku-5" in [row["sku"] for row in site.json(f"/warehouses/{name}")]

    assert [(listed(site, "north"), listed(site, "south")) for site in sites] == [(True, False)] * 2
    one.http.put("/items/sku-5/warehouse", json={"warehouse": "south"}).raise_for_status()
    assert (listed(one, "north"), listed(one, "south")) == (False, True)
    until(lambda: (listed(other, "north"), listed(other, "south")) == (False, True))


def test_no_reader_sees_stock_come_back(sites: list[Site]) -> None:
    """While one host sells, what the other shows only falls."""
    one, other = sites
    shown = [other.json("/items/sku-3")["stock"]]
    for _ in range(25):
        reserve(one, "sku-3")
        shown.append(other.json("/items/sku-3")["stock"])
    assert shown == sorted(shown, reverse=True)
    until(lambda: other.json("/items/sku-3")["stock"] == 0)


def test_the_guide() -> None:
    check_guide("inventory")
