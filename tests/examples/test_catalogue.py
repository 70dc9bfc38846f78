"""The shop's catalogue: two hosts, each a bridge and gunicorn with two workers, one database; real HTTP."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.examples.stories import EXAMPLES, Site, story, until

pytestmark = [pytest.mark.needs("message queues"), pytest.mark.needs("curl")]
CREATE = ("-c", "import database; database.create()")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop") / "shop.sqlite3"


@pytest.fixture(scope="module")
def sites(database: Path) -> Iterator[list[Site]]:
    server = ["gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--workers", "2"]
    settings = {"SHOP_DATABASE": str(database), "SHOP_HOST": "web-1"}
    with story(database.parent, "shop", server, create=CREATE, **settings) as both:
        yield both


def cents(site: Site, category: int) -> dict[int, int]:
    """The prices on a page of the catalogue."""
    return {row["id"]: row["cents"] for row in site.json(f"/catalogue/{category}")}


def reprice(site: Site, id: int, to: int) -> None:
    site.http.put(f"/prices/{id}", json={"cents": to}).raise_for_status()


def test_a_page_of_the_catalogue_shows_each_product_of_its_category_with_its_price(sites: list[Site]) -> None:
    page = sites[0].json("/catalogue/2")
    assert [row["id"] for row in page] == list(range(21, 41))
    assert page[0] == {"id": 21, "title": "Product 21", "cents": 2100, "version": 1}


def test_a_page_of_many_rows_is_three_queries(sites: list[Site]) -> None:
    """One load of the page, one of what is missing of its products, one of its prices; then none."""
    site = sites[1]
    before = site.cache.stats()["loads"]
    with ThreadPoolExecutor(8) as threads:
        pages = list(threads.map(site.json, ["/catalogue/4"] * 24))
    assert all(page == pages[0] for page in pages)
    assert site.cache.stats()["loads"] - before <= 1 + 20 + 20  # a load of many counts each of its keys
    loaded = site.cache.stats()["loads"]
    cents(site, 4)
    assert site.cache.stats()["loads"] == loaded


def test_a_new_price_on_one_host_is_on_the_other_hosts_page(sites: list[Site]) -> None:
    for number in range(10):
        writer, reader = sites[number % 2], sites[1 - number % 2]
        assert cents(reader, 1)[7] == cents(writer, 1)[7]
        reprice(writer, 7, 9000 + number)
        assert cents(writer, 1)[7] == 9000 + number
        until(lambda reader=reader, number=number: cents(reader, 1)[7] == 9000 + number)


def test_a_new_price_leaves_the_pages_of_other_categories_alone(sites: list[Site], database: Path) -> None:
    """They are still what was loaded: the database is not asked."""
    one, other = sites
    assert cents(other, 5)[100] == 10000
    with closing(sqlite3.connect(database)) as behind, behind:
        behind.execute("UPDATE prices SET cents = 1 WHERE id = 100")
    reprice(one, 7, 700)
    until(lambda: cents(other, 1)[7] == 700)
    assert cents(other, 5)[100] == 10000


def test_after_a_discount_the_redirect_shows_the_new_prices_on_either_host(sites: list[Site]) -> None:
    """The page and the rows themselves, at once: `wait_synced` came before the answer."""
    for number in range(10):
        writer, reader = sites[number % 2], sites[1 - number % 2]
        before = cents(reader, 3)
        assert reader.json("/prices/41")["cents"] == before[41]
        answer = writer.http.post("/catalogue/3/discounts", json={"percent": 10})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/catalogue/3"
        lower = {id: price * 90 // 100 for id, price in before.items()}
        assert cents(reader, 3) == lower
        assert cents(writer, 3) == lower
        assert reader.json("/prices/41")["cents"] == lower[41]


@pytest.mark.parametrize("percent", [0, 100, "much"])
def test_a_discount_that_is_none_is_refused(sites: list[Site], percent: object) -> None:
    before = cents(sites[0], 3)
    assert sites[0].http.post("/catalogue/3/discounts", json={"percent": percent}).status_code == 422
    assert cents(sites[0], 3) == before


def test_a_category_without_products_is_not_found(sites: list[Site]) -> None:
    assert sites[0].get("/catalogue/99").status_code == 404


def test_no_page_shows_a_price_that_is_older_than_one_it_has_shown(sites: list[Site]) -> None:
    """While both hosts change prices of one page, and both are read."""

    def shown(site: Site) -> list[dict[int, int]]:
        with httpx.Client(base_url=site.url, timeout=30) as client:
            pages = [client.get("/catalogue/2").raise_for_status().json() for _ in range(60)]
        return [{row["id"]: row["version"] for row in page} for page in pages]

    with ThreadPoolExecutor(4) as threads:
        read = [threads.submit(shown, site) for site in sites]
        for number in range(30):
            reprice(sites[number % 2], 21 + number % 3, 5000 + number)
        for versions in (each.result() for each in read):
            for older, newer in pairwise(versions):
                assert all(older[id] <= newer[id] for id in older)
    for site in sites:
        until(lambda site=site: cents(site, 2)[23] == 5029)


def test_what_the_guide_shows_happens(sites: list[Site], database: Path) -> None:
    """Each command on the one host or the other in turn; a read may be early by the trip of a frame."""
    with closing(sqlite3.connect(database)) as behind, behind:
        behind.execute("UPDATE prices SET cents = 100 * id, version = 1 WHERE id <= 20")
        behind.execute("DELETE FROM history")
    sites[0].cache.clear()
    assert sites[0].cache.wait_synced(30)
    guide = (EXAMPLES / "shop" / "README.md").read_text()
    shown = re.findall(r"^\$ (curl .+)\n(.+)$", guide, re.MULTILINE)
    assert len(shown) == 7
    for number, (command, answer) in enumerate(shown):
        place = sites[number % 2].url.removeprefix("http://")
        command = command.replace("localhost:8000", place)
        until(
            lambda command=command, answer=answer, place=place: (
                said(command) == answer.replace("localhost:8000", place)
            )
        )


def said(command: str) -> str:
    return subprocess.check_output(["bash", "-c", command], text=True).strip()
