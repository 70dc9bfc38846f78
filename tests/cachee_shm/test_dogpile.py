"""dogpile.cache's backend; its own tests run in tests/foreign."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachee_shm.errors import Unserializable
from tests.cachee_shm.kept import Plain
from tests.cachee_shm.test_successor import Obstacle

pytestmark = pytest.mark.needs("frameworks")


@pytest.fixture
def config():
    host = f"dogpile-{uuid.uuid4().hex[:8]}"
    yield {"host": {"name": host}, "namespaces": {"test": {"memory": "4MiB"}}}
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"cachee.{host}."):
            os.unlink(f"/dev/shm/{name}")


def region_of(shm=None, arguments=None, **settings):
    from dogpile.cache import make_region

    region = make_region(**settings).configure("cachee_shm", expiration_time=60, arguments=arguments or {})
    if shm is not None:
        region.backend._backing.cache = shm
    return region


def test_the_backend_is_found_by_its_name_in_a_clean_process(config):
    program = f"""
        from dogpile.cache import make_region
        where = {{"namespace": "test", "config": {config!r}}}
        region = make_region().configure("cachee_shm", arguments=where)
        region.set("a", {{"b": [1, None]}})
        assert region.get("a") == {{"b": [1, None]}}
        assert type(region.backend).__module__ == "cachee_shm.dogpile"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_what_a_creator_returns_is_a_fill_and_a_set_is_a_write(shm_cache):
    region = region_of(shm_cache)
    assert region.get_or_create("a", lambda: 1) == 1
    assert region.get_or_create_multi(["b", "c"], lambda *keys: [2, 3]) == [2, 3]
    assert region.get_multi(["a", "b", "c"]) == [1, 2, 3]
    stats = shm_cache.stats()
    assert (stats["fills"], stats["sets"], stats["ring_tail"]) == (3, 0, 0)
    region.set("a", 2)
    region.set_multi({"b": 3})
    assert shm_cache.stats()["sets"] == 2


@pytest.mark.parametrize("deep", [False, True])
def test_a_set_of_the_backend_without_its_region_is_a_write(shm_cache, deep):
    backend = region_of(shm_cache).backend
    mutex = backend.get_mutex("a")
    mutex.acquire()
    calls = [lambda: backend.set("a", 1)]
    for _ in range(20 if deep else 0):
        calls.append(lambda call=calls[-1]: call())
    thread = threading.Thread(target=calls[-1])
    thread.start()
    thread.join()
    mutex.release()
    stats = shm_cache.stats()
    assert (stats["fills"], stats["sets"]) == (0, 1)


def test_a_set_within_a_creator_is_a_write(shm_cache):
    region = region_of(shm_cache)

    def creator():
        region.set("a", "written")
        region.set_multi({"b": "written"})
        return "created"

    region.get_or_create("a", creator)
    assert shm_cache.stats()["sets"] == 2
    assert region.get("a") == "written"  # what was created before it is older


def test_a_set_in_another_thread_is_a_write_also_while_a_creator_runs(shm_cache):
    region = region_of(shm_cache)

    def creator():
        thread = threading.Thread(target=region.set, args=("a", "written"))
        thread.start()
        thread.join()
        return "created"

    region.get_or_create("a", creator)
    assert region.get("a") == "written"


def test_what_was_created_before_an_invalidation_is_not_stored_after_it(shm_cache):
    region = region_of(shm_cache)

    def creator():
        region.delete("a")
        return "old"

    assert region.get_or_create("a", creator) == "old"
    assert not region.get("a")
    region.set("b", "expired")
    assert region.get_or_create("b", creator, expiration_time=-2) == "old"
    assert region.get("b") == "old"


def test_proxies_may_stand_between(shm_cache):
    from dogpile.cache.proxy import ProxyBackend

    class Proxy(ProxyBackend):
        def set(self, key, value):
            self.proxied.set(key, value)

    region = region_of()
    region.backend._backing.cache = shm_cache
    region.wrap(Proxy)
    region.wrap(Proxy)
    assert region.get_or_create("a", lambda: 1) == region.get("a") == 1
    assert shm_cache.stats()["sets"] == 0


def test_a_regions_serializer_makes_the_bytes(shm_cache):
    import json

    region = region_of(
        shm_cache, serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
    )
    region.set("a", [1])
    assert region.get("a") == [1]
    assert type(shm_cache.get("a")) is bytes


@pytest.mark.parametrize("value", [None, 0, "", [], [1, 2], (1, 2), {"a": {3: 4}}, b"x", 1 << 70, 0.5])
def test_values_come_back_as_they_are(shm_cache, value):
    region = region_of(shm_cache)
    region.set("a", value)
    assert region.get("a") == value
    assert type(region.get("a")) is type(value)
    assert region.get_value_metadata("a").age >= 0


def test_a_value_that_only_pickle_takes_is_an_error_that_names_the_setting(shm_cache):
    with pytest.raises(Unserializable, match="pickle = true"):
        region_of(shm_cache).get_or_create("a", Plain)


def test_a_value_that_is_too_large_is_returned(shm_cache):
    assert len(region_of(shm_cache).get_or_create("a", lambda: "x" * (40 << 20))) == 40 << 20


def test_one_process_of_a_host_creates(config):
    program = f"""
        import sys, time
        from dogpile.cache import make_region
        where = {{"namespace": "test", "config": {config!r}}}
        region = make_region().configure("cachee_shm", arguments=where)
        def creator():
            print("created", flush=True)
            time.sleep(0.3)
            return 1
        sys.stdin.readline()
        assert region.get_or_create("a", creator) == 1
    """
    run = [sys.executable, "-c", textwrap.dedent(program)]
    processes = [
        subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert "".join(said) == "created\n"


def test_a_creator_that_dies_leaves_the_key_to_the_next(config):
    program = f"""
        import time
        from dogpile.cache import make_region
        where = {{"namespace": "test", "config": {config!r}}}
        region = make_region().configure("cachee_shm", arguments=where)
        def creator():
            print("creating", flush=True)
            time.sleep(60)
        region.get_or_create("a", creator)
    """
    arguments = {"namespace": "test", "config": config}
    region = region_of(arguments=arguments)
    run = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "creating\n"
        assert region.key_is_locked("a")
        assert not region.backend.get_mutex("a").acquire(False)
        process.send_signal(signal.SIGKILL)
    assert region.get_or_create("a", lambda: "mine") == "mine"
    assert not region.key_is_locked("a")
    region.backend._backing.close()


def test_no_creator_fails_without_a_cache(config, caplog):
    region = region_of(arguments={"namespace": "elsewhere", "config": config})
    with caplog.at_level(logging.WARNING, "cachee_shm"):
        for _ in range(3):
            assert region.get_or_create("a", lambda: 1) == 1
            region.set("a", 1)
            region.delete_multi(["a"])
            assert not region.get("a")
    assert caplog.text.count("cannot be attached") == 1
    assert not region.backend.health().ok


def test_a_waiter_for_a_creator_goes_on_alone_if_the_segment_is_gone(config):
    region = region_of(arguments={"namespace": "test", "config": config})
    other = region_of(arguments={"namespace": "test", "config": config}).backend
    theirs = other.get_mutex("a")
    theirs.acquire()
    mine = region.backend.get_mutex("a")
    assert not mine.acquire(False) and mine.locked()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(mine.acquire)
        Obstacle(config, "test")
        assert waits.result(60)
    assert region.backend.shm.detached
    mine.release()
    assert not mine.locked()
    assert region.get_or_create("a", lambda: "made") == "made"
    theirs.release()
    region.backend._backing.close()
    other._backing.close()


def test_two_hosts_with_values_of_their_own_leave_each_other_alone(shm_hosts):
    hosts = shm_hosts(2)
    one, other = regions = [region_of(host) for host in hosts]
    for number, region in enumerate(regions):
        assert region.get_or_create("a", lambda number=number: number) == number
        assert hosts[number].wait_synced(5)
    assert [region.get("a") for region in regions] == [0, 1]
    one.set("a", 2)
    assert hosts[0].wait_synced(5)
    assert not other.get("a")
