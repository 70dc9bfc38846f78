"""``python -m tests.mutants``: do the tests notice when the code is wrong? See drawing.py and mirrors.py.

    python -m tests.mutants --count 150                 # all of them (some hours)
    python -m tests.mutants --count 150 --minutes 4     # the share of a day, by turns
    python -m tests.mutants --count 40 --only ring.c

Exit status 1: a mutant survived that ``survivors.toml`` does not explain. A turn (``--minutes``) may meet
mutants that nobody has looked at yet, so it fails only where fewer than half were killed.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutants import drawing
from tests.mutants.mutant import Mutant
from tests.mutants.survivors import explained, outdated
from tests.mutants.workshop import Unsound, Workshop

FILES_A_TURN = 5  # as many as a turn gets through
TURN_COUNTS_FROM = 8  # mutants: a share of fewer says nothing
TURN_SHARE_MIN = 0.5
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    options = _options()
    tried: dict[str, str] = {}
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    with tempfile.TemporaryDirectory(prefix="cachee-mutants-") as place:
        workshop = Workshop(ROOT, Path(place))
        for mutant, killer in _results(workshop, options):
            tried[mutant.name] = killer
            print(f"{mutant.place}: {_verdict(mutant.name, killer)}", flush=True)
            if deadline and time.monotonic() > deadline:
                break
    return _sum_up(tried, options)


def _results(workshop: Workshop, options: argparse.Namespace) -> Iterator[tuple[Mutant, str]]:
    """Every mutant of the draw with its killer. A turn begins at a file of its own."""
    shares = [
        item for item in drawing.shares(ROOT, options.seed, options.count, options.only).items() if item[1]
    ]
    turn = options.turn if options.turn is not None else datetime.date.today().toordinal()
    first = turn * FILES_A_TURN % len(shares) if options.minutes and shares else 0
    for name, share in [*shares[first:], *shares[:first]]:
        for mutant in drawing.order(ROOT, options.seed, name):
            if share == 0:
                break
            try:
                killer = workshop.try_mutant(mutant)
            except Unsound as error:
                print(f"{name} is left out: {error}", flush=True)
                break
            if killer is not None:
                share -= 1
                yield mutant, killer


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--count", type=int, default=150, help="how many mutants (150)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (1)")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long; begin by turns")
    parser.add_argument("--turn", type=int, default=None, help="which turn it is (the number of the day)")
    parser.add_argument("--only", default="", help="only files whose path contains this")
    return parser.parse_args()


def _verdict(name: str, killer: str) -> str:
    if killer:
        return f"killed by {killer}"
    return "survived, explained" if explained(name) else f"SURVIVED: {name}"


def _sum_up(tried: dict[str, str], options: argparse.Namespace) -> int:
    alive = [name for name, killer in tried.items() if not killer]
    unexplained = [name for name in alive if not explained(name)]
    killed = len(tried) - len(alive)
    share = killed / len(tried) if tried else 1.0
    argued = len(alive) - len(unexplained)
    print(
        f"{len(tried)} mutants: {killed} killed, {100 * share:.1f} %; survived: {argued} explained, ", end=""
    )
    print(f"{len(unexplained)} not")
    if options.minutes:
        return 1 if len(tried) >= TURN_COUNTS_FROM and share < TURN_SHARE_MIN else 0
    for name in unexplained:
        print(f"  SURVIVED: {name}")
    for name in () if options.only else outdated(tried):
        print(f"  survivors.toml explains what is not drawn any more: {name}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
