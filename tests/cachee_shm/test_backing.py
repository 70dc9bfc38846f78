"""Of a backend whose cache cannot be had: it misses, says so once, and recovers."""

import logging
import os
import uuid
from datetime import timedelta

import pytest

from cachee_shm import _core, backing
from cachee_shm.backing import Backing, changed, count, fitting, lasting, seconds_of
from cachee_shm.errors import NotACounter


@pytest.fixture
def config():
    host = f"backing-{uuid.uuid4().hex[:8]}"
    yield {"host": {"name": host}, "namespaces": {"test": {"memory": "4MiB"}}}
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"cachee.{host}."):
            os.unlink(f"/dev/shm/{name}")


def test_nothing_is_attached_before_the_first_use(config):
    path = f"/dev/shm/cachee.{config['host']['name']}.test.{_core.LAYOUT}"
    held = Backing("test", config)
    assert not os.path.exists(path)
    assert held.cache.set("a", 1)
    assert os.path.exists(path)
    held.close()


@pytest.mark.parametrize("namespace", ["elsewhere", "no name/"])
def test_a_namespace_that_is_not_to_be_had_is_a_cache_that_misses(config, caplog, namespace):
    held = Backing(namespace, config)
    with caplog.at_level(logging.WARNING, "cachee_shm"):
        for _ in range(3):
            assert not held.cache.set("a", 1)
            assert held.cache.get("a") is None
            assert held.cache.get_many(["a"]) == {}
            assert held.cache.get_or_load("a", lambda: 7) == 7
            assert not held.cache.delete("a")
    assert len(caplog.records) == 1
    assert namespace in caplog.text
    assert not held.health().ok
    assert namespace in held.health().error


def test_a_cache_that_comes_back_is_cleared_of_what_was_written_meanwhile(config, monkeypatch):
    monkeypatch.setattr(backing, "RETRY_S", 0.0)
    fails = True
    attach = backing.attach

    def sometimes(*args, **kwargs):
        if fails:
            raise backing.CacheeError("no room")
        return attach(*args, **kwargs)

    with attach("test", config=config) as other:
        other.set("a", "old")
        monkeypatch.setattr(backing, "attach", sometimes)
        held = Backing("test", config)
        held.cache.delete("a")
        fails = False
        assert held.cache.get("a") is None
        assert other.get("a") is None
        assert held.health().ok
        held.close()


def test_a_cache_that_was_only_read_meanwhile_is_kept_as_it_is(config, monkeypatch):
    monkeypatch.setattr(backing, "RETRY_S", 0.0)
    attach = backing.attach
    with attach("test", config=config) as other:
        other.set("a", "there")
        monkeypatch.setattr(
            backing, "attach", lambda *_, **__: (_ for _ in ()).throw(backing.CacheeError("no"))
        )
        held = Backing("test", config)
        assert held.cache.get("a") is None
        monkeypatch.setattr(backing, "attach", attach)
        assert held.cache.get("a") == "there"
        held.close()


def test_it_is_not_tried_at_each_verb(config, monkeypatch):
    tries = []

    def fails(*args, **kwargs):
        tries.append(1)
        raise backing.CacheeError("no")

    monkeypatch.setattr(backing, "attach", fails)
    held = Backing("test", config)
    for _ in range(100):
        held.cache.get("a")
    assert len(tries) == 1


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
    from cachee_shm import attach

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
    from cachee_shm import attach

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
