"""From a write on one host until another host has evicted its copy, over loopback (targets C1 and C2).

Two hosts on this machine: a segment and a real cachee-bridge process each, linked by TCP over 127.0.0.1. This
process writes on the first; a reader process spins on the second until its copy is gone; both read the same
monotonic clock. What was written is never what the copy holds, so that every write evicts.

  back to back       the next write follows when the one before was seen to arrive: the bridges stay awake
  one per 2 ms       the writer sleeps between: the bridges fall asleep, and a write has to ring the doorbell
  10,000 per second  distinct keys, whatever has arrived: nothing may be lost

Beside it in the same run, in turns and at the same pace, is one small message there and back between two
processes, of which half the round trip counts: over blocking sockets (what TCP costs on this machine) and
over uvloop. "with a spinner": the same reader spins beside it, as it does beside Cachee; without, the machine
is left to the two, which flatters TCP where cores are few. The target is judged by the latter.

"set() took" is what the writer itself paid, doorbell included, and the two readings of the clock.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from measuring import Target, interleaved, percentile, save, start, table, targets_table
from pingpong import RawPing, UvloopPing, partner
from two_hosts import NEW, Trips, TwoHosts, two_hosts

PACES = {"back to back": 0.0, "one per 2 ms": 0.002}
RATE = 10_000
SET, DELETE, RAW, RAW_SPINNER, UVLOOP_SPINNER = (
    "cachee: set",
    "cachee: delete",
    "raw TCP",
    "raw TCP, with a spinner",
    "uvloop TCP, with a spinner",
)


@dataclass(frozen=True)
class Size:
    """How many writes a turn has, by pace, and how many the steady rate."""

    back_to_back: int
    paced: int
    steady: int

    def count(self, pause_s: float) -> int:
        return self.paced if pause_s else self.back_to_back


FULL, QUICK = Size(300, 150, 50_000), Size(20, 10, 2_000)


@dataclass
class Paced:
    """What was found at one pace, in ns: the samples of each turn of each subject."""

    trips: dict[str, list[list[int]]]
    calls: list[int]
    lost: int = 0

    def all(self, name: str) -> list[int]:
        return [sample for turn in self.trips[name] for sample in turn]

    def ratio(self, ours: str, theirs: str) -> float:
        pairs = zip(self.trips[ours], self.trips[theirs], strict=True)
        return statistics.median(statistics.median(our) / statistics.median(their) for our, their in pairs)


class Bench:
    """The two hosts, the two rivals, and every pace."""

    def __init__(self, hosts: TwoHosts, raw: Any, uv: Any, size: Size, repeats: int) -> None:
        self.hosts = hosts
        self.raw = raw
        self.uv = uv
        self.size = size
        self.repeats = repeats

    def at(self, pause_s: float) -> Paced:
        found = Paced({}, [])
        count = self.size.count(pause_s)

        def ours(write: Callable[[str], object]) -> list[int]:
            block = self.hosts.one_at_a_time(write, count, pause_s)
            found.calls += block.calls_ns
            found.lost += block.lost
            return block.trips_ns

        def beside_a_spinner(ping: Any) -> list[int]:
            with self.hosts.spinning():
                return ping.trips(count, pause_s)  # type: ignore[no-any-return]

        found.trips = interleaved(
            {
                SET: lambda: ours(self.set),
                DELETE: lambda: ours(self.hosts.cache.delete),
                RAW: lambda: self.raw.trips(count, pause_s),
                RAW_SPINNER: lambda: beside_a_spinner(self.raw),
                UVLOOP_SPINNER: lambda: beside_a_spinner(self.uv),
            },
            self.repeats,
        )
        return found

    def set(self, key: str) -> object:
        return self.hosts.cache.set(key, NEW)

    def steady(self) -> Trips:
        self.hosts.steadily(self.set, min(1000, self.size.steady), RATE)
        return self.hosts.steadily(self.set, self.size.steady, RATE)


def microseconds(ns: float) -> str:
    return f"{ns / 1000:.1f}"


def percentiles(samples: list[int]) -> tuple[str, ...]:
    return tuple(microseconds(percentile(samples, percent)) for percent in (50, 90, 99, 99.9))


HEADER = ("us", "p50", "p90", "p99", "p99.9")


def print_paced(pace: str, found: Paced) -> None:
    rows = [(name, *percentiles(found.all(name)), f"{found.ratio(SET, name):.2f}") for name in found.trips]
    rows.append(("set() took", *percentiles(found.calls), ""))
    print(
        table(f"One way, {pace} ({len(found.all(SET))} each)", (*HEADER, "cachee: set / it"), rows),
        flush=True,
    )


def print_steady(found: Trips) -> None:
    rows = [("cachee: set", *percentiles(found.trips_ns)), ("set() took", *percentiles(found.calls_ns))]
    counts = f"{len(found.calls_ns):,} writes, {found.lost} lost"
    print(table(f"One way at {found.per_second:,.0f} writes per second ({counts})", HEADER, rows), flush=True)


def judge(paced: dict[str, Paced], steady: Trips) -> list[Target]:
    targets = []
    for pace, found in paced.items():
        p99 = percentile(found.all(SET), 99) / 1e6
        targets += [
            Target("C1", f"{pace}: p50, cachee / {RAW}", found.ratio(SET, RAW), 4),
            Target("C1", f"{pace}: p50, cachee / {RAW_SPINNER}", found.ratio(SET, RAW_SPINNER), 4),
            Target("C1", f"{pace}: p99", p99, 1, " ms"),
        ]
    return [
        *targets,
        Target(
            "C2", f"at {steady.per_second:,.0f}/s: p50", percentile(steady.trips_ns, 50) / 1e6, 0.3, " ms"
        ),
        Target("C2", f"at {steady.per_second:,.0f}/s: p99", percentile(steady.trips_ns, 99) / 1e6, 1, " ms"),
        Target("C2", "lost, of all writes", steady.lost + sum(found.lost for found in paced.values()), 0),
    ]


def as_data(paced: dict[str, Paced], steady: Trips) -> dict[str, Any]:
    """For the JSON file: percentiles in ns, and those of each turn."""
    by_pace: dict[str, Any] = {
        pace: {
            name: {
                **summary(found.all(name)),
                "median_of_each_turn": [statistics.median(turn) for turn in turns],
            }
            for name, turns in found.trips.items()
        }
        | {"set() took": summary(found.calls), "lost": found.lost}
        for pace, found in paced.items()
    }
    at_rate: dict[str, Any] = {
        "per_second": steady.per_second,
        "writes": len(steady.calls_ns),
        "lost": steady.lost,
    }
    at_rate |= {"trip": summary(steady.trips_ns), "set() took": summary(steady.calls_ns)}
    return {"one_way_ns": by_pace, "steady_ns": at_rate}


def summary(samples: list[int]) -> dict[str, float]:
    return {f"p{percent:g}": percentile(samples, percent) for percent in (1, 10, 50, 90, 99, 99.9)} | {
        "count": len(samples)
    }


def draw(paced: dict[str, Paced], steady: Trips) -> Callable[[Any], None]:
    panels = {pace: {name: found.all(name) for name in found.trips} for pace, found in paced.items()}
    panels[f"{steady.per_second:,.0f} writes per second"] = {SET: steady.trips_ns}

    def on(figure: Any) -> None:
        for axis, (title, samples) in zip(
            figure.subplots(len(panels), 1, sharex=True), panels.items(), strict=True
        ):
            for name, ns in samples.items():
                axis.hist([sample / 1000 for sample in ns], bins=_bins(), histtype="step", label=name)
            axis.set_xscale("log")
            axis.set_title(f"write until evicted, {title}", fontsize=9)
            axis.legend(fontsize=7)
        axis.set_xlabel("us, one way")

    return on


def _bins() -> list[float]:
    """From 3 us to 30 ms, 25 to a factor of ten."""
    return [10 ** (math.log10(3) + step / 25) for step in range(101)]


@contextmanager
def everything(size: Size, repeats: int) -> Iterator[Bench]:
    with ExitStack() as stack:
        raw, uv = (stack.enter_context(partner(kind)) for kind in (RawPing, UvloopPing))
        yield Bench(stack.enter_context(two_hosts()), raw, uv, size, repeats)


def main() -> None:
    chosen = start(__doc__, repeats=7)
    paced: dict[str, Paced] = {}
    with everything(QUICK if chosen.quick else FULL, chosen.repeats) as bench:
        for pace, pause_s in PACES.items():
            paced[pace] = bench.at(pause_s)
            print_paced(pace, paced[pace])
        steady = bench.steady()
        print_steady(steady)
    targets = judge(paced, steady)
    print(targets_table(targets))
    save(chosen.out, "propagation", as_data(paced, steady), targets, draw(paced, steady))


if __name__ == "__main__":
    main()
