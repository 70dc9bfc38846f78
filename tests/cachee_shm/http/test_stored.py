"""What the cache holds of a response: bytes that anybody may have written, validators, conditions."""

from __future__ import annotations

import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm.http.fields import Fields
from cachee_shm.http.rules import Lifetime
from cachee_shm.http.stored import Page
from cachee_shm.testing import frozen_clock
from tests.cachee_shm.http.faces import Reply, Site
from tests.cachee_shm.http.test_rules import date

LIFETIME = Lifetime(0, 60, 0, 0, False, ("accept",))
PAGE = Page.made(200, Fields([("X-A", "\xe9"), ("etag", '"a"')]), LIFETIME, 5, b"body")


def test_a_page_is_read_as_it_was_made() -> None:
    page = Page.read(PAGE.data)
    assert page is not None
    assert (page.status, page.fields.pairs, page.lifetime, page.made_ms, page.body) == (
        200,
        [("X-A", "\xe9"), ("etag", '"a"')],
        LIFETIME,
        5,
        b"body",
    )


@given(st.binary(max_size=80) | st.integers(0, len(PAGE.data)).map(lambda n: PAGE.data[:n]))
def test_bytes_that_are_no_page_are_a_miss(data: bytes) -> None:
    page = Page.read(data)
    assert page is None or page.fields.are_clean()


@given(st.integers(0, PAGE.body_at - 1), st.integers(1, 255))
def test_a_page_with_a_wrong_byte_never_ends_a_line_of_the_header(at: int, flip: int) -> None:
    data = bytearray(PAGE.data)
    data[at] ^= flip
    page = Page.read(bytes(data))
    assert page is None or page.fields.are_clean()


@pytest.mark.parametrize("value", [None, "text", 5, [1], b"", b"\xff\xff\xff\xff"])
def test_any_other_value_is_a_miss(value: object) -> None:
    assert Page.read(value) is None


# Validators


def test_an_etag_is_made_where_there_is_none_and_is_of_the_representation(site: Site) -> None:
    site.replies["/"] = Reply(body=b"page")
    site.replies["/same"] = Reply(body=b"page")
    site.replies["/other"] = Reply(body=b"other")
    site.replies["/text"] = Reply({"cache-control": "max-age=60", "content-type": "text/plain"})
    site.replies["/own"] = Reply({"cache-control": "max-age=60", "etag": 'W/"mine"'})
    etags = {path: site.get(path)["etag"] for path in site.replies}
    assert etags["/"] == etags["/same"] == site.get("/")["etag"]
    assert len(set(etags.values())) == 4
    assert etags["/own"] == 'W/"mine"'
    assert not (etags["/"] or "").startswith("W/")


def test_codings_are_variants_with_etags_of_their_own(site: Site) -> None:
    def reply(fields: dict[str, str]) -> Reply:
        vary = {"cache-control": "max-age=60", "vary": "Accept-Encoding"}
        if "gzip" in fields.get("accept-encoding", ""):
            return Reply({**vary, "content-encoding": "gzip"}, body=gzip.compress(b"page"))
        return Reply(vary)

    site.replies["/"] = reply
    plain, packed = site.get(), site.get(accept_encoding="gzip, br")
    assert (plain.body, gzip.decompress(packed.body)) == (b"page", b"page")
    assert plain["etag"] != packed["etag"]
    assert site.get(accept_encoding="br,gzip").is_hit
    assert site.get(accept_encoding="BR, gzip").body == packed.body
    assert site.get().body == b"page"
    assert site.get(accept_encoding="gzip, br", if_none_match=plain["etag"] or "").status == 200


@pytest.mark.parametrize(
    ("asked", "status"),
    [('"a"', 304), ('W/"a"', 304), ('"b", "a"', 304), ("*", 304), ('"b"', 200), ("a", 200), ('"a', 200)],
)
def test_if_none_match_is_compared_weakly(site: Site, asked: str, status: int) -> None:
    site.replies["/"] = Reply({"cache-control": "max-age=60", "etag": '"a"', "x-other": "b", "vary": "x"})
    site.get()
    got = site.get(if_none_match=asked)
    assert (got.status, got.body) == (status, b"" if status == 304 else b"page")
    if status == 304:
        assert (got["etag"], got["vary"], got["x-other"], got["content-length"]) == ('"a"', "x", None, None)
    assert site.loads == 1


def test_if_modified_since_counts_where_there_is_no_if_none_match(site: Site) -> None:
    site.replies["/"] = Reply({"cache-control": "max-age=60", "etag": '"a"', "last-modified": date(-100)})
    assert site.get(if_modified_since=date(-50)).status == 304
    same = site.get()["last-modified"]
    assert site.get(if_modified_since=same).status == 304
    assert site.get(if_modified_since=date(-150)).status == 200
    assert site.get(if_modified_since="never").status == 200
    assert site.get(if_modified_since=date(0), if_none_match='"b"').status == 200
    short = time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(time.time() - 50))  # RFC 850
    assert site.get(if_modified_since=short).status == 304


def test_a_condition_on_a_miss_stores_the_whole_page_and_is_answered(site: Site) -> None:
    """The application is not told of it, or it would answer 304, which cannot be stored."""
    site.replies["/"] = Reply({"cache-control": "max-age=60", "etag": '"a"'})
    got = site.get(if_none_match='"a"')
    assert got.status == 304 and "if-none-match" not in site.asked[0][2]
    assert site.get().body == b"page" and site.get().is_hit


def test_a_condition_is_the_applications_where_nothing_is_stored(site: Site) -> None:
    site.replies["/"] = Reply({"cache-control": "no-store"})
    site.get(cookie="a=b", if_none_match='"a"')
    assert site.asked[0][2]["if-none-match"] == '"a"'


def test_a_page_that_is_not_stored_is_still_answered_304_by_its_application(site: Site) -> None:
    """Once it is known not to be stored. What it answers to a condition decides nothing for others."""
    private = {"cache-control": "private", "etag": '"a"'}
    site.replies["/"] = lambda fields: (
        Reply(private, b"", 304) if fields.get("if-none-match") == '"a"' else Reply(private)
    )
    assert [site.get(if_none_match='"a"').status for _ in range(3)] == [200, 304, 304]
    assert site.get(if_none_match='"b"').body == b"page"
    assert site.get(if_none_match='"a"', cache_control="max-age=0").status == 304, "a browser's reload"
    site.replies["/"] = Reply({"cache-control": "max-age=60", "etag": '"a"'})
    assert site.get(if_none_match='"a"').status == 304, "it is stored now, and its page answers"
    assert site.get().body == b"page" and site.get().is_hit


def test_a_page_that_begins_to_be_stored_is_not_kept_out_by_conditions(site: Site, shm_cache) -> None:
    """Each client that has it asks with a condition, and gets a 304, which cannot be stored."""
    fields = {"cache-control": "private", "etag": '"a"'}
    site.replies["/"] = lambda asked: Reply(fields, b"", 304) if "if-none-match" in asked else Reply(fields)
    site.get()
    fields["cache-control"] = "max-age=600"
    with frozen_clock(shm_cache) as clock:
        for _ in range(3):
            clock.tick(31)
            assert site.get(if_none_match='"a"').status == 304
        assert site.get().is_hit


@pytest.mark.parametrize("status", [404, 410, 301])
def test_an_error_is_never_answered_by_304(site: Site, status: int) -> None:
    site.replies["/"] = Reply({"cache-control": "max-age=60", "etag": '"a"'}, status=status)
    site.get()
    assert site.get(if_none_match='"a"').status == status


# HEAD


def test_head_is_answered_from_a_stored_get_with_its_length_and_no_body(site: Site) -> None:
    site.get()
    head = site.get(method="HEAD")
    assert (head.is_hit, head.body, head["content-length"], site.loads) == (True, b"", "4", 1)
    assert site.get(method="HEAD", if_none_match="*").status == 304


def test_a_head_stores_nothing_for_a_get(site: Site) -> None:
    site.replies["/"] = Reply(body=b"")
    site.get(method="HEAD")
    site.replies["/"] = Reply()
    assert site.get().body == b"page"


# The header of a stored response


def test_what_belongs_to_a_connection_is_not_stored(site: Site) -> None:
    site.replies["/"] = Reply(
        {"cache-control": "max-age=60", "connection": "x-hop", "x-hop": "1", "keep-alive": "5", "x-end": "2"}
    )
    site.get()
    hit = site.get()
    assert (hit["connection"], hit["x-hop"], hit["keep-alive"], hit["x-end"]) == (None, None, None, "2")
    assert [name.lower() for name, _ in hit.pairs].count("content-length") == 1
