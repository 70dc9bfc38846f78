"""RFC 9111 as a table, behind both faces: what is stored, what is served, what a request asks for.

The cases follow the groups of cache-tests.fyi, and public bug reports of other caches.
"""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from cachee_shm.testing import frozen_clock
from tests.cachee_shm.http.faces import HOST, Reply, Site


def date(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


STORED = {
    "max-age": {"cache-control": "max-age=60"},
    "s-maxage": {"cache-control": "s-maxage=60"},
    "s-maxage goes before max-age": {"cache-control": "max-age=0, s-maxage=60"},
    "the case of directives": {"Cache-Control": "MaX-aGe=60"},
    "an argument in quotes": {"cache-control": 'max-age="60"'},
    "an unknown directive": {"cache-control": 'foo="no-store", max-age=60'},
    "a quoted comma": {"cache-control": 'foo="a, b", max-age=60'},
    "Expires": {"expires": date(10_000), "date": date(0)},
    "max-age goes before Expires": {"cache-control": "max-age=60", "expires": "0"},
    "more seconds than a number has": {"cache-control": "max-age=" + "9" * 5000},
    "an age below the lifetime": {"cache-control": "max-age=60", "age": "30"},
    "public": {"cache-control": "public, max-age=60"},
    "must-revalidate": {"cache-control": "must-revalidate, max-age=60"},
    "several lines": [("cache-control", "public"), ("cache-control", "max-age=60")],
    "Vary": {"cache-control": "max-age=60", "vary": "Accept-Language"},
}
NOT_STORED = {
    "nothing": {},
    "public without a lifetime": {"cache-control": "public"},
    "Last-Modified without a lifetime": {"last-modified": date(-100_000)},
    "max-age=0": {"cache-control": "max-age=0"},
    "s-maxage=0": {"cache-control": "max-age=60, s-maxage=0"},
    "max-age=0, stale for an error alone": {"cache-control": "max-age=0, stale-if-error=60"},
    "max-age=0, older than it may be stale": {
        "cache-control": "max-age=0, stale-while-revalidate=60",
        "age": "60",
    },
    "no-store": {"cache-control": "max-age=60, no-store"},
    "no-cache": {"cache-control": "max-age=60, no-cache"},
    "no-cache of one field": {"cache-control": 'max-age=60, no-cache="x"'},
    "private": {"cache-control": "max-age=60, private"},
    "private of one field": {"cache-control": 'max-age=60, private="x"'},
    "no-store behind what is malformed": {"cache-control": "max-age=60, =x, a b, no-store"},
    "no-store behind an open quote": {"cache-control": 'max-age=60, a="b, no-store'},
    "no-store in another line": [("cache-control", "max-age=60"), ("cache-control", "NO-STORE")],
    "max-age that is negative": {"cache-control": "max-age=-1"},
    "max-age that is a fraction": {"cache-control": "max-age=1.5"},
    "max-age that is a word": {"cache-control": "max-age=a"},
    "max-age in other digits": {"cache-control": "max-age=\xb2"},
    "max-age with spaces": {"cache-control": "max-age = 60"},
    "two that differ: the least": {"cache-control": "max-age=60, max-age=0"},
    "Expires: 0": {"expires": "0"},
    "Expires that is no date": {"expires": "Thu, 99 Foo 2099 00:00:00 GMT"},
    "Expires in the past": {"expires": date(-60)},
    "two Expires": [("expires", date(60)), ("expires", date(90))],
    "Expires before Date": {"expires": date(60), "date": date(120)},
    "an age beyond the lifetime": {"cache-control": "max-age=60", "age": "61"},
    "a Date beyond the lifetime": {"cache-control": "max-age=60", "date": date(-100)},
    "an age that is none": {"cache-control": "max-age=60", "age": "abc"},
    "Vary: *": {"cache-control": "max-age=60", "vary": "*"},
    "Vary: * among others": {"cache-control": "max-age=60", "vary": "accept, *"},
    "a huge Vary": {"cache-control": "max-age=60", "vary": ",".join(f"x-{n}" for n in range(17))},
    "a Vary of 100 KB": {"cache-control": "max-age=60", "vary": "x" * 100_000},
    "a Vary that is no name": {"cache-control": "max-age=60", "vary": "a b"},
    "Set-Cookie": {"cache-control": "public, max-age=60", "set-cookie": "a=b"},
    "server-sent events": {"cache-control": "max-age=60", "content-type": "text/event-stream; charset=utf-8"},
    "parts that replace": {"cache-control": "max-age=60", "content-type": "multipart/x-mixed-replace"},
    "Content-Range": {"cache-control": "max-age=60", "content-range": "bytes 0-1/4"},
    "a value that ends its line": {"cache-control": "max-age=60", "x-a": "b\r\nset-cookie: c=d"},
    "a value with a NUL": {"cache-control": "max-age=60", "x-a": "b\0"},
    "a name that ends its line": {"cache-control": "max-age=60", "x-a: b\r\nx": "c"},
}


@pytest.mark.parametrize("fields", STORED.values(), ids=STORED)
def test_a_response_is_stored_where_it_may_be(site: Site, fields) -> None:
    site.replies["/"] = Reply(fields)
    assert not site.get().is_hit
    second = site.get()
    assert (second.is_hit, second.body, site.loads) == (True, b"page", 1)


@pytest.mark.parametrize("fields", NOT_STORED.values(), ids=NOT_STORED)
def test_a_response_is_not_stored_where_it_may_not_be(site: Site, fields) -> None:
    site.replies["/"] = Reply(fields)
    assert [site.get().body for _ in range(2)] == [b"page", b"page"]
    assert site.loads == 2


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_these_statuses_are_stored_only_with_an_explicit_lifetime(site: Site, status: int) -> None:
    body = b"" if status == 204 else b"page"
    site.replies["/"] = Reply(status=status, body=body)
    site.replies["/none"] = Reply({"last-modified": date(-1000)}, status=status, body=body)
    assert [site.get().status for _ in range(2)] == [status, status]
    assert site.loads == 1
    assert [site.get("/none").status for _ in range(2)] == [status, status]
    assert site.loads == 3


@pytest.mark.parametrize("status", [206, 302, 303, 304, 307, 400, 401, 403, 500, 503, 599])
def test_other_statuses_are_never_stored(site: Site, status: int) -> None:
    site.replies["/"] = Reply({"cache-control": "public, max-age=60"}, status=status)
    site.get(), site.get()
    assert site.loads == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"])
def test_only_get_and_head_are_answered_from_the_cache(site: Site, method: str) -> None:
    for _ in range(2):
        site.get(method=method)
    assert site.loads == 2


# Requests that pass

PASSING = {
    "a cookie": {"cookie": "a=b"},
    "a range": {"range": "bytes=0-1"},
    "If-Match": {"if_match": '"a"'},
    "If-Unmodified-Since": {"if_unmodified_since": date(0)},
    "no-store": {"cache_control": "no-store"},
    "another host": {"host": "evil.example"},
    "a body": {"content_length": "4"},
    "a chunked body": {"transfer_encoding": "chunked"},
    "X-Forwarded-Host": {"x_forwarded_host": "evil.example"},
    "X-Forwarded-Proto": {"x_forwarded_proto": "https"},
    "Forwarded": {"forwarded": "for=1.2.3.4;host=evil.example"},
    "Forwarded with spaces": {"forwarded": "for=1.2.3.4; Host = evil.example"},
    "X-Forwarded-Port": {"x_forwarded_port": "8443"},
    "X-Forwarded-Protocol": {"x_forwarded_protocol": "https"},
    "X-Forwarded-Ssl": {"x_forwarded_ssl": "on"},
    "Front-End-Https": {"front_end_https": "on"},
    "X-Original-URL": {"x_original_url": "/admin"},
    "X-HTTP-Method-Override": {"x_http_method_override": "POST"},
    "a control character": {"accept_language": "en\x01"},
    "a line's end": {"accept_language": "en\r\nx: y"},
    "an unkeyed field of the site's own": {"x_theme": "dark"},
}


@pytest.mark.parametrize("fields", PASSING.values(), ids=PASSING)
def test_a_request_passes_that_could_change_what_others_see(make_site, fields) -> None:
    """It is neither answered from the cache nor stored: what it made the application say is for it alone."""
    site = make_site(unkeyed=["X-Theme"])
    site.replies["/"] = lambda asked: Reply(
        body=b"poisoned" if len(asked) > 1 or asked["host"] != HOST else b"page"
    )
    site.get(**fields)
    assert site.get().body == b"page"
    site.get(**fields)
    assert site.loads == 3
    assert site.get().is_hit


def test_claims_of_a_proxy_that_agree_with_the_request_change_nothing(site: Site) -> None:
    site.get()
    assert site.get(x_forwarded_host=HOST, x_forwarded_proto="http", x_forwarded_for="1.2.3.4").is_hit
    assert site.get(forwarded=f'for=1.2.3.4;host="{HOST}";proto=http').is_hit
    assert site.get(host=f"{HOST}:80").is_hit
    assert site.get(x_forwarded_port="80", x_forwarded_ssl="off").is_hit


def test_path_query_host_and_port_are_in_the_key(make_site) -> None:
    site = make_site(hosts=["shop.example", "shop.example:8080"])
    for path, host in [
        ("/", HOST),
        ("/a", HOST),
        ("/?q=1", HOST),
        ("/?Q=1", HOST),
        ("/", "shop.example:8080"),
    ]:
        site.get(path, host=host)
    assert site.loads == 5


# Authorization and cookies


@pytest.mark.parametrize("allowing", ["public", "s-maxage=60", "must-revalidate"])
def test_a_response_to_an_authorized_request_is_stored_where_it_says_so(site: Site, allowing: str) -> None:
    site.replies["/"] = Reply({"cache-control": f"max-age=60, {allowing}"})
    site.get(authorization="Bearer a")
    assert site.get(authorization="Bearer b").is_hit and site.get().is_hit


def test_without_that_an_authorized_request_neither_stores_nor_is_served_what_is_stored(site: Site) -> None:
    site.replies["/"] = lambda fields: Reply(body=fields.get("authorization", "nobody").encode())
    assert site.get(authorization="a").body == b"a"
    assert site.get().body == b"nobody"
    assert site.get(authorization="b").body == b"b"
    assert site.get().is_hit and site.get().body == b"nobody"


def test_a_request_with_a_cookie_is_answered_only_on_the_routes_that_say_so(make_site) -> None:
    site = make_site(cookies=["/products/*"])
    for path in ("/products/7", "/account"):
        site.get(path)
        assert site.get(path, cookie="session=1").is_hit is (path == "/products/7")
    for path in ("/products/../account", "/products//account", "/products/7;x", "/products/%2e/.hidden"):
        site.get(path, cookie="session=1")
        assert not site.get(path, cookie="session=2").is_hit


# What requests ask for


def test_a_request_may_limit_the_age_of_a_response(site: Site, shm_cache) -> None:
    with frozen_clock(shm_cache) as clock:
        site.get()
        clock.tick(20)
        assert site.get(cache_control="max-age=30").is_hit
        assert site.get(cache_control="min-fresh=30").is_hit
        assert site.get(cache_control="max-stale").is_hit
        assert not site.get(cache_control="max-age=10").is_hit
        clock.tick(20)
        assert site.loads == 2
        assert not site.get(cache_control="min-fresh=50").is_hit


@pytest.mark.parametrize(
    "asked", [{"cache_control": "no-cache"}, {"cache_control": "max-age=0"}, {"pragma": "no-cache"}]
)
def test_a_reload_runs_the_application_and_stores_anew(site: Site, asked) -> None:
    site.get()
    site.replies["/"] = Reply(body=b"new")
    assert site.get(**asked).body == b"new"
    assert (site.get().is_hit, site.get().body) == (True, b"new")


def test_pragma_counts_only_without_cache_control(site: Site) -> None:
    site.get()
    assert site.get(pragma="no-cache", cache_control="max-age=60").is_hit


def test_only_if_cached_never_runs_the_application(site: Site) -> None:
    assert site.get(cache_control="only-if-cached").status == 504
    assert site.loads == 0
    site.get()
    assert site.get(cache_control="only-if-cached").is_hit


# Age, lifetime, stale responses


def test_a_hit_says_its_age_and_a_lifetime_has_an_end(site: Site, shm_cache) -> None:
    with frozen_clock(shm_cache) as clock:
        made = date(0)
        site.replies["/"] = Reply({"cache-control": "max-age=60", "age": "10", "date": made})
        assert site.get()["age"] == "10"
        clock.tick(20)
        hit = site.get()
        assert (hit["age"], hit["date"], hit["cache-status"]) == ("30", made, "cachee; hit; ttl=30")
        clock.tick(31)
        assert not site.get().is_hit


def test_stale_while_revalidate_serves_the_old_page_once_more_and_loads_the_new(
    site: Site, shm_cache
) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply({"cache-control": "max-age=10, stale-while-revalidate=60"})
        site.get()
        clock.tick(20)
        site.replies["/"] = Reply({"cache-control": "max-age=10, stale-while-revalidate=60"}, body=b"new")
        stale = site.get()
        assert (stale.body, stale["age"], site.loads) == (b"page", "20", 2)
        assert (site.get().body, site.loads) == (b"new", 2)
        clock.tick(100)
        assert not site.get().is_hit


def test_a_page_without_a_lifetime_is_stored_where_it_may_be_served_stale(site: Site, shm_cache) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply({"cache-control": "max-age=0, stale-while-revalidate=60"})
        site.get()
        assert (site.get()["cache-status"], site.loads) == ("cachee; hit; ttl=0", 2)
        clock.tick(61)
        assert not site.get().is_hit


def test_a_stale_page_that_cannot_be_loaded_anew_is_tried_seldom(site: Site, shm_cache) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply({"cache-control": "max-age=10, stale-while-revalidate=60"})
        site.get()
        clock.tick(20)
        site.replies["/"] = Reply({}, status=500)
        assert [site.get().status for _ in range(5)] == [200] * 5
        assert site.loads == 2


@pytest.mark.parametrize("strict", ["must-revalidate", "proxy-revalidate", "s-maxage=10"])
def test_a_strict_response_is_never_served_stale(site: Site, shm_cache, strict: str) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply(
            {"cache-control": f"max-age=10, stale-while-revalidate=60, stale-if-error=60, {strict}"}
        )
        site.get()
        clock.tick(20)
        assert not site.get(cache_control="max-stale=100").is_hit


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_stale_if_error_takes_the_place_of_an_error(site: Site, shm_cache, status: int) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply({"cache-control": "max-age=10, stale-if-error=60"})
        site.get()
        clock.tick(20)
        site.replies["/"] = Reply({}, status=status, body=b"broken")
        assert (site.get().status, site.get().body) == (200, b"page")
        clock.tick(100)
        assert site.get().status == status


def test_what_was_invalidated_is_never_served_stale(site: Site, shm_cache) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply(
            {"cache-control": "max-age=10, stale-while-revalidate=60, stale-if-error=60", "cachee-tags": "t"}
        )
        site.get()
        clock.tick(20)
        shm_cache.delete_tags("t")
        site.replies["/"] = Reply({}, status=500, body=b"broken")
        assert [site.get().status for _ in range(2)] == [500, 500]


def test_a_page_that_is_invalidated_while_its_error_is_made_does_not_take_its_place(
    site: Site, shm_cache
) -> None:
    with frozen_clock(shm_cache) as clock:
        site.replies["/"] = Reply({"cache-control": "max-age=10, stale-if-error=60", "cachee-tags": "t"})
        site.get()
        clock.tick(20)
        site.replies["/"] = Reply({}, status=500, work=lambda where: shm_cache.delete_tags("t"))
        assert site.get().status == 500
