"""Pages in a cache: tags, variants, unsafe methods, two hosts, and a cache that fails."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from cachee_shm import attach
from cachee_shm.backing import Backing
from cachee_shm.errors import Closed
from cachee_shm.http import tag
from tests.cachee_shm.http.faces import FRESH, HOST, Reply, Site
from tests.cachee_shm.processes import until
from tests.conftest import unlink

# Tags


def test_tags_come_from_a_field_that_no_client_sees_or_from_a_call(site: Site, shm_cache) -> None:
    site.replies["/field"] = Reply({**FRESH, "Cachee-Tags": "product:7, shop"})
    site.replies["/call"] = Reply(work=lambda where: tag(where, "product:7"))
    site.replies["/other"] = Reply()
    for _ in range(2):
        answers = [site.get(path) for path in site.replies]
        assert all(got["cachee-tags"] is None for got in answers)
    assert site.loads == 3
    shm_cache.delete_tags("product:7")
    assert [site.get(path).is_hit for path in site.replies] == [False, False, True]


def test_the_field_is_removed_from_what_passes_too(site: Site) -> None:
    site.replies["/"] = Reply({"cachee-tags": "secret"})
    assert site.get()["cachee-tags"] is None
    assert site.get(cookie="a=b")["cachee-tags"] is None
    assert site.get(method="POST")["cachee-tags"] is None


@pytest.mark.parametrize(
    "tags", [",".join(f"t{n}" for n in range(16)), "x" * 2000], ids=["sixteen", "too long"]
)
def test_a_page_that_could_not_be_invalidated_by_all_its_tags_is_not_stored(site: Site, tags: str) -> None:
    site.replies["/"] = Reply({**FRESH, "cachee-tags": tags})
    assert [site.get().body, site.get().body, site.loads] == [b"page", b"page", 2]


def test_a_tag_without_the_middleware_is_nothing() -> None:
    tag({}, "product:7")


def test_a_page_is_not_stored_that_was_invalidated_while_it_was_made(site: Site, shm_cache) -> None:
    site.replies["/"] = Reply({**FRESH, "cachee-tags": "t"}, work=lambda where: shm_cache.delete_tags("t"))
    assert site.get().body == b"page"
    assert not site.get().is_hit


@pytest.mark.parametrize("control", ["max-age=60", "no-store"])
def test_neither_a_fill_nor_that_there_was_none_is_announced(site: Site, shm_cache, control: str) -> None:
    site.replies["/"] = Reply({"cache-control": control})
    events = shm_cache.events()
    site.get(), site.get()
    shm_cache.set("mark", 1)
    announced = next(event for event in events if event.kind != "local")
    assert announced.hash == shm_cache._hash("mark")


# Unsafe methods: RFC 9111, 4.4


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"])
@pytest.mark.parametrize("status", [200, 204, 303])
def test_an_unsafe_method_forgets_all_variants_of_its_uri(site: Site, method: str, status: int) -> None:
    site.replies["/a"] = Reply({**FRESH, "vary": "accept"})
    site.get("/a", accept="x"), site.get("/a", accept="y"), site.get("/a?q=1", accept="x"), site.get("/b")
    site.replies["/a"] = Reply({}, status=status)
    site.get("/a", method=method)
    site.replies["/a"] = Reply({**FRESH, "vary": "accept"}, body=b"new")
    assert [site.get("/a", accept=each).body for each in "xy"] == [b"new", b"new"]
    assert site.get("/a?q=1", accept="x").is_hit and site.get("/b").is_hit


@pytest.mark.parametrize(
    ("method", "status"), [("POST", 400), ("POST", 500), ("OPTIONS", 200), ("TRACE", 200)]
)
def test_an_error_or_a_safe_method_forgets_nothing(site: Site, method: str, status: int) -> None:
    site.get()
    site.replies["/"] = Reply({}, status=status)
    site.get(method=method)
    assert site.get().is_hit


@pytest.mark.parametrize(
    ("location", "forgets"),
    [
        ("/b", True),
        ("b", True),
        (f"http://{HOST}/b", True),
        (f"http://{HOST}:80/b", True),
        (f"https://{HOST}/b", True),  # behind a proxy that ends TLS
        (f"HTTP://{HOST.upper()}/b", True),
        (f"//{HOST}/b", True),
        ("../b", True),
        ("x/../b", True),
        ("./b", True),
        ("/x/../../b", True),
        ("/x/%2e%2E/b", True),
        ("/%62", True),
        ("b#part", True),
        ("b/", False),
        ("b?q=1", False),
        ("?q=1", False),
        ("..", False),
        (f"http://{HOST}:81/b", False),
        (f"http://user@{HOST}/b", False),
        (f"ftp://{HOST}/b", False),
        ("http://evil.example/b", False),
        ("//evil.example/b", False),
        ("//evil.example/../b", False),
        ("http://[/b", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("field", ["location", "content-location"])
def test_what_a_response_locates_on_the_same_host_is_forgotten_too(
    site: Site, field: str, location: str, forgets: bool
) -> None:
    site.get("/b")
    site.replies["/a"] = Reply({field: location}, status=201)
    site.get("/a", method="POST")
    assert site.get("/b").is_hit is not forgets


@pytest.mark.parametrize(
    ("target", "location", "named"),
    [
        ("/users/7/posts/", "../comments?page=1", "/users/7/comments?page=1"),
        ("/users/7/posts", "comments", "/users/7/comments"),
        ("/users/7/posts", "..", "/users/"),
        ("/users/7/posts", "/", "/"),
        ("/users/7/posts", f"http://{HOST}", "/"),
        ("/users/7/posts?all", "?page=2", "/users/7/posts?page=2"),
        ("/a%2Fb/c", "d", "/a%2Fb/d"),
        ("/a b/c", "d", "/a b/d"),
    ],
)
def test_what_a_response_locates_is_resolved_against_the_target(
    site: Site, target: str, location: str, named: str
) -> None:
    site.get(named)
    assert site.get(named).is_hit
    site.replies[target.partition("?")[0]] = Reply({"location": location}, status=201)
    site.get(target, method="POST")
    assert not site.get(named).is_hit


def test_each_line_of_a_repeated_field_is_looked_at(site: Site) -> None:
    site.get("/b"), site.get("/c")
    site.replies["/a"] = Reply([("Location", "/b"), ("Location", "/c")], status=201)
    site.get("/a", method="POST")
    assert not site.get("/b").is_hit and not site.get("/c").is_hit


def test_a_write_by_a_host_that_is_not_listed_forgets_for_all_hosts(site: Site) -> None:
    site.get()
    site.get(method="POST", host="internal:8000")
    assert not site.get().is_hit


# Variants


def test_variants_are_told_apart_by_the_fields_that_vary_names(site: Site) -> None:
    site.replies["/"] = lambda fields: Reply(
        {**FRESH, "vary": "Accept-Language"}, body=fields.get("accept-language", "none").encode()
    )
    for _ in range(2):
        assert [site.get(accept_language=each).body for each in ("de", "en", "de, en", "")] == [
            b"de",
            b"en",
            b"de, en",
            b"",
        ]
        assert site.get().body == b"none"
    assert site.loads == 5
    assert site.get(accept_language="de,en").is_hit


def test_a_response_that_begins_to_vary_hides_what_was_stored_without(site: Site) -> None:
    """The older one would be served to whomever the newer one says that it is not for."""
    site.replies["/"] = Reply(body=b"for all")
    site.get()
    site.replies["/"] = lambda fields: Reply({**FRESH, "vary": "x-a"}, body=fields.get("x-a", "-").encode())
    site.get(x_a="1", cache_control="no-cache")
    assert [site.get(x_a=each).body for each in ("1", "2")] == [b"1", b"2"]
    assert site.get().body == b"-"


@pytest.mark.parametrize(
    ("fields", "hits"),
    [
        ({}, [False] * 4),
        ({"access-control-allow-origin": "https://a.example"}, [False] * 4),
        ({"access-control-allow-origin": "*"}, [False, True, True, True]),
        ({"vary": "Origin"}, [False, False, True, True]),
    ],
    ids=["nothing", "one origin", "any origin", "Vary"],
)
def test_a_page_for_an_origin_is_stored_where_it_says_for_which_others_it_is(
    site: Site, fields: dict[str, str], hits: list[bool]
) -> None:
    site.replies["/"] = Reply({**FRESH, **fields})
    site.get()
    asked = [site.get(origin=f"https://{name}.example") for name in "abab"]
    assert [got.is_hit for got in asked] == hits
    assert site.get().is_hit, "that of the request without one is stored"


def test_vary_may_name_what_a_proxy_says(make_site) -> None:
    site = make_site()
    site.replies["/"] = lambda fields: Reply(
        {**FRESH, "vary": "x-forwarded-for"}, body=fields.get("x-forwarded-for", "").encode()
    )
    assert [site.get(x_forwarded_for=each).body for each in ("1", "2", "1")] == [b"1", b"2", b"1"]


def test_thousands_of_variants_of_one_uri_are_not_stored(make_site, shm_cache) -> None:
    site = make_site(variants_max=8)
    site.replies["/"] = Reply({**FRESH, "vary": "accept-language"})
    for n in range(300):
        assert site.get(accept_language=f"x{n}").body == b"page"
    assert len(shm_cache) < 20
    assert site.get(accept_language="x0").is_hit
    shm_cache.delete_tags("http:nothing"), site.get(method="POST")
    assert not site.get(accept_language="new").is_hit
    assert site.get(accept_language="new").is_hit, "what is gone makes room"


# Bodies


def test_a_body_that_is_too_large_passes_as_it_comes(make_site) -> None:
    site = make_site(body_bytes_max=10)
    site.replies["/large"] = Reply(body=b"x" * 11)
    site.replies["/declared"] = Reply(chunks=[b"x" * 6, b"y" * 5], length=11)
    site.replies["/fits"] = Reply(chunks=[b"x" * 6, b"y" * 4], length=10)
    bodies = {path: site.get(path).body for path in site.replies}
    assert bodies == {"/large": b"x" * 11, "/declared": b"x" * 6 + b"y" * 5, "/fits": b"x" * 6 + b"y" * 4}
    assert [site.get(path).is_hit for path in site.replies] == [False, False, True]


@pytest.mark.parametrize("length", [4, 8], ids=["longer", "shorter"])
def test_a_body_of_another_length_than_declared_is_not_stored(site: Site, length: int) -> None:
    site.replies["/"] = Reply(chunks=[b"abc", b"def"], length=length)
    assert [site.get().body for _ in range(2)] == [b"abcdef"] * 2
    assert site.loads == 2


def test_a_stream_of_no_known_length_is_not_stored(site: Site) -> None:
    site.replies["/"] = Reply(chunks=[b"abc", b"def"])
    assert [site.get().body for _ in range(2)] == [b"abcdef"] * 2
    assert site.loads == 2


def test_two_lengths_that_differ_are_not_stored(site: Site) -> None:
    site.replies["/"] = Reply([*FRESH.items(), ("content-length", "4"), ("content-length", "5")])
    site.get(), site.get()
    assert site.loads == 2


# Hosts


@pytest.mark.needs("message queues")
def test_what_one_host_invalidates_no_other_serves(shm_hosts) -> None:
    caches = shm_hosts(2)
    one, other = Site("asgi", caches[0]), Site("wsgi", caches[1])
    for site in (one, other):
        site.replies["/"] = Reply({**FRESH, "cachee-tags": "product:7"})
        site.get()
        assert site.get().is_hit
    one.get(method="PUT")
    assert caches[0].wait_synced(10)
    assert not other.get().is_hit and other.get().is_hit
    assert not one.get().is_hit
    caches[1].delete_tags("product:7")
    assert caches[1].wait_synced(10)
    assert not one.get().is_hit


# A cache that fails


class Broken:
    """Every verb raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [Closed("closed"), OSError("x"), RuntimeError("x"), MemoryError()], ids=repr
)
def test_a_cache_that_fails_fails_no_page_and_is_logged_once(face: str, error: Exception, caplog) -> None:
    site = Site(face, Broken(error))
    with caplog.at_level(logging.WARNING):
        for method in ("GET", "HEAD", "POST"):
            assert site.get(method=method).status == 200
    assert len(caplog.records) == 1


@pytest.mark.parametrize("verb", ["get", "set", "now_ms", "filling", "get_or_load", "aget_or_load"])
def test_whichever_verb_fails_the_page_comes(face: str, monkeypatch, verb: str) -> None:
    with attach(private=True) as cache:
        site = Site(face, cache)

        class Failing:
            def __getattr__(self, name: str) -> Any:
                if name == verb:
                    raise OSError("no more")
                return getattr(cache, name)

        site.app._pages._backing = Backing(attached=Failing())
        assert [site.get().body for _ in range(3)] == [b"page"] * 3
        assert site.get(method="POST").status == 200


def test_a_closed_cache_fails_no_page(face: str) -> None:
    cache = attach(private=True)
    site = Site(face, cache)
    site.get()
    cache.close()
    assert site.get().body == b"page"


def test_a_namespace_that_cannot_be_had_is_tried_again(face: str, monkeypatch, tmp_path, caplog) -> None:
    host = f"pages-{os.getpid()}"
    config = tmp_path / "cachee.toml"
    config.write_text('[host]\nname = "a"\n[namespaces.other]\nmemory = "4MiB"\n')
    monkeypatch.setenv("CACHEE_CONFIG", str(config))
    site = Site(face, "pages")
    with caplog.at_level(logging.WARNING):
        assert [site.get().body for _ in range(2)] == [b"page"] * 2
        assert site.loads == 2
        site.get(method="POST")
    assert caplog.text.count("cannot be attached") == 1
    config.write_text(f'[host]\nname = "{host}"\n[namespaces.pages]\nmemory = "4MiB"\n')
    with attach("pages") as another:  # a worker that has a page, which the one without a segment has changed
        Site(face, another).get()
        until(lambda: site.app._pages.cache.health().ok)
        assert not site.get().is_hit
        assert site.get().is_hit
    site.app._pages._backing.close()
    unlink(f"cachee.{host}.")


def test_garbage_in_the_cache_is_a_miss(site: Site, shm_cache) -> None:
    site.replies["/"] = Reply({**FRESH, "vary": "accept"})
    site.get()
    visit = site.app._pages.visit(_request(site))
    for garbage in (b"", b"\xff" * 50, "text", [1, 2], [["a"], 5], None):
        shm_cache.set(f"http:shape:{visit.primary}", garbage, local=True)
        assert site.get().body == b"page"
    site.get()
    visit = site.app._pages.visit(_request(site))
    for garbage in (b"", b"\x04\0\0\0abcdef", "text", None):
        shm_cache.set(visit._page_key(visit._variant(visit.names)), garbage)
        assert site.get().body == b"page"


def _request(site: Site) -> Any:
    from cachee_shm.http.fields import Fields
    from cachee_shm.http.rules import Request

    fields = Fields([("host", HOST)])
    raw = " /" if "asgi" in type(site.app).__module__ else "/"
    return Request("GET", "http", HOST, "/", raw, "", fields)


# Configuration


@pytest.mark.parametrize("hosts", ["shop.example", [], [""], ["*"], ["http://shop.example"]])
def test_hosts_that_could_never_match_are_refused(make_site, hosts: object) -> None:
    with pytest.raises(ValueError, match="host"):
        make_site(hosts=hosts)
