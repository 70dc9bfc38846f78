"""What a certificate's names allow, and that nothing else in it allows anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.wire.identity import Identity, identity_of
from cachee_shm.errors import AuthError


def dns(*names):
    return [("DNS", name) for name in names]


def words(*uris):
    return [("URI", uri) for uri in uris]


def test_a_dns_name_is_a_host_of_every_namespace():
    identity = identity_of(dns("web-1", "web-1.example.org"))
    assert identity.limits("web-1") is None
    assert identity.limits("web-1.example.org") is None


def test_a_word_names_a_host_and_one_of_its_namespaces():
    identity = identity_of(words("cachee://web-1/shop", "cachee://web-1/news", "cachee://web-2/shop"))
    assert identity.limits("web-1") == {"shop", "news"}
    assert identity.limits("web-2") == {"shop"}


@pytest.mark.parametrize("uri", ["cachee://web-1", "cachee://web-1/"])
def test_a_word_without_a_namespace_allows_all(uri):
    assert identity_of(words(uri)).limits("web-1") is None
    assert identity_of(words("cachee://web-1/shop", uri, "cachee://web-1/news")).limits("web-1") is None


def test_where_there_are_words_the_dns_names_allow_nothing():
    identity = identity_of(dns("web-1", "web-2") + words("cachee://web-1/shop"))
    assert identity.limits("web-1") == {"shop"}
    with pytest.raises(AuthError, match="calls itself 'web-2', and its certificate is for 'web-1'"):
        identity.limits("web-2")


@pytest.mark.parametrize("name", ["web-2", "WEB-1", "web-1.", "web", ""])
def test_another_name_is_refused_letter_by_letter(name):
    with pytest.raises(AuthError, match="'web-1'"):
        identity_of(dns("web-1")).limits(name)


@pytest.mark.parametrize(
    "names",
    [
        [],
        dns("*.example.org"),
        [("IP Address", "10.0.0.1")],
        [("email", "web-1@example.org")],
        words("spiffe://example.org/web-1", "https://web-1/"),
        dns("a" * 64),
    ],
)
def test_what_names_no_host_is_refused(names):
    with pytest.raises(AuthError, match="names no host"):
        identity_of(names)


@pytest.mark.parametrize(
    "uri",
    [
        "cachee:web-1/shop",
        "cachee:///shop",
        "cachee://web-1/shop/more",
        "cachee://web-1/*",
        "cachee://web-1/sh%6fp",
        "cachee://web-1:7946/shop",
        "cachee://user@web-1/shop",
        "cachee://web-1/shop?x",
        "cachee://web-1/shop\n",
        "CACHEE://web-1/shop",
    ],
)
def test_a_word_that_cannot_be_read_makes_the_certificate_useless(uri):
    with pytest.raises(AuthError, match="is not valid"):
        identity_of(words("cachee://web-1/news", uri))


def test_many_names_are_not_all_told():
    assert str(identity_of(dns(*[f"web-{n}" for n in range(7)]))).endswith("'web-4' and 2 more")


@given(st.lists(st.tuples(st.sampled_from(["DNS", "URI"]), st.text(max_size=20) | st.just("cachee://a/b"))))
def test_any_names_are_an_identity_or_an_auth_error(names):
    try:
        identity = identity_of(names)
    except AuthError:
        return
    assert isinstance(identity, Identity)
    assert identity.hosts
