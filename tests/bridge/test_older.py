"""A segment of another layout beside the bridge's own: a later one. The real earlier one has its own tests.

The worker there runs this build's code, in a file whose header says another layout. Its clock stands, so that
it does not look at the header.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

import cachee_shm
from cachee_bridge.daemon.segments import Segments
from cachee_shm import Cache, _core
from cachee_shm.config import Config
from cachee_shm.errors import LayoutMismatch

OTHER = _core.LAYOUT + 1
FINGERPRINT_TOP, KEPT_AT, KEPT_BYTES = 15, 4096 - 128, 112
RING_SLOTS_AT = KEPT_AT + 16


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    name = f"test.{uuid.uuid4().hex[:12]}"
    yield name
    for path in glob(f"/dev/shm/cachee.{name}*"):
        os.unlink(path)


@pytest.fixture
def config(host: str, tmp_path: Path) -> Config:
    bridge = {"listen": "127.0.0.1:1"}
    return Config.parse(
        {"host": {"name": host}, "namespaces": {"shop": {"memory": "4MiB"}}, "bridge": bridge}
    )


def attach(config: Config) -> Cache:
    return cachee_shm.attach("shop", config=config)


def path(host: str, layout: int) -> str:
    return f"/dev/shm/cachee.{host}.shop.{layout}"


def moved_to_another_layout(host: str) -> None:
    """What is attached there stays."""
    os.rename(path(host, _core.LAYOUT), path(host, OTHER))
    with open(path(host, OTHER), "r+b") as file:
        file.seek(FINGERPRINT_TOP)
        (top,) = file.read(1)
        file.seek(FINGERPRINT_TOP)
        file.write(bytes([top ^ _core.LAYOUT ^ OTHER]))
        file.seek(KEPT_AT + 4)
        file.write(OTHER.to_bytes(4, "little"))


@pytest.fixture
def other(host: str, config: Config) -> Iterator[Cache]:
    """A worker of another layout, which has a value."""
    with attach(config) as cache:
        cache._freeze(cache.now_ms())
        cache.set_serve_until(1 << 63)
        cache.set("k", "before")
        moved_to_another_layout(host)
        yield cache


@pytest.fixture
def segments(config: Config, other: Cache) -> Iterator[Segments]:
    held = Segments(config)
    held.open_configured()
    yield held
    held.close()


def test_its_workers_serve_nothing_and_that_is_counted(segments: Segments, other: Cache) -> None:
    misses = other.stats()["misses"]
    other.set("k", "since")
    other.set("local", 1, local=True)
    assert other.get_many(["k", "local"]) == {}
    assert other.get("k") is None
    assert other.stats()["misses"] == misses + 3
    segments.held["shop"].set_serve_until(1 << 63)
    assert other.get("k") is None


def test_what_they_write_is_announced_in_the_bridge_s_own_segment(
    segments: Segments, other: Cache, config: Config
) -> None:
    own = segments.held["shop"]
    with attach(config) as worker:
        worker.set_serve_until(1 << 63)
        for write in (
            lambda: other.delete("k"),
            lambda: other.set("k", 1),
            lambda: other.set("k", 1, local=True),
        ):
            assert worker.get_or_load("k", lambda: "loaded") == "loaded"
            write()
            own.gather()
            assert worker.get("k") is None


def test_a_segment_that_is_let_go_is_retired_at_one_look_and_removed_at_the_next(
    segments: Segments, other: Cache, host: str
) -> None:
    segments.check()
    assert os.path.exists(path(host, OTHER)) and not other.retired
    other.delete("last words")
    tail = segments.held["shop"].tail
    other.close()
    segments.check()
    assert os.path.exists(path(host, OTHER))
    segments.check()
    assert not os.path.exists(path(host, OTHER))
    assert segments.held["shop"].tail == tail + 1
    assert not segments.held["shop"].older


def test_a_bridge_with_workers_of_another_layout_does_not_leave_for_good(
    segments: Segments, other: Cache
) -> None:
    own = segments.held["shop"]
    own.heal(own.pump_cursor, 1 << 20, 0, b"")
    assert not segments.unused()
    other.close()
    segments.check(), segments.check()
    own.heal(own.pump_cursor, 1 << 20, 0, b"")
    assert segments.unused()


def test_it_goes_on_where_the_bridge_before_it_was(config: Config, other: Cache) -> None:
    for _ in range(3):
        segments = Segments(config)
        segments.open_configured()
        own = segments.held["shop"]
        own.gather()
        tail = own.tail
        segments.close()
        other.delete("k")
    segments = Segments(config)
    segments.open_configured()
    segments.held["shop"].gather()
    assert segments.held["shop"].tail == tail + 1  # the last delete, and no clear
    segments.close()


def test_what_its_ring_has_lost_becomes_one_clear(segments: Segments, other: Cache, config: Config) -> None:
    own = segments.held["shop"]
    with attach(config) as worker:
        worker.set_serve_until(1 << 63)
        worker.get_or_load("k", lambda: "loaded")
        tail = own.tail
        other.delete("k")
        other.delete_many([f"other{number}" for number in range(2 * other.ring_slots)])
        own.gather()
        assert (worker.get("k"), own.tail) == (None, tail + 1)


def test_with_another_hash_key_each_of_its_records_becomes_a_clear(
    config: Config, other: Cache, host: str
) -> None:
    with open(path(host, OTHER), "r+b") as file:
        file.seek(24)
        file.write(b"another hash key")
    segments = Segments(config)
    segments.open_configured()
    with attach(config) as worker:
        worker.set_serve_until(1 << 63)
        worker.get_or_load("k", lambda: "loaded")
        other.delete("something else")
        segments.held["shop"].gather()
        assert worker.get("k") is None
    segments.close()


def test_whatever_its_header_says_it_is_relayed_or_refused(config: Config, other: Cache, host: str) -> None:
    """In places that are read once, at the beginning."""
    with open(path(host, OTHER), "rb") as file:
        page = bytearray(file.read(4096))
    size = os.stat(path(host, OTHER)).st_size
    rng = random.Random(7)
    segments = Segments(config)
    segments.open_configured()
    own = segments.held["shop"]
    opened = refused = 0
    for _ in range(500):
        spoiled = bytearray(page)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.choice((rng.randrange(8, 88), KEPT_AT + rng.randrange(KEPT_BYTES)))
            spoiled[at] = rng.choice((0, 255, spoiled[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        fd = os.memfd_create("spoiled")
        os.write(fd, spoiled)
        os.ftruncate(fd, size)
        try:
            older = _core.Older(own, fd)
        except LayoutMismatch:
            refused += 1
            continue
        assert older.take()
        older.silence(), older.relay(100), older.bridge_sleep(True), older.in_use(), older.finish()
        older.close()
        opened += 1
    assert opened and refused
    segments.close()


def test_a_closed_one_says_so(segments: Segments) -> None:
    (older,) = segments.held["shop"].older.values()
    older.core.close()
    with pytest.raises(cachee_shm.errors.Closed):
        older.core.silence()
    segments.held["shop"].older.clear()


def test_what_was_loaded_before_the_bridge_came_is_cleared_at_first_contact(
    config: Config, other: Cache
) -> None:
    """It may be older than what was written in the other segment since."""
    with attach(config) as worker:
        worker.set_serve_until(1 << 63)
        worker.get_or_load("k", lambda: "loaded")
        other.delete("k")
        segments = Segments(config)
        segments.open_configured()
        assert worker.get("k") is None
        segments.close()


def write_at(host: str, place: int, number: int) -> None:
    with open(path(host, OTHER), "r+b") as file:
        file.seek(place)
        file.write(number.to_bytes(4, "little"))


def test_why_one_is_not_relayed_is_said_once_and_again_when_it_is_another_reason(
    config: Config, other: Cache, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_at(host, RING_SLOTS_AT, 3)
    segments = Segments(config)
    segments.open_configured()
    for _ in range(3):
        segments.check()
    assert caplog.text.count("is not relayed") == 1
    os.chmod(path(host, OTHER), 0o666)
    for _ in range(3):
        segments.check()
    assert caplog.text.count("is not relayed") == 2
    segments.close()
