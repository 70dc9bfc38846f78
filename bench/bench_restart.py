"""What a bridge's restart costs the readers of its host: hit ratio and staleness, under load (target C10).

Two hosts on this machine, each with a segment and a real cachee-bridge process, over loopback. This process
is the load of both: it writes rows on the first host (the origin is its own memory), and reads them through
`get_or_load` on the second, in a ratio of one write to 50 reads. In each turn the second host's bridge is
killed (SIGKILL) and started again; then the first's.

  before             as long as a restart lasts, nobody is restarted
  the restart        from the kill until both hosts have all that was written

A read is stale if it shows a row that was replaced before the time at which both bridges had last applied
everything. "Behind at worst": the longest time for which a row had been replaced when a reader was still
shown it. The hosts isolate each other after lost_after, 2 s: a restart that takes longer would cap lifetimes,
and cost hits.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import mesh
from measuring import Target, save, start, table, targets_table

import cachee_shm

ROWS = 5000
READS_PER_WRITE = 50
BEFORE, RESTART = "before", "the restart"
READER, WRITER = "the readers' bridge", "the writers' bridge"


@dataclass
class Turn:
    """What the readers of one span of time were served."""

    reads: int = 0
    loads: int = 0
    stale: int = 0
    behind_s: float = 0.0
    took_s: float = 0.0

    @property
    def hit_ratio(self) -> float:
        return 100 * (1 - self.loads / max(1, self.reads))


@dataclass
class Load:
    """Both sides of it, and the truth."""

    writer: cachee_shm.Cache
    reader: cachee_shm.Cache
    random: random.Random = field(default_factory=lambda: random.Random(1))
    versions: list[int] = field(default_factory=lambda: [0] * ROWS)
    replaced: list[list[float]] = field(default_factory=lambda: [[] for _ in range(ROWS)])
    """When the row ceased to be its n-th version."""
    agreed_at: float = 0.0
    loads: int = 0

    def load(self, row: int) -> int:
        self.loads += 1
        return self.versions[row]

    def row(self) -> int:
        """Some rows are read more than others, as everywhere."""
        return int(ROWS * self.random.random() ** 3)

    def write(self) -> None:
        row = self.row()
        with self.writer.writing(f"row:{row}") as writing:
            self.versions[row] += 1
            writing.set(self.versions[row])
        self.replaced[row].append(time.monotonic())

    def read(self, turn: Turn) -> None:
        row = self.row()
        version = self.reader.get_or_load(f"row:{row}", self.load, row)
        turn.reads += 1
        if version < self.versions[row]:
            replaced_at = self.replaced[row][version]
            turn.behind_s = max(turn.behind_s, time.monotonic() - replaced_at)
            turn.stale += replaced_at < self.agreed_at

    def span(self, turn: Turn, is_over: Any) -> Turn:
        loads, begun = self.loads, time.monotonic()
        while not is_over():
            self.write()
            for _ in range(READS_PER_WRITE):
                self.read(turn)
            time.sleep(0.001)
        turn.loads, turn.took_s = self.loads - loads, time.monotonic() - begun
        return turn


class Bench:
    """The two hosts under load."""

    def __init__(self, joined: mesh.Mesh) -> None:
        self.hosts = {WRITER: joined.here, READER: joined.peers[0][0]}
        self.joined = joined
        self.load = Load(joined.cache, joined.peers[0][1])

    def agree(self) -> bool:
        """Whether all that had been written by now is applied, and noted as known."""
        now, tail = time.monotonic(), self.load.writer.tail
        if mesh.cursor_of(self.load.reader, self.joined.here.name) < tail:
            return False
        self.load.agreed_at = now
        return True

    def quiet(self, seconds: float) -> Turn:
        end = time.monotonic() + seconds

        def is_over() -> bool:
            self.agree()
            return time.monotonic() > end

        return self.load.span(Turn(), is_over)

    def restart(self, which: str) -> Turn:
        host = self.hosts[which]
        host.signal_bridge(signal.SIGKILL)
        cache = self.load.writer if which == WRITER else self.load.reader
        before = cache.bridge_generation()
        host.start()
        return self.load.span(Turn(), lambda: cache.bridge_generation() > before and self.agree())


def main() -> None:
    chosen = start(__doc__, repeats=5)
    found: dict[str, dict[str, list[Turn]]] = {which: {BEFORE: [], RESTART: []} for which in (READER, WRITER)}
    with ExitStack() as stack:
        hosts = stack.enter_context(mesh.configured(["w", "r"], ["16MiB"] * 2, "1h", isolation_ttl="10s"))
        for host in hosts:
            stack.enter_context(host.bridged())
        joined = mesh.Mesh(hosts, [stack.enter_context(host.attach()) for host in hosts])
        joined.join()
        bench = Bench(joined)
        bench.quiet(0.5 if chosen.quick else 3.0)
        for _ in range(chosen.repeats):
            for which, turns in found.items():
                turns[BEFORE].append(bench.quiet(1.0))
                turns[RESTART].append(bench.restart(which))
    print_found(found)
    targets = judge(found)
    print(targets_table(targets))
    save(chosen.out, "restart", {"turns": data(found)}, targets, lambda figure: draw(figure, found))


def dip(turns: dict[str, list[Turn]]) -> float:
    """In points: the median over the turns."""
    pairs = zip(turns[BEFORE], turns[RESTART], strict=True)
    return statistics.median(before.hit_ratio - during.hit_ratio for before, during in pairs)


def print_found(found: dict[str, dict[str, list[Turn]]]) -> None:
    rows = [
        (
            f"{which}, {span}",
            f"{statistics.median(turn.took_s for turn in turns):.2f} s",
            f"{sum(turn.reads for turn in turns):,}",
            f"{statistics.median(turn.hit_ratio for turn in turns):.2f} %",
            f"{1000 * max(turn.behind_s for turn in turns):,.0f} ms",
            str(sum(turn.stale for turn in turns)),
        )
        for which, spans in found.items()
        for span, turns in spans.items()
    ]
    header = ("killed and started again", "took", "reads", "hit ratio", "behind at worst", "stale")
    print(table("Readers of the second host", header, rows))


def judge(found: dict[str, dict[str, list[Turn]]]) -> list[Target]:
    stale = sum(turn.stale for spans in found.values() for turns in spans.values() for turn in turns)
    return [
        *(
            Target("C10", f"{which}: hit ratio's dip, points", dip(turns), 1)
            for which, turns in found.items()
        ),
        Target("C10", "stale reads", stale, 0),
    ]


def data(found: dict[str, dict[str, list[Turn]]]) -> dict[str, Any]:
    return {
        which: {
            span: [vars(turn) | {"hit_ratio": turn.hit_ratio} for turn in turns]
            for span, turns in spans.items()
        }
        for which, spans in found.items()
    }


def draw(figure: Any, found: dict[str, dict[str, list[Turn]]]) -> None:
    axis = figure.subplots()
    for which, spans in found.items():
        for span, turns in spans.items():
            axis.plot([turn.hit_ratio for turn in turns], "o-", label=f"{which}: {span}")
    axis.set_xlabel("turn")
    axis.set_ylabel("hit ratio, percent")
    axis.legend(fontsize=7)


if __name__ == "__main__":
    main()
