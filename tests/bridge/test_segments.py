"""What a bridge holds: real segments in /dev/shm."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import uuid
from collections.abc import Iterator
from glob import glob

import pytest

import cachee_shm
from cachee_bridge.daemon.segments import OPENERS, Segments
from cachee_shm import segment
from cachee_shm.config import Config
from cachee_shm.errors import BridgeRunning, ProcessLimit, SegmentRetired


def config_of(host: str, **tables: object) -> Config:
    names = {"namespaces": {"shop": {"memory": "4MiB"}}, "bridge": {"listen": "127.0.0.1:1"}}
    return Config.parse({"host": {"name": host}, **names, **tables})


@pytest.fixture
def host() -> Iterator[str]:
    name = f"test.{uuid.uuid4().hex[:12]}"
    yield name
    for path in glob(f"/dev/shm/cachee.{name}*"):
        os.unlink(path)


@pytest.fixture
def config(host: str) -> Config:
    return config_of(host, defaults={"memory": "4MiB"})


@pytest.fixture
def segments(config: Config) -> Iterator[Segments]:
    segments = Segments(config)
    yield segments
    segments.close()


def test_configured_namespaces_are_made_and_owned(segments: Segments, config: Config) -> None:
    segments.open_configured()
    assert list(segments.held) == ["shop"]
    with pytest.raises(BridgeRunning, match=config.host.name):
        Segments(config).open_configured()


def test_many_are_made_at_the_same_time(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together, opens = threading.Barrier(OPENERS), Segments._taken

    def waits_for_others(self: Segments, namespace: str) -> object:
        together.wait(20)
        return opens(self, namespace)

    monkeypatch.setattr(Segments, "_taken", waits_for_others)
    names = [f"n{number}" for number in range(2 * OPENERS)]
    segments = Segments(config_of(host, namespaces={name: {"memory": "2MiB"} for name in names}))
    segments.open_configured()
    assert list(segments.held) == names
    segments.close()


def test_one_that_cannot_be_opened_is_no_reason_to_leave_others_open(host: str) -> None:
    config = config_of(host, namespaces={name: {"memory": "4MiB"} for name in ("a", "b", "c")})
    other = Segments(config_of(host, namespaces={"b": {"memory": "4MiB"}}))
    other.open_configured()
    segments = Segments(config)
    with pytest.raises(BridgeRunning, match="'b'"):
        segments.open_configured()
    assert list(segments.held) == ["a", "c"]
    segments.close()
    other.close()
    segments.open_configured()
    assert list(segments.held) == ["a", "b", "c"]
    segments.close()


def test_what_a_closed_bridge_held_the_next_one_takes(config: Config) -> None:
    for _ in range(3):
        segments = Segments(config)
        segments.open_configured()
        segments.close()


def test_a_namespace_that_workers_make_later_is_found_once(segments: Segments, config: Config) -> None:
    segments.open_configured()
    assert segments.open_found() == []
    with cachee_shm.attach("news", config=config):
        assert segments.open_found() == ["news"]
        assert segments.open_found() == []
        assert sorted(segments.held) == ["news", "shop"]


def test_other_hosts_are_not_found_and_other_layouts_are(
    segments: Segments, config: Config, host: str
) -> None:
    segments.open_configured()
    with cachee_shm.attach("news", config=config_of(f"{host}.b", defaults={"memory": "4MiB"})):
        path = segment.segment_path(host, "old") + "9"
        with open(f"/dev/shm{path}", "wb"):
            assert segments.open_found() == ["old"]


def test_without_defaults_only_what_is_listed_is_served(host: str, config: Config) -> None:
    with cachee_shm.attach("news", config=config):
        segments = Segments(config_of(host))
        segments.open_configured()
        assert list(segments.held) == ["shop"]
        segments.close()


def test_garbage_under_a_segments_name_is_told_of_once_and_hinders_nobody(
    segments: Segments, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open(f"/dev/shm{segment.segment_path(host, 'junk')}", "wb") as file:
        file.write(os.urandom(1 << 16))
    segments.open_configured()
    segments.open_found()
    assert list(segments.held) == ["shop"]
    assert [record.fields for record in caplog.records if hasattr(record, "fields")] == [
        {"namespace": "junk"}
    ]


def test_a_removed_segment_is_retired_so_that_its_workers_follow(segments: Segments, config: Config) -> None:
    with cachee_shm.attach("shop", config=config) as worker:
        segments.open_configured()
        segments.check()
        before = worker.incarnation
        os.unlink(f"/dev/shm{worker.name}")
        with pytest.raises(SegmentRetired, match="shop"):
            segments.check()
        assert worker.get("k") is None
        assert worker.incarnation > before
        assert os.path.exists(f"/dev/shm{worker.name}")


def test_a_bridge_does_not_go_on_with_the_successor_of_a_retired_segment(
    segments: Segments, config: Config
) -> None:
    segments.open_configured()
    with cachee_shm.attach("shop", config=config) as worker:
        worker.retire()
        with pytest.raises(SegmentRetired):
            segments.held["shop"].sweep()


def test_it_is_unused_when_no_worker_is_attached_and_the_ring_is_healed(
    segments: Segments, config: Config
) -> None:
    segments.open_configured()
    held = segments.held["shop"]
    assert segments.unused()
    with cachee_shm.attach("shop", config=config) as worker:
        assert not segments.unused()
        worker.set("k", 1)
    assert not segments.unused()
    held.heal(held.pump_cursor, 100, 0, b"")
    assert segments.unused()


def test_what_a_dead_worker_owed_is_announced_by_the_sweep(segments: Segments, config: Config) -> None:
    segments.open_configured()
    pid = os.fork()
    if not pid:
        cache = cachee_shm.attach("shop", config=config)
        block = cache.writing("k")
        block.__enter__()
        os._exit(9)
    os.waitpid(pid, 0)
    tail = segments.held["shop"].tail
    segments.sweep()
    assert segments.held["shop"].tail > tail


def test_a_mark_is_left_unless_a_worker_came_meanwhile(segments: Segments, config: Config) -> None:
    segments.open_configured()
    with contextlib.closing(segment.Segment(segment.spec_of(config, "shop"))) as worker:
        assert not segments.leave()
        assert not worker._left()
    assert segments.leave()
    segments.close()
    with contextlib.closing(segment.Segment(segment.spec_of(config, "shop"))) as worker:
        assert worker._left()
        again = Segments(config)
        again.open_configured()
        assert not worker._left()
        again.close()


def test_no_mark_is_left_while_a_worker_is_in_the_successor_of_a_segment(
    segments: Segments, config: Config
) -> None:
    segments.open_configured()
    os.unlink(f"/dev/shm{segments.held['shop'].name}")
    with cachee_shm.attach("shop", config=config) as worker:
        with pytest.raises(SegmentRetired, match="shop"):
            segments.leave()
        assert worker.health().bridge == "down"


def test_no_mark_is_left_while_a_worker_is_in_a_namespace_made_just_now(
    segments: Segments, config: Config
) -> None:
    segments.open_configured()
    with cachee_shm.attach("news", config=config):
        assert not segments.leave()
    assert segments.leave()


def test_a_segment_that_somebody_is_making_holds_up_neither_the_start_nor_the_others(
    config: Config, segments: Segments, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is there and empty, and whoever makes it, and is stopped, holds the lock."""
    path = segment.file_of(segment.segment_path(config.host.name, "shop"))
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as making:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, cachee_shm._core.LOCK_BASE, 1, 0)
        fcntl.fcntl(making.fileno(), fcntl.F_OFD_SETLK, lock)
        segments.open_configured()
        assert not segments.held
        assert segments.open_found() == []
        assert caplog.text.count("has not finished") == 1
    assert segments.open_found() == ["shop"]


def test_a_file_that_others_may_open_is_not_served_and_nobody_waits_for_it(
    config: Config, segments: Segments, caplog: pytest.LogCaptureFixture
) -> None:
    segments.open_configured()
    path = segment.file_of(segment.segment_path(config.host.name, "planted"))
    with open(path, "wb") as file:
        file.write(b"!")
    os.chmod(path, 0o666)
    assert segments.open_found() == []
    assert "cachee segment rm" in caplog.text
    os.unlink(path)


def test_an_older_layout_s_file_that_others_may_open_is_not_relayed(
    config: Config, segments: Segments, caplog: pytest.LogCaptureFixture
) -> None:
    path = segment.file_of(f"/cachee.{config.host.name}.shop.{cachee_shm._core.LAYOUT - 1}")
    with open(path, "wb") as file:
        file.write(b"!")
    os.chmod(path, 0o666)
    segments.open_configured()
    assert list(segments.held) == ["shop"]
    assert "may be opened by others" in caplog.text


def test_one_that_exists_and_cannot_be_opened_is_named_until_it_can_or_is_gone(
    segments: Segments, host: str
) -> None:
    segments.open_configured()
    path = segment.segment_path(host, "news")
    with open(f"/dev/shm{path}", "wb") as file:
        file.write(b"no segment")
    os.chmod(f"/dev/shm{path}", 0o600)
    segments.open_found()
    assert segments.unserved == {"news"}
    os.unlink(f"/dev/shm{path}")
    segments.open_found()
    assert segments.unserved == set()


def test_without_descriptors_it_is_as_it_was_last_seen(
    segments: Segments, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments.open_configured()
    with cachee_shm.attach("news", config=config):
        opens = Segments._taken

        def full(self: Segments, namespace: str) -> None:
            raise ProcessLimit("no descriptor is left")

        monkeypatch.setattr(Segments, "_taken", full)
        assert segments.open_found() == []
        assert segments.unserved == {"news"}
        monkeypatch.setattr(Segments, "_taken", opens)
        assert segments.open_found() == ["news"]
        assert segments.unserved == set()
