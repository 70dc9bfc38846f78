"""Looks into every host's segment: how far each has applied what each other announced, life by life.

    python observer.py --journal FILE CONFIG ...

As the demo's observer does, with one thing more: a segment that was made anew is another host in the journal
("c-1f#INCARNATION"), since its positions begin anew and what its former life had applied is gone.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import cachee_shm
from cachee_shm.cli.demo.helper import asked_to_end
from cachee_shm.cli.demo.journal import Journal, Position
from cachee_shm.errors import CacheeError

LOOK_EVERY_S = 0.005


def life_of(cache: cachee_shm.Cache) -> str:
    """The host and this life of its segment."""
    return f"{cache.spec.host}#{cache.incarnation}"


def cursor_of(target: cachee_shm.Cache, source: cachee_shm.Cache) -> int:
    """How far `target` has applied this life of `source`; -1 before it has heard of it."""
    known = ((name, incarnation, cursor) for _, name, incarnation, cursor in target.sources())
    mine = (cursor for name, life, cursor in known if (name, life) == (source.spec.host, source.incarnation))
    return max(mine, default=-1)


def look(source: cachee_shm.Cache, target: cachee_shm.Cache) -> Position | None:
    """None when a segment was made anew meanwhile."""
    lives = life_of(source), life_of(target)
    before_ns = time.monotonic_ns()
    tail = source.tail
    cursor = cursor_of(target, source)
    found = Position(*lives, before_ns, tail, cursor, time.monotonic_ns())
    return found if lives == (life_of(source), life_of(target)) else None


def observe(caches: Sequence[cachee_shm.Cache], journal: Journal) -> None:
    while not asked_to_end():
        for source, target in itertools.permutations(caches, 2):
            try:
                position = look(source, target)
            except CacheeError:  # between two lives
                continue
            if position is not None and position.cursor >= 0:
                journal.add(position)
        time.sleep(LOOK_EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("configs", nargs="+")
    arguments = parser.parse_args()
    caches = [cachee_shm.attach("shop", config=config) for config in arguments.configs]
    with Journal(arguments.journal) as journal:
        observe(caches, journal)


if __name__ == "__main__":
    main()
