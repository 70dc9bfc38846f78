"""What the shop is measured by: its customers, and the caches that it is put on beside ours."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import machine

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def customers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    import shop_customers

    return shop_customers


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    missing = [name for name in ("cachebox", "redis") if importlib.util.find_spec(name) is None]
    if missing:
        machine.skip("rival", f"pip install {' '.join(missing)}")
    monkeypatch.syspath_prepend(str(BENCH))
    import shop_caches

    yield shop_caches


def test_a_read_is_stale_if_a_newer_version_had_been_answered_before_it_began(customers: Any) -> None:
    prices = customers.Prices()
    before_ns = time.monotonic_ns()
    prices.changed(7, 2)
    after_ns = time.monotonic_ns()
    prices.changed(7, 3)
    assert prices.behind_ns(7, 1, before_ns) == 0
    assert prices.behind_ns(7, 1, after_ns) > 0
    assert prices.behind_ns(7, 2, after_ns) == 0
    assert prices.behind_ns(7, 2, time.monotonic_ns()) > 0
    assert prices.behind_ns(7, 3, time.monotonic_ns()) == 0
    assert prices.behind_ns(8, 1, time.monotonic_ns()) == 0


def test_the_prices_of_a_page_and_of_the_catalogue_are_found(customers: Any) -> None:
    page = (
        b'{"product":{"id":7,"title":"P","category":1,"stock":1000,"version":4,"host":"a"},'
        b'"price":{"id":7,"cents":700,"version":2,"host":"a"}}'
    )
    catalogue = (
        b'[{"id":1,"title":"P 1","cents":100,"version":5},{"id":2,"title":"P 2","cents":200,"version":6}]'
    )
    assert customers.PRICE.findall(page) == [(b"7", b"2")]
    assert customers.PRICE.findall(catalogue) == [(b"1", b"5"), (b"2", b"6")]


def test_an_answer_that_comes_in_pieces_is_one(customers: Any) -> None:
    class Transport:
        def write(self, request: bytes) -> None: ...

    async def answer() -> bytes:
        line = customers.Line()
        line.connection_made(Transport())
        asked = asyncio.ensure_future(line.ask(b"GET / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody":
            line.data_received(bytes([byte]))
        return await asked

    assert asyncio.run(answer()) == b"body"


def test_an_answer_that_is_no_success_is_an_error(customers: Any) -> None:
    async def answer() -> None:
        line = customers.Line()
        line.connection_made(type("Transport", (), {"write": lambda self, request: None})())
        asked = asyncio.ensure_future(line.ask(b"GET / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        line.data_received(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
        await asked

    with pytest.raises(AssertionError, match="500 Oops"):
        asyncio.run(answer())


def test_a_worker_does_not_keep_what_it_loaded_while_something_was_dropped(caches: Any) -> None:
    cache = caches.InEachWorker(60, None)

    def load() -> str:
        cache.drop(["price:7"])
        return "old"

    assert cache.get_or_load("price:7", load, ttl=60) == "old"
    assert cache.get_or_load("price:7", lambda: "new", ttl=60) == "new"
    assert cache.get_or_load("price:7", load, ttl=60) == "new"


def test_a_worker_drops_what_has_a_tag(caches: Any) -> None:
    cache = caches.InEachWorker(60, None)

    async def page(value: str) -> str:
        async def load() -> str:
            return value

        return str(await cache.aget_or_load("catalogue:1", load, ttl=60, tags=["category:1"]))

    assert asyncio.run(page("a")) == "a"
    assert asyncio.run(page("b")) == "a"
    cache.delete_tags("category:1")
    assert asyncio.run(page("c")) == "c"
