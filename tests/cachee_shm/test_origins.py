"""Origins: who loads and stores the keys of a prefix."""

import asyncio
import threading
import time
from datetime import timedelta

import pytest
import trio

import cachee_shm
from cachee_shm.errors import InvalidKey, InvalidTTL, KeyTooLong, NoOrigin
from cachee_shm.testing import frozen_clock


class Users:
    """Rows by key; counts what it was asked."""

    def __init__(self, **rows):
        self.rows = {f"user:{name}": row for name, row in rows.items()}
        self.calls = []

    def load(self, key):
        self.calls.append([key])
        return self.rows.get(key)

    def load_many(self, keys):
        self.calls.append(sorted(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}

    def store(self, key, value):
        self.rows[key] = value


class AsyncUsers(Users):
    async def load(self, key):
        return super().load(key)

    async def load_many(self, keys):
        return super().load_many(keys)

    async def store(self, key, value):
        super().store(key, value)


# Reading through


def test_a_key_of_its_prefix_needs_no_loader(cache):
    users = Users(a=1)
    cache.origin("user:", users)
    assert [cache.get_or_load("user:a") for _ in range(3)] == [1, 1, 1]
    assert users.calls == [["user:a"]]


def test_a_str_and_its_bytes_are_one_key_and_have_one_origin(cache):
    cache.origin("nutzer:ü", load=lambda key: key)
    assert cache.get_or_load("nutzer:ü1".encode()) == "nutzer:ü1".encode()


def test_the_longest_prefix_counts(cache):
    cache.origin("user:", load=lambda key: "user")
    cache.origin("user:admin:", load=lambda key: "admin")
    cache.origin("u", load=lambda key: "u")
    assert cache.get_or_load("user:1") == "user"
    assert cache.get_or_load("user:admin:1") == "admin"
    assert cache.get_or_load("use") == "u"


def test_get_in_and_set_never_call_an_origin(cache):
    users = Users(a=1)
    cache.origin("user:", users)
    assert cache.get("user:a") is None and "user:a" not in cache
    assert cache.get_many(["user:a"]) == {} and cache.lookup("user:a") == (None, False)
    with pytest.raises(KeyError):
        cache["user:a"]
    cache.set("user:a", 2)
    assert users.calls == [] and users.rows == {"user:a": 1}


def test_many_keys_are_loaded_by_one_call_for_each_origin(cache):
    users, teams = Users(a=1, b=2), []
    cache.origin("user:", users)
    cache.origin("team:", load=lambda key: teams.append(key) or key)
    assert cache.get_or_load_many(["team:x", "user:b", "user:a", "user:c"]) == {
        "team:x": "team:x",
        "user:b": 2,
        "user:a": 1,
        "user:c": None,
    }
    assert users.calls == [["user:a", "user:b", "user:c"]] and teams == ["team:x"]


def test_its_options_hold_for_calls_that_say_nothing_else(cache):
    cache.origin("a:", load=lambda key: 1, ttl=10)
    with frozen_clock(cache) as clock:
        cache.get_or_load("a:own")
        cache.get_or_load("a:said", ttl=timedelta(seconds=100))
        clock.tick(11)
        assert "a:own" not in cache and "a:said" in cache


def test_a_stale_value_is_returned_while_it_fails(cache):
    answers = iter([1, OSError("down"), OSError("down")])

    def load(key):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache.origin("a", load=load, ttl=10, stale=60)
    with frozen_clock(cache) as clock:
        cache.get_or_load("a")
        clock.tick(11)
        assert cache.get_or_load("a") == 1
        with pytest.raises(OSError):
            cache.get_or_load("a", on_error="raise")


def test_a_time_out_of_the_origin_holds_for_its_loads(cache):
    cache.origin("a", load=lambda key: time.sleep(1), hard_timeout=0.05)
    with pytest.raises(cachee_shm.errors.LoadTimeout):
        cache.get_or_load("a")


def test_an_origin_of_coroutine_functions_is_awaited(cache):
    users = AsyncUsers(a=1, b=2)
    cache.origin("user:", users)

    async def main():
        assert await cache.aget_or_load("user:a") == 1
        assert await cache.aget_or_load_many(["user:a", "user:b"]) == {"user:a": 1, "user:b": 2}
        async with cache.writing("user:c") as write:
            assert await write.store(3) == 3
        return await cache.aget_or_load("user:c")

    assert asyncio.run(main()) == 3
    assert users.calls == [["user:a"], ["user:b"]] and users.rows["user:c"] == 3


def test_trio_awaits_it_too(cache):
    cache.origin("user:", AsyncUsers(a=1))
    assert trio.run(cache.aget_or_load, "user:a") == 1


def test_what_is_invalidated_during_a_load_is_returned_and_not_stored(cache):
    cache.origin("a", load=lambda key: cache.delete(key))
    cache.get_or_load("a")
    assert "a" not in cache


def test_a_disabled_cache_asks_it_each_time(config, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    users = Users(a=1)
    with cachee_shm.attach(config=config) as cache:
        cache.origin("user:", users)
        assert [cache.get_or_load("user:a") for _ in range(2)] == [1, 1]
        assert cache.get_or_load_many(["user:a"]) == {"user:a": 1}
        with cache.writing("user:b") as write:
            write.store(2)
    assert len(users.calls) == 3 and users.rows["user:b"] == 2


# Writing through


def test_store_writes_the_origin_and_then_the_cache(cache):
    users = Users()
    cache.origin("user:", users)
    with cache.writing("user:a") as write:
        assert write.store("x", ttl=60, tags=["t"]) == "x"
        assert "user:a" not in cache
    assert write.stored and users.rows == {"user:a": "x"} and cache.get("user:a") == "x"
    cache.delete_tags("t")
    assert "user:a" not in cache


def test_what_store_returns_is_cached_in_the_place_of_the_value(cache):
    cache.origin("a", store=lambda key, value: {**value, "id": 7})
    with cache.writing("a") as write:
        assert write.store({"name": "x"}) == {"name": "x", "id": 7}
    assert cache.get("a") == {"name": "x", "id": 7}


def test_a_store_that_raises_leaves_the_key_deleted(cache):
    def store(key, value):
        raise OSError("the database is gone")

    cache.origin("a", store=store)
    cache.set("a", 1)
    with pytest.raises(OSError), cache.writing("a") as write:
        write.store(2)
    assert "a" not in cache


def test_mistakes_of_store_come_before_the_origin_is_written(cache):
    users = Users()
    cache.origin("user:", users)
    with pytest.raises(InvalidTTL), cache.writing("user:a") as write:
        write.store(1, ttl=-1)
    with pytest.raises(InvalidKey), cache.writing("user:a") as write:
        write.store(1, tags="t")
    with pytest.raises(RuntimeError, match="origin was not written"):
        write.store(1)
    assert users.rows == {}


@pytest.mark.parametrize("key", ["a", "b"])
def test_store_without_an_origin_that_can_says_what_to_do(cache, key):
    cache.origin("a", load=lambda key: 1)
    with pytest.raises(NoOrigin, match=r"store=|cache\.origin"), cache.writing(key) as write:
        write.store(1)


# Trying again


class Failing:
    def __init__(self, failures, error=OSError):
        self.left, self.calls, self.error = failures, 0, error

    def __call__(self, key):
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise self.error("not now")
        return "answer"


def test_a_load_that_raised_is_tried_again_as_often_as_said(cache):
    load = Failing(2)
    cache.origin("a", load=load, retries=2, backoff=0)
    assert cache.get_or_load("a") == "answer" and load.calls == 3


def test_a_load_is_not_tried_again_more_often_than_said(cache):
    load = Failing(3)
    cache.origin("a", load=load, retries=2, backoff=0)
    with pytest.raises(OSError):
        cache.get_or_load("a")
    assert load.calls == 3


def test_other_errors_are_not_tried_again(cache):
    load = Failing(1, ValueError)
    cache.origin("a", load=load, retries=2, backoff=0, retry_on=(OSError, TimeoutError))
    with pytest.raises(ValueError):
        cache.get_or_load("a")
    assert load.calls == 1


def test_an_origin_that_is_down_is_asked_little_more_than_once_a_load(cache):
    load = Failing(10**6)
    cache.origin("a", load=load, retries=5, backoff=0)
    for number in range(100):
        with pytest.raises(OSError):
            cache.get_or_load(f"a{number}")
    assert load.calls == 100 + 10


def test_the_budget_comes_back_with_loads_that_succeed(cache):
    load = Failing(10**6)
    cache.origin("a", load=load, retries=10, backoff=0)
    for number in range(10):
        with pytest.raises(OSError):
            cache.get_or_load(f"a{number}")
    load.left = 0
    for number in range(100, 120):
        cache.get_or_load(f"a{number}")  # a tenth of a token each
    load.left, load.calls = 2, 0
    assert cache.get_or_load("a") == "answer" and load.calls == 3


def test_coroutines_are_tried_again_too(cache):
    load = Failing(2)

    async def aload(key):
        return load(key)

    cache.origin("a", load=aload, retries=2, backoff=timedelta(milliseconds=1))
    assert asyncio.run(cache.aget_or_load("a")) == "answer"


# What load_many leaves out


def test_a_key_that_load_many_leaves_out_is_a_loaded_none(cache):
    users = Users()
    cache.origin("user:", load_many=users.load_many, negative_ttl=10)
    with frozen_clock(cache) as clock:
        assert cache.get_or_load("user:x") is None and "user:x" in cache
        clock.tick(11)
        assert "user:x" not in cache


def test_a_key_that_load_many_leaves_out_can_be_an_error_for_its_callers(cache):
    users = Users(a=1)
    cache.origin("user:", load_many=users.load_many, missing="error")
    with pytest.raises(KeyError, match="user:x"):
        cache.get_or_load("user:x")
    assert "user:x" not in cache and cache.get_or_load("user:a") == 1


# Mistakes


def test_a_key_without_an_origin_says_which_are_registered(cache):
    cache.origin("user:", load=lambda key: 1)
    with pytest.raises(NoOrigin, match=r"team:1.*Nothing was loaded.*'user:'"):
        cache.get_or_load("team:1")
    with pytest.raises(NoOrigin, match="team:1"):
        cache.get_or_load_many(["user:1", "team:1"])
    with pytest.raises(LookupError, match="none"):
        asyncio.run(cachee_shm.attach(private=True).aget_or_load("a"))


def test_an_invalid_key_is_reported_before_a_missing_origin(cache):
    with pytest.raises(InvalidKey):
        cache.get_or_load(7)
    with pytest.raises(KeyTooLong):
        cache.get_or_load("a" * 1025)


def test_a_prefix_has_one_origin(cache):
    cache.origin("user:", load=lambda key: 1)
    with pytest.raises(ValueError, match="has an origin already, which stays"):
        cache.origin("user:", load=lambda key: 2)
    assert cache.get_or_load("user:1") == 1


@pytest.mark.parametrize("prefix", ["", b"user:", 7, None])
def test_a_prefix_is_text(cache, prefix):
    with pytest.raises(InvalidKey, match="Nothing was registered"):
        cache.origin(prefix, load=lambda key: 1)


async def acoroutine(key):
    return 1


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, TypeError, "no load, no load_many and no store"),
        ({"load": 7}, TypeError, "no function"),
        ({"load": acoroutine, "store": print}, TypeError, "mixes"),
        ({"functions": Users(), "load": print}, TypeError, "either an object"),
        ({"functions": object()}, TypeError, "no load"),
        ({"load": print, "missing": "no"}, ValueError, "negative"),
        ({"load": print, "retries": 11}, ValueError, "from 0 to 10"),
        ({"load": print, "retries": 1.5}, ValueError, "from 0 to 10"),
        ({"load": print, "backoff": -1}, ValueError, "from 0 to 5 s"),
        ({"load": print, "retry_on": 7}, TypeError, "exception class"),
        ({"load": print, "ttl": -1}, InvalidTTL, "-1"),
        ({"load": print, "tags": "t"}, InvalidKey, "tags"),
        ({"load": print, "on_error": "x"}, ValueError, "on_error"),
        ({"load": print, "timeout": 1}, TypeError, "hard_timeout"),
    ],
)
def test_mistakes_are_found_when_it_is_registered(cache, given, error, words):
    with pytest.raises(error, match=words):
        cache.origin("user:", **given)
    cache.origin("user:", load=lambda key: 1)
    assert cache.get_or_load("user:1") == 1


def test_the_sync_verb_on_an_async_origin_is_an_error_and_the_other_way_round(cache):
    cache.origin("async:", load=acoroutine)
    cache.origin("sync:", load=lambda key: 1)
    for verb, key in ((cache.get_or_load, "async:1"), (cache.get_or_load_many, ["async:1"])):
        with pytest.raises(TypeError, match=f"Use a{verb.__name__}"):
            verb(key)
    for averb, key in ((cache.aget_or_load, "sync:1"), (cache.aget_or_load_many, ["sync:1"])):
        with pytest.raises(TypeError, match=f"Use {averb.__name__[1:]}"):
            asyncio.run(averb(key))
    assert "async:1" not in cache and "sync:1" not in cache


def test_a_loader_of_the_wrong_kind_is_told_as_it_runs(cache):
    cache.origin("a", load=lambda key: acoroutine(key))
    with pytest.raises(TypeError, match="has to be awaited"):
        cache.get_or_load("a")
    cache.origin("b", load_many=lambda keys: 7)
    with pytest.raises(TypeError, match="not a mapping"):
        cache.get_or_load("b")
    cache.origin("c", load_many=lambda keys: {"other": 1})
    with pytest.raises(ValueError, match="none of them"):
        cache.get_or_load("c")


def test_arguments_without_a_loader_are_a_mistake(cache):
    cache.origin("a", load=lambda key: 1)
    with pytest.raises(TypeError, match="no loader that takes them"):
        cache.get_or_load("a", None, 1)


def test_a_store_alone_loads_nothing(cache):
    cache.origin("a", store=lambda key, value: None)
    with pytest.raises(NoOrigin, match="has no load"):
        cache.get_or_load("a")


# Several threads


def test_two_threads_that_miss_one_key_load_it_once(cache):
    users, barrier = Users(a=1), threading.Barrier(8)
    cache.origin("user:", users)
    found = []

    def read():
        barrier.wait()
        found.append(cache.get_or_load("user:a"))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 8 and users.calls == [["user:a"]]
