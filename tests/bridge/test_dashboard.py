"""The dashboard in a real Chromium, served by real bridges: calm, a partition, a lapped peer; and 64 hosts.

CACHEE_PICTURES=FOLDER keeps a picture of each scene.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachee_bridge.http.messages import Response
from cachee_bridge.http.page import Page
from cachee_bridge.http.routes import Routes
from tests import axe
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.served import served
from tests.bridge.sixty_four import DEAD, HOSTS, recorded
from tests.bridge.test_admin import ALL, NASTY, opened
from tests.bridge.test_two_bridges import meet, tell, whole
from tests.chromium import Chromium

pytestmark = pytest.mark.needs("Chromium", "message queues")

WIDE, PHONE = (1280, 900), (390, 844)
COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
SCRIPT = "<script>document.title='taken'</script>\x1b[31m\u202e"


class Dashboard:
    """The page in a browser, as a reader sees it."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser

    def open(self, url: str, size: tuple[int, int] = WIDE, dark: bool = False) -> None:
        self.browser.looks(*size, dark=dark, is_phone=size == PHONE)
        self.browser.heard(*COMPLAINTS)  # of the page before
        self.browser.open(url)
        until(lambda: self.level not in (None, "wait"), "the page to show something")

    @property
    def level(self) -> str | None:
        level: str | None = self.browser.evaluate("document.getElementById('verdict')?.dataset.level")
        return level

    def text(self, selector: str) -> str:
        """ "" of what is not shown."""
        shown = "(part => part?.getClientRects().length ? part.innerText : '')"
        return str(self.browser.evaluate(f"{shown}(document.querySelector({json.dumps(selector)}))"))

    def until(self, selector: str, words: str) -> None:
        until(lambda: words in self.text(selector), f"{words!r} in {selector}: {self.text(selector)!r}")

    def keep(self, name: str) -> None:
        """The picture that somebody looks at."""
        if folder := os.environ.get("CACHEE_PICTURES"):
            Path(folder, f"{name}.png").write_bytes(self.browser.picture())

    def is_sound(self) -> None:
        """No error of a script, nothing refused by the policy, nothing wider than the window."""
        assert self.browser.heard(*COMPLAINTS) == []
        wide = self.browser.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{wide} px hang out of the window"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        browser.enable("Runtime", "Log")
        yield Dashboard(browser)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Host], str]]:
    """Three linked hosts, and the URL of the first one's dashboard."""
    often = 'check_every = "300ms"'
    with hosts(tmp_path_factory.mktemp("mesh"), number=3, memory="2MiB", bridge=often) as three:
        url = opened(three[0])
        meet(*three)
        yield three, url


def api(told: dict[str, Any], explained: dict[str, Any] | None = None) -> Routes:
    """The page, and what it is told."""
    routes = Routes()
    Page().add_to(routes)
    routes.add("GET", "/api/mesh", lambda request: Response.json(told))
    routes.add("GET", "/api/explain", lambda request: Response.json(explained or {}))
    return routes


def test_a_calm_mesh_is_said_to_be_well(page: Dashboard, mesh: tuple[list[Host], str]) -> None:
    (one, other, third), url = mesh
    for size, dark in ((WIDE, False), (PHONE, True)):
        page.open(url, size, dark)
        page.until("#verdict", "All is well")
        page.until("#verdict", "2 of 2 peers reached")
        assert page.text("#host") == one.name
        assert page.text("#troubles") == ""
        for peer in (other, third):
            label = f"document.querySelector('[aria-label^=\"{peer.name}, linked\"]') !== null"
            until(lambda label=label: page.browser.evaluate(label), f"{peer.name} to be drawn")
            page.until("#nines-body", peer.name)
        page.until("#verdict", "% of")
        page.until("#spread-note", "Half came within")
        page.keep(f"calm-{size[0]}")
        page.is_sound()


def test_a_partition_is_named_with_what_ends_it_and_is_over_when_it_has_ended(
    page: Dashboard, mesh: tuple[list[Host], str]
) -> None:
    (*_, third), url = mesh
    page.open(url)
    page.until("#verdict", "All is well")
    third.kill()
    page.until("#verdict", f"shop is isolated from {third.name}")
    assert page.level == "bad"
    page.until("#troubles", f"{third.name}: silent; shop is isolated for")
    page.until("#troubles", f"ends when {third.name} is linked again")
    page.until("#troubles code", f"cachee peers forget {third.name}")
    page.until("#mesh-note", "1 cut off")
    assert page.browser.evaluate("document.title").startswith("shop is isolated")
    page.keep("partition")
    page.is_sound()
    third.start()
    page.until("#verdict", "All is well")
    assert page.text("#troubles") == ""


def test_a_write_that_a_peer_has_not_evicted_is_named_and_makes_its_row_red(page: Dashboard) -> None:
    told = recorded()
    told["namespaces"][0] |= {"isolated": False, "why": [], "silent": []}
    told["peers"] = [{**peer, "state": "up", "isolates": []} for peer in told["peers"]]
    suspect = {"peer": "web-9", "namespace": "shop", "hash": "0123456789abcdef", "what": "key", "trace": []}
    suspect |= {"name": "invalidation lost", "why": "it still holds what the write replaced"}
    missed = {**told["checker"]["peers"]["web-9"]}
    missed["visible"] = dict.fromkeys(missed["visible"], missed["canaries"] - 1)
    told["checker"]["peers"] = {
        **told["checker"]["peers"],
        "web-9": missed,
        DEAD: told["checker"]["peers"]["web-2"],
    }
    row = "#nines-body tr:nth-child(4)"
    for pending, level in ((1, "good"), (0, "bad")):
        missed["pending"] = {"60": pending}
        told["checker"]["suspects"] = [{**suspect, "since_s": 59.9, "over": not pending}]
        with served(api(told)) as url:
            page.open(url)
            page.until(
                "#troubles", "web-9: invalidation lost, 60 s after a write in shop, hash 0123456789abcdef"
            )
            page.until("#troubles", "it still holds what the write replaced")
            assert page.level == ("warn" if pending else "bad")
            last = f"document.querySelector('{row} td:nth-child(6)').dataset.level"
            assert page.text(f"{row} th") == "web-9"
            assert page.browser.evaluate(last) == level


def test_a_write_that_came_late_is_said_as_long_as_its_cell_is_not_green(page: Dashboard) -> None:
    told = recorded()
    told["namespaces"][0] |= {"isolated": False, "why": [], "silent": []}
    told["peers"] = [{**peer, "state": "up", "isolates": []} for peer in told["peers"]]
    told["checker"]["suspects"] = []
    row = {**told["checker"]["peers"]["web-9"], "canaries": 1000, "pending": {}}
    cell = "document.querySelector('#nines-body tr td:nth-child({})').dataset.level"
    for within_1_s, within_60_s, column, level, words in (
        (1000, 1000, 5, "good", ""),
        (999, 1000, 5, "warn", "web-9 did not see 1 of 1,000 checked writes within 1 s"),
        (900, 1000, 5, "bad", "web-9 did not see 100 of 1,000 checked writes within 1 s"),
        (900, 999, 6, "bad", "web-9 did not see 1 of 1,000 checked writes within 60 s"),
    ):
        seen = dict.fromkeys(("0.001", "0.01", "0.1", "1"), within_1_s) | {"60": within_60_s}
        told["checker"]["peers"] = {"web-9": {**row, "visible": seen}}
        with served(api(told)) as url:
            page.open(url)
            page.until("#verdict", words or "All is well")
            assert page.browser.evaluate(cell.format(column)) == level
            assert page.level == ("warn" if words else "good")
            assert page.text("#troubles") == ""
            page.keep(f"late-{within_1_s}-{within_60_s}")


def test_a_lapped_peer_is_counted_among_the_repairs(page: Dashboard, mesh: tuple[list[Host], str]) -> None:
    (one, other, _), url = mesh
    one.kill()
    cache = other.attach()
    for number in range(cache.stats()["ring_slots"] + 100):
        cache.delete(f"lap:{number}")
    one.start()
    whole(one)
    tell(other, one)
    page.open(url)
    page.until("#tiles", "lapped ")  # by one peer, or by both: what c applied has moved its ring too
    page.keep("lapped")
    page.is_sound()


def test_a_bridge_that_does_not_answer_any_more_leaves_nothing_that_looks_new(
    page: Dashboard, mesh: tuple[list[Host], str]
) -> None:
    (one, *_), url = mesh
    page.open(url)
    page.until("#verdict", "All is well")
    one.kill()
    page.until("#verdict", "The bridge does not answer for")
    assert page.browser.evaluate("getComputedStyle(document.querySelector('.card')).opacity") == "0.55"
    page.browser.heard(*COMPLAINTS)  # of requests that failed
    one.start()
    page.until("#verdict", "All is well")
    assert page.browser.evaluate("getComputedStyle(document.querySelector('.card')).opacity") == "1"
    page.browser.heard(*COMPLAINTS)


def test_sixty_four_hosts_can_be_read_and_the_dead_one_stands_out(page: Dashboard) -> None:
    with served(api(recorded())) as url:
        for size, dark in ((WIDE, False), (PHONE, False), (WIDE, True)):
            page.open(url, size, dark)
            page.until("#verdict", f"isolated from {DEAD}")
            page.until("#mesh-note", f"{HOSTS - 1} peers")
            page.until("#nines-body tr:nth-child(4)", DEAD)  # below the regions
            assert overlaps(page) == []
            page.keep(f"many-{size[0]}{'-dark' if dark else ''}")
            page.is_sound()
        page.browser.evaluate("document.getElementById('nines-more').click()")
        assert page.browser.evaluate("document.querySelectorAll('#nines-body tr').length") == 3 + HOSTS - 1


def overlaps(page: Dashboard) -> list[str]:
    """Names in the picture that lie upon each other: their middles are nearer than a line is high."""
    return list(
        page.browser.evaluate("""(() => {
            const nodes = [...document.querySelectorAll('.peer-node')].map(node => {
                const box = node.querySelector('text').getBoundingClientRect();
                return [node.dataset.key, box.x + box.width / 2, box.y + box.height / 2];
            });
            const isNear = (one, other) => Math.hypot(other[1] - one[1], other[2] - one[2]) < 9;
            return nodes.flatMap((one, i) => nodes.slice(i + 1)
                .filter(other => isNear(one, other)).map(other => `${one[0]} ${other[0]}`));
        })()""")
    )


@pytest.mark.needs("axe-core")
def test_the_page_is_accessible_in_light_and_dark_calm_or_not(page: Dashboard) -> None:
    many = recorded()
    calm = {**many, "namespaces": [{**many["namespaces"][0], "isolated": False, "why": [], "silent": []}]}
    calm["peers"] = [{**peer, "state": "up", "isolates": []} for peer in many["peers"][:9]]
    for told in (many, calm):
        with served(api(told, explained("user:42"))) as url:
            for size, dark in ((WIDE, False), (WIDE, True), (PHONE, False)):
                page.open(url, size, dark)
                page.browser.evaluate(
                    "document.querySelector('.peer-node').dispatchEvent(new Event('click'))"
                )
                trace(page, "0123456789abcdef")
                page.until("#trace-result", "stale value served")
                assert axe.violations(page.browser) == []


def test_every_part_can_be_reached_and_worked_by_the_keyboard(page: Dashboard) -> None:
    with served(api(recorded())) as url:
        page.open(url)
        reached = []
        for _ in range(40):
            page.browser.press("Tab", 9)
            focus = "document.activeElement"
            reached.append(page.browser.evaluate(f"{focus}.id || {focus}.dataset.key || {focus}.className"))
            ring = f"getComputedStyle({focus}).outlineStyle"
            halo = f"getComputedStyle({focus}.firstElementChild ?? {focus}).stroke"
            seen = page.browser.evaluate(f"{ring} !== 'none' || {halo} !== 'none'")
            assert seen, f"the focus on {reached[-1]} cannot be seen"
            if reached[-1] == "trace-token":
                break
        assert reached[0] == "skip"
        for part in ("nines-more", "trace-namespace", "trace-key", "trace-token"):
            assert part in reached
        nodes = [name for name in reached if str(name).startswith("web-")]
        assert len(nodes) == 1, "the picture is one stop of the tab key"
        page.browser.evaluate("document.querySelector('.peer-node[tabindex=\"0\"]').focus()")
        page.browser.press("ArrowRight", 39)
        page.browser.press("ArrowRight", 39)
        chosen = page.browser.evaluate("document.activeElement.dataset.key")
        page.browser.press("Enter", 13, "\r")
        page.until("#peer h3", chosen)
        page.until("#peer", "linked" if chosen != DEAD else "cut off")


def trace(page: Dashboard, key: str, token: str = "") -> None:
    for field, value in (("trace-key", key), ("trace-token", token)):
        page.browser.evaluate(f"document.getElementById('{field}').value = {json.dumps(value)}")
    page.browser.evaluate("document.querySelector('#trace button').click()")


def explained(key: str, who: str = "shop") -> dict[str, Any]:
    row = {"at": 1_796_000_000.25, "layer": "segment", "source": "web-1", "sequence": 7, "pid": 41}
    return {
        "hosts": {
            "web-1": [{**row, "kind": "written", "command": key, "service": who, "why": ""}],
            "web-2": [{**row, "kind": "stale_served", "command": "celery", "service": who, "why": key}],
            "web-3": {"error": f"too old to be asked {key}"},
        },
        "clocks": {"web-2": 0.0004},
    }


def test_a_share_is_never_rounded_up_and_every_missing_write_shows(page: Dashboard) -> None:
    """The words of the page, as functions of their arguments alone."""
    with served(api(recorded())) as url:
        page.open(url)
        page.browser.evaluate("import('/words.js').then(words => { window.words = words; return 0; })")
        for part, whole, shown in (
            (10**7, 10**7, "100"),
            (10**7 - 1, 10**7, "99.9999"),
            (999_999, 10**6, "99.9999"),
            (999_980, 10**6, "99.998"),
            (998_800, 10**6, "99.8"),
            (999, 1000, "99.9"),
            (1, 2, "50.0"),
            (0, 5, "0.0"),
        ):
            assert page.browser.evaluate(f"words.percent({part}, {whole})") == shown
        for missing, window, level in (
            (0, "60", "good"),
            (1, "60", "bad"),
            (1, "1", "warn"),
            (1, "0.001", "fair"),
        ):
            assert page.browser.evaluate(f"words.level({missing}, 1000000, '{window}')") == level
        assert page.browser.evaluate("words.level(0, 0, '60')") == "none"


def test_markup_and_control_characters_are_shown_as_what_they_are(page: Dashboard) -> None:
    told = recorded()
    told["host"] = told["peers"][0]["name"] = SCRIPT
    told["namespaces"][0]["why"][0] = {"reason": SCRIPT, "who": SCRIPT, "end": f"`{SCRIPT}`"}
    told["hottest"] = {SCRIPT: [{"hash": SCRIPT, "count": 3}]}
    told["stats"] = {SCRIPT: {"hits": 1, "misses": 1, "entries": 1, "memory_bytes": 1}}
    with served(api(told, explained(SCRIPT, SCRIPT))) as url:
        page.open(url)
        trace(page, "0123456789abcdef")
        page.until("#trace-result", "stale value served")
        shown = SCRIPT.replace("\x1b", "\\u001b").replace("\u202e", "\\u202e")
        for part in ("#host", "#verdict", "#troubles", "#hot", "#spaces", "#trace-result"):
            assert shown in page.text(part), part
        assert page.browser.evaluate("document.title") != "taken"
        assert page.browser.evaluate("document.querySelectorAll('main script').length") == 0
        page.is_sound()


def test_a_key_is_traced_by_its_text_only_with_a_token(page: Dashboard, mesh: tuple[list[Host], str]) -> None:
    (one, *_), url = mesh
    one.attach().set(NASTY, 1)
    page.open(url)
    page.until("#verdict", "All is well")
    trace(page, NASTY)
    page.until("#trace-note", "with a token of http_token_file")
    trace(page, NASTY, ALL)
    page.until("#trace-result", "a value, written")
    page.browser.heard(*COMPLAINTS)
