"""`python -m tests.simulation`: see the package."""

from __future__ import annotations

import argparse
import os
import sys

from tests.simulation import compiled


def main() -> int:
    arguments = parsed()
    if arguments.campaign is not None and not (arguments.interpreted or arguments.without):
        try:
            compiled.use()
        except compiled.NotCompiled as error:
            print(f"not compiled, so it takes twice as long: {error}", file=sys.stderr)
    from tests.simulation.commands import command  # after that: it imports the simulator

    return command(arguments)


def parsed() -> argparse.Namespace:
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
    parser.add_argument("--without", metavar="RULE", help="switch this rule off")
    parser.add_argument("--interpreted", action="store_true", help="a campaign without mypyc")
    parser.add_argument(
        "--fingerprints", type=int, nargs="+", metavar="SEED", help="of the state in which each seed ends"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
