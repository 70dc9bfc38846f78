"""Miss ratios on request streams, beside those of published policies at the same capacity (target POLICY).

Each trace is replayed through a real cache, a get and on a miss a set, with equal-sized values and no
lifetimes. A capacity of C objects means value memory of C times the bytes that one entry takes, and at least
--pages pages of it (room.py); what the cache cannot use of that is its own loss. The second table tells what
each row's segment was, and how many entries it held at the end.

  cachee      attach(private=True); with --writers, so many processes of one segment, in turns
  the others  libCacheSim's, with C objects (policies.py); without its package they are left out
  MIN         Belady's optimum, which knows the future

vs LRU and vs best are points of a percent by which Cachee misses more than LRU, and than the best of S3-FIFO,
ARC, SIEVE and W-TinyLFU. Traces come from --traces (their formats: traces.py), in the sizes for which results
are published; without it a Zipf stream, drawn from a fixed seed, is replayed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import policies
from measuring import Target, save, start, table, targets_table
from replay import Outcome, replay
from room import Room, capacity_for
from traces import Trace, traces, zipf

US = "cachee"
BEST_OF = ("S3-FIFO", "ARC", "SIEVE", "W-TinyLFU")
POINTS_ABOVE_LRU_MAX, POINTS_ABOVE_BEST_MAX = 1.0, 2.0
LOOP, LOOP_MISS_MAX = ("lirs-loop", 500), 0.70  # a loop above the capacity: recency policies miss always
PAGES_MIN = 256
QUICK_REQUESTS = 20_000
ENDS_AT = 1.75  # of the plot, in lengths from the optimum to LRU
COLOURS = {"LRU": "black", "S3-FIFO": "tab:blue", "ARC": "tab:green", "SIEVE": "tab:purple"}
COLOURS |= {"W-TinyLFU": "tab:red", US: "tab:orange"}
MARKERS = {"LRU": "s", "S3-FIFO": "^", "ARC": "D", "SIEVE": "v", "W-TinyLFU": "P", US: "o"}


@dataclass(frozen=True)
class Row:
    """One trace at one capacity: Cachee's outcomes, one a repeat, and the miss ratios of the policies."""

    trace: str
    room: Room
    outcomes: list[Outcome]
    others: dict[str, float]

    @property
    def name(self) -> str:
        return f"{self.trace} {self.room.objects}"

    @property
    def is_loop(self) -> bool:
        return (self.trace, self.room.objects) == LOOP

    @property
    def miss(self) -> float:
        return statistics.median(outcome.miss for outcome in self.outcomes)

    @property
    def above_lru(self) -> float:
        """Points."""
        return 100 * (self.miss - self.others["LRU"])

    @property
    def above_best(self) -> float:
        """Points."""
        return 100 * (self.miss - min(self.others[policy] for policy in BEST_OF))

    @property
    def limit(self) -> float:
        """The miss ratio that the target allows."""
        if self.is_loop:
            return LOOP_MISS_MAX
        best = min(self.others[policy] for policy in BEST_OF)
        return min(self.others["LRU"] + POINTS_ABOVE_LRU_MAX / 100, best + POINTS_ABOVE_BEST_MAX / 100)

    @property
    def cells(self) -> tuple[str, ...]:
        if not self.others:
            return self.name, f"{self.miss:.4f}"
        others = (f"{self.others[policy]:.4f}" for policy in policies.POLICIES)
        points = (f"{self.above_lru:+.2f}", f"{self.above_best:+.2f}")
        return self.name, f"{self.miss:.4f}", *others, *points, "met" if self.miss <= self.limit else "missed"

    @property
    def room_cells(self) -> tuple[str, ...]:
        room, entries = self.room, statistics.median(outcome.entries for outcome in self.outcomes)
        return (
            self.name,
            f"{room.pages} x {room.page_bytes >> 10} KiB",
            f"{room.value_bytes}",
            f"{room.entry_bytes}",
            f"{100 * room.filled:.2f} %",
            f"{entries:.0f}",
            f"{100 * entries / room.objects:.1f} %",
            f"{statistics.median(outcome.seconds for outcome in self.outcomes):.1f}",
        )

    @property
    def record(self) -> dict[str, Any]:
        return {
            "trace": self.trace,
            "room": asdict(self.room),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "miss": {US: self.miss, **self.others},
        }


def measure(trace: Trace, chosen: argparse.Namespace) -> Iterator[Row]:
    """The trace's rows. Rivals cannot delete: they are not asked when --mutations are."""
    judged = policies.installed() and not chosen.mutations
    with policies.replaying(trace) if judged else nullcontext() as miss:
        for objects in trace.sizes:
            room = capacity_for(objects, chosen.pages)
            outcomes = [replay(trace, room, chosen.writers, chosen.mutations) for _ in range(chosen.repeats)]
            others = {policy: miss(policy, objects) for policy in policies.POLICIES} if miss else {}
            row = Row(trace.name, room, outcomes, others)
            print(f"{row.name}: {row.miss:.4f}", flush=True)
            yield row


def chosen_traces(chosen: argparse.Namespace) -> Iterable[Trace]:
    if chosen.traces is None:
        return [zipf(QUICK_REQUESTS, 3_000) if chosen.quick else zipf(1_000_000, 100_000)]
    found = (trace for trace in traces(chosen.traces) if chosen.only in trace.name)
    return (
        (replace(trace, requests=trace.requests[:QUICK_REQUESTS]) for trace in found)
        if chosen.quick
        else found
    )


def mean(rows: list[Row], policy: str) -> float:
    return statistics.mean(row.miss if policy == US else row.others[policy] for row in rows)


def miss_table(rows: list[Row], title: str) -> str:
    if not rows[0].others:
        return table(title, ("", US), [row.cells for row in rows])
    means = ("mean", *(f"{mean(rows, policy):.4f}" for policy in (US, *policies.POLICIES)), "", "", "")
    header = ("", US, *policies.POLICIES, "vs LRU", "vs best", "verdict")
    return table(title, header, [*(row.cells for row in rows), means])


def room_table(rows: list[Row]) -> str:
    header = ("", "value memory", "value B", "entry B", "of C x entry B", "held", "of C", "seconds")
    return table(
        "The segments, and the entries that they held at the end", header, [r.room_cells for r in rows]
    )


def targets(rows: list[Row]) -> list[Target]:
    judged = [row for row in rows if row.others]
    plain = [row for row in judged if not row.is_loop]
    loops = [row.miss for row in judged if row.is_loop]

    def worst(points: Callable[[Row], float]) -> float | None:
        return max(map(points, plain), default=None)

    def above(policy: str) -> float | None:
        return 100 * (mean(judged, US) - mean(judged, policy)) if judged else None

    name, unit = "POLICY", " points"
    return [
        Target(name, "the worst row: cachee - LRU", worst(lambda r: r.above_lru), POINTS_ABOVE_LRU_MAX, unit),
        Target(
            name,
            "the worst row: cachee - the best of S3-FIFO, ARC, SIEVE, W-TinyLFU",
            worst(lambda r: r.above_best),
            POINTS_ABOVE_BEST_MAX,
            unit,
        ),
        Target(name, "miss ratio on a loop of 1,011, 500 objects", max(loops, default=None), LOOP_MISS_MAX),
        Target(name, "mean of the rows: cachee - S3-FIFO", above("S3-FIFO"), 0, unit),
        Target(name, "mean of the rows: cachee - ARC", above("ARC"), 0, unit),
    ]


def draw(rows: list[Row]) -> Callable[[Any], None]:
    """A line a row, from the optimum to LRU and beyond, a mark a policy; or bars, if there are no rivals."""

    def on(figure: Any) -> None:
        figure.set_size_inches(10, 1.8 + 0.5 * len(rows))
        axis = figure.subplots()
        for y, row in enumerate(reversed(rows)):
            if row.others:
                draw_marks(axis, y, row)
            else:
                axis.barh(y, row.miss, color=COLOURS[US], height=0.5)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=8)
        axis.set_xlabel("miss ratio (less is better)")
        if rows[0].others:
            axis.set_xlim(-0.05, ENDS_AT)
            axis.set_xticks([0, 0.5, 1, 1.5], ["the optimum (MIN)", "half-way", "LRU", "1.5"])
            axis.set_xlabel("miss ratio, from the optimum's to LRU's (less is better)")
            figure.legend(loc="outside upper center", ncols=len(MARKERS) + 1, fontsize=8, frameon=False)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)

    return on


def draw_marks(axis: Any, y: int, row: Row) -> None:
    """One row: what meets the target is shaded; a mark further right than the plot stands at its edge."""
    least, lru = row.others[policies.OPTIMUM], row.others["LRU"]

    def at(miss: float) -> float:
        return min((miss - least) / max(lru - least, 1e-9), ENDS_AT)

    axis.barh(y, at(row.limit), height=0.8, color="0.93", label="meets the target" if y == 0 else None)
    for place, (policy, marker) in enumerate(MARKERS.items()):
        offset = 0.0 if policy == US else 0.3 - 0.15 * place
        axis.scatter(
            at(row.miss if policy == US else row.others[policy]),
            y + offset,
            s=80 if policy == US else 26,
            marker=marker,
            color=COLOURS[policy],
            label=policy if y == 0 else None,
            zorder=3 if policy == US else 2,
            clip_on=False,
        )
    axis.text(ENDS_AT + 0.03, y, f"{row.miss:.3f}", va="center", fontsize=8, color=COLOURS[US])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traces", type=Path, metavar="DIR", help="replay every trace of this folder")
    parser.add_argument("--only", default="", metavar="NAME", help="of these, those whose name contains NAME")
    parser.add_argument(
        "--pages",
        type=int,
        default=PAGES_MIN,
        metavar="N",
        help=f"value memory of at least N pages, by larger values (default {PAGES_MIN})",
    )
    parser.add_argument("--writers", type=int, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument(
        "--mutations",
        type=float,
        default=0.0,
        metavar="F",
        help="share of requests that delete or overwrite instead, half each (default 0)",
    )


def main() -> None:
    chosen = start(__doc__, repeats=1, options=options)
    if not policies.installed():
        print("libcachesim is missing and its policies are left out: pip install 'cachee-shm[bench]'")
    rows = [row for trace in chosen_traces(chosen) for row in measure(trace, chosen)]
    if not rows:
        raise SystemExit(f"no trace {chosen.only!r} in {chosen.traces}")
    how = f"{chosen.writers} writer{'s' * (chosen.writers > 1)}, {100 * chosen.mutations:g} % mutations"
    print(miss_table(rows, f"Miss ratio by objects of capacity, {how}"))
    print(room_table(rows))
    found = targets(rows)
    print(targets_table(found))
    asked = {"writers": chosen.writers, "mutations": chosen.mutations, "quick": chosen.quick}
    save(chosen.out, "hit_ratio", {**asked, "rows": [row.record for row in rows]}, found, draw(rows))


if __name__ == "__main__":
    main()
