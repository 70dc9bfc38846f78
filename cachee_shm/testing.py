"""For tests of code that uses the cache: fixtures of pytest, and a clock that stands still.

If cachee-shm is installed, pytest loads this module as a plugin.

    def test_of_one_process(shm_cache):            # a cache of this test alone, empty
        shm_cache.set("a", 1)

    def test_of_two_hosts(shm_hosts):              # real bridges, on this machine
        web_1, web_2 = shm_hosts(2)
        web_1.set("a", 1)
        assert web_1.wait_synced()

    def test_of_a_lifetime(shm_cache):
        with frozen_clock(shm_cache) as clock:
            shm_cache.set("a", 1, ttl=60)
            clock.tick(61)
            assert "a" not in shm_cache
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import posix_ipc
import pytest

from cachee_shm.attaching import attach
from cachee_shm.cache import Cache
from cachee_shm.ports import free_ports

__all__ = ["Clock", "frozen_clock", "shm_cache", "shm_hosts"]

START_S = 60.0  # of bridges; they take a fraction of a second
STOP_S = 10.0
HOSTS_MAX = 16
TICK_S_MAX = 1e11  # as the longest lifetime


@pytest.fixture
def shm_cache() -> Iterator[Cache]:
    """A cache in a segment of this process alone, empty: ``attach(private=True)``."""
    with attach(private=True) as cache:
        yield cache


@pytest.fixture
def shm_hosts() -> Iterator[Callable[..., list[Cache]]]:
    """``shm_hosts(count=2, **options)``: a cache on each of some hosts that keep each other coherent.

    ``options`` are those of a namespace in the configuration (``memory="8MiB"``). All hosts run on this
    machine, each with a name, segments and a bridge process of its own. They are linked when the call
    returns, and end with the test. Raises ``ValueError`` for a count that is not from 1 to 16,
    ``ConfigError`` for wrong options, and ``RuntimeError`` with the bridge's log if a bridge does not start.
    """
    with contextlib.ExitStack() as stack:
        yield lambda count=2, **options: _hosts(stack, count, options)


class Clock:
    """The time of one cache, as this process sees it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._now_ms = cache.now_ms()
        self.tick(0)

    def tick(self, seconds: float | timedelta) -> None:
        """Move it on. A negative time is a ``ValueError``: lifetimes never run backwards."""
        s = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not isinstance(s, (int, float)) or not 0 <= s <= TICK_S_MAX:
            raise ValueError(
                f"a clock moves on by 0 to {TICK_S_MAX:g} s, not by {s!r}. It stands where it stood."
            )
        self._now_ms += round(s * 1000)
        self._cache._freeze(self._now_ms)


@contextlib.contextmanager
def frozen_clock(cache: Cache) -> Iterator[Clock]:
    """A block in which the time of ``cache`` stands still, except for ``clock.tick(seconds)``.

    It applies to this process only, and to lifetimes: waits and time-outs use the real clock. After the
    block, the real time counts again; after an inner block, the time of the outer block.
    """
    around = standing.get(cache)
    clock = standing[cache] = Clock(cache)
    try:
        yield clock
    finally:
        if around is not None:
            standing[cache] = around
            around._now_ms = clock._now_ms
        else:
            del standing[cache]
            if not cache.closed:
                cache._freeze(None)


standing: weakref.WeakKeyDictionary[Cache, Clock] = weakref.WeakKeyDictionary()
"""The clock of the innermost block, of each cache that is in one."""


def _hosts(stack: contextlib.ExitStack, count: int, options: dict[str, Any]) -> list[Cache]:
    if not 1 <= count <= HOSTS_MAX:
        raise ValueError(f"shm_hosts starts 1 to {HOSTS_MAX} hosts, not {count}. None was started.")
    mesh = f"test-{uuid.uuid4().hex[:12]}"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachee-")))
    ports = free_ports(count)
    configs = [_config(f"{mesh}-{number}", ports, number, options) for number in range(count)]
    stack.callback(_remove, [config["host"]["name"] for config in configs])
    caches = [stack.enter_context(attach("test", config=config)) for config in configs]
    bridges = [
        stack.enter_context(_bridge(folder / f"{number}.toml", _toml(config)))
        for number, config in enumerate(configs)
    ]
    _wait_until_linked(caches, bridges)
    return caches


def _config(name: str, ports: list[int], number: int, options: dict[str, Any]) -> dict[str, Any]:
    peers = [f"127.0.0.1:{port}" for port in ports if port != ports[number]]
    return {
        "host": {"name": name},
        "namespaces": {"test": {"memory": "4MiB", **options}},
        "bridge": {
            "listen": f"127.0.0.1:{ports[number]}",
            "peers": peers,
            "drain": "0s",
            "check_every": "0s",
        },
    }


def _toml(config: dict[str, Any]) -> str:
    """TOML for tables of strings, numbers, booleans and lists of strings."""

    def table(name: str, values: dict[str, Any]) -> str:
        return f"[{name}]\n" + "".join(f"{key} = {_toml_value(value)}\n" for key, value in values.items())

    namespace = table("namespaces.test", config["namespaces"]["test"])
    return table("host", config["host"]) + namespace + table("bridge", config["bridge"])


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return str(value) if isinstance(value, (int, float)) else f'"{value}"'


class _Bridge:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log


@contextlib.contextmanager
def _bridge(config: Path, text: str) -> Iterator[_Bridge]:
    config.write_text(text)
    log = config.with_suffix(".log")
    with open(log, "wb") as stderr:
        command = [sys.executable, "-m", "cachee_bridge", "--config", str(config)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    try:
        yield _Bridge(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_linked(caches: list[Cache], bridges: list[_Bridge]) -> None:
    end = time.monotonic() + START_S
    while not all(_is_linked(cache, len(caches) - 1) for cache in caches):
        ended = [bridge for bridge in bridges if bridge.process.poll() is not None]
        if ended or time.monotonic() > end:
            said = "\n".join(bridge.log.read_text(errors="replace") for bridge in ended or bridges)
            raise RuntimeError(f"The hosts are not linked, and are stopped. Their bridges say:\n{said}")
        time.sleep(0.005)


def _is_linked(cache: Cache, peers: int) -> bool:
    health = cache.health()
    return health.ok and len(health.peers) == peers and not health.unreachable


def _remove(hosts: list[str]) -> None:
    """The segments, and the queues by which workers wake the bridges."""
    for entry in os.listdir("/dev/shm"):
        if entry.startswith(tuple(f"cachee.{host}." for host in hosts)):
            os.unlink(f"/dev/shm/{entry}")
    for host in hosts:
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_message_queue(f"/cachee.{host}")
