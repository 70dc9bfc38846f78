"""How many invalidations a bridge sends, and its peer applies, in a second of one core (target C3).

Two hosts on this machine, each with a segment and a real cachee-bridge process, over loopback. This process
deletes on the first in bulk, half of what the ring holds at a time, and waits until the second has applied
it. What counts is the processor time of each bridge (its schedstat), system calls included, so other
processes on its core make no difference.

  distinct keys      each is deleted once; the second host holds a copy of each, and evicts it
  16 hot keys        coalesced: of a batch that was read from the ring, a key is sent once

If the ring were lapped, a map of buckets would be sent instead. The bench looks for that, and fails then.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mesh
from measuring import Target, apart, percentile, save, start, table, targets_table

DISTINCT, HOT = "distinct keys", "16 hot keys"
LIMITS = {DISTINCT: 500_000, HOT: 5_000_000}
MEMORY = "128MiB"


@dataclass(frozen=True)
class Rates:
    """Invalidations per second of one core, and per second of the clock."""

    sender: float
    receiver: float
    clock: float


class Flood:
    """One direction of a mesh of two."""

    def __init__(self, joined: mesh.Mesh) -> None:
        self.writer = joined.cache
        peer, self.reader = joined.peers[0]
        self.source = joined.here.name
        self.pids = [host.bridge.pid for host in (joined.here, peer) if host.bridge is not None]
        self.batch = self.writer.ring_slots // 2
        self.rounds = 0

    def distinct(self, batches: int) -> Rates:
        self.rounds += 1
        names = [f"{self.rounds}:{number}" for number in range(batches * self.batch)]
        for name in names:
            self.reader.get_or_load(name, lambda: b"a copy")
        held = len(self.reader.get_many(names[-self.batch :]))
        if held != self.batch:
            raise SystemExit(
                f"the second host holds {held} of the last {self.batch} keys: nothing to measure"
            )
        before = self.reader.stats()["applied"]
        rates = self.send([names[at : at + self.batch] for at in range(0, len(names), self.batch)])
        applied = self.reader.stats()["applied"] - before
        if applied < len(names) or self.reader.get_many(names):
            raise SystemExit(f"{applied} of {len(names)} were applied one by one: a ring was lapped")
        return rates

    def hot(self, batches: int) -> Rates:
        keys = [f"hot:{number}" for number in range(16)]
        return self.send([keys * (self.batch // 16)] * batches)

    def send(self, batches: Sequence[Sequence[str]]) -> Rates:
        cpu = [mesh.cpu_ns(pid) for pid in self.pids]
        begun = time.monotonic_ns()
        for batch in batches:
            self.writer.delete_many(batch)
            tail = self.writer.tail
            while mesh.cursor_of(self.reader, self.source) < tail:
                time.sleep(0.0005)
        clock = time.monotonic_ns() - begun
        spent = [mesh.cpu_ns(pid) - was for pid, was in zip(self.pids, cpu, strict=True)]
        return Rates(*(1e9 * sum(map(len, batches)) / ns for ns in (*spent, clock)))


def main() -> None:
    chosen = start(__doc__, repeats=7)
    batches = 1 if chosen.quick else 8
    found: dict[str, list[Rates]] = {DISTINCT: [], HOT: []}
    with mesh.mesh("flood", 1, MEMORY, apart()) as joined:
        flood = Flood(joined)
        subjects: dict[str, Callable[[int], Rates]] = {DISTINCT: flood.distinct, HOT: flood.hot}
        for turn in range(chosen.repeats + 1):
            for name, subject in subjects.items():
                rates = subject(batches)
                if turn:  # the first warms up
                    found[name].append(rates)
    sides = ("sender", "receiver", "clock")
    rows = [(name, *(f"{middle(turns, side):,.0f}" for side in sides)) for name, turns in found.items()]
    header = ("invalidations", "a second of the sender's core", "of the receiver's core", "of the clock")
    print(table(f"Sent and applied, {flood.batch:,} at a time", header, rows))
    targets = [
        Target(
            "C3", f"{name}: per second of the {side}'s core", middle(found[name], side), limit, is_floor=True
        )
        for name, limit in LIMITS.items()
        for side in ("sender", "receiver")
    ]
    print(targets_table(targets))
    save(chosen.out, "flood", {"per_second": data(found)}, targets, lambda figure: draw(figure, found))


def middle(turns: Sequence[Rates], side: str) -> float:
    return statistics.median(getattr(rates, side) for rates in turns)


def data(found: dict[str, list[Rates]]) -> dict[str, Any]:
    return {name: [vars(rates) for rates in turns] for name, turns in found.items()}


def draw(figure: Any, found: dict[str, list[Rates]]) -> None:
    axis = figure.subplots()
    labels = [(name, side) for name in found for side in ("sender", "receiver")]
    samples = [[getattr(rates, side) for rates in found[name]] for name, side in labels]
    lows = [percentile(rates, 0) for rates in samples]
    heights = [statistics.median(rates) for rates in samples]
    axis.bar(range(len(labels)), heights)
    axis.scatter(range(len(labels)), lows, color="black", label="the slowest turn")
    axis.set_xticks(range(len(labels)), [f"{name}\n{side}" for name, side in labels])
    axis.set_yscale("log")
    axis.set_ylabel("invalidations per second of one core")
    axis.legend()


if __name__ == "__main__":
    main()
