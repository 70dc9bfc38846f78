"""``@cache.cached``: functions and coroutine functions whose results are cached."""

import asyncio
import contextvars
import copy
import functools
import inspect
import math
import pickle
import threading
import types

import pytest

import cachee_shm
from cachee_shm.errors import InvalidKey, InvalidTTL
from cachee_shm.transactions import Transaction, transaction

SECOND = 1000


@pytest.fixture(params=["def", "async def"])
def made(request, cache):
    """Decorates a function, or a coroutine function that does the same; calls to the latter are run."""

    def make(function, **options):
        options.setdefault("key", "k")
        if request.param == "def":
            return Called(cache.cached(**options)(function), lambda result: result)
        parameters = str(inspect.signature(function))
        names = ",".join(f"{name}={name}" for name in inspect.signature(function).parameters)
        space = {"function": function}
        exec(f"async def twin{parameters}: return function({names})", space)
        return Called(cache.cached(**options)(space["twin"]), asyncio.run)

    return make


class Called:
    def __init__(self, cached, run):
        self.cached, self.run = cached, run

    def __call__(self, *args, **kwargs):
        return self.run(self.cached(*args, **kwargs))

    def refresh(self, *args, **kwargs):
        return self.run(self.cached.refresh(*args, **kwargs))


class Counted:
    """What the decorated functions count their calls by."""

    def __init__(self):
        self.calls = []

    def __call__(self, value):
        self.calls.append(value)
        return {"n": len(self.calls), "of": value}


@pytest.fixture
def counted():
    return Counted()


def test_a_call_runs_the_function_once(made, counted, cache):
    profile = made(lambda uid, page=1: counted((uid, page)), key="user:{uid}:{page}")
    assert profile(7) == profile(7, 1) == profile(page=1, uid=7) == {"n": 1, "of": (7, 1)}
    assert profile(8)["n"] == 2
    assert counted.calls == [(7, 1), (8, 1)]
    assert cache.get("user:7:1") == {"n": 1, "of": (7, 1)}


def test_wrong_arguments_are_an_error_as_of_the_function_itself(made, counted):
    profile = made(lambda uid: counted(uid), key="user:{uid}")
    with pytest.raises(TypeError, match="uid"):
        profile()
    with pytest.raises(TypeError):
        profile(1, 2)
    assert counted.calls == []


def test_invalidating_drops_the_result_of_these_arguments(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}")
    profile(7), profile(8)
    tail = cache.tail
    assert profile.cached.invalidate(7) is True
    assert cache.tail == tail + 1  # announced
    assert profile.cached.invalidate(uid=9) is False
    assert [profile(7)["n"], profile(8)["n"]] == [3, 2]


def test_refreshing_runs_the_function_and_announces_the_result(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}", tags=["user:{uid}"])
    profile(7)
    tail = cache.tail
    assert profile.refresh(7) == {"n": 2, "of": 7}
    assert cache.tail > tail
    assert profile(7) == {"n": 2, "of": 7}
    cache.delete_tags("user:7")
    assert profile(7)["n"] == 3


def test_a_refresh_that_fails_leaves_the_result(made, cache):
    wrong = []

    def function(uid):
        if wrong:
            raise OSError("origin")
        return uid

    profile = made(function, key="user:{uid}")
    profile(7)
    wrong.append(1)
    with pytest.raises(OSError, match="origin"):
        profile.refresh(7)
    assert profile(7) == 7


def test_a_refresh_that_a_write_overtakes_stores_nothing(made, cache):
    def function(uid):
        cache.set("user:7", "newer")
        return "older"

    profile = made(function, key="user:{uid}")
    assert profile.refresh(7) == "older"
    assert "user:7" not in cache


def test_a_refreshed_result_is_kept_as_that_of_a_call(made, cache):
    answers = iter([1, None])

    def function(uid):
        load = cachee_shm.current_load()
        assert load.key == "user:7"
        load.tags = [*load.tags, "by hand"]
        return next(answers)

    profile = made(function, key="user:{uid}", ttl=60, negative_ttl=5, stale=600)
    now = cache.now_ms()
    cache._freeze(now)
    assert profile(7) == 1
    assert profile.refresh(7) is None
    assert cache.lookup("user:7") == (None, True)
    cache._freeze(now + 6 * SECOND)
    assert cache.lookup("user:7") == (None, False)
    assert cache._find("user:7", False) == (2, None)  # within `stale`
    cache.delete_tags("by hand")
    assert cache._find("user:7", False) == (0, None)


def test_a_refresh_within_another_load_has_a_load_of_its_own(cache):
    @cache.cached(key="inner")
    def inner():
        cachee_shm.current_load().ttl = 0
        return 1

    def outer():
        inner.refresh()
        return [cachee_shm.current_load().key, cachee_shm.current_load().ttl]

    assert cache.get_or_load("outer", outer, ttl=60) == ["outer", 60]


def test_a_refresh_may_keep_what_is_there(made, counted, cache):
    def function(uid):
        load = cachee_shm.current_load()
        if load.stale_value is not None:
            load.skip()
        return counted(uid)

    profile = made(function, key="user:{uid}")
    profile(7)
    tail = cache.tail
    assert profile.refresh(7)["n"] == 2
    assert profile(7)["n"] == 1
    assert cache.tail == tail


def test_a_refreshed_result_that_cannot_be_stored_drops_the_old_one(made, cache):
    results = iter([1, object()])
    profile = made(lambda uid: next(results), key="user:{uid}")
    profile(7)
    with pytest.warns(RuntimeWarning, match="not cached"):
        assert type(profile.refresh(7)) is object
    assert "user:7" not in cache


def test_what_is_refreshed_in_a_transaction_is_as_old_as_its_snapshot(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}")
    with transaction() as one:
        contextvars.Context().run(cache.delete, "user:7")  # another has written, and committed
        profile.refresh(7)
        assert "user:7" not in cache
        profile.refresh(8)
        assert "user:8" in cache
        one.statement("UPDATE t SET a = 1")
        profile.refresh(8)
    assert "user:8" not in cache


def test_what_a_refresh_reads_of_another_threads_writes_is_not_stored(cache):
    one = contextvars.Context().run(Transaction)

    @cache.cached(key="user")
    def user():
        one.statement("UPDATE t SET a = 1")
        return 2

    cache.set("user", 1)
    contextvars.copy_context().run(user.refresh)
    one.rolled_back()
    assert "user" not in cache


def test_a_refresh_and_a_call_that_fails_count_as_calls_that_ran_it(made):
    wrong = []

    def function(uid):
        if wrong:
            raise OSError
        return uid

    profile = made(function, key="user:{uid}")
    profile(7), profile(7), profile.refresh(7)
    assert profile.cached.cache_info() == (1, 2)
    wrong.append(1)
    with pytest.raises(OSError):
        profile(8)
    assert profile.cached.cache_info() == (1, 3)


def test_a_result_that_does_not_meet_the_condition_is_not_kept(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}", condition=lambda result: result["n"] > 1)
    assert profile(7)["n"] == 1
    assert "user:7" not in cache
    assert profile(7)["n"] == profile(7)["n"] == 2


def test_a_condition_may_answer_with_anything_that_is_true_or_false(made, cache):
    profile = made(lambda uid: [uid] * uid, key="user:{uid}", condition=lambda result: result)
    profile(0), profile(2)
    assert "user:0" not in cache and cache.get("user:2") == [2, 2]


def test_a_refreshed_result_that_does_not_meet_it_is_dropped(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}", condition=lambda result: result["n"] == 1)
    profile(7)
    assert profile.refresh(7)["n"] == 2
    assert "user:7" not in cache


def test_cache_info_tells_calls_that_ran_it_from_those_that_did_not(made, counted):
    profile = made(lambda uid: counted(uid), key="user:{uid}")
    profile(7), profile(7), profile(8)
    assert profile.cached.cache_info() == (1, 2)
    assert profile.cached.cache_info().hits == 1


def test_cache_clear_drops_this_functions_results_alone(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}")
    cache.set("other", 1)
    profile(7), profile(8)
    profile.cached.cache_clear()
    assert profile.cached.cache_info() == (0, 0)
    assert "user:7" not in cache and "user:8" not in cache and cache.get("other") == 1


def test_lifetime_and_stale_are_those_of_get_or_load(made, counted, cache):
    profile = made(lambda uid: counted(uid), key="user:{uid}", ttl=10, stale=60)
    now = cache.now_ms()
    cache._freeze(now)
    profile(7)
    cache._freeze(now + 11 * SECOND)
    assert cache.get("user:7") is None
    assert profile(7)["n"] == 2


def test_a_loader_finds_its_load_in_a_decorated_function(made, cache):
    def function(uid):
        cachee_shm.current_load().tags = ["by hand"]
        return cachee_shm.current_load().key

    profile = made(function, key="user:{uid}")
    assert profile(7) == "user:7"
    cache.delete_tags("by hand")
    assert "user:7" not in cache


def test_one_caller_runs_it_for_all(cache, counted):
    begun, go = threading.Event(), threading.Event()

    @cache.cached(key="k")
    def slow():
        begun.set()
        go.wait()
        return counted(1)

    threads = [threading.Thread(target=slow) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    go.set()
    for thread in threads:
        thread.join()
    assert len(counted.calls) == 1
    assert slow.cache_info() == (3, 1)


# The key


def of_a_module(uid, *rest, page=1, **more):
    return [uid, list(rest), page, more]


async def a_coroutine_function_of_a_module(uid):
    return uid


def test_without_a_template_the_key_has_the_name_and_all_arguments(cache):
    function = cache.cached(of_a_module)
    assert function(1, 2, 3, page=4, x=5) == [1, [2, 3], 4, {"x": 5}]
    assert (
        function.key(1, 2, 3, page=4, x=5) == f"{__name__}.of_a_module(uid=1,rest=(2,3),page=4,more={{x=5}})"
    )
    assert function.key(1) == function.key(uid=1) == function.key(1, page=1)
    assert len({function.key(1), function.key("1"), function.key(True), function.key(1.0)}) == 4


def test_without_parentheses_it_decorates_as_well(cache):
    assert cache.cached(of_a_module).__wrapped__ is of_a_module
    assert asyncio.run(cache.cached(a_coroutine_function_of_a_module)(7)) == 7


def test_a_function_makes_the_key(cache, counted):
    profile = cache.cached(key=lambda uid, trace=None: f"user:{uid}")(lambda uid, trace=None: counted(uid))
    profile(7, trace="a"), profile(7, trace="b")
    assert counted.calls == [7] and cache.get("user:7")


def test_an_argument_that_has_no_text_is_an_error_before_anything_runs(made, counted):
    profile = made(lambda user: counted(user), key="user:{user}")
    with pytest.raises(InvalidKey, match=r"\{user\} of 'user:\{user\}' is of type builtins.object"):
        profile(object())
    assert counted.calls == []


def test_a_local_function_needs_a_key_since_others_have_its_name(cache):
    def local():
        return 1

    with pytest.raises(ValueError, match="others may have the same name"):
        cache.cached(local)
    with pytest.raises(ValueError, match="others may have the same name"):
        cache.cached(lambda: 1)


# Methods


def repository(cache, counted):
    class Repository:
        def __init__(self, number):
            self.id = number

        @cache.cached(key="repo:{self.id}:{uid}")
        def user(self, uid):
            """A user."""
            return counted((self.id, uid))

        @cache.cached(key="arepo:{self.id}:{uid}")
        async def auser(self, uid):
            return counted((self.id, uid))

        @classmethod
        @cache.cached(key="class:{cls}:{uid}")
        def of_class(cls, uid):
            return counted((cls.__name__, uid))

        @staticmethod
        @cache.cached(key="static:{uid}")
        def static(uid):
            return counted(uid)

    return Repository


def test_a_method_is_bound_and_its_invalidation_too(cache, counted):
    Repository = repository(cache, counted)
    one, two = Repository(1), Repository(2)
    assert one.user(7)["of"] == [1, 7] or one.user(7)["of"] == (1, 7)
    assert two.user(7)["n"] == 2 and one.user(7)["n"] == 1
    assert one.user.key(7) == Repository.user.key(one, 7) == "repo:1:7"
    assert one.user.invalidate(7) and not one.user.invalidate(7)
    assert one.user(7)["n"] == 3 and two.user(7)["n"] == 2
    assert one.user.refresh(7)["n"] == one.user(7)["n"] == 4
    assert one.user.cache_info() == Repository.user.cache_info()
    assert one.user.__name__ == "user" and one.user.__doc__ == "A user."
    assert one.user == one.user != two.user and len({one.user, one.user, two.user}) == 2
    one.user.cache_clear()
    assert one.user(7)["n"] == 5


def test_a_coroutine_method_is_one(cache, counted):
    repo = repository(cache, counted)(1)
    assert asyncio.run(repo.auser(7))["n"] == asyncio.run(repo.auser(7))["n"] == 1
    assert asyncio.run(repo.auser.refresh(7))["n"] == 2
    assert repo.auser.invalidate(7)
    assert asyncio.iscoroutinefunction(repo.auser) and asyncio.iscoroutinefunction(type(repo).auser)


def test_class_methods_and_static_methods_work_below_their_decorators(cache, counted):
    Repository = repository(cache, counted)
    assert Repository.of_class(7)["n"] == Repository(1).of_class(7)["n"] == 1
    assert Repository.static(7)["n"] == Repository(1).static(7)["n"] == 2


class Catalogue:
    prefix = "c"


def test_a_class_method_is_decorated_above_its_decorator_too(cache):
    class Shop(Catalogue):
        @cache.cached(key="{cls.prefix}:{uid}:{page}", tags=["{cls.prefix}"])
        @classmethod
        def item(cls, uid, page=1):
            return cls.prefix, uid, page

    class Other(Shop):
        prefix = "o"

    assert Shop.item(7) == Shop().item(7) == ("c", 7, 1) and Other.item(7) == ("o", 7, 1)
    assert Shop.item.invalidate(7) and not Shop.item.invalidate(7) and Other.item.invalidate(7)
    assert Other.item.refresh(7, page=2) == ("o", 7, 2) == Other.item.__wrapped__(7, 2)
    with pytest.raises(ValueError, match="its result may depend on cls"):
        cache.cached(key="{uid}")(classmethod(lambda cls, uid: uid))


def test_a_class_method_of_coroutines_is_decorated_above_its_decorator_too(cache):
    class Shop(Catalogue):
        @cache.cached(key="{cls.prefix}:{uid}")
        @classmethod
        async def item(cls, uid):
            return cls.prefix, uid

    assert asyncio.run(Shop.item(7)) == asyncio.run(Shop.item.refresh(7)) == ("c", 7)
    assert Shop.item.invalidate(7) and asyncio.iscoroutinefunction(Shop.item)


def test_if_classmethod_hides_the_class_the_key_is_refused(cache):
    """Python 3.13 binds what is below ``classmethod`` as this test does it."""

    class Shop:
        @cache.cached(key="item:{cls}:{uid}:{page}")
        def item(cls, uid=1, page=1):
            return uid

    bound = types.MethodType(vars(Shop)["item"], Shop)
    assert bound(7) == 7
    for call in (bound.key, bound.invalidate, bound.refresh):
        with pytest.raises(TypeError, match=r"Put @cache\.cached above @classmethod"):
            call(7)
    assert bound.invalidate(Shop, 7)


def test_a_function_may_have_a_parameter_of_that_name(cache):
    fare = cache.cached(key="fare:{cls}")(lambda cls: cls)
    assert fare("economy") == "economy" and fare.key("economy") == "fare:economy"
    assert fare.refresh("economy") == "economy" and fare.invalidate("economy")


@pytest.mark.parametrize("key", [None, "user:{uid}"])
def test_a_method_whose_key_does_not_name_self_is_refused(cache, key):
    with pytest.raises(ValueError, match=r"its result may depend on self.*'...\{self.id\}...'"):

        class Repository:
            @cache.cached(key=key)
            def user(self, uid): ...


# What is refused when decorated


def a_generator():
    yield 1


async def an_async_generator():
    yield 1


class AClass:
    pass


@pytest.mark.parametrize(
    ("options", "function", "error", "why"),
    [
        ({"key": "{uid}"}, of_a_module, None, ""),
        ({"key": "{user}"}, of_a_module, ValueError, "user, which is not a parameter"),
        ({"key": "k", "tags": ["{user}"]}, of_a_module, ValueError, "user, which is not a parameter"),
        ({"key": "k", "tags": "user"}, of_a_module, InvalidKey, "a sequence of templates"),
        ({"ttl": -1}, of_a_module, InvalidTTL, "ttl"),
        ({"stale": "x"}, of_a_module, InvalidTTL, "stale"),
        ({"lifetime": 3}, of_a_module, TypeError, "lifetime"),
        ({}, a_generator, TypeError, "Return a list"),
        ({}, an_async_generator, TypeError, "Return a list"),
        ({}, AClass, TypeError, "decorates a function"),
        ({}, 7, TypeError, "decorates a function"),
        ({}, staticmethod(of_a_module), TypeError, "stands above @cache.cached"),
    ],
)
def test_what_could_never_work_is_refused_when_decorated(cache, options, function, error, why):
    if error is None:
        assert cache.cached(**options)(function)
        return
    with pytest.raises(error, match=why):
        cache.cached(**options)(function)


# What it looks like


def test_it_looks_like_the_function(cache):
    function = cache.cached(of_a_module)
    assert function.__name__ == "of_a_module" and function.__module__ == __name__
    assert inspect.signature(function) == inspect.signature(of_a_module)
    assert repr(function) == f"<cached {__name__}.of_a_module>"
    assert not inspect.iscoroutinefunction(function)


def test_a_coroutine_function_is_told_to_be_one(cache):
    function = cache.cached(a_coroutine_function_of_a_module)
    assert asyncio.iscoroutinefunction(function)
    assert inspect.iscoroutinefunction(function.__call__)


def test_a_functions_own_attributes_are_kept_and_hide_none_of_ours(cache):
    def function():
        return 1

    function._cache, function.mark = "theirs", "kept"
    cached = cache.cached(key="k")(function)
    assert cached() == 1 and cached.mark == "kept"


def test_with_the_cache_disabled_each_call_runs_it(config, counted, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    with cachee_shm.attach(config=config) as cache:
        profile = cache.cached(key="user:{uid}", condition=lambda result: False)(lambda uid: counted(uid))
        assert [profile(7)["n"], profile(7)["n"]] == [1, 2]
        tail = cache.tail
        assert profile.refresh(7)["n"] == 3
        assert profile.cache_info() == (0, 3)
        assert cache.tail > tail
        refreshed = cache.cached(key="user:{uid}")(lambda uid: counted(uid)).refresh(8)
        assert refreshed["n"] == 4 and cache.tail > tail + 1


def test_cache_clear_needs_no_arguments_where_tags_are_made_of_them(made, counted, cache):
    profile = made(lambda uid, team: counted(uid), key="user:{uid}", tags=["team:{team}"])
    profile(1, 2)
    profile.cached.cache_clear()
    assert cache.get("user:1") is None
    profile(1, 2)
    cache.delete_tags("team:2")
    assert cache.get("user:1") is None


def test_cache_clear_drops_also_what_the_function_has_given_other_tags(made, cache):
    def function(uid):
        cachee_shm.current_load().tags = ["by hand"]
        return uid

    profile = made(function, key="user:{uid}")
    profile(7), profile.refresh(8)
    profile.cached.cache_clear()
    assert "user:7" not in cache and "user:8" not in cache


class Shop:
    def __init__(self, name):
        self.name = name

    def price(self, item, currency="EUR"):
        return self.name

    @classmethod
    def named(cls, item):
        return cls.__name__


def two_partials():
    partial = functools.partial(Shop.price, Shop("a"))
    return functools.update_wrapper(partial, Shop.price)


@pytest.mark.parametrize("key", [None, "price:{item}"])
@pytest.mark.parametrize("function", [Shop("a").price, Shop.named, two_partials()])
def test_an_object_that_holds_arguments_needs_a_key_function(cache, function, key):
    with pytest.raises(ValueError, match="bound method or a partial"):
        cache.cached(key=key)(function)
    shop = Shop("a")
    assert cache.cached(key=lambda item: f"{shop.name}:{item}")(shop.price)(1) == "a"
    assert cache.get("a:1") == "a"


def test_wrong_arguments_are_an_error_also_where_the_result_is_there(made, counted):
    profile = made(lambda uid: counted(uid), key="user:{uid}")
    profile(7)
    with pytest.raises(TypeError, match="multiple values"):
        profile(7, uid=7)


def test_a_builtin_function_of_a_module_holds_nothing(cache):
    assert cache.cached(key="sqrt:{x}")(math.sqrt)(4) == cache.get("sqrt:4") == 2.0


def test_a_method_is_known_whatever_its_first_parameter_is_called(cache):
    with pytest.raises((ValueError, RuntimeError)) as caught:  # wrapped before Python 3.12

        class Odd:
            @cache.cached(key="x:{item}")
            def price(this, item):
                return this

    assert "depend on this" in str(caught.value.__cause__ or caught.value)

    class Even:
        @cache.cached(key="x:{this.name}:{item}")
        def price(this, item):
            return this.name

        @staticmethod
        @cache.cached(key="y:{item}")
        def doubled(item):
            return 2 * item

    assert Even.doubled(4) == 8


def test_a_key_that_names_no_parameter_is_refused_where_there_are_any(cache):
    with pytest.raises(ValueError, match=r"names no parameter of .*prices: all calls would have one key"):

        @cache.cached(key="prices")
        def prices(country): ...

    @cache.cached(key="countries")
    def countries():
        return ["FR"]

    assert countries() == cache.get("countries")


@pytest.mark.parametrize("template", ["{user.}", "{user..id}", "{user[]}", "{user[a]b}", "{user. id}"])
def test_a_field_that_could_never_be_looked_up_is_refused_when_decorated(cache, template):
    with pytest.raises(ValueError, match="names no parameter"):
        cache.cached(key=template)(lambda user: user)


@pytest.fixture
def importable(cache, monkeypatch):
    """A decorated function and method that are found by their names."""

    def price(item):
        return item

    class Store:
        price = None

    for each in (price, Store):
        each.__qualname__ = each.__name__
    cached = cache.cached(key="{item}")(price)
    Store.price = cache.cached(key=lambda store, item: f"{item}")(
        functools.wraps(price)(lambda store, item: item)
    )
    Store.price.__qualname__ = "Store.price"
    monkeypatch.setitem(globals(), "price", cached)
    monkeypatch.setitem(globals(), "Store", Store)
    return cached, Store


def test_it_is_pickled_and_copied_by_its_name_as_a_function_is(importable):
    cached, store = importable
    assert pickle.loads(pickle.dumps(cached)) is cached
    assert copy.copy(cached) is cached and copy.deepcopy(cached) is cached
    one = store()
    one.held = [copy.deepcopy(one.price)]
    assert pickle.loads(pickle.dumps(one.price))(1) == one.held[0](1) == 1


def test_a_cached_coroutine_function_may_be_cached_again(cache, counted):
    @cache.cached(key="outer:{uid}")
    @cache.cached(key="inner:{uid}")
    async def profile(uid):
        return counted(uid)

    assert asyncio.run(profile(1)) == cache.get("outer:1") == cache.get("inner:1")
    assert len(counted.calls) == 1
