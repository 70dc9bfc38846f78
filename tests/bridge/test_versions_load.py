"""An upgrade under load: workers of two releases on one host, and hosts of both in one mesh.

All read and write at once, while bridges are killed and workers come and go. After each burst nobody holds
anything stale.

The release before is real code out of git's history: wire 2, layout 2. The origin is a file that all map: a
number for each key. A key has one writer, so that its newest number is known.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bridge.hosts import Host, hosts, until
from tests.bridge.releases import Worker, release_before, worker
from tests.bridge.test_versions_layouts import file_of, upgrade, whole

KEYS = 64
WRITERS = 4
BURST_S = 1.0
CLIENT = """
import mmap, random, time

with open(path, "r+b") as file:
    rows = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

def write(rng, key):
    verb, number = rng.randrange(4), rows[key] + 1
    if verb == 0:
        with cache.writing(f"k{key}") as w:
            rows[key] = number
            w.set(number)
        return
    rows[key] = number
    if verb == 1:
        cache.set(f"k{key}", number)
    elif verb == 2:
        cache.delete_many([f"k{key}"])
    else:
        cache.delete(f"k{key}")

def burst(seed, mine, seconds):
    rng, end, done = random.Random(seed), time.monotonic() + seconds, [0, 0]
    say("begun")
    while time.monotonic() < end:
        key = rng.randrange(len(rows))
        writes = key % writers == mine and rng.random() < 0.5
        if writes:
            write(rng, key)
        else:
            cache.get_or_load(f"k{key}", lambda: rows[key])
        done[writes] += 1
    return done

def held():
    "Each key and its number, as a reader would be served now."
    found = cache.get_many([f"k{key}" for key in range(len(rows))])
    return {int(key[1:]): number for key, number in found.items()}
"""


class Origin:
    """What is true, for the test; the clients map the same file."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8 * KEYS))
        self.path = path
        with open(path, "r+b") as file:
            self.rows = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def client(self, one: Worker) -> Worker:
        code = f"path, writers = {str(self.path)!r}, {WRITERS}\n{CLIENT}"
        one(f"exec({code!r}, globals())")
        return one


def stale(clients: list[Worker], origin: Origin) -> list[tuple[int, int, int, int]]:
    """(client, key, what it is served, what is true)."""
    return [
        (number, int(key), value, origin.rows[int(key)])
        for number, client in enumerate(clients)
        for key, value in client("held()").items()
        if value != origin.rows[int(key)]
    ]


def after_a_burst(
    clients: list[Worker],
    origin: Origin,
    seed: int,
    meanwhile: Callable[[], object] = lambda: None,
    log: str = "",
) -> None:
    """All of them at once; nobody is served anything stale once what was written has arrived. What nobody has
    invalidated stays for ever here: what is stale then would be stale in an hour."""
    for number, client in enumerate(clients):
        client.begin(f"burst({seed * 100 + number}, {number}, {BURST_S})")
    meanwhile()
    for client in clients:
        reads, writes = client.end()
        assert reads and writes
    whole(*clients)
    until(lambda: not stale(clients, origin), log)


def loaded(*clients: Worker) -> None:
    """Everybody holds something: that nothing is stale says something then."""
    load = "[cache.get_or_load(f'k{key}', lambda: rows[key]) for key in range(len(rows))]"
    for client in clients:
        until(lambda c=client: c(load) and len(c("held()")) > KEYS // 2)


@pytest.fixture(scope="module")
def before() -> Path:
    return release_before()


@pytest.fixture
def mesh(tmp_path: Path, before: Path) -> Iterator[tuple[Host, Host, Host]]:
    """A host of the release before that will be upgraded, one that will not, and one of this release."""
    with hosts(tmp_path, 3) as (upgrading, older, newer):
        for host in (upgrading, older):
            host.release = before
        for host in (upgrading, older, newer):
            host.start()
        yield upgrading, older, newer


def restart(host: Host) -> None:
    host.kill()
    host.start()


def test_nothing_is_stale_in_an_upgrade_under_load(
    mesh: tuple[Host, Host, Host], before: Path, tmp_path: Path
) -> None:
    upgrading, older, newer = mesh
    origin = Origin(tmp_path / "origin")
    with contextlib.ExitStack() as stack:
        old = origin.client(stack.enter_context(worker(upgrading, before)))
        far = origin.client(stack.enter_context(worker(older, before)))
        fresh = origin.client(stack.enter_context(worker(newer)))
        whole(old, far, fresh)
        loaded(old, far, fresh)
        after_a_burst([old, far, fresh], origin, 1)

        # The bridge is upgraded under its worker, and under load.
        after_a_burst([old, far, fresh], origin, 2, lambda: upgrade(upgrading))
        new = origin.client(stack.enter_context(worker(upgrading)))
        everybody = [old, far, fresh, new]
        whole(*everybody)
        assert file_of(upgrading, 2).exists()
        for seed, meanwhile in enumerate(
            (lambda: None, lambda: restart(upgrading), lambda: restart(older), lambda: restart(newer)),
            start=3,
        ):
            loaded(far, fresh, new)
            after_a_burst(everybody, origin, seed, meanwhile, f"{upgrading.log}\n{older.log}\n{newer.log}")

        # The last worker of the release before leaves; its segment goes.
        old("cache.close()")
        until(lambda: not file_of(upgrading, 2).exists(), upgrading.log)
        loaded(far, fresh, new)
        after_a_burst([far, fresh, new], origin, 9)
    assert "closing the link" not in upgrading.log + older.log + newer.log
