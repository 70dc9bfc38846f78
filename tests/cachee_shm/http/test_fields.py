"""Header fields: what is malformed never raises, and never allows more than what is well formed."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm.http.fields import DELTA_S_MAX, Directives, Fields, age_of, entity_tags, http_date, normalized

ANY = st.text(st.characters(max_codepoint=255), max_size=60)
LIKELY = st.text(st.sampled_from('abc-=",;\\ \tmx0123456789*/W'), max_size=40)
DIRECTIVE = st.sampled_from(
    ["max-age=60", 'foo="a, b"', "public", "a b", "=", 'x="', "max-age=-1", "", "\x00", "é"]
)


@given(ANY | LIKELY)
def test_nothing_that_is_sent_raises(text: str) -> None:
    directives = Directives(text)
    for name in ("max-age", "no-store", "a"):
        assert directives.seconds(name) is None or 0 <= directives.seconds(name) <= DELTA_S_MAX
        assert (directives.seconds(name) is None) is (name not in directives)
    http_date(text, 0.0), entity_tags(text), age_of([text]), normalized("accept-encoding", [text])
    Fields([(text, text)]).are_clean()


@given(
    st.lists(DIRECTIVE, max_size=6),
    st.lists(DIRECTIVE, max_size=6),
    st.sampled_from(["no-store", "No-Store"]),
)
def test_a_prohibition_is_read_whatever_stands_before_it(
    before: list[str], after: list[str], word: str
) -> None:
    """All but what a quoted string holds, which is closed here."""
    text = ", ".join([each for each in before if each != 'x="'] + [word] + after)
    assert "no-store" in Directives(text)


@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=8), max_size=4))
def test_lines_are_joined_as_they_came(values: list[str]) -> None:
    fields = Fields(("A", value) for value in values)
    assert fields.joined("a") == (", ".join(values) if values else None)


@given(st.integers(0, 4_000_000_000))
def test_a_date_is_read_as_python_writes_it(seconds: int) -> None:
    assert http_date(formatdate(seconds, usegmt=True), time.time()) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Sun, 06 Nov 1994 08:49:37 UTC", None),
        ("Sun, 06 Nov 1994 24:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT ", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("1994-11-06", None),
        ("", None),
    ],
)
def test_dates_have_three_forms(text: str, seconds: int | None) -> None:
    assert http_date(text, time.time()) == seconds


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('"a"', {'"a"'}),
        ('"a", W/"b" ,"c,d"', {'"a"', '"b"', '"c,d"'}),
        (',, "a" , ,"b", ', {'"a"', '"b"'}),
        (" * ", {"*"}),
        ('"a", b', None),
        ('w/"a"', None),
        ('"a" "b"', None),
        ("", set()),
    ],
)
def test_entity_tags(text: str, tags: set[str] | None) -> None:
    assert entity_tags(text) == tags


def test_what_is_compared_has_no_space_and_codings_no_order() -> None:
    assert normalized("accept-encoding", ["gzip, BR;q = 1", "deflate"]) == "br;q=1,deflate,gzip"
    assert normalized("accept-language", ["de , en"]) == "de,en" != normalized("accept-language", ["en,de"])
    assert normalized("accept-language", []) is None != normalized("accept-language", [""])


def test_a_long_header_takes_no_longer_than_its_length() -> None:
    for text in ('"' * 60_000, "a=" * 60_000, '"\\' * 60_000, "," * 60_000, 'a="\\' * 60_000):
        Directives(text), entity_tags(text), http_date(text, 0.0)
