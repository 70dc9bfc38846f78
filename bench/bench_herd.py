"""How often one host's origin is asked for a hot key that 64 workers read, per invalidation (target C7).

Eight processes of eight threads read one key without a pause, through a cache that should load it once:

  cachee          get_or_load
  Redis, a lock   GET; on a miss SET NX with a lifetime of twice a load, the others look again every 10 ms
                  (pip install redis; apt-get install redis-server)
  dogpile.cache   a region in a dbm file, with its lock in a file (pip install dogpile.cache)

What is not installed is left out, and said. Each case is a way in which a load goes wrong:

  quick           it takes 20 ms
  slow            it takes 6 s (--quick: 1.5 s)
  fails           it raises every second time, after 50 ms
  hangs           the first load after each invalidation never ends while it is measured
  written         the key is invalidated a second time in the middle of a load of 200 ms

The process of the bench invalidates the key, waits until every worker has read a value that is at least as
new, and counts the loads that began meanwhile, and how many ran at the same time. A read is stale if it began
after an invalidation and returned a value from before it.

The target: one load each time that the key's fence moves, and one more for each load that fails or hangs. In
"hangs" our loads count as late after 1 s, by a switch for tests; for users that is 10 s.

Then the same over four hosts, with and without peer fill: herd_hosts.py (target W8). `--only hosts` runs that
alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import herd_hosts
import mesh
from measuring import Apart, Target, save, start, table, targets_table
from rivals import Absent, Room, ready, server, wanted

import cachee_shm

PROCESSES = multiprocessing.get_context("spawn")
WORKERS, THREADS = 8, 8
KEY = "hot"
MEMORY = "8MiB"
REDIS_PORT = 16391
LATE_MS = 1000
POLL_S = 0.01
STOP_S = 10.0
OURS = "cachee"
Get = Callable[[Callable[[], int], float], int]
"""get(loader, lifetime of a lock in s): the value, loaded by whoever may."""


@dataclass(frozen=True)
class Case:
    """A way in which a load goes wrong; how many loads the target allows for an invalidation."""

    name: str
    load_s: float
    allowed: int
    hangs: bool = False
    fails: bool = False
    written: bool = False


def cases(quick: bool) -> list[Case]:
    return [
        Case("quick", 0.02, 1),
        Case("slow", 1.5 if quick else 6.0, 1),
        Case("fails", 0.05, 2, fails=True),
        Case("hangs", 0.05, 2, hangs=True),
        Case("written", 0.2, 2, written=True),
    ]


class Origin:
    """What all processes share: the value, and how it is loaded."""

    def __init__(self) -> None:
        context = PROCESSES
        self.lock = context.Lock()
        self.value = context.Value("q", 0, lock=False)  # the bench raises it, and invalidates the key then
        self.announced = context.Value("q", 0, lock=False)  # the value that the last invalidation was about
        self.loads = context.Value("q", 0, lock=False)
        self.now = context.Value("q", 0, lock=False)  # loads under way
        self.most = context.Value("q", 0, lock=False)
        self.hung = context.Value("q", 0, lock=False)  # the last value whose load has hung
        self.hanging = context.Value("q", 0, lock=False)  # how many have
        self.stale = context.Value("q", 0, lock=False)
        self.seen = context.Array("q", WORKERS * THREADS, lock=False)  # the last value that each has read
        self.stop = context.Event()

    def load(self, case: Case) -> int:
        with self.lock:
            value = self.value.value
            self.loads.value += 1
            number = self.loads.value
            self.now.value += 1
            self.most.value = max(self.most.value, self.now.value)
            hangs = case.hangs and self.hung.value < value
            if hangs:
                self.hung.value = value
                self.hanging.value += 1
        try:
            if hangs:
                self.stop.wait()
            time.sleep(case.load_s)
            if case.fails and number % 2:
                raise ConnectionError("the origin is down")
            return int(value)
        finally:
            with self.lock:
                self.now.value -= 1


# The subjects: each gives a way to get, and one to invalidate


@contextmanager
def by_cachee(place: dict[str, Any]) -> Iterator[tuple[Get, Callable[[], object]]]:
    with cachee_shm.attach(mesh.NAMESPACE, config=place["config"]) as cache:
        if place["late"]:
            cache._lateness(LATE_MS, LATE_MS)
        yield lambda loader, lock_s: cache.get_or_load(KEY, loader), lambda: cache.delete(KEY)


@contextmanager
def by_redis(place: dict[str, Any]) -> Iterator[tuple[Get, Callable[[], object]]]:
    client = wanted("redis").Redis(port=REDIS_PORT)

    def get(loader: Callable[[], int], lock_s: float) -> int:
        while (found := client.get(KEY)) is None:
            if not client.set(f"{KEY}:lock", 1, nx=True, px=max(1, int(lock_s * 1000))):
                time.sleep(POLL_S)
                continue
            try:
                found = loader()
                client.set(KEY, found)
            finally:
                client.delete(f"{KEY}:lock")
        return int(found)

    try:
        yield get, lambda: client.delete(KEY)
    finally:
        client.close()


@contextmanager
def by_dogpile(place: dict[str, Any]) -> Iterator[tuple[Get, Callable[[], object]]]:
    region = (
        wanted("dogpile.cache")
        .make_region()
        .configure("dogpile.cache.dbm", arguments={"filename": str(Path(place["folder"], "herd.dbm"))})
    )
    yield (
        lambda loader, lock_s: int(region.get_or_create(KEY, loader)),
        lambda: region.delete(KEY),
    )


SUBJECTS = {OURS: by_cachee, "Redis, a lock": by_redis, "dogpile.cache": by_dogpile}


def work(subject: str, place: dict[str, Any], case: Case, origin: Origin, number: int) -> None:
    """One process: its threads read without a pause until they are told to stop."""
    with ExitStack() as stack:
        get, _ = stack.enter_context(SUBJECTS[subject](place))

        def read(at: int) -> None:
            while not origin.stop.is_set():
                newest = origin.announced.value
                with suppress(ConnectionError):
                    value = get(lambda: origin.load(case), 2 * case.load_s)
                    if value < newest and not origin.stop.is_set():
                        origin.stale.value += 1
                    origin.seen[at] = max(origin.seen[at], value)
                time.sleep(0.001)

        threads = [
            threading.Thread(target=read, args=(number * THREADS + i,), daemon=True) for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(STOP_S)
    os._exit(0)  # a rival's thread may wait for a lock for ever


@dataclass
class Found:
    """Of one case and one subject."""

    loads: list[int] = field(default_factory=list)  # for each invalidation
    most: int = 0
    stale: int = 0
    given_up: int = 0  # invalidations after which not all had a new value in time


@contextmanager
def workers(subject: str, place: dict[str, Any], case: Case, origin: Origin) -> Iterator[None]:
    begun: list[BaseProcess] = []
    try:
        for number in range(WORKERS):
            process = PROCESSES.Process(target=work, args=(subject, place, case, origin, number))
            process.start()
            begun.append(process)
        yield
    finally:
        origin.stop.set()
        for process in begun:
            process.join(STOP_S)
            process.kill()
            process.join()


def all_have(origin: Origin, value: int, seconds: float) -> bool:
    """All but those whose load hangs."""
    deadline = time.monotonic() + seconds
    while sum(seen < value for seen in origin.seen) > origin.hanging.value:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def invalidate(origin: Origin, forget: Callable[[], object]) -> int:
    with origin.lock:
        origin.value.value += 1
        value = int(origin.value.value)
    forget()
    origin.announced.value = value
    return value


def measure(subject: str, place: dict[str, Any], case: Case, rounds: int) -> Found:
    """The first round only warms up: the workers come one after the other."""
    origin, found = Origin(), Found()
    patience_s = 10 * case.load_s + 15
    with SUBJECTS[subject](place) as (_, forget), workers(subject, place, case, origin):
        for turn in range(rounds + 1):
            before = origin.loads.value
            value = invalidate(origin, forget)
            if case.written and turn:
                time.sleep(case.load_s / 2)
                value = invalidate(origin, forget)
            in_time = all_have(origin, value, patience_s)
            if turn:
                found.loads.append(origin.loads.value - before)
                found.given_up += not in_time
            else:
                origin.most.value = 0
        found.most, found.stale = origin.most.value, origin.stale.value
    return found


@contextmanager
def places() -> Iterator[dict[str, dict[str, Any]]]:
    """What each subject needs, for those that are here."""
    cores = frozenset(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-"))
        config = mesh.local_config("herd", MEMORY)
        stack.callback(mesh.remove, config["host"]["name"])
        found: dict[str, dict[str, Any]] = {OURS: {"config": config, "late": False}}
        try:
            module = wanted("redis")
            command = ["redis-server", "--port", str(REDIS_PORT), "--save", "", "--appendonly", "no"]
            command += ["--dir", folder]
            stack.enter_context(server(command, Room(0, Path(folder), Apart(cores, cores))))
            ready(module.Redis(port=REDIS_PORT).ping, module.RedisError, "redis-server")
            found["Redis, a lock"] = {}
        except Absent as absent:
            print(f"Redis, a lock is left out: {absent}")
        try:
            wanted("dogpile.cache")
            found["dogpile.cache"] = {"folder": folder}
        except Absent as absent:
            print(f"dogpile.cache is left out: {absent}")
        yield found


def row(case: Case, subject: str, found: Found) -> tuple[str, ...]:
    loads = sum(found.loads) / len(found.loads)
    return (
        f"{case.name}: {subject}",
        f"{loads:.2f}",
        str(max(found.loads)),
        str(found.most),
        str(found.stale),
        f"{found.given_up} of {len(found.loads)}",
    )


def targets(results: dict[str, dict[str, Found]], all_cases: list[Case]) -> list[Target]:
    found = []
    for case in all_cases:
        ours = results[case.name][OURS]
        moves = "two invalidations" if case.written else "invalidation"
        found.append(Target("C7", f"{case.name}: most loads for {moves}", max(ours.loads), case.allowed))
    stale = sum(each[OURS].stale for each in results.values())
    return [*found, Target("C7", "stale reads in all", stale, 0)]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=("hosts",), help="the herd over hosts alone")


def main() -> None:
    chosen = start(__doc__ or "", 5, options)
    judged, results = ([], {}) if chosen.only else on_one_host(chosen)
    found = herd_hosts.measured(2 if chosen.quick else 4 * chosen.repeats)
    print(table("Loads for each invalidation, over hosts", herd_hosts.HEADER, herd_hosts.rows(found)))
    judged += herd_hosts.targets(found)
    print(targets_table(judged))
    loads = {case: {name: vars(one) for name, one in each.items()} for case, each in results.items()}
    data = {"loads": loads, "hosts": herd_hosts.as_data(found)}
    name = "herd_hosts" if chosen.only else "herd"
    save(chosen.out, name, data, judged, lambda figure: draw(figure, results, found))


def on_one_host(chosen: argparse.Namespace) -> tuple[list[Target], dict[str, dict[str, Found]]]:
    all_cases = cases(chosen.quick)
    results: dict[str, dict[str, Found]] = {case.name: {} for case in all_cases}
    with places() as here:
        for case in all_cases:
            here[OURS]["late"] = case.hangs
            for subject, place in here.items():
                rounds = min(chosen.repeats, 2) if case.load_s > 1 else chosen.repeats
                results[case.name][subject] = measure(subject, place, case, rounds)
    rows = [row(case, name, found) for case in all_cases for name, found in results[case.name].items()]
    header = ("64 workers", "loads", "most", "at once", "stale", "not in time")
    print(table("Loads for each invalidation of one hot key", header, rows))
    return targets(results, all_cases), results


def draw(figure: Any, results: dict[str, dict[str, Found]], hosts: dict[str, herd_hosts.Found]) -> None:
    axes = figure.subplots()
    cases_of = {
        name: [sum(each[name].loads) / len(each[name].loads) for each in results.values()]
        for name in next(iter(results.values()), {})
    }
    for at, (name, heights) in enumerate(cases_of.items()):
        width = 1 / (len(cases_of) + 1)
        axes.bar([i + at * width for i in range(len(heights))], heights, width, label=name)
    over = {f"4 hosts, {name}": sum(each.loads) / len(each.loads) for name, each in hosts.items()}
    axes.bar([len(results) + i / 2 for i in range(len(over))], list(over.values()), 1 / 3, color="grey")
    axes.set_xticks(
        [*range(len(results)), *(len(results) + i / 2 for i in range(len(over)))],
        [*results, *over],
        rotation=20,
    )
    axes.set_ylabel("loads for each invalidation")
    if cases_of:
        axes.legend()


if __name__ == "__main__":
    main()
