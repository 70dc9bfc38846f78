"""`python -m tests.simulation`: see the package."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.simulation import campaign, rules
from tests.simulation.truth import Broken
from tests.simulation.world import run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="The mesh under simulated disasters"
    )
    parser.add_argument("--seed", type=int, help="run one seed and tell its story")
    parser.add_argument("--seeds", default="200", help="N for 0..N-1, or A:B")
    parser.add_argument(
        "--campaign", type=int, metavar="N", help="the same, but those that were run before are not"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of a campaign")
    parser.add_argument("--only", default="", help="kinds of disaster, by name")
    parser.add_argument("--rules", action="store_true", help="switch each rule off, until a seed shows it")
    parser.add_argument("--without", choices=sorted(rules.RULES), help="switch this rule off")
    arguments = parser.parse_args()
    with rules.without(arguments.without):
        if arguments.rules:
            return every_rule()
        if arguments.campaign is not None:
            return campaign.go_on(arguments.campaign, arguments.jobs)
        if arguments.seed is not None:
            return one(arguments.seed, arguments.only)
        return many(*span(arguments.seeds), arguments.only)


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


if __name__ == "__main__":
    sys.exit(main())
