"""What the journals of a run prove: how far behind any reader was shown to be, and that nobody was too far.

The judge is the demo's checker: a read is stale if it shows a version older than one that its host had
applied or written itself, or that anybody's write had replaced longer ago than the bound.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cachee_shm.cli.demo.checker import Evidence, Verdict, check, find_stale, gather
from cachee_shm.cli.demo.journal import read
from cachee_shm.cli.demo.run import read_history
from tests.hosts.places import ISOLATION_TTL_S, LOST_AFTER_S

SLACK_S = 0.25
"""Beyond the bound: a heartbeat each way, the coarse clock, and a turn of a busy scheduler."""
BOUND_NS = round((LOST_AFTER_S + ISOLATION_TTL_S + SLACK_S) * 1e9)


@dataclass(frozen=True)
class Shown:
    """What readers were shown in one span of time."""

    reads: int
    behind: int
    """Reads of a row that had been replaced."""
    worst_s: float
    """By how long, at worst."""


def evidence(journals: Path, database: Path, since_ns: int) -> Evidence:
    """All reads since then, all that was noted else so far, and what the origin remembers."""
    found = gather(read(sorted(journals.iterdir())), read_history(database))
    found.reads = [read for read in found.reads if read.start_ns >= since_ns]
    return found


def newest(database: Path) -> dict[str, int]:
    """The version of each row, now."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT id, version FROM prices")
        return {f"price:{id}": version for id, version in rows}


def judge(found: Evidence) -> Verdict:
    return check(found, BOUND_NS)


def shown(found: Evidence) -> Shown:
    """How far behind readers were, by no promise's measure: every read of a replaced row counts."""
    behind = [stale.behind_ns for stale in find_stale(found, 0)]
    return Shown(len(found.reads), len(behind), max(behind, default=0) / 1e9)
