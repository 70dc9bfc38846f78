"""What a segment gives another host of a key, and what a load makes of an answer of this host's bridge."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import cachee_shm
from cachee_shm import Cache, current_load
from cachee_shm._core import flight
from cachee_shm.errors import AccessDenied, ConfigError, KeyTooLong
from cachee_shm.fetching import afrom_peers, from_peers
from cachee_shm.segment import bridge_socket

ANY_BYTES = 1 << 20


@pytest.fixture
def cache() -> Iterator[Cache]:
    with cachee_shm.attach("shop", private=True) as made:
        yield made


# What is given


def test_a_loaded_value_is_given_as_it_is_stored(cache: Cache) -> None:
    cache.get_or_load("k", lambda: "Ada", ttl=60, tags=["team:7", "all"])
    fence, loading, given = cache.fetch(b"k", ANY_BYTES)
    assert given is not None
    tag, age_ms, left_ms, tags, data = given
    assert cache._codec.decode(tag, data) == "Ada"
    assert (fence, loading, len(tags)) == (0, False, 2)
    assert age_ms <= 2000 and 50_000 < left_ms <= 60_000


@pytest.mark.parametrize("ttl", [None, 60])
def test_a_value_that_never_expires_has_0_left(cache: Cache, ttl: float | None) -> None:
    cache.get_or_load("k", lambda: 1, ttl=ttl)
    given = cache.fetch(b"k", ANY_BYTES)[2]
    assert given is not None and bool(given[2]) is (ttl is not None)


def test_nothing_else_is_given(cache: Cache) -> None:
    cache.set("set", 1)
    cache.add("added", 1)
    with cache.writing("written") as write:
        write.set(1)
    cache.get_or_load("local", lambda: 1, local=True)
    cache.get_or_load("sliding", lambda: 1, ttl=60, sliding=30)
    cache.get_or_load("large", lambda: b"x" * 1001)
    cache.get_or_load("deleted", lambda: 1)
    cache.delete("deleted")
    cache.get_or_load("tagged", lambda: 1, tags=["t"])
    cache.delete_tags("t")
    for key in ("absent", "set", "added", "written", "local", "sliding", "large", "deleted", "tagged"):
        assert cache.fetch(key.encode(), 1000)[2] is None, key


def test_a_value_in_spans_is_given_whole(cache: Cache) -> None:
    cache.get_or_load("large", lambda: b"x" * 300_000)
    given = cache.fetch(b"large", ANY_BYTES)[2]
    assert given is not None and given[4] == b"x" * 300_000


def test_a_load_under_way_is_seen_and_one_that_an_event_has_overtaken_is_not(cache: Cache) -> None:
    seen: list[bool] = []

    def load() -> int:
        seen.append(cache.fetch(b"k", ANY_BYTES)[1])
        cache.delete("k")
        seen.append(cache.fetch(b"k", ANY_BYTES)[1])
        return 1

    cache.get_or_load("k", load)
    assert seen == [True, False]


def test_what_is_no_key_is_an_error(cache: Cache) -> None:
    with pytest.raises(KeyTooLong):
        cache.fetch(b"x" * 1025, ANY_BYTES)
    with pytest.raises(TypeError):
        cache.fetch("text", ANY_BYTES)  # type: ignore[arg-type]


# What a load makes of an answer


class Bridge:
    """In the place of one: it gives whatever answer a test wants, to each who asks."""

    def __init__(self, path: str) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: bytes | None = b""
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(16)
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def gives(self, given: object = "given", **changed: Any) -> None:
        tag, data = cachee_shm.codec.encode(given)  # type: ignore[attr-defined]
        told = {"type": tag, "age_ms": 0, "left_ms": 0, "tags": [], "value": b64encode(data).decode()}
        self.answer = json.dumps({**told, **changed}).encode() + b"\n"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listening.close()
        for each in self._kept:
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            line = client.makefile("rb").readline()
            if not line:  # it was not trusted, and nothing was asked
                client.close()
                continue
            self.asked.append(json.loads(line))
            if self.answer is None:
                self._kept.append(client)  # it never answers
                continue
            client.sendall(self.answer)
            client.close()


@pytest.fixture
def place() -> Iterator[tuple[Bridge, Cache]]:
    host = f"fetch-{uuid.uuid4().hex[:8]}"
    bridge = Bridge(bridge_socket(host))
    config = {"host": {"name": host}, "namespaces": {"shop": {"memory": "4MiB"}}}
    cache = cachee_shm.attach("shop", config=config)
    cache.peer_fill_s = 0.2
    try:
        yield bridge, cache
    finally:
        bridge.close()
        cache.close()
        for path in Path("/dev/shm").glob(f"cachee.{host}.*"):
            os.unlink(path)


def test_a_value_that_is_given_is_returned_and_stored(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.gives({"name": "Ada"})
    assert cache.get_or_load("k", lambda: pytest.fail("loaded")) == {"name": "Ada"}
    assert cache.get("k") == {"name": "Ada"}
    (asked,) = bridge.asked
    assert (asked["do"], asked["namespace"], b64decode(asked["key"])) == ("fetch", "shop", b"k")
    assert asked["patience_ms"] == 200


def test_its_age_its_lifetime_and_its_tags_are_kept(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    cache.get_or_load("other", lambda: 1, tags=["a", "b"])
    given = cache.fetch(b"other", ANY_BYTES)[2]
    assert given is not None
    bridge.gives(age_ms=5000, left_ms=30_000, tags=given[3])
    assert cache.get_or_load("k", lambda: "loaded", ttl=3600, tags=["a"]) == "given"
    stored = cache.fetch(b"k", ANY_BYTES)[2]
    assert stored is not None
    assert 5000 <= stored[1] < 8000 and 25_000 < stored[2] < 30_000 and set(stored[3]) == set(given[3])
    cache.delete_tags("b")
    assert "k" not in cache


def test_a_shorter_lifetime_of_the_caller_counts(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.gives(left_ms=3_600_000)
    cache.get_or_load("k", lambda: "loaded", ttl=10)
    stored = cache.fetch(b"k", ANY_BYTES)[2]
    assert stored is not None and stored[2] <= 10_000


@pytest.mark.parametrize(
    "changed",
    [
        {"type": 12},
        {"type": 99},
        {"type": "x"},
        {"value": "!!!"},
        {"value": 5},
        {"age_ms": -1},
        {"age_ms": "old"},
        {"tags": 5},
        {"tags": list(range(17))},
        {"left_ms": 1},  # it is over when it comes
    ],
    ids=repr,
)
def test_an_answer_that_cannot_be_used_is_a_load(place: tuple[Bridge, Cache], changed: Any) -> None:
    bridge, cache = place
    bridge.gives(**changed)
    assert cache.get_or_load("k", lambda: "loaded") == "loaded"
    assert cache.get("k") == "loaded"


def test_the_time_that_an_answer_takes_is_part_of_the_lifetime(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.gives(left_ms=40)
    decode = cache._codec.decode

    def slowly(tag: int, data: bytes) -> object:
        time.sleep(0.05)
        return decode(tag, data)

    cache._codec.decode = slowly  # type: ignore[method-assign]
    assert cache.get_or_load("k", lambda: "loaded") == "loaded"


def test_a_strangers_socket_gives_nothing(
    place: tuple[Bridge, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, cache = place
    bridge.gives()

    def is_strange(*_: object) -> None:
        raise AccessDenied("a stranger listens there")

    monkeypatch.setattr("cachee_shm.fetching.check_owner", is_strange)

    async def load() -> str:
        return "loaded"

    assert cache.get_or_load("k", lambda: "loaded") == "loaded"
    assert asyncio.run(cache.aget_or_load("a", load)) == "loaded"
    assert trio.run(cache.aget_or_load, "t", load) == "loaded"
    assert bridge.asked == []


@pytest.mark.parametrize("answer", [b"", b"{}\n", b"[]\n", b"nonsense\n", b"{", b'{"type": 1}\n'], ids=repr)
def test_no_answer_and_garbage_are_a_load_too(place: tuple[Bridge, Cache], answer: bytes) -> None:
    bridge, cache = place
    bridge.answer = answer
    assert cache.get_or_load("k", lambda: "loaded") == "loaded"


def test_a_bridge_that_never_answers_is_not_waited_for_without_end(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.answer = None
    assert cache.get_or_load("k", lambda: "loaded") == "loaded"

    async def main() -> object:
        async def load() -> str:
            return "loaded"

        return await cache.aget_or_load("a", load)

    assert asyncio.run(main()) == "loaded"
    assert len(bridge.asked) == 2


def test_a_tag_of_the_caller_that_the_value_lacks_is_a_load(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.gives()
    assert cache.get_or_load("k", lambda: "loaded", tags=["t"]) == "loaded"


def test_an_event_while_the_bridge_is_asked_refuses_the_value(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.gives()
    decode = cache._codec.decode

    def meanwhile(tag: int, data: bytes) -> object:
        cache.delete("k")
        return decode(tag, data)

    cache._codec.decode = meanwhile  # type: ignore[method-assign]
    assert cache.get_or_load("k", lambda: "loaded") == "given"
    assert "k" not in cache


def test_peers_are_not_asked_for_a_value_that_must_come_from_the_origin(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    bridge.gives()
    cache.get_or_load("local", lambda: "loaded", local=True)

    @cache.cached(key="refreshed")
    def value() -> str:
        return "loaded"

    assert value.refresh() == "loaded"
    assert bridge.asked == []
    assert cache.get("local") == cache.get("refreshed") == "loaded"


def test_the_loader_that_is_called_after_all_sees_its_own_load(place: tuple[Bridge, Cache]) -> None:
    _, cache = place

    def load() -> str:
        running = current_load()
        assert running is not None
        running.ttl = 5
        return "loaded"

    assert cache.get_or_load("k", load, ttl=3600) == "loaded"
    stored = cache.fetch(b"k", ANY_BYTES)[2]
    assert stored is not None and stored[2] <= 5000


def test_outside_of_a_load_nobody_is_asked(place: tuple[Bridge, Cache]) -> None:
    bridge, cache = place
    assert flight.get(None) is None
    assert from_peers(cache, "k", lambda: "loaded")() == "loaded"

    async def load() -> str:
        return "loaded"

    assert asyncio.run(afrom_peers(cache, "k", load)()) == "loaded"  # type: ignore[arg-type]
    assert bridge.asked == []


# The configuration


TLS = {"cert": "c", "key": "k", "ca": "a"}


def test_it_needs_certificates_and_no_pickle() -> None:
    tables: dict[str, Any] = {"namespaces": {"shop": {"peer_fill": True}}, "bridge": {"tls": TLS}}
    assert cachee_shm.config.Config.parse(tables).namespace("shop").peer_fill  # type: ignore[attr-defined]
    for wrong in (
        {**tables, "bridge": {}},
        {"namespaces": tables["namespaces"]},
        {**tables, "namespaces": {"shop": {"peer_fill": True, "pickle": True}}},
    ):
        with pytest.raises(ConfigError, match=r"namespaces\.shop\.peer_fill: found True; accepted: \[bridge"):
            cachee_shm.config.Config.parse(wrong)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"defaults\.peer_fill: .* each namespace that wants it"):
        cachee_shm.config.Config.parse({"defaults": {"peer_fill": True}})  # type: ignore[attr-defined]
