"""How many writes are seen everywhere in time, where nothing is broken (target C12): a checker of visibility.

Three hosts on this machine, each in a network namespace on one switch, or all on loopback where that may not
be made, which is said: a segment and a real cachee-bridge process each, and two processes beside it:

  its writer   gives each write the next number, stores that in the origin (memory that all share), then in
               the cache, as a service does: `with cache.writing(key)`. A key has one writer; keys take turns
  its reader   asks for what is due next of each other host, as a client does: `get_or_load`, from the origin
               after a miss. A write is seen once its number, or a later one, is returned. It then holds that
               copy, until it is written again: every write has to evict. (How often that was not so is told.)

A write is visible everywhere once both other hosts' readers have seen it; its time runs from before `writing`
is called, origin and all. The readers sleep 0.1 ms whenever nothing new is there, which counts against us,
as does all that the nine processes and the machine do on its cores. So that it can be told apart, one process
of real-time priority on each core sleeps 1 ms again and again and notes when it woke late by that much
(stalls.py): "but for stalls" are the late writes that would have been in time without the time in which a
core stood still. They are late all the same, in all other figures and in the verdict. What strangers to this
bench took of the cores meanwhile is told too, and what the machine was not given ("stolen").

Beside that, the bridges' own checkers run, every CHECK_EVERY, and are asked at the end what they have seen:
the share of their canaries that each peer had evicted within a bound. That is what an operator sees.

One in a million takes a million writes to tell, and more to be sure: with fewer there is no "met". `--add`
adds what earlier runs have left in --out to the figures of this one; "at most" is the bound that holds with
95 % confidence (where none was late: three by the number of writes).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import stalls
from crew import PROCESSES, Member, member, orders
from measuring import Apart, Target, percentile, save, start, table, targets_table
from mesh import Host, cpu_ns, mesh, secret
from namespaces import Loopback, Place, missing, network

import cachee_shm
from cachee_shm.segment import bridge_socket

NAMES = "abc"
BOUNDS_MS = (1, 2, 5, 10, 100)
SEEN_MS = (1, 10, 100, 1000)
BOUND_MS, LATE_MOST = 10, 1.0
"""Of a million: 99.9999 % in time."""
CONFIDENCE = 0.95
SURE = 1000  # late ones: from here on, what was found is what is to be expected
KEYS = 2048  # of each writer: each is written anew after some seconds
PER_SECOND = 670  # of each writer: 2,000 in all
SECONDS = 150
LOST_NS = 5_000_000_000
PAUSE_S = 0.0001
LED_IN_S = 1.0
CHECK_EVERY = "20ms"
LATE_KEPT = 1000
FIELDS = ("writes", "seconds", "lost", "unheld", "stalled_s", "own_s", "strangers_s", "stolen_s")
now_ns = time.monotonic_ns
Numbers = Any  # a RawArray of 64-bit integers


@dataclass(frozen=True)
class Paper:
    """What the processes share: the origin's rows and, by number, when each write was begun and was seen."""

    rows: Numbers
    begun: Numbers
    seen: dict[str, Numbers]
    """By the reader's host."""


def paper(host: str, writes: int) -> Paper:
    """Of one writer."""
    rows = PROCESSES.RawArray("q", [-1] * KEYS)
    begun = PROCESSES.RawArray("q", writes)
    return Paper(rows, begun, {name: PROCESSES.RawArray("q", writes) for name in NAMES if name != host})


def key_of(host: str, number: int) -> str:
    return f"{host}:{number % KEYS}"


def write(pipe: Connection, config: str, host: str, paper: Paper, per_second: float) -> None:
    """A writer's process; its order: (start_ns,). What came due in a sleep is written at once."""
    rows, begun = _numbers(paper.rows), _numbers(paper.begun)
    with cachee_shm.attach("bench", config=config) as cache:
        pipe.send("attached")
        for (start_ns,) in orders(pipe):
            for number in range(len(begun)):
                due = start_ns + int(number / per_second * 1e9)
                while (now := now_ns()) < due:
                    time.sleep((due - now) / 1e9)
                begun[number] = now_ns()
                with cache.writing(key_of(host, number)) as writing:
                    rows[number % KEYS] = number
                    writing.set(number)
            pipe.send("written")


def read(pipe: Connection, config: str, host: str, papers: dict[str, Paper]) -> None:
    """A reader's process; its order: (). It answers with how many writes met no copy here."""
    with cachee_shm.attach("bench", config=config) as cache:
        due = [Due(cache, source, host, paper) for source, paper in papers.items() if source != host]
        pipe.send("attached")
        for _ in orders(pipe):
            for each in due:
                each.fill()
            pipe.send("filled")
            while not all(each.is_over for each in due):
                if not sum(each.advance() for each in due):
                    time.sleep(PAUSE_S)
            pipe.send(sum(each.unheld for each in due))


class Due:
    """Where a reader is in the writes of one other host."""

    def __init__(self, cache: cachee_shm.Cache, source: str, host: str, paper: Paper) -> None:
        self._cache, self._source = cache, source
        self._rows, self._begun = _numbers(paper.rows), _numbers(paper.begun)
        self._seen = _numbers(paper.seen[host])
        self._next = 0
        self.unheld = 0

    def fill(self) -> None:
        for number in range(KEYS):
            self._read(number)

    @property
    def is_over(self) -> bool:
        return self._next == len(self._seen)

    def advance(self) -> bool:
        """Whether the next write is seen by now, or lost."""
        if self.is_over:
            return False
        number = self._next
        is_seen = self._read(number) >= number
        if is_seen:
            self._seen[number] = now_ns()
            self.unheld += key_of(self._source, number) not in self._cache
        elif not self._begun[number] or now_ns() - self._begun[number] < LOST_NS:
            return False
        self._next += 1
        return True

    def _read(self, number: int) -> int:
        return self._cache.get_or_load(key_of(self._source, number), self._load, number)

    def _load(self, number: int) -> int:
        return int(self._rows[number % KEYS])


def _numbers(array: Numbers) -> memoryview:
    return memoryview(array).cast("B").cast("q")


@dataclass(frozen=True)
class Late:
    """One write that was not visible everywhere in time."""

    took_ms: float
    stalled_ms: float

    @property
    def by_a_stall(self) -> bool:
        return self.took_ms - self.stalled_ms <= BOUND_MS


@dataclass(frozen=True)
class Canaries:
    """Those of all bridges together, and how many were seen within so many ms."""

    written: int
    within: dict[str, int]

    def late(self, bound_ms: int) -> float:
        """Of a million."""
        return (self.written - self.within[str(bound_ms)]) / max(1, self.written) * 1e6


@dataclass
class Found:
    """Of one run, or of several: `within` counts writes by bound in ms; lost ones are within none."""

    writes: int
    seconds: float
    within: dict[str, int]
    lost: int
    unheld: int
    """How often a reader's fill was refused after what it saw: the next write of that key met no copy."""
    largest_ms: float
    percentiles_ms: list[dict[str, float]]
    """One for each run."""
    late: list[Late]
    stalled_s: float
    largest_stall_ms: float
    has_priority: bool
    own_s: float = 0.0
    """Of processors, as the next two: by this bench's processes, by all others, by nobody."""
    strangers_s: float = 0.0
    stolen_s: float = 0.0

    @property
    def late_count(self) -> int:
        return self.writes - self.within[str(BOUND_MS)]

    def of_a_million(self, count: float) -> float:
        return count / self.writes * 1e6

    def plus(self, other: Found) -> Found:
        both = {name: getattr(self, name) + getattr(other, name) for name in FIELDS}
        return Found(
            **both,
            within={bound: count + other.within[bound] for bound, count in self.within.items()},
            largest_ms=max(self.largest_ms, other.largest_ms),
            percentiles_ms=self.percentiles_ms + other.percentiles_ms,
            late=self.late + other.late,
            largest_stall_ms=max(self.largest_stall_ms, other.largest_stall_ms),
            has_priority=self.has_priority and other.has_priority,
        )

    def as_data(self) -> dict[str, Any]:
        return {**vars(self), "late": [vars(late) for late in self.late[:LATE_KEPT]]}


def from_data(data: dict[str, Any]) -> Found:
    return Found(**{**data, "late": [Late(**late) for late in data["late"]]})


def trips(paper: Paper) -> Iterator[tuple[int, int]]:
    """(begun, seen everywhere) of each write of one host, in ns; seen is 0 for what was lost."""
    for begun, *seen in zip(paper.begun, *paper.seen.values(), strict=True):
        yield begun, max(seen) if all(seen) else 0


def judged(
    all_trips: Sequence[tuple[int, int]],
    seconds: float,
    unheld: int,
    stood_still: Sequence[stalls.Stall],
    has_priority: bool,
) -> Found:
    took = sorted((seen - begun) / 1e6 for begun, seen in all_trips if seen)
    late = [
        Late((seen - begun) / 1e6, stalls.stalled_ns(stood_still, begun, seen) / 1e6)
        for begun, seen in all_trips
        if seen and seen - begun > BOUND_MS * 1e6
    ]
    lengths = [(end - begin) / 1e6 for begin, end in stood_still]
    return Found(
        writes=len(all_trips),
        seconds=seconds,
        within={str(bound): sum(ms <= bound for ms in took) for bound in BOUNDS_MS},
        lost=len(all_trips) - len(took),
        unheld=unheld,
        largest_ms=took[-1] if took else math.inf,
        percentiles_ms=[{f"p{p:g}": percentile(took, p) for p in (50, 90, 99, 99.9, 99.99)}] if took else [],
        late=sorted(late, key=lambda one: -one.took_ms),
        stalled_s=sum(lengths) / 1e3,
        largest_stall_ms=max(lengths, default=0.0),
        has_priority=has_priority,
    )


def at_most(count: int) -> float:
    """Below which the number expected lies with 95 % confidence, where `count` were seen (Poisson)."""

    def chance(mean: float) -> float:
        """Of seeing no more than `count`."""
        return sum(
            math.exp(number * math.log(mean) - mean - math.lgamma(number + 1)) for number in range(count + 1)
        )

    low, high = float(count) or 1e-9, 2.0 * count + 10
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) > 1 - CONFIDENCE else (low, middle)
    return high


def often(folder: Path, host: str) -> str:
    return secret(folder, host) + f'check_every = "{CHECK_EVERY}"\n'


def canaries(hosts: Sequence[Host]) -> Canaries:
    """What the checkers of all bridges have seen of each other."""
    counts = [peer for host in hosts for peer in asked(host)["peers"].values()]
    within = {f"{bound}": sum(peer["visible"][f"{bound / 1000:g}"] for peer in counts) for bound in SEEN_MS}
    return Canaries(sum(peer["canaries"] for peer in counts), within)


def asked(host: Host) -> dict[str, Any]:
    """The answer to "checker" on the operator's socket of a host."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(bridge_socket(host.name))
        sock.sendall(b'{"do": "checker"}\n')
        told: dict[str, Any] = json.loads(b"".join(iter(lambda: sock.recv(1 << 16), b"")))
        return told


class Bench:
    """The three hosts, met, with a writer and a reader each."""

    def __init__(self, seconds: float, per_second: float) -> None:
        self.seconds, self.per_second = seconds, per_second
        self.canaries = Canaries(0, {})
        """Of the last run."""
        self.papers = {name: paper(name, int(seconds * per_second)) for name in NAMES}

    def run(self, places: Sequence[Place | Loopback]) -> Found:
        cores = frozenset(os.sched_getaffinity(0))
        with ExitStack() as stack:
            memory, apart = "32MiB", Apart(cores, cores)
            joined = stack.enter_context(
                mesh("visible", len(NAMES) - 1, memory, apart, places=places, proof=often)
            )
            hosts = dict(zip(NAMES, [joined.here, *(host for host, _ in joined.peers)], strict=True))
            readers, writers = [], []
            for name, host in hosts.items():
                of_host = (host.config, name)
                readers.append(stack.enter_context(member(read, cores, *of_host, self.papers)))
                pace = (self.papers[name], self.per_second)
                writers.append(stack.enter_context(member(write, cores, *of_host, *pace)))
            watchers = stack.enter_context(stalls.watchers())
            bridges = [host.bridge.pid for host in hosts.values() if host.bridge is not None]
            pids = [*bridges, *(each.process.pid for each in (*readers, *writers, *watchers))]
            found = self._timed(readers, writers, watchers, [pid for pid in pids if pid is not None])
            self.canaries = canaries(list(hosts.values()))
            return found

    def _timed(
        self, readers: list[Member], writers: list[Member], watchers: list[Member], pids: list[int]
    ) -> Found:
        for each in (*readers, *writers):
            each.answer()
        for each in readers:
            each.tell()
        for each in readers:
            each.answer()
        start_ns = now_ns() + int(LED_IN_S * 1e9)
        end_ns = start_ns + int(self.seconds * 1e9)
        own_ns, before = sum(map(cpu_ns, pids)), stalls.spent()
        for each in watchers:
            each.tell(end_ns)
        for number, each in enumerate(writers):  # apart, as on three hosts
            each.tell(start_ns + int(number / len(writers) / self.per_second * 1e9))
        time.sleep(max(0.0, (end_ns - now_ns()) / 1e9))
        for each in writers:
            each.answer()
        unheld = sum(each.answer() for each in readers)
        own_s, spent = (sum(map(cpu_ns, pids)) - own_ns) / 1e9, stalls.spent().since(before)
        watched = [each.answer() for each in watchers]
        all_trips = [trip for one in self.papers.values() for trip in trips(one)]
        stood_still = stalls.merged(stall for _, found in watched for stall in found)
        found = judged(all_trips, self.seconds, unheld, stood_still, all(has for has, _ in watched))
        strangers_s = max(0.0, spent.busy_s - own_s)
        return replace(found, own_s=own_s, strangers_s=strangers_s, stolen_s=spent.stolen_s)


@contextmanager
def three_places() -> Iterator[Sequence[Place | Loopback]]:
    if reason := missing():
        print(f"over loopback: {reason}")
        yield [Loopback() for _ in NAMES]
        return
    print("over veth, between three network namespaces on one switch")
    with network(NAMES) as places:
        yield places


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help=f"of writing (default {SECONDS})")
    parser.add_argument("--add", action="store_true", help="add what earlier runs have left in --out")


def main() -> None:
    chosen = start(__doc__ or "", repeats=1, options=options)
    seconds = chosen.seconds or (1.0 if chosen.quick else SECONDS)
    with three_places() as places:
        bench = Bench(seconds, PER_SECOND)
        found = bench.run(places)
    print_found(f"This run: {found.writes:,} writes in {found.seconds:g} s", found)
    if chosen.add:
        found = earlier(chosen.out, found)
        print_found(f"With the earlier ones: {found.writes:,} writes in {found.seconds:g} s", found)
    print_canaries(bench.canaries)
    targets = judge(found)
    print(targets_table(targets))
    figures = {"found": found.as_data(), "canaries": vars(bench.canaries)}
    save(chosen.out, "visible", figures, targets, lambda figure: draw(figure, found))


def earlier(out: Path, found: Found) -> Found:
    path = out / "visible.json"
    if not path.exists():
        return found
    return from_data(json.loads(path.read_text(encoding="utf-8"))["found"]).plus(found)


def print_found(title: str, found: Found) -> None:
    rows = []
    for bound, count in found.within.items():
        late = found.writes - count
        rows.append(
            (
                f"{bound} ms",
                f"{100 * count / found.writes:.4f} %",
                f"{late:,}",
                f"{found.of_a_million(late):,.1f}",
                f"{found.of_a_million(at_most(late)):,.1f}" if late < SURE else "-",
            )
        )
    header = ("visible everywhere within", "of all", "later", "of a million", "at most")
    print(table(title, header, rows))
    by_a_stall = sum(late.by_a_stall for late in found.late)
    whose = "" if found.has_priority else " (or others wanted it: no real-time priority)"
    print(f"largest {found.largest_ms:.1f} ms; lost {found.lost}; without a copy to evict {found.unheld:,}")
    cores_s = found.seconds * (os.cpu_count() or 1) / 100
    print(
        f"of all cores' time: {found.own_s / cores_s:.1f} % this bench, {found.strangers_s / cores_s:.1f} % "
        f"strangers, {found.stolen_s / cores_s:.1f} % stolen"
    )
    print(
        f"a core stood still{whose} for {found.stalled_s:.2f} s, {found.largest_stall_ms:.1f} ms at most; "
        f"of {len(found.late)} later than {BOUND_MS} ms, in time but for stalls: {by_a_stall}",
        flush=True,
    )


def print_canaries(seen: Canaries) -> None:
    rows = [
        (f"{bound} ms", f"{100 * count / max(1, seen.written):.4f} %", f"{seen.late(int(bound)):,.1f}")
        for bound, count in seen.within.items()
    ]
    title = f"The bridges' own checkers, by canary and peer: {seen.written:,}"
    print(table(title, ("evicted there within", "of all", "of a million later"), rows))


def judge(found: Found) -> list[Target]:
    """Fewer than a million writes may show that the target is missed, never that it is met."""
    late = found.of_a_million(found.late_count)
    is_told = found.writes >= 1e6 or late > LATE_MOST
    what = f"later than {BOUND_MS} ms, of a million ({found.writes:,} written)"
    return [
        Target("C12", what, late if is_told else None, LATE_MOST),
        Target("C12", "lost", found.lost, 0),
    ]


def draw(figure: Any, found: Found) -> None:
    axis = figure.subplots()
    counts = [found.writes - count for count in found.within.values()]
    bounds = [f"{bound} ms" for bound in found.within]
    axis.bar(bounds, [found.of_a_million(count) for count in counts])
    most = [found.of_a_million(at_most(count)) if count < SURE else math.nan for count in counts]
    axis.plot(bounds, most, "v", color="black", label="at most, with 95 % confidence")
    axis.legend()
    axis.axhline(LATE_MOST, color="gray", linestyle="--")
    axis.set_yscale("log")
    axis.set(xlabel="later than", ylabel="of a million writes", ylim=(0.1, 1e6))
    axis.set_title(
        f"{found.writes:,} writes on three hosts; dashed: the target for {BOUND_MS} ms", fontsize=9
    )


if __name__ == "__main__":
    main()
