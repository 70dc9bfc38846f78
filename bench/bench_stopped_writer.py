"""A reader while a writer has been stopped in the middle of whatever it did (target S7).

A reader process times each of its gets, of one of 64 keys, by two readings of the clock. A writer process,
on a core of its own where there are two, sets the same keys to values of 100 equal bytes without a pause:

  no writer          it sleeps; nothing of what the reader reads is in the other core's cache either
  writer running     it writes
  writer stopped     it was sent SIGSTOP after it had written for a random time; each round of gets has a stop
                     of its own, and SIGCONT follows

All in turns (see measuring.py), and before each round a random rest of 0.2 to 2 ms. A round whose gets did
not end within 0.5 s is counted as hung, and the writer is let go on so that the reader can finish; its gets
are in the percentiles, as a page would have waited for them. A get that finds nothing is a miss, one that
finds unequal bytes is torn: of the latter there must be none. warp_cache (backend="shared") stands beside:
its writers hold a lock that its readers wait for.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from crew import PROCESSES, STOP_S, Member, Shared, member, orders, shared_memories
from measuring import Target, interleaved, percentile, save, start, table, targets_table, two_cores
from mesh import process_state, wait_for

HUNG_S = 0.5
MEMORY = "16MiB"
KEYS = [f"user:{number}" for number in range(64)]
VALUES = [bytes([letter]) * 100 for letter in b"abcdefgh"]
QUIET, RUNNING, STOPPED = "no writer", "writer running", "writer stopped"
now_ns = time.perf_counter_ns


@dataclass(frozen=True)
class Size:
    """Of one turn: how many rounds, and how many gets in each."""

    rounds: int
    gets: int


FULL, QUICK = Size(20, 1000), Size(3, 100)


@dataclass
class Round:
    """What the reader found; `hung` is the bench's own judgement."""

    took_ns: list[int]
    misses: int
    torn: int
    hung: bool = False


def read(pipe: Connection, shared: Shared) -> None:
    """The reader: told how many gets, it answers with a Round."""
    draw = random.Random(1)
    with shared.attached() as (get, put):
        for key in KEYS:
            put(key, VALUES[0])
        pipe.send(None)
        for (count,) in orders(pipe):
            pipe.send(timed(get, draw.choices(KEYS, k=count)))


def timed(get: Callable[[str], Any], keys: list[str]) -> Round:
    took, values = [], []
    for key in keys:
        begun = now_ns()
        value = get(key)
        took.append(now_ns() - begun)
        values.append(value)
    misses = values.count(None)
    return Round(took, misses, sum(value not in VALUES for value in values) - misses)


def write(pipe: Connection, shared: Shared, writes: Any) -> None:
    """The writer: it writes while `writes` is set, until it is killed."""
    draw = random.Random(2)
    plan = [(draw.choice(KEYS), draw.choice(VALUES)) for _ in range(1000)]
    with shared.attached() as (_, put):
        pipe.send(None)
        while True:
            if not writes.value:
                time.sleep(0.0005)
                continue
            for key, value in plan:
                put(key, value)


class Scene:
    """A reader and a writer of one memory."""

    def __init__(self, reader: Member, writer: Member, writes: Any) -> None:
        self.reader = reader
        self.writer = writer
        self.writes = writes
        self.random = random.Random(3)

    def quiet(self, size: Size) -> list[Round]:
        self.writes.value = 0
        time.sleep(0.005)
        return [self.round(size.gets) for _ in range(size.rounds)]

    def running(self, size: Size) -> list[Round]:
        self.writes.value = 1
        time.sleep(0.005)
        found = [self.round(size.gets) for _ in range(size.rounds)]
        self.writes.value = 0
        return found

    def stopped(self, size: Size) -> list[Round]:
        self.writes.value = 1
        found = [self.stopped_once(size.gets) for _ in range(size.rounds)]
        self.writes.value = 0
        return found

    def pause(self) -> None:
        """Before each round, stop or none, so that the reader comes to all of them from the same rest."""
        time.sleep(self.random.uniform(0.0002, 0.002))

    def stopped_once(self, gets: int) -> Round:
        self.pause()
        pid = self.writer.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: process_state(pid) == "T", STOP_S, "the writer does not stop")
            self.reader.tell(gets)
            is_done = self.reader.pipe.poll(HUNG_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        found: Round = self.reader.answer()
        found.hung = not is_done
        return found

    def round(self, gets: int) -> Round:
        self.pause()
        self.reader.tell(gets)
        found: Round = self.reader.answer()
        return found


Found = dict[str, dict[str, list[list[Round]]]]


def gather(found: dict[str, list[list[Round]]], name: str) -> list[int]:
    return [ns for turn in found[name] for each in turn for ns in each.took_ns]


def total(found: dict[str, list[list[Round]]], name: str, what: str) -> int:
    return sum(int(getattr(each, what)) for turn in found[name] for each in turn)


def print_tables(found: Found) -> None:
    header = ("ns", "p50", "p99", "p99.9", "max", "rounds", "hung", "misses", "torn")
    for subject, turns in found.items():
        rows = []
        for name in turns:
            samples = gather(turns, name)
            figures = [f"{percentile(samples, percent):,.0f}" for percent in (50, 99, 99.9, 100)]
            counts = [total(turns, name, what) for what in ("hung", "misses", "torn")]
            rows.append((name, *figures, str(sum(map(len, turns[name]))), *map(str, counts)))
        print(
            table(f"get of 100 bytes, {subject} ({len(gather(turns, QUIET)):,} each)", header, rows),
            flush=True,
        )


def ratio_of(turns: dict[str, list[list[Round]]], percent: float, ours: str, theirs: str) -> float:
    """Of a percentile: the median of the ratios within each repeat."""

    def of(turn: list[Round]) -> float:
        return percentile([ns for each in turn for ns in each.took_ns], percent)

    pairs = zip(turns[ours], turns[theirs], strict=True)
    return statistics.median(of(our) / of(their) for our, their in pairs)


def judge(found: Found) -> list[Target]:
    ours = found["cachee"]
    return [
        *(
            Target(
                "S7", f"p{percent:g}: {STOPPED} / {RUNNING}", ratio_of(ours, percent, STOPPED, RUNNING), 1.1
            )
            for percent in (50, 99, 99.9)
        ),
        Target("S7", "rounds that hung", total(ours, STOPPED, "hung"), 0),
        Target("S7", "torn values", sum(total(ours, name, "torn") for name in ours), 0),
        Target("S7", "misses", sum(total(ours, name, "misses") for name in ours), 0),
    ]


def as_data(found: Found) -> dict[str, Any]:
    return {
        subject: {
            name: {f"p{p:g}": percentile(gather(turns, name), p) for p in (50, 90, 99, 99.9, 100)}
            | {what: total(turns, name, what) for what in ("hung", "misses", "torn")}
            | {"rounds": sum(map(len, turns[name]))}
            for name in turns
        }
        for subject, turns in found.items()
    }


def draw(found: Found) -> Callable[[Any], None]:
    """The share of the gets that took longer, against how long."""

    def on(figure: Any) -> None:
        for axis, (subject, turns) in zip(
            figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
        ):
            for name in turns:
                ordered = sorted(gather(turns, name))
                axis.loglog(ordered, [1 - rank / len(ordered) for rank in range(len(ordered))], label=name)
            axis.set_title(f"{subject}: the share of gets that took longer", fontsize=9)
            axis.set_xlabel("ns")
            axis.legend(fontsize=8)

    return on


def main() -> None:
    chosen = start(__doc__, repeats=11)
    size = QUICK if chosen.quick else FULL
    found: Found = {}
    with ExitStack() as stack:
        for subject, shared in stack.enter_context(shared_memories(MEMORY)).items():
            found[subject] = measure(shared, size, chosen.repeats)
    print_tables(found)
    targets = judge(found)
    print(targets_table(targets))
    save(chosen.out, "stopped_writer", {"ns": as_data(found)}, targets, draw(found))


def measure(shared: Shared, size: Size, repeats: int) -> dict[str, list[list[Round]]]:
    """One after the other: a process that makes the memory, and one that finds it."""
    here, there = two_cores()
    writes = PROCESSES.RawValue(ctypes.c_byte, 0)
    with member(read, here, shared) as reader:
        reader.answer()
        with member(write, there, shared, writes) as writer:
            writer.answer()
            scene = Scene(reader, writer, writes)
            try:
                return interleaved(
                    {
                        QUIET: lambda: scene.quiet(size),
                        RUNNING: lambda: scene.running(size),
                        STOPPED: lambda: scene.stopped(size),
                    },
                    repeats,
                )
            finally:
                writer.process.kill()


if __name__ == "__main__":
    main()
