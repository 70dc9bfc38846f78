"""The shop's story: real gunicorn with two workers, real HTTP, one host."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

import cachee_shm
from cachee_shm.cli.demo.hosts import shop_folder
from cachee_shm.cli.demo.janitor import unlink
from cachee_shm.cli.demo.run import make_database
from cachee_shm.config import Config, tomllib
from cachee_shm.ports import free_ports

START_S = 60.0
HOST = f"test-shop-{os.getpid()}"


@dataclass
class Shop:
    url: str
    database: Path
    cache: cachee_shm.Cache
    process: subprocess.Popen[bytes]

    def loads(self) -> int:
        """How often the workers have asked the database."""
        return self.cache.stats()["loads"]

    def get(self, path: str) -> dict:
        """Over a connection of its own, so that any worker may answer."""
        return httpx.get(self.url + path, timeout=30).raise_for_status().json()

    def many(self, path: str, count: int = 40) -> list[dict]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(self.get, [path] * count))

    def behind_its_back(self, statement: str) -> None:
        """Changes the database as somebody would who does not know of the cache."""
        with sqlite3.connect(self.database) as database:
            database.execute(statement)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    config, database, (port,) = folder / "cachee.toml", folder / "shop.sqlite3", free_ports(1)
    config.write_text(f'[host]\nname = "{HOST}"\n[namespaces.shop]\nmemory = "8MiB"\n')
    make_database(database)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "app:app", "-b", f"127.0.0.1:{port}", "-w", "2"],
            cwd=shop_folder(),
            env={**os.environ, "CACHEE_CONFIG": str(config), "SHOP_DATABASE": str(database)},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_serving(f"http://127.0.0.1:{port}/prices/100", process, folder / "log")
        with cachee_shm.attach("shop", config=config) as cache:
            yield Shop(f"http://127.0.0.1:{port}", database, cache, process)
    finally:
        process.terminate()
        process.wait(30)
        unlink(HOST)


def wait_until_serving(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(url, timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    pytest.fail(log.read_text())


def test_a_row_is_loaded_once_for_all_workers(shop: Shop) -> None:
    before = shop.loads()
    assert {row["title"] for row in shop.many("/products/5")} == {"Product 5"}
    assert shop.loads() - before == 1


def test_what_the_cache_holds_is_not_asked_of_the_database(shop: Shop) -> None:
    assert shop.get("/users/5")["name"] == "User 5"
    shop.behind_its_back("UPDATE users SET name = 'Nobody' WHERE id = 5")
    assert {row["name"] for row in shop.many("/users/5")} == {"User 5"}


def test_a_new_price_is_seen_by_all_workers_at_once_and_without_a_load(shop: Shop) -> None:
    old = shop.get("/prices/7")
    new = httpx.put(f"{shop.url}/prices/7", json={"cents": 750}).raise_for_status().json()
    before = shop.loads()
    assert new["version"] == old["version"] + 1
    assert {(row["cents"], row["version"]) for row in shop.many("/prices/7")} == {(750, new["version"])}
    assert shop.loads() == before


def test_an_order_is_seen_by_all_workers_after_one_load(shop: Shop) -> None:
    stock = shop.get("/products/8")["stock"]
    httpx.post(f"{shop.url}/products/8/orders", json={"quantity": 3}).raise_for_status()
    before = shop.loads()
    assert {row["stock"] for row in shop.many("/products/8")} == {stock - 3}
    assert shop.loads() - before == 1


def test_visits_by_many_at_once_are_all_counted_and_the_last_is_shown(shop: Shop) -> None:
    before = shop.get("/users/9")
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda _: httpx.post(f"{shop.url}/users/9/visits", timeout=30), range(40))
        versions = sorted(answer.json()["version"] for answer in answers)
    assert versions == list(range(before["version"] + 1, before["version"] + 41))
    assert {row["visits"] for row in shop.many("/users/9")} == {before["visits"] + 40}


def test_a_page_is_a_product_and_its_price(shop: Shop) -> None:
    assert shop.get("/pages/6") == {"product": shop.get("/products/6"), "price": shop.get("/prices/6")}


@pytest.mark.parametrize("path", ["/products/0", "/prices/0", "/users/0", "/pages/0"])
def test_a_row_that_does_not_exist_is_not_found(shop: Shop, path: str) -> None:
    assert httpx.get(shop.url + path).status_code == 404


def test_a_write_to_a_row_that_does_not_exist_is_not_found_and_stores_nothing(shop: Shop) -> None:
    assert httpx.put(f"{shop.url}/prices/0", json={"cents": 1}).status_code == 404
    assert httpx.post(f"{shop.url}/users/0/visits").status_code == 404
    assert "price:0" not in shop.cache and "user:0" not in shop.cache


def test_a_write_that_the_shop_refuses_changes_nothing(shop: Shop) -> None:
    before = shop.get("/prices/4")
    assert httpx.put(f"{shop.url}/prices/4", json={"cents": "a lot"}).status_code == 422
    assert shop.get("/prices/4") == before


def test_the_readme_configuration_is_accepted() -> None:
    readme = (Path(__file__).parents[2] / "examples" / "shop" / "README.md").read_text()
    (toml,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    assert Config.parse(tomllib.loads(toml)).namespace("shop").memory == 256 << 20


def test_a_worker_killed_among_writes_leaves_no_old_row_behind(shop: Shop) -> None:
    """Whatever it was doing, afterwards every worker shows what the database holds."""
    (victim, *_) = psutil.Process(shop.process.pid).children()
    with ThreadPoolExecutor(8) as threads:
        writes = [threads.submit(try_to_visit, shop) for _ in range(60)]
        victim.send_signal(signal.SIGKILL)
        assert any(write.result() for write in writes)
    with sqlite3.connect(shop.database) as database:
        (visits,) = database.execute("SELECT visits FROM users WHERE id = 3").fetchone()
    assert {row["visits"] for row in shop.many("/users/3")} == {visits}


def try_to_visit(shop: Shop) -> bool:
    try:
        return httpx.post(f"{shop.url}/users/3/visits", timeout=30).is_success
    except httpx.HTTPError:
        return False
