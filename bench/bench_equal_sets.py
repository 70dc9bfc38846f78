"""Many hosts set one value, and whether they evict each other's copies (target C8).

A plain `set` is announced with the digest of its value: a peer that holds the same bytes keeps them. So hosts
that load the same row and `set` it leave each other alone, although the cache does not know that these are
fills. In each round, every worker of every host sets the key, as workers do that have all missed it.

  100 hosts       real segments in this process. What bridges would carry is carried by the same calls of the
                  core (`heal`, `pack`, `apply`), in any order: each host packs at some moment between the
                  sets, and each peer applies at some later one. The clock moves 400 ms from round to round
  real bridges    a smaller mesh of cachee-bridge processes over loopback; what a round has announced is
                  everywhere before the next begins

Before some rounds, another host deletes the key. Plain sets give way to that delete for a second, and their
announcements must not make each other give way for ever. The rounds of that second count as the first. The
same is measured with hosts whose values differ (a page with the host's name in it). No digest helps there:
such hosts should use `get_or_load`, a fill. If they kept their copies here, the bench would prove nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import mesh
from measuring import Target, apart, save, start, table, targets_table

import cachee_shm

SEED = 1
EQUAL, OWN = "the same value", "a value of its own"
MEMORY, RECORDS_MAX, BYTES_MAX = "8MiB", 64, 1 << 16
SERVE_MS = 3_600_000
ROUND_MS = 400
FIRST_ROUNDS = 4  # a write of another host refuses plain sets for up to 1.125 s
Value = Callable[[int], bytes]
"""value(host): what this host's workers set."""
VALUES: dict[str, Value] = {EQUAL: lambda host: b"x" * 100, OWN: lambda host: b"%100d" % host}


@dataclass(frozen=True)
class Size:
    hosts: int
    bridges: int
    rounds: int


FULL, QUICK = Size(100, 12, 20), Size(100, 0, 6)


@dataclass
class Found:
    """Of one mesh, and one kind of round."""

    where: str
    workers: int
    after_a_write: bool
    what: str
    evicted: list[int] = field(default_factory=list)
    """In each round, on all hosts."""
    holding: int = 0
    """Hosts that have the key when all is over."""

    @property
    def first(self) -> int:
        """The rounds that count as the first: until no set is refused any more."""
        return sum(self.evicted[: self._first])

    @property
    def later(self) -> int:
        return sum(self.evicted[self._first :])

    @property
    def _first(self) -> int:
        return FIRST_ROUNDS if self.after_a_write else 1

    @property
    def name(self) -> str:
        begin = "a host deletes it, then every worker sets" if self.after_a_write else "every worker sets"
        return f"{self.where}: {begin} {self.what}"


class Carried:
    """Hosts without bridges: this object packs and applies."""

    def __init__(self, hosts: Sequence[cachee_shm.Cache], rng: random.Random) -> None:
        self.caches, self._rng = hosts, rng
        self._indexes = [[host.source_open(f"h{number}") for number in range(len(hosts))] for host in hosts]
        self._cursors = [host.tail for host in hosts]
        self._on_the_way: list[list[tuple[int, bytes]]] = [[] for _ in hosts]
        """To each host, what others have packed: in the order of each source."""
        self._ms = hosts[0].now_ms()

    def round(self, key: str, workers: int, value: Value) -> None:
        """Sets, packs and deliveries in any order; at the end all is delivered."""
        self._ms += ROUND_MS
        for cache in self.caches:
            cache._freeze(self._ms)
        hosts = range(len(self.caches))
        steps: list[tuple[Callable[[int], object], int]] = [
            (self._pack, host) for host in hosts for _ in "ab"
        ]
        steps += [(lambda host: self.caches[host].set(key, value(host)), host) for host in hosts] * workers
        steps += [(self._deliver, host) for host in hosts for _ in hosts]
        self._rng.shuffle(steps)
        for step, host in steps:
            step(host)
        for host in hosts:
            self._pack(host)
        for host in hosts:
            while self._on_the_way[host]:
                self._deliver(host)

    def _pack(self, host: int) -> None:
        cache = self.caches[host]
        while self._cursors[host] < cache.tail:
            at = self._cursors[host]
            cache.heal(at, RECORDS_MAX, 0, b"")
            packed = cache.pack(at, RECORDS_MAX, BYTES_MAX)
            if packed is None:
                raise SystemExit("a ring was lapped: this bench packs too seldom")
            self._cursors[host] = packed[0]
            if packed[1]:
                for peer, queue in enumerate(self._on_the_way):
                    if peer != host:
                        queue.append((host, packed[1]))

    def _deliver(self, host: int) -> None:
        """The oldest frame of some source."""
        queue = self._on_the_way[host]
        if queue:
            source = self._rng.choice(queue)[0]
            at = next(number for number, (sender, _) in enumerate(queue) if sender == source)
            self.caches[host].apply(self._indexes[host][source], queue.pop(at)[1])


class Bridged:
    """Hosts with real bridges."""

    def __init__(self, joined: mesh.Mesh) -> None:
        self._mesh, self.caches = joined, list(joined.caches.values())

    def round(self, key: str, workers: int, value: Value) -> None:
        end = time.monotonic() + ROUND_MS / 1000
        for host, cache in enumerate(self.caches):
            for _ in range(workers):
                cache.set(key, value(host))
        self._mesh.settle()
        time.sleep(max(0.0, end - time.monotonic()))


def measure(where: str, hosts: Carried | Bridged, rounds: int) -> list[Found]:
    """One worker a host, and four; each kind of value in its turn, each with a key of its own."""
    found = []
    for workers, after_a_write, what in product((1, 4), (False, True), VALUES):
        case = Found(where, workers, after_a_write, what)
        key = f"the row {len(found)}"
        if after_a_write:
            hosts.caches[0].delete(key)
            hosts.round(key, 0, VALUES[what])
        for _ in range(rounds):
            before = evicted(hosts.caches)
            hosts.round(key, workers, VALUES[what])
            case.evicted.append(evicted(hosts.caches) - before)
        case.holding = sum(key in cache for cache in hosts.caches)
        found.append(case)
    return found


def evicted(caches: Sequence[cachee_shm.Cache]) -> int:
    """Entries that a peer's announcement has ended, on all hosts."""
    return sum(cache.stats()["invalidated"] for cache in caches)


def carried(size: Size) -> list[Found]:
    with ExitStack() as stack:
        names = [f"equal-{number:03}" for number in range(size.hosts)]
        hosts = stack.enter_context(mesh.configured(names, [MEMORY] * size.hosts, "1h"))
        caches = [stack.enter_context(host.attach()) for host in hosts]
        for cache in caches:
            cache.bridge_acquire()
            cache.set_serve_until(cache.now_ms() + SERVE_MS)
        where = f"{size.hosts} hosts, carried in any order"
        return measure(where, Carried(caches, random.Random(SEED)), size.rounds)


def bridged(size: Size) -> list[Found]:
    with mesh.mesh("equal", size.bridges - 1, "8MiB", apart()) as joined:
        return measure(f"{size.bridges} real bridges", Bridged(joined), size.rounds)


def judge(found: Sequence[Found]) -> list[Target]:
    targets = []
    for case in found:
        if case.what == EQUAL:
            hosts = int(case.where.split()[0])
            said = f"{case.name}, {case.workers} a host"
            targets += [
                Target("C8", f"{said}: evicted after the first round", case.later, 0),
                Target("C8", f"{said}: hold it at the end", case.holding, hosts, is_floor=True),
            ]
    return targets


def draw(figure: Any, found: Sequence[Found]) -> None:
    axis = figure.subplots()
    for case in found:
        label = f"{case.name}; {case.workers} a host"
        axis.plot(range(1, len(case.evicted) + 1), case.evicted, marker="o", label=label)
    axis.set(xlabel="round", ylabel="copies evicted", yscale="symlog")
    axis.legend(fontsize=7)


def main() -> None:
    chosen = start(__doc__ or "", repeats=1)
    size = QUICK if chosen.quick else FULL
    found = carried(size) + (bridged(size) if size.bridges else [])
    header = ("", "workers a host", "evicted: first round", "all later ones", "hold it")
    rows = [(case.name, *map(str, (case.workers, case.first, case.later, case.holding))) for case in found]
    print(table(f"{size.rounds} rounds", header, rows))
    targets = judge(found)
    print(targets_table(targets))
    save(
        chosen.out, "equal_sets", {"cases": [vars(case) for case in found]}, targets, lambda f: draw(f, found)
    )


if __name__ == "__main__":
    main()
