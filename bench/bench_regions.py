"""A write in one region until the other region, 40 ms away, has evicted (target C5).

Two regions of three hosts each on this machine, a segment and a real cachee-bridge process each. Within a
region they are linked over loopback; whoever dials a host of the other region is led through a proxy (far.py)
that carries each piece on 40 ms after it came, in both directions. This process is attached to every
segment, writes on each host in turn, and looks at all others, every 0.1 ms, until their copies are gone.

  near            the last host of the writer's own region
  far, first      the first of the other region: the gateway that the writer's records cross to
  far, last       the last of it
  raw TCP         half of what a small message takes there and back through the same proxy, between the writes

The target is about what "far, last" adds to "raw TCP" at p50, and about how often a write crossed: the proxy
reads what it carries, and counts the frames with records of the writer. (The hosts have no secret here.)
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from far import Far, far
from fleet import STEADY_LOOKS, Fleet, fleet, listens_at, watch
from measuring import Target, percentile, save, start, table, targets_table
from mesh import LOOPBACK, Host, no_proof
from pingpong import Ping, echo, ping

DELAY_S = 0.04
REGIONS = ("east", "west")
HOSTS_EACH = 3
LOST_AFTER_S = 10.0
NEAR, FAR_FIRST, FAR_LAST, RAW = "near", "far, first", "far, last", "raw TCP"
SUBJECTS = (NEAR, FAR_FIRST, FAR_LAST, RAW)
now_ns = time.monotonic_ns


@dataclass
class Found:
    """In ns; and how often the writes crossed."""

    trips: dict[str, list[int]] = field(
        default_factory=lambda: {n: [] for n in (NEAR, FAR_FIRST, FAR_LAST, RAW)}
    )
    lost: int = 0
    writes: int = 0
    crossed: int = 0
    returned: int = 0
    """Frames of a source that went back into its own region."""

    @property
    def added_ms(self) -> float:
        return (statistics.median(self.trips[FAR_LAST]) - statistics.median(self.trips[RAW])) / 1e6


def region_of(number: int) -> str:
    return REGIONS[number // HOSTS_EACH]


def other(region: str) -> str:
    return REGIONS[1 - REGIONS.index(region)]


class Bench:
    def __init__(self, hosts: Fleet, between: Far, raw: Ping) -> None:
        self.hosts, self.between, self.raw = hosts, between, raw
        self.found = Found()

    def run(self, count: int) -> Found:
        before = self.between.copies()
        for number in range(count):
            self.found.trips[RAW] += self.raw.trips(1, 0.0)
            self.write(number)
        crossings = self.between.copies() - before
        for number, host in enumerate(self.hosts.hosts):
            home, away = region_of(number), other(region_of(number))
            out = crossings[host.name, f"into {away}"] + crossings[host.name, f"out of {home}"]
            back = crossings[host.name, f"into {home}"] + crossings[host.name, f"out of {away}"]
            self.found.crossed += out
            self.found.returned += back
        return self.found

    def write(self, number: int) -> None:
        caches, key = self.hosts.caches, f"key {number}"
        writer = number % len(caches)
        watched = {at: cache for at, cache in enumerate(caches) if at != writer}
        for cache in watched.values():
            cache.get_or_load(key, lambda: b"a copy")
        time.sleep(0.01)
        begun = now_ns()
        caches[writer].set(key, b"what is written")
        gone = watch(watched, key, begun, LOST_AFTER_S)
        self.found.writes += 1
        self.found.lost += len(watched) - len(gone)
        near = [took for at, took in gone.items() if region_of(at) == region_of(writer)]
        away = [took for at, took in gone.items() if region_of(at) != region_of(writer)]
        self.found.trips[NEAR].append(max(near))
        self.found.trips[FAR_FIRST].append(min(away))
        self.found.trips[FAR_LAST].append(max(away))


def ms(ns: float) -> str:
    return f"{ns / 1e6:.2f}"


def print_found(found: Found) -> None:
    rows = [
        (name, *(ms(percentile(samples, percent)) for percent in (50, 90, 99)))
        for name, samples in found.trips.items()
    ]
    print(table(f"{found.writes} writes, until evicted, ms", ("", "p50", "p90", "p99"), rows))
    print(f"frames with records that crossed: {found.crossed}; that came back: {found.returned}", flush=True)


def judge(found: Found) -> list[Target]:
    copies = found.crossed / found.writes
    return [
        Target("C5", "p50 of the far region's last host, above raw TCP", found.added_ms, 2, " ms"),
        Target("C5", "frames that crossed, for each write", copies, 1),
        Target("C5", "the same: none was spared", copies, 1, is_floor=True),
        Target("C5", "copies lost", found.lost, 0),
    ]


def draw(found: Found) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        axis = figure.subplots()
        for name, samples in found.trips.items():
            ordered = sorted(samples)
            share = [100 * (at + 1) / len(ordered) for at in range(len(ordered))]
            axis.plot([each / 1e6 for each in ordered], share, label=name)
        axis.set_xlabel("ms from the write to the eviction")
        axis.set_ylabel("percent of writes")
        axis.legend(fontsize=7)

    return on


def main() -> None:
    chosen = start(__doc__, repeats=1)
    with ExitStack() as stack:
        port = stack.enter_context(echo(LOOPBACK))
        between: list[Far] = []

        def routed(hosts: Sequence[Host]) -> list[list[str]]:
            """Each host's way to those of the other region is through the proxy."""
            targets = [(listens_at(host), region_of(number)) for number, host in enumerate(hosts)]
            targets.append((f"127.0.0.1:{port}", "echo"))
            between.append(stack.enter_context(far(targets, DELAY_S)))
            routes = [
                {at: between[0].ports[at] for at, region in targets[:-1] if region != region_of(number)}
                for number in range(len(hosts))
            ]
            return [["routed_bridge.py", json.dumps(route)] for route in routes]

        hosts = stack.enter_context(
            fleet(
                len(REGIONS) * HOSTS_EACH,
                "8MiB",
                no_proof,
                lambda number: (f'region = "{region_of(number)}"\n', ""),
                routed,
            )
        )
        hosts.part(2 if chosen.quick else STEADY_LOOKS)
        raw = stack.enter_context(ping("127.0.0.1", between[0].ports[f"127.0.0.1:{port}"]))
        found = Bench(hosts, between[0], raw).run(12 if chosen.quick else 300)
    print_found(found)
    targets = judge(found)
    print(targets_table(targets))
    save(chosen.out, "regions", vars(found) | {"delay_s": DELAY_S}, targets, draw(found))


if __name__ == "__main__":
    main()
