"""Callers that do not wait for a slow load without end: soft_timeout and hard_timeout."""

import asyncio
import contextvars
import os
import threading
import warnings
from datetime import timedelta

import pytest

from cachee_shm import current_load, timeouts
from cachee_shm.errors import LoadTimeout
from cachee_shm.transactions import transaction
from tests.cachee_shm.loaders import Origin
from tests.cachee_shm.processes import forked
from tests.cachee_shm.test_loads import clock

__all__ = ["clock"]

AT_ONCE = 0.0
LONG = 60.0  # it is never waited for


class Slow:
    """A loader that ends when it is let go."""

    def __init__(self, value):
        self.value, self.calls = value, 0
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self):
        self.calls += 1
        self.begun.set()
        self.go.wait(LONG)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    async def later(self):
        self.begun.set()
        while not self.go.is_set():
            await asyncio.sleep(0.001)
        return self()


@pytest.fixture(params=["def", "async def"])
def call(request, cache):
    """``call(slow, key, **options)``: a load; ``call.ends(slow)`` lets it end, and waits for that."""
    made = Threads(cache) if request.param == "def" else Tasks(cache)
    yield made
    made.over()


class Threads:
    def __init__(self, cache):
        self.cache = cache

    def __call__(self, slow, key="a", **options):
        return self.cache.get_or_load(key, slow, **options)

    def ends(self, slow):
        slow.go.set()
        for thread in threading.enumerate():
            if thread.name == "cachee-load":
                thread.join()

    def over(self):
        """Nothing is left to do."""


class Tasks:
    def __init__(self, cache):
        self.cache, self.loop = cache, asyncio.new_event_loop()

    def __call__(self, slow, key="a", **options):
        loader = slow.later if isinstance(slow, Slow) else self._awaited(slow)
        return self.loop.run_until_complete(self.cache.aget_or_load(key, loader, **options))

    @staticmethod
    def _awaited(loader):
        async def awaited():
            return loader()

        return awaited

    def ends(self, slow):
        slow.go.set()
        self.loop.run_until_complete(asyncio.gather(*timeouts.tasks, return_exceptions=True))

    def over(self):
        self.loop.close()


def test_a_load_that_ends_in_time_is_as_without_a_limit(cache, call):
    assert call(Origin({"n": 1}), soft_timeout=LONG, hard_timeout=LONG) == {"n": 1}
    assert cache.get("a") == {"n": 1}


def test_a_caller_with_an_older_value_has_it_after_the_soft_timeout_and_the_load_goes_on(cache, call, clock):
    call(Origin("old"), ttl=10, stale=60)
    clock(11)
    slow = Slow("new")
    assert call(slow, ttl=10, stale=60, soft_timeout=AT_ONCE) == "old"
    assert cache.get("a") is None
    call.ends(slow)
    assert cache.get("a") == "new" and cache.stats()["loads"] == 2


def test_without_an_older_value_the_soft_timeout_does_not_count(cache, call):
    slow = Slow("new")
    slow.go.set()
    assert call(slow, soft_timeout=AT_ONCE) == "new"


def test_no_caller_waits_for_longer_than_the_hard_timeout_and_the_load_still_fills(cache, call):
    slow = Slow("new")
    with pytest.raises(LoadTimeout, match=r"'a' has not ended within 0\.01 s\. It goes on"):
        call(slow, hard_timeout=timedelta(milliseconds=10))
    with pytest.raises(TimeoutError):
        call(Origin("second"), hard_timeout=AT_ONCE)  # the first one's load is waited for
    call.ends(slow)
    assert cache.get("a") == "new"


def test_after_the_hard_timeout_an_older_value_is_used_unless_errors_are_to_be_raised(cache, call, clock):
    call(Origin("old"), ttl=10, stale=60)
    clock(11)
    slow = Slow("new")
    assert call(slow, ttl=10, stale=60, hard_timeout=AT_ONCE) == "old"
    call.ends(slow)
    clock(30)
    slow = Slow("newer")
    with pytest.raises(LoadTimeout):
        call(slow, ttl=10, stale=60, hard_timeout=AT_ONCE, on_error="raise")
    call.ends(slow)
    assert cache.get("a") == "newer"


def test_the_soft_timeout_serves_the_older_value_also_where_errors_are_to_be_raised(call, clock):
    call(Origin("old"), ttl=10, stale=60)
    clock(11)
    slow = Slow("new")
    assert call(slow, ttl=10, stale=60, soft_timeout=AT_ONCE, on_error="raise") == "old"
    call.ends(slow)


def test_an_older_value_that_was_invalidated_meanwhile_is_not_served(cache, call, clock):
    call(Origin("old"), ttl=10, stale=60)
    clock(11)
    slow = Slow("new")

    def delete():
        slow.begun.wait(LONG)
        cache.delete("a")

    deleter = threading.Thread(target=delete)
    deleter.start()
    with pytest.raises(LoadTimeout):
        call(slow, ttl=10, stale=60, soft_timeout=0.3)
    deleter.join()
    call.ends(slow)
    assert "a" not in cache  # loaded before the invalidation


def test_what_the_loader_raises_in_time_is_the_callers(call):
    with pytest.raises(OSError, match="origin"):
        call(Origin(OSError("origin")), hard_timeout=LONG)


def test_the_loader_sees_the_callers_context_and_its_load(cache, call):
    color = contextvars.ContextVar("color", default="none")
    color.set("red")
    assert call(lambda: [color.get(), current_load().key], hard_timeout=LONG) == ["red", "a"]


def test_a_failure_after_the_caller_has_gone_is_said_in_the_log(cache, call, caplog):
    slow = Slow(OSError("origin"))
    with pytest.raises(LoadTimeout):
        call(slow, hard_timeout=0.01)
    call.ends(slow)
    assert "which its caller had given up, failed: OSError('origin')" in caplog.text


def test_a_cancelled_caller_does_not_end_the_load(cache):
    slow = Slow("new")

    async def main():
        caller = asyncio.create_task(cache.aget_or_load("a", slow.later, hard_timeout=LONG))
        while not slow.begun.is_set():
            await asyncio.sleep(0.001)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        slow.go.set()
        await asyncio.gather(*timeouts.tasks)

    asyncio.run(main())
    assert cache.get("a") == "new" and not timeouts.tasks


def test_threads_are_bounded_and_a_caller_waits_for_one(cache, monkeypatch):
    monkeypatch.setattr(timeouts, "slots", threading.Semaphore(1))
    slow = Slow("new")
    with pytest.raises(LoadTimeout):
        cache.get_or_load("a", slow, hard_timeout=AT_ONCE)
    slow.begun.wait(LONG)
    second = Origin("second")
    with pytest.raises(LoadTimeout):
        cache.get_or_load("b", second, hard_timeout=0.01)
    assert second.calls == 0
    Threads(cache).ends(slow)
    assert cache.get_or_load("b", second, hard_timeout=LONG) == "second"


def test_where_no_thread_was_free_nothing_goes_on(cache, monkeypatch):
    monkeypatch.setattr(timeouts, "slots", threading.Semaphore(0))
    origin = Origin(1)
    with pytest.raises(LoadTimeout, match=r"has not begun within 0\.01 s: .* Nothing was loaded"):
        cache.get_or_load("a", origin, hard_timeout=0.01)
    assert origin.calls == 0


@pytest.mark.parametrize("limits", [{"hard_timeout": LONG}, {"soft_timeout": LONG, "hard_timeout": LONG}])
def test_a_load_within_a_load_does_not_wait_for_the_thread_that_waits_for_it(cache, monkeypatch, limits):
    monkeypatch.setattr(timeouts, "slots", threading.Semaphore(1))

    def outer():
        return cache.get_or_load("inner", lambda: threading.current_thread().name, **limits)

    assert cache.get_or_load("outer", outer, hard_timeout=1) == "cachee-load"


def test_a_load_without_a_limit_needs_no_thread(cache, monkeypatch):
    monkeypatch.setattr(timeouts, "slots", threading.Semaphore(0))
    here = threading.current_thread().name
    assert cache.get_or_load("a", lambda: threading.current_thread().name, soft_timeout=1) == here


def test_a_thread_that_cannot_be_started_takes_nobodys_place(cache, monkeypatch):
    monkeypatch.setattr(timeouts, "slots", threading.Semaphore(1))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda thread: exec("raise RuntimeError('no thread')"))
        with pytest.raises(LoadTimeout, match=r"can start no thread\. Nothing was loaded"):
            cache.get_or_load("a", Origin(1), hard_timeout=LONG)
    assert cache.get_or_load("a", Origin(1), hard_timeout=LONG) == 1


def test_an_error_at_the_very_end_of_the_time_is_somebodys(cache):
    """Between the end of the wait and the look at the clock, the load has failed."""
    load = timeouts.Load(cache, "a", lambda: 1 / 0)
    load._work(threading.Semaphore(0))
    load._ended.wait = lambda limit: False
    assert load.ended_within(0)
    with pytest.raises(ZeroDivisionError):
        load.result()


def test_a_forked_child_has_threads_of_its_own(cache, monkeypatch):
    monkeypatch.setattr(timeouts, "slots", threading.Semaphore(0))
    child = forked(lambda: cache.get_or_load("a", Origin(1), hard_timeout=LONG))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_in_a_database_transaction_the_loader_does_not_leave_its_thread(cache):
    origin = Origin(1)
    with transaction(), pytest.raises(ValueError, match="outside of the database transaction"):
        cache.get_or_load("a", origin, hard_timeout=LONG)
    assert origin.calls == 0


@pytest.mark.parametrize("limit", [-1, "1s", float("nan"), True and object()])
@pytest.mark.parametrize("name", ["soft_timeout", "hard_timeout"])
def test_what_is_no_time_is_refused_before_anything_is_loaded(cache, call, name, limit):
    origin = Origin(1)
    with pytest.raises(ValueError, match=f"{name} is a number of seconds"):
        call(origin, **{name: limit})
    with pytest.raises(ValueError, match=f"{name} is a number of seconds"):
        cache.cached(key="k", **{name: limit})
    assert origin.calls == 0


def test_a_decorated_function_has_limits_too(cache):
    slow = Slow("new")
    cached = cache.cached(key="k", hard_timeout=0.01)(lambda: slow())
    with pytest.raises(LoadTimeout):
        cached()
    Threads(cache).ends(slow)
    assert cached() == "new"


def test_under_trio_it_says_what_to_do_instead(cache):
    import trio

    slow = Slow("new")

    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await cache.aget_or_load("a", slow.later, hard_timeout=1)

    with pytest.raises(ValueError, match=r"trio\.fail_after"):
        trio.run(main)
