"""The herd over hosts: one hot key, four hosts of 64 workers each, and an invalidation a second (target W8).

Each host has its bridge, with certificates, and two processes of 32 threads that read the key again and
again. The bench deletes the key on one host, waits until every host has applied that, and counts the loads
until every worker has the new value: without peer fill, with it, and with it where the host that loads is
killed in the middle of that, workers and bridge. A read that began after all hosts had applied the
invalidation and had an older value is counted as stale.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

import mesh
import trustme
from bench_proof_cost import certificates_of
from measuring import Apart, Target

import cachee_shm

PROCESSES = multiprocessing.get_context("spawn")
HOSTS, WORKERS, THREADS = 4, 2, 32
KEY = "hot"
LOAD_S = 0.05
PAUSE_S = 0.01
WAIT_S = 60.0
SECOND = 1.0
PEER_FILL = 'peer_fill = true\npeer_fill_wait = "4s"\n'
"""The machine's two cores run 12 processes: at the default of 50 ms, their turns would be measured."""


class Origin:
    """What all processes share."""

    def __init__(self) -> None:
        self.lock = PROCESSES.Lock()
        self.value = PROCESSES.Value("q", 0, lock=False)
        self.applied = PROCESSES.Value(
            "q", 0, lock=False
        )  # the value whose invalidation all hosts have applied
        self.loads = PROCESSES.Value("q", 0, lock=False)
        self.loader = PROCESSES.Value("q", -1, lock=False)  # the host that began the newest load
        self.stale = PROCESSES.Value("q", 0, lock=False)
        self.seen = PROCESSES.Array("q", HOSTS * WORKERS * THREADS, lock=False)
        self.stopped = PROCESSES.Value("b", 0, lock=False)  # an Event has a lock

    def load(self, host: int) -> int:
        with self.lock:
            self.loads.value += 1
            self.loader.value = host
            value = int(self.value.value)
        time.sleep(LOAD_S)
        return value


def work(config: str, origin: Origin, host: int, number: int) -> None:
    """One process of one host."""
    with cachee_shm.attach(mesh.NAMESPACE, config=config) as cache:

        def read(at: int) -> None:
            while not origin.stopped.value:
                newest = origin.applied.value
                value = cache.get_or_load(KEY, origin.load, host)
                if value < newest and not origin.stopped.value:
                    origin.stale.value += 1
                origin.seen[at] = max(origin.seen[at], value)
                time.sleep(PAUSE_S)

        first = (host * WORKERS + number) * THREADS
        threads = [threading.Thread(target=read, args=(first + i,), daemon=True) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    os._exit(0)


@dataclass
class Found:
    """Of one way."""

    loads: list[int] = field(default_factory=list)  # for each invalidation
    killed: list[int] = field(default_factory=list)  # where the loading host was killed
    stale: int = 0


class Herd:
    """Four hosts that run."""

    def __init__(self, stack: ExitStack, options: str) -> None:
        self.origin = Origin()
        proof = certificates_of(trustme.CA())
        anywhere = frozenset(os.sched_getaffinity(0))
        mesh_ = stack.enter_context(
            mesh.mesh("herd", HOSTS - 1, "8MiB", Apart(anywhere, anywhere), proof=proof, options=options)
        )
        self.caches = list(mesh_.caches.values())
        self.hosts = [mesh_.here, *(peer for peer, _ in mesh_.peers)]
        self.alive = set(range(HOSTS))
        self.processes: list[list[BaseProcess]] = []
        stack.callback(self.stop)
        for host in range(HOSTS):
            self.processes.append([])
            for number in range(WORKERS):
                arguments = (self.hosts[host].config, self.origin, host, number)
                self.processes[host].append(PROCESSES.Process(target=work, args=arguments))
                self.processes[host][-1].start()

    def stop(self) -> None:
        self.origin.stopped.value = 1
        for process in (each for host in self.processes for each in host):
            process.join(2)
            process.kill()
            process.join()

    def invalidate(self, kills: bool = False) -> int:
        """How many loads it took until every worker had the new value."""
        origin, begun = self.origin, time.monotonic()
        with origin.lock:
            before = origin.loads.value
            origin.value.value += 1
            value = int(origin.value.value)
        writer = self.caches[min(self.alive)]
        writer.delete(KEY)
        if kills:
            mesh.wait_for(lambda: origin.loads.value > before, WAIT_S, "nobody loads")
            with origin.lock:  # a process that is killed while it has the lock keeps it
                self.kill(int(origin.loader.value))
        elif not writer.wait_synced(WAIT_S):
            raise SystemExit("the hosts do not apply an invalidation")
        else:
            origin.applied.value = value
        mesh.wait_for(lambda: self.all_have(value), WAIT_S, "not all workers have the new value")
        loads = int(origin.loads.value - before)
        time.sleep(max(0.0, begun + SECOND - time.monotonic()))
        return loads

    def kill(self, host: int) -> None:
        self.alive.discard(host)
        for process in self.processes[host]:
            process.kill()
        self.hosts[host].signal_bridge(signal.SIGKILL)

    def all_have(self, value: int) -> bool:
        each = WORKERS * THREADS
        return all(min(self.origin.seen[host * each : (host + 1) * each]) >= value for host in self.alive)


def measure(options: str, rounds: int, kills: int) -> Found:
    found = Found()
    with ExitStack() as stack:
        herd = Herd(stack, options)
        herd.invalidate()  # all workers are there
        found.loads = [herd.invalidate() for _ in range(rounds)]
        found.killed = [herd.invalidate(kills=True) for _ in range(kills)]
        found.stale = int(herd.origin.stale.value)
    return found


WITHOUT, WITH = "without peer fill", "with peer fill"


def measured(rounds: int) -> dict[str, Found]:
    return {WITHOUT: measure("", rounds, 0), WITH: measure(PEER_FILL, rounds, 2)}


def rows(found: dict[str, Found]) -> list[tuple[str, ...]]:
    def told(loads: list[int]) -> str:
        return f"{sum(loads) / len(loads):.2f}, at most {max(loads)}" if loads else "-"

    return [(name, told(each.loads), told(each.killed), str(each.stale)) for name, each in found.items()]


HEADER = ("4 hosts of 64 workers", "loads", "the loading host is killed", "stale")


def targets(found: dict[str, Found]) -> list[Target]:
    return [
        Target(
            "W8",
            "4 hosts, without peer fill: most loads for an invalidation",
            max(found[WITHOUT].loads),
            HOSTS,
        ),
        Target("W8", "with peer fill", max(found[WITH].loads), 1),
        Target("W8", "with peer fill, the loading host is killed", max(found[WITH].killed), 2),
        Target("W8", "stale reads in all", sum(each.stale for each in found.values()), 0),
    ]


def as_data(found: dict[str, Found]) -> dict[str, Any]:
    return {name: vars(each) for name, each in found.items()}
