"""One host in the middle of an upgrade: workers of two releases, each in its own segment, and one bridge.

Real code of the release before, out of git's history. Nothing is stale between them, whoever writes.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachee_bridge.__main__ import EXIT_RUNNING
from cachee_shm import _core
from tests.bridge.hosts import WAIT_S, Host, hosts, until
from tests.bridge.releases import Worker, release_before, worker

KEYS = [f"k{number}" for number in range(100)]


@pytest.fixture(scope="module")
def before() -> Path:
    return release_before()


@pytest.fixture
def pair(tmp_path: Path, before: Path) -> Iterator[tuple[Host, Host]]:
    """A host of the release before, which will be upgraded, and another of it, which will not be."""
    with hosts(tmp_path, 2) as both:
        for host in both:
            host.release = before
            host.start()
        yield both[0], both[1]


def upgrade(host: Host) -> None:
    """The bridge first, as an upgrade does; workers of the release before live on."""
    assert host.stop() == 0
    host.release = None
    host.start()


def file_of(host: Host, layout: int) -> Path:
    return Path(f"/dev/shm/cachee.{host.name}.shop.{layout}")


def whole(*workers: Worker) -> None:
    for one in workers:
        until(lambda w=one: w("cache.serve_until >= cache.now_ms()"), "nobody to be isolated")


def fill(reader: Worker, value: str, keys: list[str] = KEYS) -> None:
    """From the origin, which says `value` now. A fill that meets an eviction is not stored: once more."""
    load = f"[cache.get_or_load(key, lambda: {value!r}) for key in {keys}]"
    until(lambda: reader(load) == [value] * len(keys))


def held(reader: Worker, keys: list[str] = KEYS) -> set[str]:
    """The values that it would serve."""
    return set(reader(f"[*cache.get_many({keys}).values()]"))


def never_older(reader: Worker, value: str, log: str = "") -> None:
    until(lambda: held(reader) <= {value}, f"values older than {value}: {log}")


@contextlib.contextmanager
def upgraded(pair: tuple[Host, Host], before: Path) -> Iterator[tuple[Worker, Worker, Worker]]:
    """(a worker of the release before and one of this, on the upgraded host; one of the other host)."""
    host, other = pair
    with worker(host, before) as old, worker(other, before) as far:
        whole(old, far)
        fill(old, "before the upgrade")
        upgrade(host)
        with worker(host) as new:
            whole(new, old, far)
            yield old, new, far


def test_what_the_older_segment_held_is_not_served_once_the_new_bridge_is_there(
    pair: tuple[Host, Host], before: Path
) -> None:
    with upgraded(pair, before) as (old, _, _):
        assert held(old) == set()
        assert old("cache.stats()['misses']") >= len(KEYS)


def test_nobody_reads_what_is_older_than_a_write_of_the_other_release(
    pair: tuple[Host, Host], before: Path
) -> None:
    with upgraded(pair, before) as (old, new, far):
        for number, writer in enumerate((old, new, far) * 3):
            value = f"v{number}"
            for reader in (old, new, far):
                fill(reader, f"v{number - 1}") if number else None
            writer(f"[cache.set(key, {value!r}) for key in {KEYS}]")
            for reader in (old, new, far):
                never_older(reader, value, pair[0].log)


def test_deletes_tags_clears_and_local_values_cross_as_well(pair: tuple[Host, Host], before: Path) -> None:
    with upgraded(pair, before) as (old, new, far):
        for writer, reader in ((old, new), (new, old), (old, far), (far, new), (far, old)):
            for write, stored in (
                ("cache.delete('k')", "cache.get_or_load('k', lambda: 1)"),
                ("cache.delete_tags('t')", "cache.get_or_load('k', lambda: 1, tags=['t'])"),
                ("cache.clear()", "cache.get_or_load('k', lambda: 1)"),
            ):
                until(lambda r=reader, s=stored: r(s) == 1 and r("cache.get('k')") == 1)
                writer(write)
                until(lambda r=reader: r("cache.get('k')") is None, write)
        for writer, reader in ((old, new), (new, old)):
            until(lambda r=reader: r("cache.set('l', 1, local=True)") and r("cache.get('l')") == 1)
            writer("cache.set('l', 2, local=True)")
            until(lambda r=reader: r("cache.get('l')") is None)


def test_a_fill_that_began_before_a_write_of_the_other_release_is_not_stored(
    pair: tuple[Host, Host], before: Path
) -> None:
    """The loader sees the old row; meanwhile the other release writes, and that arrives."""
    arrives = "[time.sleep(0.001) for _ in iter(lambda: cache.tail == tail, False)]"
    load = f"(lambda tail: [say('begun'), {arrives}, 'old row'][-1])(cache.tail)"
    with upgraded(pair, before) as (old, new, _):
        for writer, reader in ((new, old), (old, new)):
            reader.begin(f"cache.get_or_load('k', lambda: {load})")
            writer("cache.delete('k')")
            assert reader.end() == "old row"
            assert reader("cache.get('k')") is None


def test_writes_before_any_bridge_of_this_release_came_are_not_missed_by_its_workers(
    pair: tuple[Host, Host], before: Path
) -> None:
    host, _ = pair
    with worker(host, before) as old, worker(host) as new:
        fill(new, "old")
        old(f"cache.delete_many({KEYS})")
        assert host.stop() == 0
        old(f"cache.delete_many({KEYS})")
        host.release = None
        host.start()
        until(lambda: held(new) == set())


def test_the_older_segment_is_removed_when_its_last_worker_has_left(
    pair: tuple[Host, Host], before: Path
) -> None:
    host = pair[0]
    with upgraded(pair, before) as (old, new, far):
        assert file_of(host, 2).exists() and file_of(host, _core.LAYOUT).exists()
        fill(far, "old")
        old(f"[cache.set(key, 'last words') for key in {KEYS}]")
        old("cache.close()")
        until(lambda: not file_of(host, 2).exists(), host.log)
        never_older(far, "last words")
        until(lambda: "is removed: nobody is attached" in host.log)  # a thread writes the log
        fill(new, "newer", KEYS[:1])
        assert held(new, KEYS[:1]) == {"newer"}


def test_what_a_worker_of_the_release_before_owed_when_it_died_is_announced(
    pair: tuple[Host, Host], before: Path
) -> None:
    """It was the last one, so nobody of its own release announces it."""
    host = pair[0]
    with upgraded(pair, before) as (old, new, far):
        fill(new, "old"), fill(far, "old")
        old("cache.writing('k1').__enter__() and None")
        old.kill()
        until(lambda: not file_of(host, 2).exists(), host.log)
        until(lambda: held(new, ["k1"]) == held(far, ["k1"]) == set())


def test_what_was_written_while_the_bridge_was_dead_is_relayed_by_the_next_one(
    pair: tuple[Host, Host], before: Path
) -> None:
    host = pair[0]
    with upgraded(pair, before) as (old, new, far):
        fill(new, "old"), fill(far, "old")
        untouched = [f"u{number}" for number in range(20)]
        fill(new, "kept", untouched)
        host.kill()
        old(f"cache.delete_many({KEYS})")
        host.start()
        until(lambda: held(new) == held(far) == set(), host.log)
        assert held(new, untouched) == {"kept"}  # it went on where it was
        fill(new, "old"), fill(far, "old")
        host.kill()
        old(f"cache.delete_many({KEYS})")
        old("[cache.delete_many([f'other{lap}:{n}' for n in range(cache.ring_slots)]) for lap in range(2)]")
        host.start()
        until(lambda: held(new) == held(far) == set(), host.log)  # its ring had lost it


def test_a_worker_of_the_release_before_that_attaches_again_later_is_found(
    pair: tuple[Host, Host], before: Path
) -> None:
    host = pair[0]
    with upgraded(pair, before) as (old, new, _):
        old("cache.close()")
        until(lambda: not file_of(host, 2).exists(), host.log)
        with worker(host, before) as late:
            until(lambda: host.log.count("its writes are relayed") == 2, host.log)
            fill(new, "old"), fill(late, "old")
            late(f"[cache.set(key, 'new') for key in {KEYS}]")
            never_older(new, "new")
            new(f"[cache.set(key, 'newer') for key in {KEYS}]")
            never_older(late, "newer")


def test_the_bridge_of_one_release_does_not_start_beside_that_of_the_other(
    pair: tuple[Host, Host], before: Path
) -> None:
    host = pair[0]
    host.release = None
    assert host.run().wait(WAIT_S) == EXIT_RUNNING
    assert "has a bridge already" in host.log
    host.release = before
    upgrade(host)
    host.release = before
    assert host.run().wait(WAIT_S) == EXIT_RUNNING
    assert host.process is not None and host.process.poll() is None


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_bridge_of_the_release_before_that_comes_back_is_followed_by_its_peers(
    pair: tuple[Host, Host], before: Path, end: signal.Signals
) -> None:
    """A downgrade, and the upgrade once more; workers of the release before were there all the time."""
    host, other = pair
    with upgraded(pair, before) as (old, new, far):
        new("cache.close()")
        for release in (before, None):
            host.signal(end)
            assert host.process is not None
            host.process.wait(WAIT_S)
            old("cache.delete('unannounced')")
            host.release = release
            host.start()
            whole(old, far)
            for writer, reader in ((old, far), (far, old)):
                fill(reader, "old")
                writer(f"cache.delete_many({KEYS})")
                until(lambda r=reader: held(r) == set(), f"{host.log}\n{other.log}")


def test_a_damaged_segment_of_another_layout_is_left_alone_and_said(pair: tuple[Host, Host]) -> None:
    host = pair[0]
    assert host.stop() == 0
    host.release = None
    path = file_of(host, 2)
    with open(path, "r+b") as file:
        file.seek(68)  # the ring's slots
        file.write((3).to_bytes(4, "little"))
    host.start()
    until(lambda: "is not relayed" in host.log)
    assert path.exists()
    os.unlink(path)
