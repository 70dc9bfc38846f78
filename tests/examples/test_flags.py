"""The story of feature flags: two hosts, server-sent events, and a real Chromium that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chromium import Chromium
from tests.examples.stories import Site, check_guide, story, until

pytestmark = pytest.mark.needs("message queues")

SHOWN = "document.getElementById('checkout').textContent"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    folder: Path = tmp_path_factory.mktemp("flags")
    database = {"FLAGS_DATABASE": str(folder / "flags.sqlite3")}
    server = ["uvicorn", "app:app", "--port", "{port}", "--timeout-graceful-shutdown", "1"]
    with story(folder, "flags", server, **database) as both:
        yield both


def flip(site: Site, is_on: bool) -> None:
    site.http.put("/flags/new-checkout", json={"on": is_on}).raise_for_status()


def test_a_stream_says_the_flags_of_now_and_each_change_of_any_host(sites: list[Site]) -> None:
    one, other = sites
    flip(one, False)
    until(lambda: other.json("/flags") == {"new-checkout": False})
    with httpx.stream("GET", f"{other.url}/events", timeout=30) as response:
        said = (json.loads(line[6:])["new-checkout"] for line in response.iter_lines() if line)
        assert next(said) is False
        for is_on, site in ((True, one), (False, other), (True, one)):
            flip(site, is_on)
            while next(said) is not is_on:  # an event of before may come between
                pass


@pytest.mark.needs("Chromium")
def test_a_browser_at_one_host_sees_what_is_flipped_at_the_other(sites: list[Site], tmp_path: Path) -> None:
    one, other = sites
    flip(one, False)
    until(lambda: other.json("/flags") == {"new-checkout": False})
    with Chromium(tmp_path) as browser:
        browser.open(other.url)
        for is_on, text in ((False, "old checkout"), (True, "new checkout"), (False, "old checkout")):
            flip(one, is_on)
            until(
                lambda text=text: browser.evaluate("document.getElementById('checkout')?.textContent") == text
            )


def test_the_guide() -> None:
    check_guide("flags")
