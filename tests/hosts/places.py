"""Three hosts of one mesh, each in a network namespace with a bridge, workers and a segment of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.namespaces import Place
from cachee_shm import Cache
from tests.bridge.hosts import WAIT_S, Host, until
from tests.hosts.observer import cursor_of

WORKER, OBSERVER = (str(Path(__file__).with_name(name)) for name in ("worker.py", "observer.py"))
PORT = 7946
HEARTBEAT_S = 0.05
LOST_AFTER_S = 0.5
ISOLATION_TTL_S = 0.5
WRITES_EVERY_S = 0.03

CONFIG = """\
[host]
name = "{name}"

[namespaces.shop]
memory = "4MiB"
isolation_ttl = "{isolation_ttl_s}s"

[bridge]
listen = "{address}:{port}"
peers = [{peers}]
secret_file = "{secret}"
heartbeat = "{heartbeat_s}s"
lost_after = "{lost_after_s}s"
drain = "0s"
"""


class PlacedHost(Host):
    """A host with a network of its own. Values live for ever: nothing goes but by coherence."""

    def __init__(self, folder: Path, name: str, place: Place, peers: list[Place], secret: Path) -> None:
        super().__init__(folder, name, PORT, [])
        self.place = place
        self._workers: list[subprocess.Popen[bytes]] = []
        self.config.write_text(
            CONFIG.format(
                name=name,
                address=place.address,
                port=PORT,
                peers=", ".join(f'"{peer.address}:{PORT}"' for peer in peers),
                secret=secret,
                isolation_ttl_s=ISOLATION_TTL_S,
                heartbeat_s=HEARTBEAT_S,
                lost_after_s=LOST_AFTER_S,
            )
        )

    @property
    def cache(self) -> Cache:
        """An attachment of the test's own."""
        return self._caches[0] if self._caches else self.attach()

    def run(self, before: str = "pass", **environ: str) -> subprocess.Popen[bytes]:
        with self.place.inside():
            return super().run(before, **environ)

    def work(self, folder: Path, pause: Path, database: Path) -> list[Path]:
        """Two workers: one reads, one writes as well. Their journals."""
        journals = [folder / f"worker-{os.urandom(4).hex()}" for _ in range(2)]
        for journal, arguments in zip(journals, ([], ["--writes-every", str(WRITES_EVERY_S)]), strict=True):
            command = [WORKER, "--config", str(self.config), "--journal", str(journal), "--pause", str(pause)]
            with self.place.inside():
                self._workers.append(helper([*command, *arguments], SHOP_DATABASE=str(database)))
        return journals

    def is_working(self) -> bool:
        return all(process.poll() is None for process in self._workers)

    def crash(self) -> None:
        """The machine goes down: every process is gone, and the memory with them."""
        self.detach()
        for process in self._workers:
            process.kill()
            process.wait(WAIT_S)
        self._workers.clear()
        self.clean_up()

    def isolated(self) -> bool:
        return self.cache.serve_until < self.cache.now_ms()


class PlacedMesh:
    """The hosts, their origin, and what their processes noted."""

    def __init__(self, hosts: list[PlacedHost], journals: Path, database: Path) -> None:
        self.hosts = hosts
        self.journals = journals
        self.database = database
        self._pause = journals.with_name("pause")
        self._pause.touch()
        self._observer: subprocess.Popen[bytes] | None = None

    def start(self, *hosts: PlacedHost) -> None:
        """Bridges and workers, at work, and from now on somebody who watches these lives."""
        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(PlacedHost.start, hosts))
        journals = [host.work(self.journals, self._pause, self.database) for host in hosts]
        until(
            lambda: all(has_begun(journal) for both in journals for journal in both), "the workers to begin"
        )
        self.end_observing()
        journal = self.journals / f"observer-{os.urandom(4).hex()}"
        configs = [str(host.config) for host in self.hosts]
        self._observer = helper([OBSERVER, "--journal", str(journal), *configs])
        self.whole()

    def whole(self) -> None:
        """Nobody is isolated, and everybody has all that anybody announced."""
        for host in self.hosts:
            until(lambda host=host: not host.isolated(), f"{host.name} to be whole\n{host.log}")
        tails = {host: host.cache.tail for host in self.hosts}
        until(
            lambda: self.have_applied(tails),
            "the hosts to agree\n" + "\n".join(host.log for host in self.hosts),
        )

    def have_applied(self, tails: dict[PlacedHost, int]) -> bool:
        """Whether every host has applied what each other had announced by then."""
        return all(
            cursor_of(target.cache, source.cache) >= tails[source]
            for source in self.hosts
            for target in self.hosts
            if source is not target
        )

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """No worker writes for as long as the block lasts, and what was written last is everywhere."""
        with self._pause.open() as pause:
            fcntl.flock(pause, fcntl.LOCK_EX)
            self.whole()
            yield

    def end_observing(self) -> None:
        if self._observer is not None:
            end(self._observer)
            self._observer = None

    def clean_up(self) -> None:
        self.end_observing()
        for host in self.hosts:
            host.crash()


@contextlib.contextmanager
def placed_mesh(folder: Path, places: list[Place], database: Path) -> Iterator[PlacedMesh]:
    """Hosts a, b and c, under load; each names all of them as peers, itself too."""
    secret = folder / "secret"
    secret.write_text("a secret of these three hosts\n")
    secret.chmod(0o600)
    journals = folder / "journals"
    journals.mkdir()
    run = os.urandom(3).hex()
    hosts = [
        PlacedHost(folder, f"{name}-{run}", place, places, secret)
        for name, place in zip("abc", places, strict=True)
    ]
    mesh = PlacedMesh(hosts, journals, database)
    try:
        mesh.start(*hosts)
        yield mesh
    finally:
        mesh.clean_up()


def has_begun(journal: Path) -> bool:
    return journal.exists() and journal.stat().st_size > 0


def helper(command: list[str], **environ: str) -> subprocess.Popen[bytes]:
    """A process that ends when its standard input does."""
    return subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, env={**os.environ, **environ})


def end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(WAIT_S) == 0, "a worker or the observer failed: see its words above"
