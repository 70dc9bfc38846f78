"""Pages, fragments and sessions are fills; whoever else sets such a key writes it."""

import asyncio
import contextvars
import threading

import pytest

from tests import machine
from tests.cachee_shm.django.test_backend import announced

machine.require("Django")


@pytest.fixture
def cache(caches):
    return caches["default"]


def in_a_request_of_its_own(work):
    """As a server runs each: nothing of another request is in its context."""
    return contextvars.Context().run(work)


# Pages


@pytest.fixture
def page(cache):
    """`page(body)` is one request to a view of `cache_page` that answers so. It returns the answer."""
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django.views.decorators.cache import cache_page

    def asked(body, before_it_answers=lambda: None, path="/page", **headers):
        def view(request):
            before_it_answers()
            return HttpResponse(body, headers={"X-Host": body})

        request = RequestFactory().get(path, headers=headers)
        return in_a_request_of_its_own(lambda: cache_page(60)(view)(request).content.decode())

    return asked


def test_a_page_is_cached_and_announced_to_nobody(cache, page):
    assert announced(cache.shm, lambda: page("of web-1")) == 0
    assert page("of web-2") == "of web-1"


def test_a_page_that_was_made_before_a_clear_is_not_kept(cache, page):
    assert page("old", before_it_answers=cache.clear) == "old"
    assert page("new") == "new"
    assert page("newer") == "new"


def test_a_page_is_stored_anew_once_it_is_gone_though_its_headers_are_there(cache, page):
    page("first")
    found = [key for key in keys_of(cache) if "cache_page." in key]
    cache.shm.delete_many(found)
    assert announced(cache.shm, lambda: page("second")) == 0
    assert page("third") == "second"


def keys_of(cache):
    from django.test import RequestFactory
    from django.utils.cache import get_cache_key

    key = get_cache_key(RequestFactory().get("/page"), cache=cache)
    return [cache.make_key(key)]


def test_a_page_of_an_async_view_is_a_fill_too(cache):
    from django.http import HttpResponse
    from django.test import AsyncRequestFactory
    from django.views.decorators.cache import cache_page

    async def view(request):
        return HttpResponse("page")

    async def ask():
        return await cache_page(60)(view)(AsyncRequestFactory().get("/page"))

    assert announced(cache.shm, lambda: asyncio.run(ask())) == 0
    assert cache.shm.get(keys_of(cache)[0]).response.content == b"page"


def test_a_template_response_is_stored_once_it_is_rendered_as_a_fill(cache):
    from django.template import engines
    from django.template.response import TemplateResponse
    from django.test import RequestFactory
    from django.views.decorators.cache import cache_page

    template = engines["django"].from_string("hello {{ name }}")

    def view(request):
        return TemplateResponse(request, template, {"name": "Ada"})

    def ask():
        response = cache_page(60)(view)(RequestFactory().get("/page"))
        return response.render().content

    assert announced(cache.shm, lambda: in_a_request_of_its_own(ask)) == 0
    assert cache.shm.get(keys_of(cache)[0]).response.content == b"hello Ada"


# Fragments


def rendered(text, **context):
    from django.template import engines

    template = engines["django"].from_string("{% load cache %}" + text)
    return in_a_request_of_its_own(lambda: template.render(context))


FRAGMENT = "{% cache 60 greeting using='default' %}hello {{ name }}{% endcache %}"


def test_a_fragment_is_cached_and_announced_to_nobody(cache):
    assert announced(cache.shm, lambda: rendered(FRAGMENT, name="Ada")) == 0
    assert rendered(FRAGMENT, name="Bob") == "hello Ada"


class Invalidates:
    """A name that somebody changes while it is rendered."""

    def __init__(self, cache):
        self.cache = cache

    def __str__(self):
        self.cache.clear()
        return "old"


def test_a_fragment_that_was_made_before_an_invalidation_is_not_kept(cache):
    assert rendered(FRAGMENT, name=Invalidates(cache)) == "hello old"
    assert rendered(FRAGMENT, name="Ada") == "hello Ada"


def test_a_fragment_within_itself_is_of_its_own_miss(cache):
    inner = "{% cache 60 greeting using='default' %}inner{% endcache %}"
    outer = "{% cache 60 greeting using='default' %}{{ name }} " + inner + "{% endcache %}"
    assert rendered(outer, name=Invalidates(cache)) == "old inner"
    assert rendered(FRAGMENT, name="Ada") == "inner"


def test_a_set_of_a_fragments_key_by_other_code_is_a_write(cache):
    from django.core.cache.utils import make_template_fragment_key

    key = make_template_fragment_key("greeting")
    assert cache.get(key) is None
    assert announced(cache.shm, lambda: cache.set(key, "mine")) == 1


# Verbs that somebody has wrapped: a tracer, or a subclass


@pytest.fixture(params=[1, 3])
def wrapped(cache, monkeypatch, request):
    """Calls of `get` and `set` come through so many functions of other modules, as with a tracer."""

    def passing(verb, depth):
        return verb if depth == 0 else passing(lambda *args, **kwargs: verb(*args, **kwargs), depth - 1)

    for name in ("get", "set"):
        monkeypatch.setattr(type(cache), name, passing(getattr(type(cache), name), request.param))
    return cache


def test_a_page_whose_verbs_are_wrapped_is_a_fill(wrapped, page):
    assert announced(wrapped.shm, lambda: page("of web-1")) == 0
    assert page("of web-2") == "of web-1"
    wrapped.clear()
    assert page("old", before_it_answers=wrapped.clear) == "old"
    assert page("new") == "new"


def test_a_fragment_whose_verbs_are_wrapped_is_a_fill(wrapped):
    assert announced(wrapped.shm, lambda: rendered(FRAGMENT, name="Ada")) == 0
    wrapped.clear()
    assert rendered(FRAGMENT, name=Invalidates(wrapped)) == "hello old"
    assert rendered(FRAGMENT, name="Ada") == "hello Ada"


def test_a_session_whose_verbs_are_wrapped_is_a_fill(wrapped, sessions):
    kind = logged_in(sessions)
    assert announced(wrapped.shm, kind(KEY).load) == 0


class Writes:
    """A name whose text sets the very fragment that it is a part of."""

    def __init__(self, cache):
        self.cache = cache

    def __str__(self):
        from django.core.cache.utils import make_template_fragment_key

        self.cache.set(make_template_fragment_key("greeting"), "mine")
        return "old"


def test_application_code_within_a_fragment_writes(wrapped):
    assert announced(wrapped.shm, lambda: rendered(FRAGMENT, name=Writes(wrapped))) == 1


# Sessions


@pytest.fixture
def sessions(cache, monkeypatch):
    """`cached_db` with a dict in the place of its table."""
    from django.contrib.sessions.backends import cached_db, db

    rows = {}

    class Row:
        def __init__(self, data):
            import datetime

            from django.utils import timezone

            self.session_data = data
            self.expire_date = timezone.now() + datetime.timedelta(days=1)

    def from_db(self):
        return Row(rows[self.session_key]) if self.session_key in rows else None

    def save(self, must_create=False):
        rows[self.session_key] = self.encode(self._get_session(no_load=must_create))

    def delete(self, session_key=None):
        rows.pop(session_key or self.session_key, None)

    monkeypatch.setattr(db.SessionStore, "_get_session_from_db", from_db)
    monkeypatch.setattr(db.SessionStore, "save", save)
    monkeypatch.setattr(db.SessionStore, "delete", delete)
    return cached_db.SessionStore, rows


KEY = "a" * 32


def logged_in(sessions):
    kind, rows = sessions
    rows[KEY] = kind(KEY).encode({"user": 1})
    return kind


def test_a_session_that_is_read_from_the_database_is_announced_to_nobody(cache, sessions):
    kind = logged_in(sessions)
    assert announced(cache.shm, lambda: kind(KEY).load()) == 0
    assert cache.get(kind(KEY).cache_key) == {"user": 1}


def test_a_session_that_is_saved_is_announced(cache, sessions):
    session = logged_in(sessions)(KEY)
    session["user"] = 2
    assert announced(cache.shm, session.save) == 1
    assert cache.get(session.cache_key) == {"user": 2}


def test_a_forced_log_out_while_the_session_is_read_leaves_nobody_logged_in(cache, sessions, monkeypatch):
    """The reader has the row; then the session is deleted; then the reader stores it."""
    kind = logged_in(sessions)
    read = kind._get_session_from_db

    def slow(self):
        row = read(self)
        logs_out = threading.Thread(target=kind(KEY).delete, args=(KEY,))
        logs_out.start()
        logs_out.join()
        return row

    monkeypatch.setattr(kind, "_get_session_from_db", slow)
    kind(KEY).load()
    assert cache.get(kind(KEY).cache_key) is None


# Transactions


def test_a_fragment_in_a_transaction_that_writes_is_not_kept(cache):
    from cachee_shm.transactions import transaction

    def render():
        with transaction() as one:
            one.statement("UPDATE users SET name = 'new'")
            return rendered_here(FRAGMENT, name="uncommitted")

    assert in_a_request_of_its_own(render) == "hello uncommitted"
    assert rendered(FRAGMENT, name="Ada") == "hello Ada"


@pytest.mark.parametrize("is_attached_before", [True, False])
def test_a_fragment_is_as_old_as_its_transactions_snapshot(cache, is_attached_before):
    from cachee_shm.transactions import transaction

    if is_attached_before:
        cache.get("k")

    def render():
        with transaction() as one:
            one.statement("SELECT 1")
            contextvars.Context().run(cache.clear)  # another request's commit is announced
            return rendered_here(FRAGMENT, name="of the snapshot")

    assert in_a_request_of_its_own(render) == "hello of the snapshot"
    assert rendered(FRAGMENT, name="Ada") == "hello Ada"


def rendered_here(text, **context):
    from django.template import engines

    return engines["django"].from_string("{% load cache %}" + text).render(context)


# Two hosts


def test_two_hosts_with_pages_of_their_own_leave_each_other_alone(caches, shm_hosts):
    """A page of `cache_page` that names its host; `set` of it would have the two drop it in turns."""
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django.views.decorators.cache import cache_page

    hosts, made = shm_hosts(2, pickle=True), []
    aliases = ("default", "other")
    for alias, host in zip(aliases, hosts, strict=True):
        caches[alias].shm = host

    def asked(alias):
        def view(request):
            made.append(alias)
            return HttpResponse(f"made by {alias}")

        return cache_page(60, cache=alias)(view)(RequestFactory().get("/page")).content.decode()

    for _ in range(3):
        for alias, host in zip(aliases, hosts, strict=True):
            assert asked(alias) == f"made by {alias}"
            assert host.wait_synced(5)
    assert made == ["default", "other"]
    hosts[0].clear()  # and a change reaches both
    assert hosts[0].wait_synced(5)
    assert [asked(alias) for alias in aliases] == ["made by default", "made by other"]
    assert made == ["default", "other"] * 2


THROTTLE = """
def allow_request(cache):
    history = cache.get("throttle_anon_127.0.0.1", [])
    cache.set("throttle_anon_127.0.0.1", [1.5, *history], 3600)
    return len(history)
"""


def test_a_throttle_counts_on_its_own_host_however_requests_alternate(caches, shm_hosts):
    """As those of Django REST framework do; tests/foreign runs the real ones."""
    hosts, namespace = shm_hosts(2), {"__name__": "rest_framework.throttling"}
    exec(THROTTLE, namespace)
    seen = []
    for _ in range(3):
        for host in hosts:
            caches["default"].shm = host
            seen.append(namespace["allow_request"](caches["default"]))
            assert host.wait_synced(5)
    assert seen == [0, 0, 1, 1, 2, 2]


def test_plain_sets_of_equal_values_evict_nothing_after_the_first_round(caches, shm_hosts):
    hosts = shm_hosts(3)
    for round_of_sets in range(5):
        for host in hosts:
            caches["default"].shm = host
            caches["default"].set("page", "the same")
            assert host.wait_synced(5)
            if round_of_sets:
                assert [each.get(":1:page") for each in hosts] == ["the same"] * 3
