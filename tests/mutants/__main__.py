"""``python -m tests.mutants``: do the tests notice when the code is wrong? See drawing.py and mirrors.py.

    python -m tests.mutants --count 150                  # all of them (two hours)
    python -m tests.mutants --count 150 --minutes 2      # the share of a day, by turns
    python -m tests.mutants --count 40 --only ring.c
    python -m tests.mutants --record FILE --part 1/2     # every other file; killed before, not tried again

Exit status 1: a mutant survived that ``survivors.toml`` does not explain, or could not be decided because a
test failed without it as well. A turn (``--minutes``) may meet mutants that nobody has looked at yet. So it
fails only where fewer than half were killed.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutants import drawing
from tests.mutants.mutant import Mutant
from tests.mutants.record import NO_MUTANT, UNDECIDED, Record
from tests.mutants.survivors import explained, outdated
from tests.mutants.workshop import Unsound, Workshop

FILES_A_TURN = 5  # as many as a turn gets through
TURN_COUNTS_FROM = 8  # mutants: a share of fewer says nothing
TURN_SHARE_MIN = 0.5
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # children and copies go with it
    options = _options()
    tried: dict[str, str] = {}
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    with tempfile.TemporaryDirectory(prefix="cachee-mutants-") as place:
        workshop = Workshop(ROOT, Path(place))
        for mutant, killer in _results(workshop, options, Record(options.record)):
            tried[mutant.name] = killer
            print(f"{mutant.place}: {_verdict(mutant.name, killer)}", flush=True)
            if deadline and time.monotonic() > deadline:
                break
    return _sum_up(tried, options)


def _results(workshop: Workshop, options: argparse.Namespace, record: Record) -> Iterator[tuple[Mutant, str]]:
    """Every mutant of the draw with its killer. A turn begins at a file of its own.

    What ``survivors.toml`` explains counts as a survivor and is not tried: that would take longest of all.
    """
    shares = [
        item
        for item in drawing.shares(workshop.unchanged, options.seed, options.count, options.only).items()
        if item[1]
    ]
    part, parts = map(int, options.part.split("/"))
    shares = shares[part - 1 :: parts]
    turn = options.turn if options.turn is not None else datetime.date.today().toordinal()
    first = turn * FILES_A_TURN % len(shares) if options.minutes and shares else 0
    for name, share in [*shares[first:], *shares[:first]]:
        for mutant in drawing.order(workshop.unchanged, options.seed, name):
            if share == 0:
                break
            killer = "" if explained(mutant.name) else record.known.get(mutant.name)
            if killer is None:
                killer = _tried(workshop, mutant)
                record.add(mutant.name, killer)
            if killer != NO_MUTANT:
                share -= 1
                yield mutant, killer


def _tried(workshop: Workshop, mutant: Mutant) -> str:
    try:
        killer = workshop.try_mutant(mutant)
    except Unsound as error:
        print(error, flush=True)
        return UNDECIDED
    return NO_MUTANT if killer is None else killer


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--count", type=int, default=150, help="how many mutants (150)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (1)")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long; begin by turns")
    parser.add_argument("--turn", type=int, default=None, help="which turn it is (the number of the day)")
    parser.add_argument("--record", type=Path, default=None, help="a file that keeps what was found")
    parser.add_argument("--part", default="1/1", help="of the files: 1/2 is every other one")
    parser.add_argument("--only", default="", help="only files whose path contains this")
    return parser.parse_args()


def _verdict(name: str, killer: str) -> str:
    if killer:
        return UNDECIDED if killer == UNDECIDED else f"killed by {killer}"
    return "survived, explained" if explained(name) else f"SURVIVED: {name}"


def _sum_up(tried: dict[str, str], options: argparse.Namespace) -> int:
    alive = [name for name, killer in tried.items() if not killer]
    undecided = [name for name, killer in tried.items() if killer == UNDECIDED]
    unexplained = [name for name in alive if not explained(name)]
    killed = len(tried) - len(alive) - len(undecided)
    share = killed / len(tried) if tried else 1.0
    print(
        f"{len(tried)} mutants of seed {options.seed}: {killed} killed, {100 * share:.1f} %; survived: "
        f"{len(alive) - len(unexplained)} explained, {len(unexplained)} not; undecided: {len(undecided)}"
    )
    if options.minutes:
        return 1 if len(tried) >= TURN_COUNTS_FROM and share < TURN_SHARE_MIN else 0
    for name in unexplained:
        print(f"  SURVIVED: {name}")
    for name in undecided:
        print(f"  undecided: {name}")
    for name in () if options.only or options.part != "1/1" else outdated(tried):
        print(f"  survivors.toml explains what is not drawn any more: {name}")
    return 1 if unexplained or undecided else 0


if __name__ == "__main__":
    sys.exit(main())
