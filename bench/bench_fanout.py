"""One write until the last of many hosts has evicted, in two hops (target C4).

First, 64 real hosts on this machine: a segment and a cachee-bridge process each, over loopback, with a shared
secret and fanout = 32, so that each gets the writes of most others by a relay. This process is attached to
every segment, writes on one and looks at all others, every 0.1 ms, until the last copy is gone. All bridges
share this machine's few cores, so a network of 64 machines would be faster; heartbeat is 1 s and lost_after
30 s here, for the same reason. Then all hosts write at the same time: nothing may be lost, and keys that no
host wrote must stay.

Then what each step costs (hops.py names them), measured in a mesh of twelve real bridges with TLS 1.3 that
note the time of what they do, over loopback: one of them has a core of its own, as in life; it is the source,
a relay and a receiver in turn. (A relay sends to three hosts there, which twelve hosts would not need.)

Last, a model of 500 hosts: fanout.py's geometry; each host does one thing after the other; the time of each
step is drawn from the measured ones. The model has no switch, no real cables and no other work of the hosts.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trustme
from bench_proof_cost import certificates_of
from fleet import STEADY_LOOKS, Fleet, fleet, trace_of, traced, watch
from hops import Costs, costs_of, medians, modelled, turns_of
from measuring import Target, percentile, save, start, table, targets_table
from mesh import Proof, secret, stop_process

OLD, NEW = b"the copies", b"what is written"
LOST_AFTER_S = 30.0
MEASURED = 5  # of the traced hosts, the one with a core of its own
HOSTS, FANOUT = 500, 32
now_ns = time.monotonic_ns


@dataclass(frozen=True)
class Size:
    hosts: int
    fanout: int
    single: int
    """Writes one at a time."""
    burst: int
    traced: int
    steps: int
    """Writes of each role in the traced mesh."""
    trials: int
    pause_s: float = 0.02


FULL = Size(64, 32, 300, 4000, 12, 400, 2000)
QUICK = Size(6, 2, 10, 100, 6, 20, 20)


@dataclass
class Found:
    """Of the real hosts, in ns."""

    links: list[int]
    relayed: list[int]
    last: list[int]
    every: list[int]
    lost: int
    written: int
    kept: int
    of: int


def slow_beats(proof: Proof, fanout: int) -> Proof:
    return lambda folder, host: (
        f'fanout = {fanout}\nheartbeat = "1s"\nlost_after = "30s"\n{proof(folder, host)}'
    )


def few(proof: Proof) -> Proof:
    return lambda folder, host: f"fanout = 2\n{proof(folder, host)}"


# 64 real hosts


def real(size: Size) -> Found:
    with fleet(size.hosts, "8MiB", slow_beats(secret, size.fanout)) as hosts:
        parted = hosts.part().values()
        kept = [f"kept {number}" for number in range(200)]
        fill(hosts, kept, None)
        last, every, lost = one_at_a_time(hosts, size)
        lost += all_at_once(hosts, size.burst)
        held = sum(len(cache.get_many(kept)) for cache in hosts.caches)
        return Found(
            [each["up"] for each in parted],
            [each["relayed"] for each in parted],
            last,
            every,
            lost,
            size.single + size.burst,
            held,
            len(kept) * size.hosts,
        )


def fill(hosts: Fleet, keys: list[str], writer: int | None) -> None:
    for number, cache in enumerate(hosts.caches):
        if number != writer:
            for key in keys:
                cache.get_or_load(key, lambda: OLD)


def one_at_a_time(hosts: Fleet, size: Size) -> tuple[list[int], list[int], int]:
    last, every, lost = [], [], 0
    for number in range(size.single):
        writer, key = number % len(hosts.caches), f"single {number}"
        fill(hosts, [key], writer)
        time.sleep(size.pause_s)
        left = {at: cache for at, cache in enumerate(hosts.caches) if at != writer}
        begun = now_ns()
        hosts.caches[writer].set(key, NEW)
        seen = watch(left, key, begun, LOST_AFTER_S)
        lost += len(left) - len(seen)
        every += seen.values()
        last.append(max(seen.values(), default=int(LOST_AFTER_S * 1e9)))
    return last, every, lost


def all_at_once(hosts: Fleet, count: int) -> int:
    """Copies that are still there long after: each host writes every so many keys that all others hold."""
    keys = [f"burst {number}" for number in range(count)]
    for number, key in enumerate(keys):
        fill(hosts, [key], number % len(hosts.caches))
    for number, key in enumerate(keys):
        hosts.caches[number % len(hosts.caches)].set(key, NEW)
    left = list(range(len(hosts.caches)))
    deadline = time.monotonic() + LOST_AFTER_S
    while left and time.monotonic() < deadline:
        left = [at for at in left if stale(hosts, at, keys)]
        time.sleep(0.01)
    return sum(stale(hosts, at, keys) for at in left)


def stale(hosts: Fleet, at: int, keys: list[str]) -> int:
    return sum(value == OLD for value in hosts.caches[at].get_many(keys).values())


# What each step costs


def measured(size: Size) -> Costs:
    cores = sorted(os.sched_getaffinity(0))
    own, others = frozenset(cores[:1]), frozenset(cores[1:] or cores)
    place = min(MEASURED, size.traced - 1)

    def core(number: int) -> frozenset[int]:
        return own if number == place else others

    proof = few(certificates_of(trustme.CA(key_type=trustme.KeyType.ECDSA)))
    with fleet(size.traced, "8MiB", proof, commands=traced, cores=core) as hosts:
        hosts.part(2 if size is QUICK else STEADY_LOOKS)
        os.sched_setaffinity(0, others)
        writes = [_write(hosts, number) for number in range(size.traced * size.steps)]
        os.sched_setaffinity(0, frozenset(cores))
        for host in hosts.hosts:
            host.is_ended = True
            assert host.bridge is not None
            stop_process(host.bridge)
        traces = {host.name: turns_of(trace_of(host)) for host in hosts.hosts}
        return costs_of(hosts.hosts[place].name, traces, writes)


def _write(hosts: Fleet, number: int) -> tuple[int, int]:
    """One at a time: the next follows when the last copy is gone, however long that takes."""
    writer, key = number % len(hosts.caches), f"step {number}"
    fill(hosts, [key], writer)
    begun = now_ns()
    hosts.caches[writer].delete(key)
    watch({at: cache for at, cache in enumerate(hosts.caches) if at != writer}, key, begun, LOST_AFTER_S)
    time.sleep(0.002)
    return begun, now_ns()


# What is found


def us(ns: float) -> str:
    return f"{ns / 1000:.1f}"


def percentiles(samples: list[int]) -> tuple[str, ...]:
    return tuple(us(percentile(samples, percent)) for percent in (50, 90, 99))


def print_real(found: Found) -> None:
    rows = [("last of them", *percentiles(found.last)), ("each", *percentiles(found.every))]
    hosts = len(found.links)
    print(table(f"{hosts} real bridges on {os.cpu_count()} cores, us", ("", "p50", "p90", "p99"), rows))
    print(
        f"links of a host: {min(found.links)} to {max(found.links)}, heard by way of others: "
        f"{min(found.relayed)} to {max(found.relayed)}; lost: {found.lost} of {found.written:,} writes "
        f"x {hosts - 1} copies; of {found.of:,} copies that nobody wrote, {found.kept:,} are there",
        flush=True,
    )


def print_model(costs: Costs, found: dict[str, list[int]]) -> None:
    rows = [(name, str(len(samples)), *percentiles(samples)) for name, samples in costs.inputs.items()]
    print(table("What a step costs, with TLS, us (hops.py)", ("", "seen", "p50", "p90", "p99"), rows))
    rows = [(name, str(len(samples)), *percentiles(samples)) for name, samples in found.items()]
    print(table(f"The model: {HOSTS} hosts, us", ("", "of", "p50", "p90", "p99"), rows), flush=True)


LAST, EACH, STEADY = "last receiver", "each receiver", "last, were each step its median"


def judge(found: Found | None, model: dict[str, list[int]] | None) -> list[Target]:
    lost = None if found is None else found.lost
    p50, p99 = (None if model is None else percentile(model[LAST], percent) / 1e6 for percent in (50, 99))
    return [
        Target("C4", "real hosts: copies lost", lost, 0),
        Target("C4", f"model of {HOSTS}: last receiver, p50", p50, 1, " ms"),
        Target("C4", f"model of {HOSTS}: last receiver, p99", p99, 2, " ms"),
    ]


def draw(found: Found | None, model: dict[str, list[int]] | None) -> Callable[[Any], None]:
    samples = {}
    if found is not None:
        samples[f"{len(found.links)} real hosts on {os.cpu_count()} cores, last"] = found.last
    if model is not None:
        some = random.Random(1).sample(model[EACH], min(20_000, len(model[EACH])))
        samples |= {f"model of {HOSTS}, last": model[LAST], f"model of {HOSTS}, each": some}

    def on(figure: Any) -> None:
        axis = figure.subplots()
        for name, ns in samples.items():
            ordered = sorted(ns)
            share = [100 * (at + 1) / len(ordered) for at in range(len(ordered))]
            axis.plot([each / 1000 for each in ordered], share, label=name)
        axis.set_xscale("log")
        axis.set_xlabel("us from the write to the eviction")
        axis.set_ylabel("percent of writes (of receivers: each)")
        axis.legend(fontsize=7)

    return on


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=("real", "model"), help="one of the two parts alone")


def main() -> None:
    chosen = start(__doc__, repeats=1, options=options)
    size = QUICK if chosen.quick else FULL
    found = model = None
    data: dict[str, Any] = {}
    if chosen.only != "model":
        found = real(size)
        print_real(found)
        data["real"] = vars(found)
    if chosen.only != "real":
        costs = measured(size)
        last, every = modelled(costs, HOSTS, FANOUT, size.trials)
        model = {LAST: last, EACH: every, STEADY: modelled(medians(costs), HOSTS, FANOUT, 8)[0]}
        print_model(costs, model)
        each = {f"p{percent:g}": percentile(every, percent) for percent in (50, 90, 99, 99.9)}
        data["model"] = {"hosts": HOSTS, "fanout": FANOUT, "last_ns": last, "each_ns": each}
        data["inputs_ns"] = costs.inputs
    targets = judge(found, model)
    print(targets_table(targets))
    save(chosen.out, "fanout", data, targets, draw(found, model))


if __name__ == "__main__":
    main()
