"""From a write on one host until another host has evicted its copy (targets C1 and C2), beside its rivals.

Two hosts on this machine, each in a network namespace with a cable (veth) between them, or both on loopback
where that may not be made, which is said: a segment and a real cachee-bridge process each, linked by TCP.
This process writes on the first; a reader process spins on the second until its copy is gone; both read the
same monotonic clock. What was written is never what the copy holds, so that every write evicts.

  back to back       the next write follows when the one before was seen to arrive: the bridges stay awake
  one per 2 ms       the writer sleeps between: the bridges fall asleep, and a write has to ring the doorbell
  10,000 per second  distinct keys, whatever has arrived: nothing may be lost

Beside it in the same run, in turns and at the same pace: a small message there and back over blocking
sockets, of which half the round trip counts (what TCP costs on this machine; "with a spinner": our reader
spins beside it), and

  rival            pip install     apt-get install
  Redis pub/sub    redis           redis-server
  Redis tracking   redis           redis-server      (client-side caching: RESP3, CLIENT TRACKING)
  NATS core        nats-py         nats-server
  Zenoh            eclipse-zenoh

each with a dict on the second host, whose entry the subscriber's callback deletes; bench/channels.py tells
what each of them does. Our reader spins beside each of them too, and no reader collects garbage. The pip
packages are the extra: pip install 'cachee-shm[bench]'. What is not installed is left out, and said. None of
them notices what it lost.

"set() took" is what the writer itself paid, doorbell included, and the two readings of the clock.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from channels import Rival, channels
from measuring import Target, interleaved, percentile, save, start, table, targets_table
from namespaces import Loopback, Place, missing, network
from pingpong import Ping, partner
from two_hosts import Trips, TwoHosts, Watched, two_hosts

PACES = {"back to back": 0.0, "one per 2 ms": 0.002}
RATE = 10_000
SET, DELETE, RAW, RAW_SPINNER = "cachee: set", "cachee: delete", "raw TCP", "raw TCP, with a spinner"
Write = Callable[[str], object]


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

    trips: dict[str, list[list[int]]] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)

    def all(self, name: str) -> list[int]:
        return [sample for turn in self.trips[name] for sample in turn]

    def ratio(self, ours: str, theirs: str) -> float:
        pairs = zip(self.trips[ours], self.trips[theirs], strict=True)
        return statistics.median(statistics.median(our) / statistics.median(their) for our, their in pairs)


class Bench:
    """The two hosts, what TCP costs between them, their rivals, and every pace."""

    def __init__(
        self, hosts: TwoHosts, raw: Ping, rivals: dict[str, Rival], size: Size, repeats: int
    ) -> None:
        self.hosts = hosts
        self.raw = raw
        self.rivals = rivals
        self.size = size
        self.repeats = repeats

    def at(self, pause_s: float) -> Paced:
        found = Paced()
        count = self.size.count(pause_s)

        def trips(name: str, watched: Watched, write: Write) -> list[int]:
            block = watched.one_at_a_time(write, count, pause_s)
            found.lost[name] = found.lost.get(name, 0) + block.lost
            if name == SET:
                found.calls += block.calls_ns
            return block.trips_ns

        def beside_a_spinner() -> list[int]:
            with self.hosts.spinning():
                return self.raw.trips(count, pause_s)

        subjects = {
            SET: lambda: trips(SET, self.hosts, self.hosts.set),
            DELETE: lambda: trips(DELETE, self.hosts, self.hosts.cache.delete),
            RAW: lambda: self.raw.trips(count, pause_s),
            RAW_SPINNER: beside_a_spinner,
        }

        def rivals(name: str, rival: Rival) -> list[int]:
            with self.hosts.spinning():
                return trips(name, rival.watched, rival.publish)

        for name, rival in self.rivals.items():
            subjects[name] = lambda name=name, rival=rival: rivals(name, rival)
        found.trips = interleaved(subjects, self.repeats)
        return found

    def steady(self) -> dict[str, Trips]:
        subjects: dict[str, tuple[Watched, Write]] = {SET: (self.hosts, self.hosts.set)}
        subjects |= {name: (rival.watched, rival.publish) for name, rival in self.rivals.items()}
        found = {}
        for name, (watched, write) in subjects.items():
            with nullcontext() if watched is self.hosts else self.hosts.spinning():
                watched.steadily(write, min(1000, self.size.steady), RATE)
                found[name] = watched.steadily(write, self.size.steady, RATE)
        return found


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


def print_steady(found: dict[str, Trips]) -> None:
    rows = [
        (name, *percentiles(trips.trips_ns), str(trips.lost), f"{trips.per_second:,.0f}")
        for name, trips in found.items()
    ]
    rows.insert(1, ("set() took", *percentiles(found[SET].calls_ns), "", ""))
    title = f"One way at {RATE:,} writes per second ({len(found[SET].calls_ns):,} each)"
    print(table(title, (*HEADER, "lost", "written per second"), rows), flush=True)


def judge(paced: dict[str, Paced], steadily: dict[str, Trips]) -> list[Target]:
    targets = []
    for pace, found in paced.items():
        p99 = percentile(found.all(SET), 99) / 1e6
        targets += [
            Target("C1", f"{pace}: p50, cachee / {rival}", found.ratio(SET, rival), 1)
            for rival in found.trips
            if rival == "Zenoh"
        ]
        targets += [
            Target("C1", f"{pace}: p50, cachee / {RAW}", found.ratio(SET, RAW), 4),
            Target("C1", f"{pace}: p50, cachee / {RAW_SPINNER}", found.ratio(SET, RAW_SPINNER), 4),
            Target("C1", f"{pace}: p99", p99, 1, " ms"),
        ]
    steady = steadily[SET]
    at = f"at {steady.per_second:,.0f}/s"
    lost = steady.lost + sum(found.lost[name] for found in paced.values() for name in (SET, DELETE))
    return [
        *targets,
        Target("C2", f"{at}: p50", percentile(steady.trips_ns, 50) / 1e6, 0.2, " ms"),
        Target("C2", f"{at}: p99", percentile(steady.trips_ns, 99) / 1e6, 1, " ms"),
        Target("C2", "lost, of all writes", lost, 0),
    ]


def as_data(paced: dict[str, Paced], steadily: dict[str, Trips]) -> dict[str, Any]:
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
    at_rate = {
        name: {
            "per_second": trips.per_second,
            "writes": len(trips.calls_ns),
            "lost": trips.lost,
            "trip": summary(trips.trips_ns),
            "the writer's call": summary(trips.calls_ns),
        }
        for name, trips in steadily.items()
    }
    return {"one_way_ns": by_pace, "steady_ns": at_rate}


def summary(samples: Sequence[int]) -> dict[str, float]:
    return {f"p{percent:g}": percentile(samples, percent) for percent in (1, 10, 50, 90, 99, 99.9)} | {
        "count": len(samples)
    }


def draw(paced: dict[str, Paced], steadily: dict[str, Trips]) -> Callable[[Any], None]:
    panels = {pace: {name: found.all(name) for name in found.trips} for pace, found in paced.items()}
    panels[f"{RATE:,} writes per second"] = {name: trips.trips_ns for name, trips in steadily.items()}

    def on(figure: Any) -> None:
        for axis, (title, samples) in zip(
            figure.subplots(len(panels), 1, sharex=True), panels.items(), strict=True
        ):
            for name, ns in samples.items():
                axis.hist([sample / 1000 for sample in ns], bins=_bins(), histtype="step", label=name)
            axis.set_xscale("log")
            axis.set_title(f"write until evicted, {title}", fontsize=9)
            axis.legend(fontsize=6)
        axis.set_xlabel("us, one way")

    return on


def _bins() -> list[float]:
    """From 3 us to 30 ms, 25 to a factor of ten."""
    return [10 ** (math.log10(3) + step / 25) for step in range(101)]


@contextmanager
def two_places() -> Iterator[Sequence[Place | Loopback]]:
    """Two network namespaces with a cable between them, this thread in the first; else loopback, and why."""
    if reason := missing():
        print(f"over loopback: {reason}")
        yield Loopback(), Loopback()
        return
    print("over veth, between two network namespaces")
    with network("ab") as places, places[0].inside():
        yield places


@contextmanager
def everything(size: Size, repeats: int) -> Iterator[Bench]:
    with ExitStack() as stack:
        here, there = stack.enter_context(two_places())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachee-bench-"))
        raw = stack.enter_context(partner(there))
        hosts = stack.enter_context(two_hosts([here, there]))
        rivals = stack.enter_context(channels(here, there, Path(folder)))
        yield Bench(hosts, raw, rivals, size, repeats)


def main() -> None:
    chosen = start(__doc__, repeats=7)
    paced: dict[str, Paced] = {}
    with everything(QUICK if chosen.quick else FULL, chosen.repeats) as bench:
        for pace, pause_s in PACES.items():
            paced[pace] = bench.at(pause_s)
            print_paced(pace, paced[pace])
        steadily = bench.steady()
        print_steady(steadily)
    targets = judge(paced, steadily)
    print(targets_table(targets))
    save(chosen.out, "propagation", as_data(paced, steadily), targets, draw(paced, steadily))


if __name__ == "__main__":
    main()
