"""The pytest plugin: one cache, coherent hosts, a clock that stands still."""

import os
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest

from cachee_shm.errors import ConfigError
from cachee_shm.testing import frozen_clock

A_USERS_TESTS = """
from cachee_shm.testing import frozen_clock

def test_a_cache(shm_cache):
    shm_cache.set("a", 1, ttl=60)
    with frozen_clock(shm_cache) as clock:
        assert shm_cache.get("a") == 1
        clock.tick(61)
        assert shm_cache.get("a") is None

def test_the_next_test_begins_with_an_empty_one(shm_cache):
    assert "a" not in shm_cache

def test_two_hosts(shm_hosts):
    one, other = shm_hosts(2)
    with open("names", "w") as file:
        file.write(one.name + " " + other.name)
    other.get_or_load("a", lambda: 1)
    one.set("a", 2)
    assert one.wait_synced(10)
    assert "a" not in other
"""


def test_pytest_finds_the_plugin_by_itself_and_its_hosts_leave_nothing(tmp_path):
    (tmp_path / "test_users.py").write_text(A_USERS_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
    hosts = [name.rpartition(".test.")[0].lstrip("/") for name in (tmp_path / "names").read_text().split()]
    assert len(hosts) == 2 and all(host.startswith("cachee.test-") for host in hosts)
    assert [name for name in os.listdir("/dev/shm") if name.startswith(tuple(hosts))] == []


def test_hosts_evict_what_another_writes_and_keep_what_is_local(shm_hosts):
    caches = shm_hosts(3, memory="8MiB")
    assert [cache.stats()["memory_bytes"] for cache in caches] == [8 << 20] * 3
    for cache in caches:
        cache.get_or_load("a", lambda: "old")
        cache.set("mine", cache.name, local=True)
    caches[0].set("a", "new")
    assert caches[0].wait_synced(60)
    assert [cache.get("a") for cache in caches] == ["new", None, None]
    assert [cache.get("mine") for cache in caches] == [cache.name for cache in caches]


def test_one_host_has_no_peers_and_is_well(shm_hosts):
    (cache,) = shm_hosts(1)
    assert cache.health().ok and cache.health().bridge == "up"


@pytest.mark.parametrize(
    ("count", "options", "error", "why"),
    [
        (0, {}, ValueError, "1 to 16 hosts, not 0. None was started"),
        (17, {}, ValueError, "1 to 16 hosts, not 17"),
        (2, {"memorie": "8MiB"}, ConfigError, "memorie"),
        (2, {"memory": "lots"}, ConfigError, "memory"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(shm_hosts, monkeypatch, count, options, error, why):
    mesh = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: mesh)
    with pytest.raises(error, match=why):
        shm_hosts(count, **options)
    assert [name for name in os.listdir("/dev/shm") if mesh.hex[:12] in name] == []


def test_a_clock_that_stands_still_is_moved_by_hand(shm_cache):
    with frozen_clock(shm_cache) as clock:
        shm_cache.set("a", 1, ttl=60)
        clock.tick(59.9)
        assert shm_cache.get("a") == 1
        clock.tick(timedelta(milliseconds=200))
        assert shm_cache.get("a") is None
        with pytest.raises(ValueError, match="not by -1"):
            clock.tick(-1)
        for no_time in ("1", None, float("nan"), float("inf"), timedelta(-1)):
            with pytest.raises(ValueError, match="It stands where it stood"):
                clock.tick(no_time)
    shm_cache.set("a", 2, ttl=60)
    assert shm_cache.get("a") == 2


def test_a_clock_within_another_leaves_the_time_standing(shm_cache):
    with frozen_clock(shm_cache) as clock:
        shm_cache.set("a", 1, ttl=60)
        with frozen_clock(shm_cache) as inner:
            inner.tick(59)
        left = shm_cache.now_ms()
        assert shm_cache.now_ms() == left  # it stands
        clock.tick(0.5)
        assert shm_cache.get("a") == 1
        clock.tick(1)
        assert shm_cache.get("a") is None
    shm_cache.set("a", 2, ttl=60)
    assert shm_cache.get("a") == 2


def test_a_cache_that_was_closed_in_the_block_is_left_alone(shm_cache):
    with frozen_clock(shm_cache):
        shm_cache.close()
