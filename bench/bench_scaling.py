"""Two processes on two cores beside one: what they get done together (target S6).

Each process is bound to a core of its own, attaches to the same memory, and does the same on the same
20,000 keys of 100 bytes in an order of its own, for 150 ms from a common start. Operations of all
processes in a second, over those of one process alone, are the ratio; all are measured in turns (see
measuring.py), and no bridge runs.

  reads         get, every one a hit
  90/10, 50/50  get, and set of 10 or 50 of a hundred, in an order drawn by lot
  pure CPU      adding integers, nothing shared: what two cores of this machine are worth in this run. Where
                it is well below 2, the machine was not free, and the ratios are to be read beside it

warp_cache (backend="shared") is the rival whose memory is shared as well.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from crew import Member, Shared, member, orders, shared_memories
from measuring import Target, interleaved, ratio, save, start, table, targets_table, two_cores

KEYS = 20_000
MEMORY = "32MiB"
VALUE = bytes(range(100))
BATCH = 500
START_IN_NS = 3_000_000
CPU = "pure CPU"
MIXES = {"reads": 0.0, "90/10": 0.1, "50/50": 0.5}
LIMITS = {"reads": 1.8, "90/10": 1.6, "50/50": 1.1}
now_ns = time.monotonic_ns

Plan = list[tuple[str, bool]]


def work(pipe: Connection, number: int, memories: dict[str, Shared]) -> None:
    """A process of the crew: told (subject, mix, start, length), it answers with its operations a second."""
    draw = random.Random(number)
    keys = [f"user:{key}" for key in range(KEYS)]
    draw.shuffle(keys)
    plans = {mix: [(key, draw.random() < share) for key in keys] for mix, share in MIXES.items()}
    with ExitStack() as stack:
        faces = {name: stack.enter_context(shared.attached()) for name, shared in memories.items()}
        for _, put in faces.values():
            for key in keys:
                put(key, VALUE)
        pipe.send(sum(get(key) == VALUE for get, _ in faces.values() for key in keys))
        for subject, mix, begin_ns, length_ns in orders(pipe):
            if subject == CPU:
                pipe.send(rate(add, begin_ns, length_ns))
            else:
                pipe.send(rate(mixed(*faces[subject], plans[mix]), begin_ns, length_ns))


def rate(batch: Callable[[], None], begin_ns: int, length_ns: int) -> float:
    """Operations a second, in batches, from the common start on."""
    while now_ns() < begin_ns:
        pass
    begun, done = now_ns(), 0
    while (ended := now_ns()) - begun < length_ns:
        batch()
        done += BATCH
    return done / (ended - begun) * 1e9


def add() -> None:
    total = 0
    for number in range(BATCH):
        total += number * number


def mixed(get: Callable[[str], Any], put: Callable[[str, Any], object], plan: Plan) -> Callable[[], None]:
    """A batch: the next BATCH operations of the plan, over and over."""
    batches = [plan[at : at + BATCH] for at in range(0, len(plan), BATCH)]
    at = 0

    def batch() -> None:
        nonlocal at
        at = (at + 1) % len(batches)
        for key, is_write in batches[at]:
            if is_write:
                put(key, VALUE)
            else:
                get(key)

    return batch


class Bench:
    """The crew, and what it gets done."""

    def __init__(self, crew: list[Member], subjects: list[str], length_ns: int) -> None:
        self.crew = crew
        self.length_ns = length_ns
        self.rows = [(CPU, "")] + [(name, mix) for mix in MIXES for name in subjects]

    def together(self, subject: str, mix: str, processes: int) -> float:
        begin_ns = now_ns() + START_IN_NS
        for each in self.crew[:processes]:
            each.tell(subject, mix, begin_ns, self.length_ns)
        return sum(float(each.answer()) for each in self.crew[:processes])

    def run(self, repeats: int) -> dict[str, list[float]]:
        def turn(subject: str, mix: str, processes: int) -> Callable[[], float]:
            return lambda: self.together(subject, mix, processes)

        return interleaved(
            {label(row, count): turn(*row, count) for row in self.rows for count in (1, 2)}, repeats
        )


@contextmanager
def crew_on(cores: list[frozenset[int]], memories: dict[str, Shared]) -> Iterator[list[Member]]:
    """One after the other: warp_cache may die of SIGBUS when two processes make its memory at once."""
    with ExitStack() as stack:
        crew = []
        for number, core in enumerate(cores):
            crew.append(stack.enter_context(member(work, core, number, memories)))
            if crew[-1].answer() != KEYS * len(memories):
                raise SystemExit("a process does not read all that it has written: nothing to compare")
        yield crew


def label(row: tuple[str, str], processes: int) -> str:
    return f"{' '.join(row).strip()}, {processes}"


def gained(found: dict[str, list[float]], row: tuple[str, str]) -> float:
    return ratio(found[label(row, 2)], found[label(row, 1)])


def print_table(found: dict[str, list[float]], rows: list[tuple[str, str]]) -> None:
    control = gained(found, (CPU, ""))
    lines = []
    for row in rows:
        one, two = (statistics.median(found[label(row, count)]) / 1e6 for count in (1, 2))
        times = gained(found, row)
        lines.append((" ".join(row), f"{one:.2f}", f"{two:.2f}", f"{times:.2f}", f"{times / control:.2f}"))
    header = ("million operations a second", "1 process", "2 processes", "2 / 1", "of pure CPU's")
    print(table("Two processes on two cores, beside one", header, lines), flush=True)


def draw(found: dict[str, list[float]], rows: list[tuple[str, str]]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        axis = figure.subplots()
        names = [" ".join(row).strip() for row in reversed(rows)]
        colours = ["tab:orange" if name.startswith("cachee") else "tab:gray" for name in names]
        axis.barh(names, [gained(found, row) for row in reversed(rows)], color=colours)
        axis.axvline(2, color="black", linewidth=0.5)
        axis.set_xlabel("operations of two processes / operations of one (median)")

    return on


def main() -> None:
    chosen = start(__doc__, repeats=11)
    with ExitStack() as stack:
        memories = stack.enter_context(shared_memories(MEMORY))
        crew = stack.enter_context(crew_on(two_cores(), memories))
        bench = Bench(crew, list(memories), 10_000_000 if chosen.quick else 150_000_000)
        found = bench.run(chosen.repeats)
    print_table(found, bench.rows)
    control = gained(found, (CPU, ""))
    targets = [
        Target(
            "S6",
            f"{mix}: 2 processes / 1 (pure CPU: {control:.2f})",
            gained(found, ("cachee", mix)),
            limit,
            is_floor=True,
        )
        for mix, limit in LIMITS.items()
    ]
    print(targets_table(targets))
    save(chosen.out, "scaling", {"operations_per_second": found}, targets, draw(found, bench.rows))


if __name__ == "__main__":
    main()
