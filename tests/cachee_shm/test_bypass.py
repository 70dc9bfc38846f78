"""A bypassed cache: CACHEE_DISABLE=1."""

import os
import pathlib
import uuid
from collections.abc import Iterator

import pytest

import cachee_shm


@pytest.fixture
def config(tmp_path: pathlib.Path) -> Iterator[str]:
    host = f"bypass-{uuid.uuid4().hex[:8]}"
    path = tmp_path / "cachee.toml"
    path.write_text(f'[host]\nname = "{host}"\n[defaults]\nmemory = "4MiB"\n')
    yield str(path)
    os.unlink(f"/dev/shm/cachee.{host}.default.{cachee_shm._core.LAYOUT}")


def test_a_bypassed_process_misses_everything_and_its_writes_evict_what_others_hold(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = cachee_shm.attach(config=config)
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypassed = cachee_shm.attach(config=config)

    for write in (
        lambda: bypassed.set("k", 2, ttl=60),
        lambda: bypassed.add("k", 2),
        lambda: bypassed.set_many({"k": 2}),
        lambda: bypassed.__setitem__("k", 2),
        lambda: bypassed.delete("k"),
    ):
        worker["k"] = 1
        assert bypassed.get("k", "miss") == "miss"
        assert (
            "k" not in bypassed and bypassed.get_many(["k"]) == {} and bypassed.lookup("k") == (None, False)
        )
        write()
        assert worker.get("k") is None


def test_a_bypassed_process_loads_each_time_and_stores_nothing(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = cachee_shm.attach(config=config)
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypassed = cachee_shm.attach(config=config)
    loads: list[int] = []

    for _ in range(2):
        assert bypassed.get_or_load("k", lambda: loads.append(1) or 7) == 7
    with bypassed.writing("k") as w:
        w.set(8)

    assert loads == [1, 1] and not w.stored and worker.get("k") is None


def test_a_bypassed_process_counts_from_the_start_each_time(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = cachee_shm.attach(config=config)
    worker.host.incr("hits", 5, initial=0)
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypassed = cachee_shm.attach(config=config)

    assert bypassed.host.incr("hits", initial=0) == 1
    assert bypassed.host.decr("hits", initial=0) == -1
    with pytest.raises(KeyError):
        bypassed.host.incr("hits")
    assert worker.get("hits") == 5


def test_a_bypassed_local_write_evicts_on_this_host_and_is_announced_nowhere(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = cachee_shm.attach(config=config)
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypassed = cachee_shm.attach(config=config)
    for write in (
        lambda: bypassed.set("k", 2, local=True),
        lambda: bypassed.add("k", 2, local=True),
        lambda: bypassed.set_many({"k": 2}, local=True),
    ):
        worker.set("k", 1, local=True)
        tail = worker.tail
        write()
        assert worker.get("k") is None
        assert worker.pack(tail, 10, 1000) == (worker.tail, b"")


def test_a_bypassed_write_refuses_what_any_write_refuses(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = cachee_shm.attach(config=config)
    monkeypatch.setenv("CACHEE_DISABLE", "1")
    bypassed = cachee_shm.attach(config=config)
    worker["k"] = 1
    for write in (
        lambda: bypassed.set("k", 2, ttl=-1),
        lambda: bypassed.add("k", 2, ttl=-1),
        lambda: bypassed.set_many({"k": 2}, ttl=-1),
        lambda: bypassed.touch("k", ttl=-1),
    ):
        with pytest.raises(ValueError, match="ttl"):
            write()
        assert worker["k"] == 1
