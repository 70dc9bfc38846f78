"""What a transaction hides, keeps and announces, without a database."""

import asyncio
import contextvars
import gc
import threading

import pytest

import cachee_shm
from cachee_shm import _core, transactions
from cachee_shm.transactions import Transaction, transaction
from tests.cachee_shm.processes import child, until

WRITE = "UPDATE t SET a = 1"


def elsewhere(function, *args):
    """Run it as another thread or task would: outside of this context's transactions."""
    return contextvars.Context().run(function, *args)


@pytest.fixture
def writing(cache):
    with transaction() as one:
        one.statement(WRITE)
        yield one


# What is read


def test_before_it_writes_a_transaction_reads_as_everybody_does(cache):
    cache.set("a", 1)
    with transaction() as one:
        one.statement("SELECT 1")
        assert (cache.get("a"), cache["a"], "a" in cache) == (1, 1, True)
        assert cache.get_or_load("b", lambda: 2) == 2
        assert elsewhere(cache.get, "b") == 2


def test_from_its_first_write_on_it_reads_nothing(cache):
    cache.set("a", {"x": 1})
    with transaction() as one:
        one.statement(WRITE)
        assert cache.get("a", "missed") == "missed"
        assert cache.lookup("a") == (None, False)
        assert cache.get_many(["a"]) == {}
        assert "a" not in cache
        assert not cache.touch("a")
        assert cache._stored("a") == (0, 0, b"")
        with pytest.raises(KeyError):
            cache["a"]
        assert cache.get_or_load("a", lambda: "loaded") == "loaded"
        assert elsewhere(cache.get, "a") == {"x": 1}
    assert cache.get("a") == {"x": 1}


def test_near_objects_are_hidden_too(config):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": True}
    with cachee_shm.attach(config=config) as cache:
        cache.set("a", {"x": 1})
        assert cache.get("a") is cache.get("a")
        with transaction() as one:
            one.statement(WRITE)
            assert cache.get("a") is None


def test_other_threads_read_on(cache, writing):
    elsewhere(cache.set, "a", 1)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(cache.get("a")))
    thread.start()
    thread.join()
    assert seen == [1]


# What is stored


def test_nothing_is_filled_while_it_writes(cache, writing):
    assert cache.get_or_load("a", lambda: "uncommitted") == "uncommitted"
    assert asyncio.run(cache.aget_or_load("a", aload, "uncommitted")) == "uncommitted"
    assert not cache.add("a", "uncommitted")
    assert not cache.set("a", "uncommitted")
    assert cache.set_many({"a": "uncommitted"}) == ["a"]
    with cache.writing("a") as w:
        w.set("uncommitted")
    assert w.stored is False
    assert elsewhere(cache.get, "a") is None


async def aload(value):
    return value


def test_a_decorated_function_is_run_and_not_stored(cache):
    @cache.cached(key="f:{n}")
    def f(n):
        return [n]

    with transaction() as one:
        one.statement(WRITE)
        assert f(1) == [1]
        assert f.refresh(1) == [1]
    assert cache.get("f:1") is None


def test_a_loader_that_writes_itself_fills_nothing(cache):
    def load():
        one.statement(WRITE)
        return "uncommitted"

    with transaction() as one:
        assert cache.get_or_load("a", load) == "uncommitted"
        assert elsewhere(cache.get, "a") is None


def test_a_loader_whose_thread_writes_fills_nothing(cache):
    """The transaction is not of the loader's context, but a thread of the loader runs its statement."""
    one = elsewhere(Transaction)

    def load():
        copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(one.statement, WRITE))
        thread.start()
        thread.join()
        return "uncommitted"

    assert cache.get_or_load("a", load) == "uncommitted"
    assert cache.get("a") is None
    one.rolled_back()


def test_what_depends_on_a_load_that_saw_a_write_is_not_stored_either(cache):
    one = elsewhere(Transaction)

    def inner():
        one.statement(WRITE)
        return "uncommitted"

    assert cache.get_or_load("outer", lambda: cache.get_or_load("inner", inner)) == "uncommitted"
    one.rolled_back()
    assert cache.get_many(["outer", "inner"]) == {}


def test_changes_that_no_statement_has_written_yet_are_not_stored(cache):
    changed = [True]
    one = Transaction(lambda: changed[0])
    assert cache.get_or_load("a", lambda: "changed") == "changed"
    assert "a" not in cache
    changed[0] = False
    assert cache.get_or_load("a", lambda: "as it was") == "as it was"
    assert "a" in cache
    one.rolled_back()


def test_a_fill_is_as_old_as_its_transaction(cache):
    with transaction():
        elsewhere(cache.delete, "a")  # another has written, and committed
        assert cache.get_or_load("a", lambda: "old") == "old"
        assert "a" not in cache
        assert cache.get_or_load("b", lambda: "still so") == "still so"
        assert "b" in cache


def test_a_fill_is_as_old_as_a_transaction_of_its_loaders_statements(cache):
    one = elsewhere(Transaction)
    cache.delete("a")

    def load():
        one.statement("SELECT 1")
        return "old"

    assert elsewhere(cache.get_or_load, "a", load) == "old"
    assert "a" not in cache
    one.rolled_back()


def test_a_tag_that_moved_since_the_snapshot_refuses_a_fill(cache):
    with transaction():
        elsewhere(cache.delete_tags, "team")
        cache.get_or_load("a", lambda: "old", tags=["team"])
        assert "a" not in cache


def test_a_cache_that_was_attached_within_a_transaction_is_not_filled_by_it(config):
    with transaction(), cachee_shm.attach(config=config) as cache:
        assert cache.get_or_load("a", lambda: 1) == 1
        assert "a" not in cache


def test_a_load_that_began_with_an_old_snapshot_serves_nobody_who_knows_better(cache):
    """Its own token is the transaction's, so a caller from outside loads for itself beside it."""
    loading, go, seen = threading.Event(), threading.Event(), []

    def load_old():
        loading.set()
        go.wait(10)
        return "old"

    def within():
        with transaction():
            elsewhere(cache.delete, "a")
            seen.append(cache.get_or_load("a", load_old))

    thread = threading.Thread(target=within)
    thread.start()
    assert loading.wait(10)
    assert cache.get_or_load("a", lambda: "new") == "new"
    go.set()
    thread.join()
    assert (seen, cache.get("a")) == (["old"], "new")


def test_who_waits_for_a_load_that_turns_out_to_have_written_loads_again(cache):
    loading, go, seen = threading.Event(), threading.Event(), []
    one = elsewhere(Transaction)

    def load_uncommitted():
        loading.set()
        go.wait(10)
        one.statement(WRITE)
        return "uncommitted"

    leader = threading.Thread(target=lambda: cache.get_or_load("a", load_uncommitted))
    leader.start()
    assert loading.wait(10)
    waiter = threading.Thread(target=lambda: seen.append(cache.get_or_load("a", lambda: "committed")))
    waiter.start()
    while not cache.stats()["lease_waits"]:
        pass
    go.set()
    leader.join()
    waiter.join()
    one.rolled_back()
    assert seen == ["committed"]


# What is announced


@pytest.mark.parametrize("end", ["committed", "rolled_back"])
def test_invalidations_are_announced_at_the_end(cache, end):
    for key in ("a", "b", "c", "d"):
        cache.set(key, 1, tags=["team"] if key == "d" else ())
    events = cache.events()
    one = Transaction()
    one.statement(WRITE)
    assert cache.delete("a") is False
    cache.delete_many(["b"])
    cache.set("c", 2)
    cache.delete_tags("team")
    assert events.poll() == []
    getattr(one, end)()
    assert len(events.poll()) == 4
    assert cache.get_many(["a", "b", "c", "d"]) == {}


def test_clear_waits_for_the_end(cache, writing):
    elsewhere(cache.set, "a", 1)
    cache.clear()
    assert elsewhere(cache.get, "a") == 1
    writing.committed()
    assert cache.get("a") is None


def test_a_value_that_cannot_be_stored_is_deleted_at_the_end(cache, writing):
    elsewhere(cache.set, "a", 1)
    with pytest.raises(cachee_shm.CacheeError):
        cache.set("a", object())
    assert elsewhere(cache.get, "a") == 1
    writing.committed()
    assert cache.get("a") is None


def test_what_is_deleted_before_the_first_write_is_deleted_again_at_the_end(cache):
    with transaction() as one:
        cache.set("a", 1)
        cache.delete("a")
        elsewhere(cache.set, "a", "old")
        one.statement(WRITE)
    assert cache.get("a") is None


def test_a_transaction_that_never_writes_repeats_nothing(cache):
    with transaction():
        cache.delete("a")
        elsewhere(cache.set, "a", 1)
    assert cache.get("a") == 1


def test_of_two_transactions_the_last_to_end_announces_too(cache):
    first, second = Transaction(), Transaction()
    first.statement(WRITE)
    second.statement(WRITE)
    cache.delete("a")
    first.committed()
    elsewhere(cache.set, "a", "old")
    second.committed()
    assert cache.get("a") is None


def test_counters_and_locks_of_the_host_are_no_copies_of_rows(cache, writing):
    assert cache.host.incr("hits", initial=0) == 1
    assert cache.host.incr("hits") == 2
    assert cache.add("lock", 1, local=True)


def test_more_invalidations_than_are_remembered_become_a_clear(cache, monkeypatch):
    monkeypatch.setattr(transactions, "KEPT_MAX", 2)
    cache.set("d", 1)
    with transaction() as one:
        one.statement(WRITE)
        cache.delete_many(["a", "b", "c", "d"])
        assert len(one._kept) == 3
    assert cache.get("d") is None


def test_without_the_cache_a_transaction_ends_all_the_same(config, caplog):
    with transaction() as one, cachee_shm.attach(config=config) as cache:
        one.statement(WRITE)
        cache.delete("a")
        cache.close()
    assert "could not be announced" in caplog.text


def test_a_disabled_cache_announces_at_the_end_too(config, monkeypatch):
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    with cachee_shm.attach(config=config) as cache:
        events = cache.events()
        with transaction() as one:
            one.statement(WRITE)
            cache.set("a", 1)
            assert events.poll() == []
        assert len(events.poll()) == 1


# The end


def test_after_its_end_all_is_as_before(cache):
    with pytest.raises(ZeroDivisionError), transaction() as one:
        one.statement(WRITE)
        raise ZeroDivisionError
    assert cache.set("a", 1)
    assert cache.get("a") == 1
    one.may_write()
    assert cache.get("a") == 1


def test_one_that_is_dropped_has_ended(cache):
    one = Transaction()
    one.statement(WRITE)
    cache.delete("a")
    elsewhere(cache.set, "a", 1)
    del one
    gc.collect()
    assert cache.get("a") is None
    assert cache.set("a", 2)
    assert cache.get("a") == 2
    assert transactions.here.get() is not None


def test_a_task_that_was_begun_within_it_belongs_to_it(cache):
    cache.set("a", 1)

    async def run():
        one = Transaction()
        one.statement(WRITE)
        hidden = await asyncio.create_task(read())
        one.committed()
        return hidden, await asyncio.create_task(read())

    async def read():
        return cache.get("a")

    assert asyncio.run(run()) == (None, 1)


def test_a_process_that_dies_before_it_announces_leaves_that_to_the_others(cache, config):
    cache.set("a", "old")
    with child(DIES, config=config) as other:
        other.line()
        other.process.wait()
    until(lambda: cache.get("a") is None)


DIES = """
from cachee_shm.transactions import Transaction
one = Transaction()
one.statement("UPDATE t SET a = 1")
cache.delete("a")
say("deleted")
die()  # as after the COMMIT was answered
"""


def test_no_segment_is_looked_at_while_nobody_writes(cache, monkeypatch):
    """The questions are asked of a context that has a transaction, while one of the process writes."""
    asked = []
    monkeypatch.setattr(transactions, "_open", lambda: asked.append(1) or [])
    cache.get("a")
    with transaction() as one:
        cache.get("a")
        assert asked == []
        one.statement(WRITE)
        elsewhere(cache.get, "a")
        assert asked == []
        cache.get("a")
        assert asked == [1]


def test_counts_return_to_zero():
    assert issubclass(Transaction, _core.Transaction)
    one = Transaction()
    assert (one.is_open, one.is_writing) == (True, False)
    one.statement("SELECT 1")
    assert not one.is_writing
    one.may_write()
    assert one.is_writing
    one.committed()
    one.committed()
    assert (one.is_open, one.is_writing) == (False, False)
