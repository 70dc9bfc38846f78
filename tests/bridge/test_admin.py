"""What is done to a real bridge from outside: keys invalidated and explained, with a token or without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cachee_bridge.http.admin import EXPLAINS_BURST
from cachee_shm.ports import free_ports
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.test_two_bridges import fill, gone, meet

ALL, SHOP, OTHER = "all-" + "a" * 16, "shop-" + "b" * 16, "news-" + "c" * 16
NASTY = "<script>alert(1)</script>\x1b[31m\x00\u202e"


def opened(host: Host, tokens: bool = True) -> str:
    """Gives the host an admin listener; its URL."""
    (port,) = free_ports(1)
    lines = f'admin = "127.0.0.1:{port}"\n'
    if tokens:
        path = host.folder / "tokens"
        path.write_text(f"{ALL} *\n# a comment\n{SHOP} shop\n{OTHER} news\n")
        path.chmod(0o600)
        lines += f'http_token_file = "{path}"\n'
    host.config.write_text(host.config.read_text().replace("[bridge]\n", f"[bridge]\n{lines}"))
    return f"http://127.0.0.1:{port}"


class Site:
    """Two linked hosts; the first has an admin listener."""

    def __init__(self, pair: list[Host], url: str) -> None:
        self.pair, self.url = pair, url

    def post(self, path: str, body: Any, token: str | None = SHOP, **headers: str) -> httpx.Response:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.post(f"{self.url}{path}", json=body, headers=headers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosts(tmp_path_factory.mktemp("admin")) as pair:
        url = opened(pair[0])
        meet(*pair)
        yield Site(pair, url)


def test_keys_that_are_invalidated_over_http_go_on_every_host(site: Site) -> None:
    caches = [host.attach() for host in site.pair]
    for cache in caches:
        fill(cache, ["a", NASTY, "kept"])
    answer = site.post("/invalidate", {"namespace": "shop", "keys": ["a", NASTY]})
    assert (answer.status_code, answer.json()) == (200, {"namespace": "shop", "keys": 2, "tags": 0})
    pair = site.pair
    until(lambda: "invalidated over HTTP keys=2 tags=0 client=127.0.0.1" in pair[0].log, pair[0].log)
    for cache in caches:
        gone(cache, ["a", NASTY])
        assert cache.get("kept") == b"old"


def test_tags_that_are_invalidated_over_http_go_on_every_host(site: Site) -> None:
    caches = [host.attach() for host in site.pair]
    for cache in caches:
        assert cache.get_or_load("tagged", lambda: 1, tags=["team:7"]) == 1
    assert site.post("/invalidate", {"namespace": "shop", "tags": ["team:7"]}, ALL).json()["tags"] == 1
    for cache in caches:
        gone(cache, ["tagged"])


@pytest.mark.parametrize(
    ("body", "token", "status", "words"),
    [
        ({"namespace": "shop", "keys": ["a"]}, None, 401, "needs a token"),
        ({"namespace": "shop", "keys": ["a"]}, "unknown-" + "d" * 16, 403, "not in http_token_file"),
        ({"namespace": "shop", "keys": ["a"]}, OTHER, 403, "not for namespace 'shop'"),
        ({"namespace": "absent", "keys": ["a"]}, ALL, 404, "no namespace 'absent'; it has shop"),
        ({"namespace": "shop"}, SHOP, 400, "nothing to invalidate"),
        ({"keys": ["a"]}, SHOP, 400, 'give "namespace"'),
        ({"namespace": "shop", "keys": "a"}, SHOP, 400, "keys: accepted: a list of strings"),
        ({"namespace": "shop", "keys": [7]}, SHOP, 400, "keys: accepted: a list of strings"),
        ({"namespace": "shop", "key": ["a"]}, SHOP, 400, "accepted: an object of keys, namespace, tags"),
        (["a"], SHOP, 400, "accepted: an object"),
        ({"namespace": "shop", "keys": ["a"] * 1001}, SHOP, 413, "send several requests"),
        ({"namespace": "shop", "keys": ["kept too", "\ud800"]}, SHOP, 400, "no key was deleted"),
        ({"namespace": "shop", "keys": ["kept too", "x" * 60_000]}, SHOP, 400, "no key was deleted"),
    ],
)
def test_what_cannot_be_done_is_refused_with_words_and_nothing_is_deleted(
    site: Site, body: Any, token: str | None, status: int, words: str
) -> None:
    cache = site.pair[0].attach()
    fill(cache, ["a", "kept too"])
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.post(
        f"{site.url}/invalidate",
        content=json.dumps(body),
        headers={"Content-Type": "application/json", **headers},
    )
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert cache.get_many(["a", "kept too"]).keys() == {"a", "kept too"}


def test_a_form_of_another_site_is_no_json_and_a_page_of_another_site_gets_no_answer(site: Site) -> None:
    form = httpx.post(f"{site.url}/invalidate", data={"namespace": "shop"}, headers=bearer(SHOP))
    assert form.status_code == 415
    asked = httpx.options(
        f"{site.url}/invalidate",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]
    crossed = httpx.get(
        f"{site.url}/api/explain?namespace=shop&hash={'0' * 16}", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert crossed.status_code == 403


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_page_that_has_its_own_name_lead_here_gets_nothing(site: Site) -> None:
    for path in ("/", "/api/mesh"):
        assert httpx.get(f"{site.url}{path}", headers={"Host": "evil.example"}).status_code == 421


def test_the_data_of_the_page_names_keys_by_their_hashes_alone(site: Site) -> None:
    cache = site.pair[0].attach()
    for _ in range(3):
        cache.set("user:secret", 1)
    answer = httpx.get(f"{site.url}/api/mesh")
    told = answer.json()
    assert told["host"] == site.pair[0].name
    assert told["stats"]["shop"]["sets"] >= 3
    assert [peer["name"] for peer in told["peers"] if peer["name"] == site.pair[1].name]
    assert "secret" not in answer.text


def test_without_a_token_file_nothing_is_invalidated_and_the_page_is_there(tmp_path: Path) -> None:
    with hosts(tmp_path, number=1) as (host,):
        url = opened(host, tokens=False)
        host.start()
        cache = host.attach()
        fill(cache, ["a"])
        answer = Site([host], url).post("/invalidate", {"namespace": "shop", "keys": ["a"]})
        assert (answer.status_code, "http_token_file is not set" in answer.text) == (403, True)
        assert cache.get("a") == b"old"
        assert httpx.get(url).status_code == 200


def test_explain_has_a_budget_and_nothing_else_waits_for_it(tmp_path: Path) -> None:
    """It has all hosts asked."""
    with hosts(tmp_path, number=1) as (host,):
        url = opened(host)
        fill(host.attach(), ["a"])
        host.start()
        site, path = Site([host], url), "/api/explain?namespace=shop&hash=0123456789abcdef"
        answers = [httpx.get(f"{url}{path}") for _ in range(EXPLAINS_BURST + 5)]
        assert [answer.status_code for answer in answers[:EXPLAINS_BURST]] == [200] * EXPLAINS_BURST
        answers += [site.post("/api/explain", {"namespace": "shop", "key": "a"}) for _ in range(5)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        assert "nobody was asked" in refused[0].text
        assert httpx.get(f"{url}/api/mesh").status_code == 200
        assert site.post("/invalidate", {"namespace": "shop", "keys": ["a"]}).status_code == 200
        until(lambda: httpx.get(f"{url}{path}").status_code == 200, "the budget to have something again")
