"""Looks into both hosts' segments: how far each has applied the other's announcements, and the counters.

Every two milliseconds, for each direction: the time, the source's tail, the target's cursor of that source,
the time again. In this order a write that had returned by the first time is at or below the tail, and what
is at or below the cursor was applied by the second: all that the checker needs to know what a host had to
know.
"""

import argparse
import itertools
import time
from pathlib import Path

import cachee_shm
from cachee_shm.cli.demo.helper import REPORT_EVERY_S, asked_to_end, pairs, report
from cachee_shm.cli.demo.journal import Journal, Position

LOOK_EVERY_S = 0.002


def cursor_of(target: cachee_shm.Cache, source: str) -> int:
    """The ring position of `source` up to which `target` has applied; 0 before they have met."""
    return max((cursor for _, name, _, cursor in target.sources() if name == source), default=0)


def look(caches: dict[str, cachee_shm.Cache], journal: Journal) -> bool:
    """One look at each direction; True when each host has applied all that the other had announced."""
    agreed = True
    for source, target in itertools.permutations(caches, 2):
        before_ns = time.monotonic_ns()
        tail = caches[source].tail
        cursor = cursor_of(caches[target], source)
        journal.add(Position(source, target, before_ns, tail, cursor, time.monotonic_ns()))
        agreed = agreed and cursor >= tail
    return agreed


def counters(cache: cachee_shm.Cache) -> dict[str, int]:
    ahead, read, _ = cache.warm_stats() or (0, 0, 0)
    return {**cache.stats(), "loads_ahead": ahead, "loads_ahead_read": read}


def observe(caches: dict[str, cachee_shm.Cache], journal: Journal) -> None:
    due, agreed_ns = time.monotonic(), 0
    while not asked_to_end():
        now_ns = time.monotonic_ns()
        if look(caches, journal):
            agreed_ns = now_ns
        if time.monotonic() >= due:
            due += REPORT_EVERY_S
            report(stats={name: counters(cache) for name, cache in caches.items()}, agreed_ns=agreed_ns)
        time.sleep(LOOK_EVERY_S)
    report(stats={name: counters(cache) for name, cache in caches.items()}, agreed_ns=agreed_ns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("hosts", nargs=2, metavar="NAME=CONFIG")
    arguments = parser.parse_args()
    caches = {name: cachee_shm.attach("shop", config=path) for name, path in pairs(arguments.hosts).items()}
    with Journal(arguments.journal) as journal:
        observe(caches, journal)


if __name__ == "__main__":
    main()
