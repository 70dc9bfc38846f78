"""Peer fill between real hosts: real bridges, real certificates, real workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import signal
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from cachee_bridge.daemon.operator_socket import CLIENTS_MAX
from cachee_shm import Cache, prewarm
from cachee_shm.asking import ask_bridge
from cachee_shm.ports import free_ports
from cachee_shm.segment import bridge_socket
from tests.bridge.certificates import Authority, table
from tests.bridge.hosts import Host, hosts, until
from tests.bridge.test_metrics import samples
from tests.bridge.test_two_bridges import meet

LINES = 'peer_fill = true\npeer_fill_wait = "4s"\n'
"""A slow machine must not make a test wait in vain for what would come."""


def fills_from_peers(host: Host, files: Any, lines: str = LINES) -> None:
    text = host.config.read_text().replace("[namespaces.shop]\n", f"[namespaces.shop]\n{lines}")
    host.config.write_text(text + table(files))


@contextlib.contextmanager
def met(folder: Path, lines: str = LINES) -> Iterator[list[Host]]:
    """Three hosts that give each other values."""
    authority = Authority(folder / "ca")
    with hosts(folder, 3) as made:
        for host, port in zip(made, free_ports(3), strict=True):
            fills_from_peers(host, authority.issue(host.name), lines)
            told_at = f'[bridge]\nmetrics = "127.0.0.1:{port}"\n'
            host.config.write_text(host.config.read_text().replace("[bridge]\n", told_at))
        meet(*made)
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    with met(tmp_path_factory.mktemp("fetched")) as made:
        yield made


@pytest.fixture
def three(running: list[Host]) -> Iterator[list[Host]]:
    """Each test begins with an empty namespace."""
    cache = running[0].attach()
    cache.clear()
    synced(cache)
    yield running
    for host in running:
        host.detach()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[list[Host]]:
    """Hosts that a test may kill."""
    with met(tmp_path) as made:
        yield made


class Loads:
    """An origin that counts."""

    def __init__(self, value: object = "v") -> None:
        self.value, self.count = value, 0
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self) -> object:
        self.count += 1
        value = self.value
        self.begun.set()
        assert self.gate.wait(60)
        return value


def synced(*caches: Cache) -> None:
    for cache in caches:
        assert cache.wait_synced(60)


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[list[Host]]:
    """Hosts that load ahead whatever others have written."""
    with met(tmp_path, f"{LINES}prewarm = true\nprewarm_budget = 0.0\n") as made:
        yield made
        for host in made:
            host.detach()


def at_once(*calls: Callable[[], object]) -> list[object]:
    found: list[object] = [None] * len(calls)

    def run(at: int) -> None:
        found[at] = calls[at]()

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_one_host_loads_and_the_others_are_given_the_value(three: list[Host]) -> None:
    caches, loads = [host.attach() for host in three], Loads({"name": "Ada", "tags": {1, 2}})
    for cache in caches:
        assert cache.get_or_load("user:42", loads, ttl=60) == loads.value
    assert loads.count == 1
    assert [cache.get("user:42") for cache in caches] == [loads.value] * 3


def test_hosts_that_miss_at_once_load_once(three: list[Host]) -> None:
    caches = [host.attach() for host in three]
    for number in range(20):
        loads, key = Loads(number), f"k{number}"

        def read(cache: Cache, key: str = key, loads: Loads = loads) -> object:
            return cache.get_or_load(key, loads)

        found = at_once(*[lambda cache=cache: read(cache) for cache in caches])
        assert found == [number] * 3
        assert loads.count == 1


def test_after_an_invalidation_nobody_is_given_the_older_value(three: list[Host]) -> None:
    caches, loads = [host.attach() for host in three], Loads(0)
    for number in range(1, 30):
        at_once(*[lambda cache=cache: cache.get_or_load("k", loads) for cache in caches])
        loads.value = number
        writer = caches[number % 3]
        writer.delete("k")
        assert writer.get_or_load("k", loads) == number  # the others may not have applied it yet
        synced(writer)
        assert [cache.get_or_load("k", loads) for cache in caches] == [number] * 3


def test_tags_and_clear_invalidate_what_was_given(three: list[Host]) -> None:
    first, second, third = (host.attach() for host in three)
    loads = Loads(1)
    for cache in (first, second, third):
        assert cache.get_or_load("k", loads, tags=["team:7"]) == 1
    assert loads.count == 1
    loads.value = 2
    third.delete_tags("team:7")
    synced(third)
    assert first.get("k") is None and second.get("k") is None
    assert [cache.get_or_load("k", loads, tags=["team:7"]) for cache in (first, second, third)] == [2] * 3
    assert loads.count == 2
    loads.value = 3
    first.clear()
    synced(first)
    assert [cache.get_or_load("k", loads, tags=["team:7"]) for cache in (third, second, first)] == [3] * 3
    assert loads.count == 3


def test_a_value_without_a_tag_that_the_caller_names_is_not_taken(three: list[Host]) -> None:
    first, second, third = (host.attach() for host in three)
    loads = Loads()
    first.get_or_load("k", loads)
    second.get_or_load("k", loads, tags=["team:7"])
    assert loads.count == 2
    third.delete_tags("team:7")
    synced(third)
    assert second.get("k") is None


def test_what_a_worker_has_set_and_what_is_local_is_given_to_nobody(three: list[Host]) -> None:
    first, second, third = (host.attach() for host in three)
    loads = Loads("loaded")
    first.set("set", "by a worker")
    first.set("local", "by a worker", local=True)
    first.get_or_load("loaded local", loads, local=True)
    synced(first)
    for key in ("set", "local", "loaded local"):
        before = loads.count
        assert second.get_or_load(key, loads) == "loaded"
        assert loads.count == before + 1
    before = loads.count
    assert third.get_or_load("set", loads, local=True) == "loaded"
    assert loads.count == before + 1


def test_the_lifetime_is_what_is_left_of_it(three: list[Host]) -> None:
    first, second, _ = (host.attach() for host in three)
    loads = Loads()
    first.get_or_load("k", loads, ttl=2)
    assert second.get_or_load("k", loads, ttl=3600) == "v"
    assert loads.count == 1
    until(lambda: second.get("k") is None)  # long before its own caller's hour is over


def test_a_value_is_larger_than_may_be_given(three: list[Host]) -> None:
    first, second, _ = (host.attach() for host in three)
    loads = Loads(b"x" * (65 << 10))
    assert first.get_or_load("k", loads) == second.get_or_load("k", loads) == loads.value
    assert loads.count == 2


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_coroutines_are_given_values_too(three: list[Host], run: Any) -> None:
    first, second, third = (host.attach() for host in three)
    loads = Loads()

    async def aload() -> object:
        return loads()

    async def main() -> list[object]:
        return [await cache.aget_or_load("k", aload) for cache in (first, second, third)]

    assert run(main) == ["v"] * 3
    assert loads.count == 1


def test_a_stale_load_is_refused_as_ever(three: list[Host]) -> None:
    first, second, third = (host.attach() for host in three)
    loads = Loads("old")
    loads.gate.clear()
    reader = threading.Thread(target=first.get_or_load, args=("k", loads))
    reader.start()
    assert loads.begun.wait(60)
    third.delete("k")
    synced(third)
    loads.value = "new"
    loads.gate.set()
    reader.join(60)
    assert second.get_or_load("k", loads) == "new"
    assert first.get_or_load("k", loads) == "new"


def test_without_a_bridge_each_loads_by_itself(mortal: list[Host]) -> None:
    first, second, _ = (host.attach() for host in mortal)
    loads = Loads()
    mortal[0].kill()
    mortal[1].kill()
    assert first.get_or_load("k", loads) == second.get_or_load("k", loads) == "v"
    assert loads.count == 2


def test_a_host_that_is_killed_in_mid_load_costs_one_load_more(mortal: list[Host]) -> None:
    caches = [host.attach() for host in mortal]
    loads = Loads()
    loads.gate.clear()
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda cache=cache: found.append(cache.get_or_load("k", loads)))
        for cache in caches
    ]
    threads[0].start()
    assert loads.begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.2)  # they are asking by now; if not, the test shows less
    assert loads.count == 1
    mortal[0].kill()
    until(lambda: loads.count == 2)
    loads.gate.set()
    for thread in threads:
        thread.join(60)
    assert found == ["v"] * 3
    assert loads.count == 2


def fetch_of(key: bytes, namespace: str = "shop") -> bytes:
    """What a worker sends to its bridge."""
    told = {"do": "fetch", "namespace": namespace, "key": b64encode(key).decode(), "patience_ms": 4000}
    return json.dumps(told).encode() + b"\n"


def asked_in_vain(host: Host) -> dict[str, float]:
    """How many questions of its workers have failed, by the reason."""
    (metrics,) = re.findall('^metrics = "(.+)"$', host.config.read_text(), re.MULTILINE)
    text = httpx.get(f"http://{metrics}/metrics").content
    rows = [(dict(key), count) for key, count in samples(text, "cachee_peer_fills_total").items()]
    return {row["reason"]: count for row, count in rows if row["result"] == "failed"}


def test_loads_that_wait_for_a_slow_origin_do_not_keep_the_operator_out(three: list[Host]) -> None:
    first, second, _ = (host.attach() for host in three)
    loads = Loads()
    loads.gate.clear()
    reader = threading.Thread(target=first.get_or_load, args=("k", loads))
    reader.start()
    assert loads.begun.wait(60)
    try:
        with contextlib.ExitStack() as stack:
            is_answered = False
            for _ in range(CLIENTS_MAX):
                asks = stack.enter_context(socket.socket(socket.AF_UNIX))
                asks.connect(bridge_socket(three[1].name))
                asks.sendall(fetch_of(b"k"))
                is_answered = is_answered or bool(select.select([asks], [], [], 0.01)[0])
            told = ask_bridge(three[1].name, None, {"do": "peers"})
            assert len(told["peers"]) == 3
            assert is_answered  # some were told at once to load: there was no place for them
            until(lambda: asked_in_vain(three[1]).get("busy", 0) > 0)
    finally:
        loads.gate.set()
        reader.join(60)
    assert second.get_or_load("k", loads) == "v"  # their places are free again
    assert loads.count == 1


@contextlib.contextmanager
def loading_ahead(caches: list[Cache], in_tasks: bool) -> Iterator[None]:
    """Each of them, as each worker does."""
    if not in_tasks:
        warmers = [prewarm.start(cache) for cache in caches]
        until(lambda: all(warmer.loads_here for warmer in warmers))
        yield
        for warmer in warmers:
            warmer.stop()
        return
    begun: list[bool] = []
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(prewarm.run(cache, began=lambda: begun.append(True))) for cache in caches]
    thread = threading.Thread(target=loop.run_until_complete, args=(asyncio.wait(tasks),))
    thread.start()
    until(lambda: len(begun) == len(caches))
    yield
    for task in tasks:
        loop.call_soon_threadsafe(task.cancel)
    thread.join(60)
    loop.close()


@pytest.mark.parametrize("in_tasks", [False, True], ids=["threads", "tasks"])
def test_hosts_that_load_ahead_load_once(warm: list[Host], in_tasks: bool) -> None:
    writer, *readers = (host.attach() for host in warm)
    loads = Loads()

    def load(key: str) -> object:
        time.sleep(0.05)  # the hosts do not begin at the same moment
        return loads()

    async def aload(key: str) -> object:
        await asyncio.sleep(0.05)
        return loads()

    def read(cache: Cache, key: str) -> object:
        return asyncio.run(cache.aget_or_load(key)) if in_tasks else cache.get_or_load(key)

    keys = [f"user:{number}" for number in range(5)]  # a key that is written at once again is left alone
    for cache in readers:
        cache.origin("user:", load=aload if in_tasks else load)
        for key in keys:
            read(cache, key)
    loads.value = "new"
    with loading_ahead(readers, in_tasks):
        for number, key in enumerate(keys, 1):
            writer.delete(key)
            until(lambda number=number: all(cache.warm_stats()[0] == number for cache in readers))
            assert [read(cache, key) for cache in readers] == ["new", "new"]
            assert loads.count == len(keys) + number


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b'{"do": "fetch", "namespace": "shop", "key": "!!", "patience_ms": 1}\n', "no base64"),
        (fetch_of(b"x" * 1025), "more than 1024 bytes"),
        (b'{"do": "fetch", "namespace": "shop", "key": 5, "patience_ms": 1}\n', "are missing"),
    ],
)
def test_a_question_that_makes_no_sense_is_no_mistake_of_the_bridge(
    three: list[Host], request_line: bytes, error: str
) -> None:
    told = ask_bridge(three[0].name, None, json.loads(request_line))
    assert error in told["error"]
    assert "mistake" not in three[0].log


def test_a_namespace_that_a_reload_brings_gives_values_too(mortal: list[Host]) -> None:
    for host in mortal:
        wanted = host.config.read_text().replace("[bridge]", f"[namespaces.news]\n{LINES}[bridge]", 1)
        host.config.write_text(wanted)
        host.signal(signal.SIGHUP)
    for host in mortal:
        until(lambda host=host: "key=namespaces.news" in host.log, host.log)
    caches, loads = [host.attach("news") for host in mortal], Loads()
    for cache in caches:
        until(lambda cache=cache: len(cache.health().peers) == 2 and cache.health().ok)
        assert cache.get_or_load("k", loads) == "v"
    assert loads.count == 1
