"""Of a backend whose cache cannot be had: it misses, says so once, and recovers."""

import logging
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cachee_shm import _core, attach, backing
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
def test_a_namespace_that_is_not_to_be_had_is_a_cache_that_misses(config, caplog, namespace):
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


def test_it_is_tried_each_second_and_not_at_each_verb(config, blocked, caplog):
    held = Backing("test", config)
    tries = []
    found = held._found
    held._found = lambda: tries.append(1) or found()
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


def test_a_configuration_that_comes_later_is_read_then(config, tmp_path, caplog):
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
    found = held._found
    held._found = lambda: goes_on.wait(60) and found()
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
    found = held._found
    held._found = lambda: (began.set(), goes_on.wait(60), found())[-1]
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


def test_an_interrupted_first_use_is_tried_again(config):
    held = Backing("test", config)
    found = held._found

    def interrupted():
        held._found = found
        raise KeyboardInterrupt

    held._found = interrupted
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


def test_a_lifetime_that_no_clock_tells_is_for_ever():
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


def test_no_count_is_lost_among_those_who_make_a_value_a_counter(config):
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
