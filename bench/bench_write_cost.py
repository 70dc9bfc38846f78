"""What the mesh costs a write: with a bridge and without, whatever becomes of the bridge (target S5).

One process writes 100 bytes under one of 10,000 keys at a time, in turns (see measuring.py) on segments of
the same size and lifetime, each write between two readings of the clock, whose cost is in every figure:

  no bridge          the same without a [bridge]
  4 peers            a real bridge with four peers linked to it
  peers down         a real bridge that is alive and has four peers configured, at none of which anybody is
  bridge stopped     one peer; the host's own bridge has been sent SIGSTOP
  bridge killed      one peer; the host's own bridge has been sent SIGKILL

  back to back       the next write follows at once: the bridge is awake and reads the ring meanwhile
  10,000 per second  the writer spins between: the bridge is awake, and looks between any two writes
  one per 20 ms      the writer sleeps between: the bridge has fallen asleep, and the write rings its doorbell

"rang" is how many writes of a hundred rang the doorbell, by the segment's counter. "gave up its core" is how
often the thread waited for anything within a write (voluntary context switches). That is what "a write
never waits" is about; noise of the machine does not change it. The maximum is mostly this machine's
scheduler.
"""

from __future__ import annotations

import random
import resource
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import mesh
from measuring import Target, apart, interleaved, percentile, save, start, table, targets_table

import cachee_shm

VALUE = bytes(range(100))
MEMORY = "32MiB"
NONE, PEERS, DOWN, STOPPED, KILLED = "no bridge", "4 peers", "peers down", "bridge stopped", "bridge killed"
BACK_TO_BACK, STEADY, QUIET = "back to back", "10,000 per second", "one per 20 ms"
now_ns = time.perf_counter_ns


def spin() -> None:
    until = now_ns() + 100_000
    while now_ns() < until:
        pass


PACES: dict[str, Callable[[], object] | None] = {
    BACK_TO_BACK: None,
    STEADY: spin,
    QUIET: lambda: time.sleep(0.02),
}
FULL = {BACK_TO_BACK: 4000, STEADY: 800, QUIET: 20}
QUICK = {BACK_TO_BACK: 200, STEADY: 50, QUIET: 3}


@dataclass(frozen=True)
class Subject:
    """A cache to write to, and what to wait for after a turn."""

    cache: cachee_shm.Cache
    settle: Callable[[], None] = field(default=lambda: None)


@dataclass
class Turn:
    """What one turn of one subject found."""

    took_ns: list[int]
    waited: int
    rang: int


def waits() -> int:
    """How often this thread has waited, so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def turn(subject: Subject, keys: list[str], pace: Callable[[], object] | None) -> Turn:
    rung = subject.cache.stats()["doorbells"]
    took, waited = _unpaced(subject.cache, keys) if pace is None else _paced(subject.cache, keys, pace)
    rang = subject.cache.stats()["doorbells"] - rung
    subject.settle()
    return Turn(took, waited, rang)


def _unpaced(cache: cachee_shm.Cache, keys: list[str]) -> tuple[list[int], int]:
    took: list[int] = []
    before = waits()
    for key in keys:
        begun = now_ns()
        cache.set(key, VALUE)
        took.append(now_ns() - begun)
    return took, waits() - before


def _paced(cache: cachee_shm.Cache, keys: list[str], pace: Callable[[], object]) -> tuple[list[int], int]:
    took: list[int] = []
    waited = 0
    for key in keys:
        pace()
        before = waits()
        begun = now_ns()
        cache.set(key, VALUE)
        took.append(now_ns() - begun)
        waited += waits() - before
    return took, waited


class Bench:
    """Every subject at every pace."""

    def __init__(self, subjects: dict[str, Subject], counts: dict[str, int], repeats: int) -> None:
        self.subjects = subjects
        self.counts = counts
        self.repeats = repeats
        self.random = random.Random(1)
        self.keys = [f"user:{number}" for number in range(10_000)]
        self.found: dict[str, dict[str, list[Turn]]] = {}
        for subject in subjects.values():
            for at in range(0, len(self.keys), 1000):
                subject.cache.set_many(dict.fromkeys(self.keys[at : at + 1000], VALUE))
                subject.settle()

    def run(self, pace: str) -> None:
        def one(subject: Subject) -> Turn:
            return turn(subject, self.random.choices(self.keys, k=self.counts[pace]), PACES[pace])

        turns = {name: lambda s=subject: one(s) for name, subject in self.subjects.items()}
        self.found[pace] = interleaved(turns, self.repeats)
        self.print(pace)

    def print(self, pace: str) -> None:
        rows = []
        for name, turns in self.found[pace].items():
            samples = everything(turns)
            figures = [f"{percentile(samples, percent):,.0f}" for percent in (50, 90, 99, 99.9)]
            rung = f"{100 * sum(turn.rang for turn in turns) / len(samples):.2f}"
            more = f"{self.more(pace, name):+.0f}" if name != NONE else ""
            waited = str(sum(turn.waited for turn in turns))
            rows.append((name, *figures, f"{max(samples):,}", more, rung, waited))
        header = (
            "ns",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "p50 - no bridge's",
            "rang, %",
            "gave up its core",
        )
        count = self.counts[pace] * self.repeats
        print(table(f"set of 100 bytes, {pace} ({count:,} writes each)", header, rows), flush=True)

    def more(self, pace: str, name: str, other: str = NONE) -> float:
        """Nanoseconds of the one's median above the other's: the median over the repeats."""
        pairs = zip(self.found[pace][name], self.found[pace][other], strict=True)
        return statistics.median(
            statistics.median(ours.took_ns) - statistics.median(theirs.took_ns) for ours, theirs in pairs
        )

    def targets(self) -> list[Target]:
        busy = [BACK_TO_BACK, STEADY]
        written = sum(len(turn.took_ns) for pace in busy for turn in self.found[pace][PEERS])
        rung = sum(turn.rang for pace in busy for turn in self.found[pace][PEERS])
        waited = sum(turn.waited for turns in self.found.values() for name in turns for turn in turns[name])
        return [
            *(
                Target("S5", f"{pace}: p50, 4 peers - no bridge", self.more(pace, PEERS), 50, " ns")
                for pace in busy
            ),
            *(
                Target("S5", f"{pace}: p50, {name} - 4 peers", self.more(pace, name, PEERS), 50, " ns")
                for name in (DOWN, STOPPED, KILLED)
                for pace in busy
            ),
            Target("S5", "writes under traffic that rang", 100 * rung / written, 1, " %"),
            Target("S5", "writes that waited for anything", waited, 0),
        ]

    def data(self) -> dict[str, Any]:
        return {
            pace: {
                name: {f"p{p:g}": percentile(everything(turns), p) for p in (1, 10, 50, 90, 99, 99.9, 100)}
                | {"rang": sum(turn.rang for turn in turns), "waited": sum(turn.waited for turn in turns)}
                | {"writes": len(everything(turns))}
                for name, turns in found.items()
            }
            for pace, found in self.found.items()
        }

    def draw(self, figure: Any) -> None:
        """The share of the writes that took longer, against how long."""
        for axis, (pace, found) in zip(figure.subplots(1, 3), self.found.items(), strict=True):
            for name, turns in found.items():
                ordered = sorted(everything(turns))
                longer = [1 - rank / len(ordered) for rank in range(len(ordered))]
                axis.loglog(ordered, longer, label=name)
            axis.set_title(pace, fontsize=9)
            axis.set_xlabel("ns", fontsize=8)
            axis.legend(fontsize=7)


def everything(turns: list[Turn]) -> list[int]:
    return [sample for turn in turns for sample in turn.took_ns]


def main() -> None:
    chosen = start(__doc__, repeats=11)
    with ExitStack() as stack:
        cores = apart()
        hosts = {
            name: stack.enter_context(mesh.mesh(name.replace(" ", "-"), peers, MEMORY, cores, absent))
            for name, peers, absent in ((PEERS, 4, 0), (DOWN, 0, 4), (STOPPED, 1, 0), (KILLED, 1, 0))
        }
        subjects = {NONE: Subject(stack.enter_context(mesh.local("none", MEMORY, default_ttl="1h")))}
        subjects |= {name: Subject(hosts[name].cache, hosts[name].settle) for name in (PEERS, DOWN)}
        for name, number in ((STOPPED, signal.SIGSTOP), (KILLED, signal.SIGKILL)):
            hosts[name].here.signal_bridge(number)
            subjects[name] = Subject(hosts[name].cache)
        bench = Bench(subjects, QUICK if chosen.quick else FULL, chosen.repeats)
        for pace in PACES:
            bench.run(pace)
    targets = bench.targets()
    print(targets_table(targets))
    save(chosen.out, "write_cost", {"ns": bench.data()}, targets, bench.draw)


if __name__ == "__main__":
    main()
