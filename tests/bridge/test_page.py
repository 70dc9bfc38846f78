"""The dashboard's files: how they are served, and what they must not contain."""

from __future__ import annotations

import re

import httpx
import pytest

from cachee_bridge.http.messages import Request
from cachee_bridge.http.page import FOLDER, TYPES, Page
from cachee_bridge.http.routes import Routes
from tests.bridge.served import served

FILES = sorted(path for path in FOLDER.iterdir())


def routes() -> Routes:
    table = Routes()
    Page().add_to(table)
    return table


def test_every_file_is_served_under_its_name_and_nothing_else_is() -> None:
    assert {path.suffix for path in FILES} <= TYPES.keys()
    names = {path.name for path in FILES} - {"index.html"}
    assert routes().paths == sorted({"/", *(f"/{name}" for name in names)})


def test_a_file_has_its_type_and_a_policy_that_lets_nothing_in_from_elsewhere() -> None:
    with served(routes()) as url:
        for path, kind in (("/", "text/html"), ("/main.js", "text/javascript"), ("/style.css", "text/css")):
            answer = httpx.get(f"{url}{path}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
            assert answer.headers["content-security-policy"].split(";")[0] == "default-src 'self'"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in answer.headers
            assert "set-cookie" not in answer.headers


def test_a_browser_that_has_a_file_is_not_sent_it_again() -> None:
    with served(routes()) as url:
        tag = httpx.get(f"{url}/main.js").headers["etag"]
        again = httpx.get(f"{url}/main.js", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert httpx.get(f"{url}/main.js", headers={"If-None-Match": '"other"'}).status_code == 200


def test_files_are_of_one_release_though_the_package_is_replaced_under_the_bridge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Page()
    before = page.handle(Request("GET", "/")).body
    monkeypatch.setattr("cachee_bridge.http.page.FOLDER", FOLDER / "gone")
    assert page.handle(Request("GET", "/main.js")).body == (FOLDER / "main.js").read_bytes()
    assert page.handle(Request("GET", "/")).body == before


def test_text_enters_the_page_by_text_content_alone() -> None:
    ways = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
        r"|\beval\b|new Function|setTimeout\(\s*[\"'`]|setHTML|javascript:"
    )
    assert [path.name for path in FILES if ways.search(path.read_text())] == []


def test_the_page_needs_nothing_from_elsewhere_and_has_no_code_or_style_inside() -> None:
    for path in FILES:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]", text), path.name
        assert not re.search(r"@import|url\(", text), path.name
    index = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", index)


def test_the_page_keeps_nothing_in_the_browser() -> None:
    ways = re.compile(r"localStorage|sessionStorage|indexedDB|document\.cookie|serviceWorker")
    assert [path.name for path in FILES if ways.search(path.read_text())] == []


def test_the_files_are_small_enough_to_be_kept() -> None:
    assert sum(path.stat().st_size for path in FILES) < 96 << 10
