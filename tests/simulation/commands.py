"""What `python -m tests.simulation` does."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from tests.simulation import campaign, rules
from tests.simulation.truth import Broken
from tests.simulation.world import fingerprint, run


def command(arguments: argparse.Namespace) -> int:
    if arguments.without not in (None, *rules.RULES):
        print(f"no such rule; there are: {' '.join(sorted(rules.RULES))}")
        return 2
    with rules.without(arguments.without):
        if arguments.rules:
            return every_rule()
        if arguments.fingerprints is not None:
            return fingerprints(arguments.fingerprints)
        if arguments.campaign is not None:
            return campaign.go_on(arguments.campaign, arguments.jobs)
        if arguments.seed is not None:
            return one(arguments.seed, arguments.only)
        return many(*span(arguments.seeds), arguments.only)


def fingerprints(seeds: list[int]) -> int:
    for seed in seeds:
        print(fingerprint(seed), flush=True)
    return 0


def span(text: str) -> tuple[int, int]:
    first, _, last = text.rpartition(":")
    return int(first or 0), int(last)


def one(seed: int, only: str) -> int:
    try:
        print(dict(run(seed, story=True, only=only).counts))
    except Broken as broken:
        print(broken)
        return 1
    return 0


def many(first: int, last: int, only: str) -> int:
    """Every seed runs, also after a failure."""
    total: Counter[str] = Counter()
    failures, started = 0, time.monotonic()
    for seed in range(first, last):
        try:
            total.update(run(seed, only=only).counts)
        except Broken as broken:
            failures += 1
            print(broken, flush=True)
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(total.items()))
    print(f"{last - first:,} seeds in {time.monotonic() - started:.0f} s: {failures} failures; {counts}")
    return 1 if failures else 0


def every_rule() -> int:
    shown = {name: rules.first_failure(name, 1000) for name in rules.RULES}
    for name, broken in shown.items():
        print(f"{name:44} {broken or 'NOT SHOWN'}")
    return 0 if all(shown.values()) else 1
