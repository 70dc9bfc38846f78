"""A mesh on this machine: one segment and one real cachee-bridge process for each host, linked over loopback
or, where a bench asks for it, over a network of their own (namespaces.py).

The first host is the one that is measured. In life the others are machines of their own; here they run on the
cores that the measured process has left to them (see measuring.apart), as far as there are any.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import posix_ipc
from measuring import Apart
from namespaces import Loopback, Place

import cachee_shm
from cachee_bridge.shell.doorbell import queue_name
from cachee_shm.ports import free_ports
from cachee_shm.segment import bridge_socket

NAMESPACE = "bench"
JOIN_S = 60.0
STOP_S = 10.0
SETTLE_S = 60.0
LOOPBACK = Loopback()

CONFIG = """
[host]
name = "{name}"

[namespaces.bench]
memory = "{memory}"
{near}default_ttl = "{ttl}"
isolation_ttl = "{isolation_ttl}"
{options}
[bridge]
listen = "{address}"
peers = [{peers}]
drain = "0s"
"""


class Host:
    """One host: what it is configured with, and its bridge once that was started."""

    def __init__(self, name: str, config: Path, place: Place | Loopback) -> None:
        self.name = name
        self.config = str(config)
        self.place = place
        self.bridge: subprocess.Popen[bytes] | None = None
        self.is_ended = False  # on purpose: an end that nobody asked for is an error

    @property
    def log(self) -> Path:
        return Path(self.config).with_suffix(".log")

    def attach(self) -> cachee_shm.Cache:
        return cachee_shm.attach(NAMESPACE, config=self.config)

    @contextmanager
    def bridged(self) -> Iterator[None]:
        """The bridge, for as long as the block lasts."""
        self.start()
        with self.running():
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """A bridge that was started: it must live as long as the block lasts."""
        try:
            yield
            assert self.bridge is not None
            if self.bridge.poll() is not None and not self.is_ended:
                raise SystemExit(f"a bridge ended early:\n{self.log.read_text(errors='replace')}")
        finally:
            if self.bridge is not None:
                stop_process(self.bridge)

    def start(self) -> None:
        """Another bridge, where the one before was killed."""
        command = [sys.executable, "-m", "cachee_bridge", "--config", self.config]
        with self.log.open("ab") as file, self.place.inside():
            self.bridge = subprocess.Popen(command, stdout=file, stderr=file, cwd=self.log.parent)
        self.is_ended = False

    def signal_bridge(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT or SIGKILL, and what it asks for has happened on return."""
        assert self.bridge is not None
        self.bridge.send_signal(number)
        if number == signal.SIGSTOP:
            wait_for(lambda: process_state(self.bridge.pid) == "T", STOP_S, "a bridge does not stop")  # type: ignore[union-attr]
        if number == signal.SIGKILL:
            self.is_ended = True
            self.bridge.wait(STOP_S)


class Mesh:
    """Its hosts, of which `here` is the measured one, and an attachment of this process to each."""

    def __init__(self, hosts: list[Host], caches: list[cachee_shm.Cache]) -> None:
        self.here = hosts[0]
        self.cache = caches[0]
        self.peers = list(zip(hosts[1:], caches[1:], strict=True))

    @property
    def caches(self) -> dict[str, cachee_shm.Cache]:
        return {self.here.name: self.cache} | {peer.name: cache for peer, cache in self.peers}

    def tails(self) -> dict[str, int]:
        """Where each host's ring ends now."""
        return {name: cache.tail for name, cache in self.caches.items()}

    def is_settled(self, tails: dict[str, int]) -> bool:
        """Every bridge serves and has looked at its ring up to there, and every host has every other's.

        Rings may go on: a checker that is asked to check often writes all the time.
        """
        caches = self.caches
        if any(c.bridge_generation() == 0 or c.pump_cursor < tails[name] for name, c in caches.items()):
            return False
        return all(
            cursor_of(cache, other) >= tails[other]
            for name, cache in caches.items()
            for other in caches
            if other != name
        )

    def settle(self) -> None:
        """Until the bridges have nothing left to do, so that what is timed next has the cores to itself."""
        tails = self.tails()
        wait_for(lambda: self.is_settled(tails), SETTLE_S, "the peers do not catch up")

    def join(self) -> None:
        """Until every host is at the end of every other's ring, which evicts all on first contact."""
        tails = self.tails()
        wait_for(lambda: self.is_settled(tails), JOIN_S, "the bridges did not meet")


def cursor_of(cache: cachee_shm.Cache, host: str) -> int:
    """How far in `host`'s ring the host of this segment is; -1 before first contact."""
    return max((cursor for _, name, incarnation, cursor in cache.sources() if name == host), default=-1)


def wait_for(is_true: Callable[[], bool], most_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + most_s
    while not is_true():
        if time.monotonic() > deadline:
            raise SystemExit(f"{otherwise} within {most_s:g} s")
        time.sleep(0.002)


def cpu_ns(pid: int) -> int:
    """What a process of one thread has run, in ns."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


def process_state(pid: int) -> str:
    """The letter of /proc: R runs, S sleeps, T is stopped."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for one that does not end by it."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


Proof = Callable[[Path, str], str]
"""proof(folder, host): more lines of the host's [bridge], and what they name is in the folder."""


def no_proof(folder: Path, host: str) -> str:
    return ""


def secret(folder: Path, host: str) -> str:
    path = folder / "secret"
    path.write_text("a secret of this bench alone\n")
    path.chmod(0o600)
    return f'secret_file = "{path}"\n'


@contextmanager
def configured(
    names: list[str],
    memory: list[str],
    ttl: str,
    absent_peers: int = 0,
    places: Sequence[Place | Loopback] | None = None,
    isolation_ttl: str = "1h",
    proof: Proof = secret,
    options: str = "",
) -> Iterator[list[Host]]:
    """Hosts whose bridges know each other, and `absent_peers` more at addresses where nobody listens.

    `options`: more lines of the namespace. What they leave on the machine is removed at the end.
    """
    full = [f"bench-{name}-{os.getpid()}" for name in names]
    everywhere = [*(places or [LOOPBACK] * len(names)), *[LOOPBACK] * absent_peers]
    ports = free_ports(len(everywhere))
    addresses = [f"{place.address}:{port}" for place, port in zip(everywhere, ports, strict=True)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-")))
        hosts = []
        for number, name in enumerate(full):
            stack.callback(remove, name)
            path = folder / f"{names[number]}.toml"
            own = addresses[number]
            others = ", ".join(f'"{address}"' for address in addresses if address != own)
            text = CONFIG.format(
                name=name,
                memory=memory[number],
                ttl=ttl,
                isolation_ttl=isolation_ttl,
                near="" if "near_cache" in options else 'near_cache = "0"\n',
                options=options,
                address=own,
                peers=others,
            )
            path.write_text(text + proof(folder, name), encoding="utf-8")
            hosts.append(Host(name, path, everywhere[number]))
        yield hosts


@contextmanager
def mesh(
    name: str,
    peers: int,
    memory: str,
    apart: Apart,
    absent_peers: int = 0,
    places: Sequence[Place | Loopback] | None = None,
    proof: Proof = secret,
    options: str = "",
) -> Iterator[Mesh]:
    """One host with a bridge and `peers` others that are linked to it; joined. See `configured`."""
    names = [name, *(f"{name}-peer{number}" for number in range(peers))]
    with ExitStack() as stack:
        hosts = stack.enter_context(
            configured(names, [memory] * len(names), "1h", absent_peers, places, proof=proof, options=options)
        )
        with apart.elsewhere():
            for host in hosts:
                stack.enter_context(host.bridged())
        caches = [stack.enter_context(host.attach()) for host in hosts]
        joined = Mesh(hosts, caches)
        joined.join()
        yield joined


def remove(host: str) -> None:
    """The segments; the doorbell and the socket of a bridge that was killed."""
    for segment in Path("/dev/shm").glob(f"cachee.{host}.*"):
        segment.unlink(missing_ok=True)
    with suppress(posix_ipc.Error, OSError):
        posix_ipc.unlink_message_queue(queue_name(host))
    Path(bridge_socket(host)).unlink(missing_ok=True)


@contextmanager
def local(name: str, memory: str, **options: object) -> Iterator[cachee_shm.Cache]:
    """A segment of this run's own without a bridge, removed at its end; as `local_config` configures it."""
    config = local_config(name, memory, **options)
    cache = cachee_shm.attach(NAMESPACE, config=config)
    try:
        yield cache
    finally:
        cache.close()
        remove(config["host"]["name"])


def local_config(name: str, memory: str, **options: object) -> dict[str, dict[str, Any]]:
    """What all processes attach with that share this segment. Its name has the pid of who calls this.

    It has no bridge, and no lifetime unless the namespace's `options` say otherwise.
    """
    table = {"memory": memory, "default_ttl": "never", "near_cache": "0", **options}
    return {"host": {"name": f"bench-{name}-{os.getpid()}"}, "namespaces": {NAMESPACE: table}}
