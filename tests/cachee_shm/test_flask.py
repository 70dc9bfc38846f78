"""Flask-Caching's backend; its own tests run in tests/foreign."""

import logging

import pytest

pytestmark = pytest.mark.needs("frameworks")

CONFIG = {"namespaces": {"x": {"memory": "4MiB"}}}


def made(shm=None, **settings):
    """An application with its cache in ``shm``, and what to count calls in."""
    import flask
    import flask_caching

    app = flask.Flask("shop")
    app.config.update(CACHE_TYPE="cachee_shm.flask.CacheeCache", **settings)
    cache = flask_caching.Cache(app)
    if shm is not None:
        app.extensions["cache"][cache]._backing.cache = shm
    calls = []

    @app.get("/<name>")
    @cache.cached(timeout=60, forced_update=lambda: "Refresh" in flask.request.headers)
    def page(name):
        calls.append(name)
        if name == "gone":
            flask.abort(410, "it was sold")
        return flask.jsonify(name=name, call=len(calls)), 200, {"X-Seen": ["a", "b"]}

    @app.get("/answer/<name>")
    @cache.cached(timeout=60)
    def answer(name):
        calls.append(name)
        response = flask.make_response(f"<p>{name} {len(calls)}")
        response.headers.add("Vary", "Cookie")
        response.headers.add("Vary", "Accept")
        return response

    @cache.memoize(60)
    def price(item, tax=0):
        calls.append(item)
        return item, tax, len(calls)

    app.price, app.calls, app.cache = price, calls, cache
    return app


def test_a_response_is_stored_whole_without_pickle(shm_cache):
    client = made(shm_cache).test_client()
    first, second = client.get("/answer/a"), client.get("/answer/a")
    assert first.data == second.data
    assert second.headers.getlist("Vary") == ["Cookie", "Accept"]
    assert list(first.headers) == list(second.headers)


def test_an_abort_is_cached_without_pickle(shm_cache):
    app = made(shm_cache)
    client = app.test_client()
    first, second = client.get("/gone"), client.get("/gone")
    assert (first.status_code, second.status_code) == (410, 410)
    assert first.data == second.data
    assert app.calls == ["gone"]


def test_what_a_decorator_stores_is_a_fill_and_a_set_is_a_write(shm_cache):
    app = made(shm_cache)
    before = shm_cache.stats()
    with app.test_request_context():
        app.price(1)
        app.test_client().get("/a")
        assert app.jinja_env.from_string("{% cache 60, 'k' %}x{% endcache %}").render() == "x"
        after = shm_cache.stats()
        assert (after["sets"], after["ring_tail"]) == (before["sets"], before["ring_tail"])
        assert after["fills"] > before["fills"]
        app.cache.set("a", 1)
        app.cache.set_many({"b": 1})
    assert shm_cache.stats()["sets"] == before["sets"] + 2


def test_a_set_within_a_cached_function_is_a_write(shm_cache):
    app = made(shm_cache)

    @app.cache.memoize(60)
    def writes():
        app.cache.set("row", 1)
        return 1

    with app.test_request_context():
        writes()
    assert shm_cache.stats()["sets"] == 1


def test_what_was_computed_before_an_invalidation_is_not_stored_after_it(shm_cache):
    app = made(shm_cache)
    stock = [5]

    @app.cache.memoize(60)
    def left(item):
        seen = stock[0]
        if seen == 5:  # another request sells one meanwhile
            stock[0] = 4
            app.cache.delete_memoized(left, item)
        return seen

    @app.cache.cached(60, key_prefix="stock")
    def shown():
        seen = stock[0]
        if seen == 4:
            stock[0] = 3
            app.cache.delete("stock")
        return seen

    with app.test_request_context():
        assert (left(1), left(1)) == (5, 4)
        assert (shown(), shown()) == (4, 3)


def test_forced_update_is_a_write(shm_cache):
    app = made(shm_cache)
    app.test_client().get("/a", headers={"Refresh": "yes"})
    assert shm_cache.stats()["sets"] == 1


def test_with_set_after_miss_fills_a_set_is_a_fill_in_the_request_that_missed_the_key(shm_cache):
    app = made(shm_cache, CACHE_CACHEE_SET_AFTER_MISS_FILLS=True)
    with app.app_context():
        assert app.cache.get("a") is None and app.cache.get("b") is None
        before = shm_cache._written()
        app.cache.set("a", 1)
        assert shm_cache._written() == before
    with app.app_context():  # of the same thread
        app.cache.set("b", 1)
        assert shm_cache._written() != before
        assert app.cache.get("a") == app.cache.get("b") == 1


def test_two_hosts_with_pages_of_their_own_leave_each_other_alone(shm_hosts):
    hosts = shm_hosts(2)
    apps = [made(host) for host in hosts]
    apps[1].calls.append("so that pages differ")
    for _ in range(3):
        for app in apps:
            app.test_client().get("/a")
            with app.test_request_context():
                app.price(1)
        for host in hosts:
            assert host.wait_synced(5)
    assert [app.calls.count("a") for app in apps] == [1, 1]
    assert [app.calls.count(1) for app in apps] == [1, 1]


def test_delete_memoized_reaches_the_other_host(shm_hosts):
    hosts = shm_hosts(2)
    one, other = apps = [made(host) for host in hosts]

    def prices(app, *items):
        with app.test_request_context():
            return [app.price(item)[2] for item in items]

    for app in apps:
        prices(app, 1, 2)
    with one.test_request_context():
        one.cache.delete_memoized(one.price, 1)
    assert hosts[0].wait_synced(5)
    assert prices(other, 1, 2) == [3, 2]
    with one.test_request_context():
        one.cache.delete_memoized(one.price)
    assert hosts[0].wait_synced(5)
    assert prices(other, 1, 2) == [4, 5]
    assert prices(one, 1, 2) == [3, 4]
    with other.test_request_context():
        other.cache.delete_memoized_verhash(other.price)
    assert hosts[1].wait_synced(5)
    assert prices(one, 1) == [5]


def test_clear_drops_what_has_the_prefix(shm_cache):
    one, other = made(shm_cache, CACHE_KEY_PREFIX="one"), made(shm_cache, CACHE_KEY_PREFIX="other")
    for app in (one, other):
        with app.test_request_context():
            app.cache.set("a", 1)
            app.price(1)
    with one.test_request_context():
        assert one.cache.clear()
        assert one.cache.get("a") is None
        one.price(1)
    with other.test_request_context():
        assert other.cache.get("a") == 1
        other.price(1)
    assert (one.calls, other.calls) == ([1, 1], [1])


def test_no_page_fails_without_a_cache(caplog):
    app = made(CACHE_CACHEE_NAMESPACE="y", CACHE_CACHEE_CONFIG=CONFIG)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert app.test_client().get("/a").status_code == 200
            with app.test_request_context():
                app.price(1)
                app.cache.delete_memoized(app.price)
                app.cache.clear()
    assert caplog.text.count("cannot be attached") == 1
    assert len(app.calls) == 6
    with app.test_request_context():
        assert not app.cache.cache.health().ok


def test_calls_that_end_in_an_exception_leave_few_tokens_behind(shm_cache, monkeypatch):
    from cachee_shm import flask as backend

    monkeypatch.setattr(backend, "TOKENS_MAX", 8)
    app = made(shm_cache)

    @app.cache.memoize(60)
    def fails(n):
        if n:
            fails(n - 1)
        raise ValueError

    with app.test_request_context():
        for _ in range(5):
            with pytest.raises(ValueError):
                fails(20)
        assert len(app.cache.cache._tokens) <= 8
        assert app.price(1) == app.price(1)
