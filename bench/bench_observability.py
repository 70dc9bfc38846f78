"""What observability costs: the journal at each write, and `explain` over all hosts (target S14).

  set        1,000 keys of 100 bytes, one after the other, in private segments whose journals are "off",
             "sampled" (the default) and "all", in turns
  explain    `cache.explain(key)` over eight hosts of this machine, each with its bridge, for a key that
             all of them have journalled; without the start of an interpreter

A get of a key that is not watched runs no instruction for the journal: instructions.py counts that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle, islice
from typing import Any

import mesh
from measuring import Target, apart, interleaved, ratio, save, start, table, targets_table

import cachee_shm
from cachee_shm.segment import embedded, private

VALUE = bytes(range(100))
KEYS = [f"user:{number}" for number in range(1000)]
MODES = ("off", "sampled", "all")
HOSTS, HOSTS_QUICK = 8, 3
SETS, SETS_QUICK = 20_000, 1_000
QUESTIONS, QUESTIONS_QUICK = 50, 5
WATCHED = "user:42"


def sets(cache: cachee_shm.Cache, count: int) -> Callable[[], float]:
    """A turn: nanoseconds for each set."""

    def turn() -> float:
        put, keys = cache.set, list(islice(cycle(KEYS), count))
        began = time.perf_counter_ns()
        for key in keys:
            put(key, VALUE)
        return (time.perf_counter_ns() - began) / count

    return turn


def measured_sets(repeats: int, count: int) -> dict[str, list[float]]:
    """By mode of the journal."""
    with ExitStack() as stack:
        caches = {
            mode: stack.enter_context(cachee_shm.Cache(private(embedded("bench"))._replace(journal=mode)))
            for mode in MODES
        }
        return interleaved({mode: sets(cache, count) for mode, cache in caches.items()}, repeats)


def measured_questions(hosts: int, count: int) -> tuple[list[float], int]:
    """Milliseconds of each explain, and from how many hosts there were rows."""
    with mesh.mesh("explain", hosts - 1, "64MiB", apart(), options='journal = "all"') as running:
        for cache in [running.cache, *(cache for _, cache in running.peers)]:
            cache.set(WATCHED, VALUE)
        running.settle()
        found: list[float] = []
        rows_of: set[str] = set()
        for _ in range(count):
            began = time.perf_counter_ns()
            told = running.cache.explain(WATCHED)
            found.append((time.perf_counter_ns() - began) / 1e6)
            rows_of |= {row.host for row in told.rows}
        return found, len(rows_of)


def main() -> None:
    chosen = start(__doc__ or "", repeats=40)
    quick = chosen.quick
    taken = measured_sets(chosen.repeats, SETS_QUICK if quick else SETS)
    costs = {mode: ratio(taken[mode], taken["off"]) for mode in MODES}
    asked, answered = measured_questions(
        HOSTS_QUICK if quick else HOSTS, QUESTIONS_QUICK if quick else QUESTIONS
    )
    rows = [
        [mode, f"{statistics.median(taken[mode]):.1f}", f"{100 * (costs[mode] - 1):+.2f} %"] for mode in MODES
    ]
    print(table("set, by the journal's mode", ("journal", "ns", "beside off"), rows))
    print(
        table(
            f"explain, {answered} hosts with rows",
            ("", "ms"),
            [["median", f"{statistics.median(asked):.2f}"], ["worst", f"{max(asked):.2f}"]],
        )
    )
    targets = [
        Target("S14", "set, journal sampled / off", costs["sampled"], 1.02),
        Target("S14", "explain over all hosts, ms", statistics.median(asked), 50.0),
    ]
    print(targets_table(targets))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.boxplot([taken[mode] for mode in MODES], tick_labels=MODES, showfliers=False)
        axes.set_ylabel("ns for each set")

    save(
        chosen.out, "observability", {"set_ns": taken, "explain_ms": asked, "hosts": answered}, targets, draw
    )


if __name__ == "__main__":
    main()
