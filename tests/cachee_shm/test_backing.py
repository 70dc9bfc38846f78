"""Of a backend whose cache cannot be had: it misses, says so once, and recovers."""

import gc
import logging
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cachee_shm import _core, attach, backing
from cachee_shm.attaching import spec_for
from cachee_shm.backing import Backing, changed, count, fitting, lasting, seconds_of
from cachee_shm.errors import NotACounter
from tests.cachee_shm.processes import MINUTE_S, child, in_fork, until


@pytest.fixture
def config():
    host = f"backing-{uuid.uuid4().hex[:8]}"
    yield {"host": {"name": host}, "namespaces": {"test": {"memory": "4MiB"}}}
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"cachee.{host}."):
            os.unlink(f"/dev/shm/{name}")


class Blocked:
    """The segment's file, which may be out of reach: a folder stands in its place."""

    def __init__(self, config):
        self.path = f"/dev/shm/cachee.{config['host']['name']}.test.{_core.LAYOUT}"

    def hide(self):
        if os.path.exists(self.path):
            os.rename(self.path, self.path + ".hidden")
        os.mkdir(self.path)

    def show(self):
        os.rmdir(self.path)
        if os.path.exists(self.path + ".hidden"):
            os.rename(self.path + ".hidden", self.path)


@pytest.fixture
def blocked(config):
    return Blocked(config)


def test_nothing_is_attached_before_the_first_use(config):
    path = f"/dev/shm/cachee.{config['host']['name']}.test.{_core.LAYOUT}"
    held = Backing("test", config)
    assert not os.path.exists(path)
    assert held.cache.set("a", 1)
    assert os.path.exists(path)
    held.close()


@pytest.mark.parametrize("namespace", ["elsewhere", "no name/", "zero\0", 7])
def test_a_namespace_that_cannot_be_attached_is_a_cache_that_misses(config, caplog, namespace):
    held = Backing(namespace, config)
    with caplog.at_level(logging.WARNING, "cachee_shm"):
        for _ in range(3):
            assert not held.cache.set("a", object())  # pickle might be allowed, where there is a namespace
            assert held.cache.get("a") is None
            assert held.cache.get_many(["a"]) == {}
            assert held.cache.get_or_load("a", lambda: 7) == 7
            assert not held.cache.delete("a")
            assert count(held.cache, "n", 2, 5, 60) == 7
            assert changed(held.cache, "c", lambda value: ([1], value), 60) is None
            with pytest.raises(KeyError):
                count(held.cache, "n", 2, None, 60)
    assert caplog.text.count("cannot be attached") == 1
    assert repr(namespace).strip("'") in caplog.text
    assert not held.health().ok
    assert repr(namespace).strip("'") in held.health().error
    held.close()


def test_what_was_written_meanwhile_is_announced_first_and_nothing_else_is_lost(config, blocked):
    with attach("test", config=config) as other:
        blocked.hide()
        held = Backing("test", config)
        held.cache.delete("a")
        held.cache.set("b", "new")
        assert not held.health().ok
        blocked.show()
        other.set_many({"a": "old", "b": "old", "c": "kept"})
        assert until(lambda: held.cache.get("c")) == "kept"
        assert held.cache.get_many(["a", "b", "c"]) == {"c": "kept"}
        assert other.get_many(["a", "b", "c"]) == {"c": "kept"}
        assert held.health().ok
        held.close()


def test_beyond_what_can_be_remembered_all_is_cleared(config, blocked):
    with attach("test", config=config) as other:
        blocked.hide()
        held = Backing("test", config)
        for number in range(1025):
            held.cache.delete(f"k{number}")
        blocked.show()
        other.set("another", "old")
        assert until(lambda: held.health().ok)
        assert other.get("another") is None
        held.close()


def test_a_cache_that_was_only_read_meanwhile_is_kept_as_it_is(config, blocked):
    with attach("test", config=config) as other:
        other.set("a", "there")
        blocked.hide()
        held = Backing("test", config)
        assert held.cache.get("a") is None
        blocked.show()
        assert until(lambda: held.cache.get("a")) == "there"
        held.close()


def test_attaching_is_tried_each_second_and_not_at_each_verb(config, blocked, caplog, monkeypatch):
    held = Backing("test", config)
    tries = []
    monkeypatch.setattr(backing, "spec_for", lambda *it: tries.append(1) or spec_for(*it))
    blocked.hide()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "cachee_shm"):
        for _ in range(20_000):
            held.cache.get("a")
        passed = time.monotonic() - began
        assert len(tries) <= 9 + passed  # 1, 8, 16 … 1,000 ms, then each second
        blocked.show()
        until(lambda: held.cache.get("a") is None and held.health().ok)
    said = [record.getMessage() for record in caplog.records if "attached" in record.getMessage()]
    assert said[1:] == ["namespace test: attached at last"]
    held.close()


def test_a_configuration_that_is_created_later_is_read_then(config, tmp_path, caplog):
    path = tmp_path / "cachee.toml"
    held = Backing("test", path)
    with caplog.at_level(logging.WARNING, "cachee_shm"):
        assert held.cache.get("a") is None
        held.cache.delete("a")
        assert "cachee.toml" in held.health().error
        path.write_text(f'[host]\nname = "{config["host"]["name"]}"\n[namespaces.test]\nmemory = "4MiB"\n')
        with attach("test", config=config) as other:
            other.set("a", "old")
            assert until(lambda: held.health().ok)
            assert other.get("a") is None
    assert caplog.text.count("cannot be attached") == caplog.text.count("attached at last") == 1
    assert held.cache.spec.memory_bytes == 4 << 20
    held.close()


def at_once(count, function):
    """Run it in so many threads; what they return."""
    barrier = threading.Barrier(count)

    def run():
        barrier.wait()
        return function()

    with ThreadPoolExecutor(count) as pool:
        return [each.result() for each in [pool.submit(run) for _ in range(count)]]


def test_eight_threads_at_first_use_make_one_attachment(config):
    for _ in range(20):
        held = Backing("test", config)
        used = at_once(8, lambda held=held: (held.cache, held.cache.set("a", 1), held.cache.get("a")))
        assert {(id(cache), stored, value) for cache, stored, value in used} == {(id(held.cache), True, 1)}
        assert len(held.cache.roster()) == 1
        held.close()


def test_threads_wait_a_bounded_time_for_another_that_attaches(config, monkeypatch):
    monkeypatch.setattr(backing, "PATIENCE_S", 0.05)
    goes_on = threading.Event()
    held = Backing("test", config)
    monkeypatch.setattr(backing, "spec_for", lambda *it: goes_on.wait(60) and spec_for(*it))
    first = threading.Thread(target=lambda: held.cache)
    first.start()
    until(lambda: "_first" in vars(held))
    assert at_once(4, lambda: (held.cache.set("a", 1), held.cache.get("a"))) == [(False, None)] * 4
    goes_on.set()
    first.join()
    assert held.cache.set("a", 1) and held.cache.get("a") == 1
    assert len(held.cache.roster()) == 1
    held.close()


def test_a_child_that_is_forked_while_a_thread_attaches_attaches_too(config, monkeypatch):
    """A server's worker that another thread of its parent was busy in."""
    monkeypatch.setattr(backing, "PATIENCE_S", 0.05)
    goes_on, began = threading.Event(), threading.Event()
    held = Backing("test", config)
    monkeypatch.setattr(backing, "spec_for", lambda *it: (began.set(), goes_on.wait(60), spec_for(*it))[-1])
    first = threading.Thread(target=lambda: held.cache)
    first.start()
    began.wait()

    def child():
        goes_on.set()
        assert until(lambda: held.cache.set("a", 1))
        assert held.cache.get("a") == 1

    in_fork(child)
    goes_on.set()
    first.join()
    held.close()


MAKING = """
from cachee_shm import segment
made = segment._create_file
def create(path, group):
    fd = made(path, group)
    import fcntl, struct
    lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, segment._core.LOCK_BASE, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)  # as the core holds it while it makes the segment
    say('making'); wait()
    os._exit(0)  # the lock goes with it, and the next one makes the segment
segment._create_file = create
cachee_shm.attach('test', config=arguments['wanted'])
"""


def test_a_first_use_waits_for_another_process_that_makes_the_segment(config, monkeypatch):
    """As when all workers of a server start together."""
    monkeypatch.setattr(backing, "PATIENCE_S", MINUTE_S)
    with child(MAKING, wanted=config) as maker:
        assert maker.line() == "making"
        held = Backing("test", config)
        threading.Timer(0.1, maker.tell).start()
        assert held.cache.set("a", 1)
        held.close()


def test_it_misses_after_a_bounded_time(config, monkeypatch):
    monkeypatch.setattr(backing, "PATIENCE_S", 0.05)
    with child(MAKING, wanted=config) as maker:
        assert maker.line() == "making"
        held = Backing("test", config)
        assert not held.cache.set("a", 1)
        assert "has not finished" in held.health().error
        maker.tell()
        assert until(lambda: held.cache.set("a", 1))
        held.close()


def test_it_can_be_closed_and_used_again(config):
    held = Backing("test", config)
    assert held.cache.set("a", 1)
    first = held.cache
    held.close()
    held.close()
    assert first.closed
    assert held.cache.get("a") == 1
    held.close()


def test_it_leaves_a_cache_open_that_it_was_given(config):
    with attach("test", config=config) as given:
        held = Backing(attached=given)
        held.close()
        assert held.cache is given and not given.closed


# One attachment for all backends


def test_a_hundred_backends_of_a_process_are_one_attachment(config):
    backings = [Backing("test", dict(config)) for _ in range(100)]
    assert len({id(each.cache) for each in backings}) == 1
    assert len(backings[0].cache.roster()) == 1
    for each in backings:
        each.close()


@pytest.mark.needs("frameworks")
def test_a_hundred_celery_tasks_and_functions_of_other_frameworks_are_one(config):
    from celery import Celery

    from cachee_shm import cachelib, cashews, celery

    app = Celery()

    def report():
        return 7

    options = {"namespace": "test", "config": config}
    tasks = [celery.cached_task(app, key=f"k{n}", name=f"t{n}", **options)(report) for n in range(100)]
    assert [task() for task in tasks] == [7] * 100
    others = [cachelib.CacheeCache(**options), cashews.CacheeBackend(**options)]
    assert {len(other.shm.roster()) for other in others} == {1}
    assert others[0].shm is others[1].shm


def test_it_is_detached_when_the_last_of_them_is_closed(config):
    first, second = Backing("test", config), Backing("test", config)
    cache = first.cache
    assert second.cache is cache
    first.close()
    first.close()
    assert not cache.closed and second.cache.set("a", 1)
    assert first.cache is cache
    second.close()
    assert not cache.closed
    first.close()
    assert cache.closed


def test_it_is_detached_when_the_last_of_them_is_forgotten(config):
    with attach("test", config=config) as other:
        first, second = Backing("test", config), Backing("test", config)
        assert first.cache is second.cache and len(other.roster()) == 2
        del first, second
        gc.collect()
        assert len(other.roster()) == 1


def test_an_attachment_that_was_closed_directly_is_not_given_to_the_next_backend(config):
    first, second = Backing("test", config), Backing("test", config)
    first.cache.close()
    assert second.cache.set("a", 1)
    second.close()
    first.close()


def test_backends_of_different_configurations_do_not_share_an_attachment(config, tmp_path, monkeypatch):
    text = f'[host]\nname = "{config["host"]["name"]}"\n[namespaces.test]\nmemory = "4MiB"\n'
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    asked = [
        Backing("test", config),
        Backing("test", config, service="another"),
        Backing("test", config, private=True),
        Backing("test", config, private=True),
        Backing("test", "a.toml"),
        Backing("test", tmp_path / "b.toml"),
    ]
    monkeypatch.setenv("CACHEE_CONFIG", str(tmp_path / "a.toml"))
    asked.append(Backing("test"))
    assert len({id(each.cache) for each in asked}) == len(asked) - 1  # the last is that of a.toml
    assert asked[-1].cache is Backing("test", tmp_path / "a.toml").cache
    monkeypatch.setenv("CACHEE_CONFIG", "b.toml")
    assert Backing("test").cache is asked[5].cache
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    assert Backing("test", config).cache is not asked[0].cache
    for each in asked:
        each.close()


def test_threads_of_many_backends_make_one_attachment(config):
    for _ in range(20):
        backings = iter([Backing("test", config) for _ in range(8)])
        used = at_once(
            8, lambda backings=backings: (held := next(backings), held.cache, held.cache.set("a", 1))
        )
        assert {(id(cache), stored) for _, cache, stored in used} == {(id(used[0][1]), True)}
        assert len(used[0][1].roster()) == 1
        for held, *_ in used:
            held.close()


def test_a_child_that_is_forked_while_a_thread_joins_is_not_held_up(config):
    first = Backing("test", config)
    assert first.cache.set("a", 1)
    goes_on, holds = threading.Event(), threading.Event()

    def hold():
        with backing.sharing:
            holds.set()
            goes_on.wait(MINUTE_S)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()

    def child():
        second = Backing("test", config)
        assert second.cache is first.cache and second.cache.get("a") == 1
        assert len(second.cache.roster()) == 2  # the parent's, and the child's
        second.close()

    in_fork(child)
    goes_on.set()
    thread.join()
    first.close()


def test_an_interrupted_first_use_is_tried_again(config, monkeypatch):
    held = Backing("test", config)

    def interrupted(*_):
        monkeypatch.setattr(backing, "spec_for", spec_for)
        raise KeyboardInterrupt

    monkeypatch.setattr(backing, "spec_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _ = held.cache
    held.close()
    assert held.cache.set("a", 1)
    held.close()


def test_long_keys_keep_apart():
    assert fitting("short") == "short"
    first, second = fitting("k" * 5000 + "1"), fitting("k" * 5000 + "2")
    assert first != second
    assert max(len(first), len(second)) < 1024
    assert fitting("é" * 200) != fitting("é" * 201)


def test_a_timedelta_is_its_seconds():
    assert seconds_of(timedelta(minutes=1)) == 60
    assert seconds_of(5) == 5


def test_a_lifetime_that_is_too_long_for_the_clock_is_for_ever():
    assert [lasting(s) for s in (0, 0.5, 10**18, float("inf"))] == [0, 0.5, None, None]


def test_counting_goes_on_from_a_value_that_was_set(shm_cache):
    assert count(shm_cache, "new", 2, 0, 60) == 2
    shm_cache.set("set", 40)
    assert count(shm_cache, "set", 2, 0, 60) == 42
    assert count(shm_cache, "set", 1, 0, 60) == 43
    shm_cache.set("half", 0.5)
    assert count(shm_cache, "half", 1, 0, 60) == 1.5
    with pytest.raises(KeyError):
        count(shm_cache, "none", 1, None, 60)
    shm_cache.set("text", "x")
    with pytest.raises(TypeError):
        count(shm_cache, "text", 1, 0, 60)
    assert shm_cache.get("text") == "x"


def test_no_count_is_lost_when_several_processes_turn_a_value_into_a_counter(config):
    with attach("test", config=config) as cache:
        cache.set("n", 1000)
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    for _ in range(50):
                        count(cache, "n", 1, 0, None)
                finally:
                    os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        assert cache.get("n") == 1200


def test_a_sum_beyond_64_bits_is_kept_as_a_value(shm_cache):
    shm_cache.set("n", (1 << 63) - 1)
    assert count(shm_cache, "n", 1, 0, None) == 1 << 63
    assert shm_cache.get("n") == 1 << 63
    with pytest.raises(NotACounter):
        shm_cache.host.incr("n")


def test_no_change_of_a_value_is_lost_among_processes(config):
    def one_more(numbers):
        return [*(numbers or []), len(numbers or [])], None

    with attach("test", config=config) as cache:
        cache.set("n", [], local=True)
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    for _ in range(50):
                        changed(cache, "n", one_more, 60)
                finally:
                    os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        assert cache.get("n") == list(range(200))


def test_a_changed_value_that_was_set_for_all_hosts_becomes_this_hosts(shm_cache):
    shm_cache.set("a", [1])
    assert changed(shm_cache, "a", lambda value: ([*value, 2], "done"), 60) == "done"
    assert shm_cache.host.gets("a")[0] == [1, 2]
