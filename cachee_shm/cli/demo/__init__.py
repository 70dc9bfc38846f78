"""`cachee demo`: two hosts on this machine, each its own segment, bridge and gunicorn, under real HTTP load.

__init__    the command line                    run         the stages, from the first process to the last
hosts       names, ports, configurations        processes   starts, watches and ends them
load        customers of the shop               janitor     takes everything away, however the demo ends
probe       measures propagation                observe     looks into both segments
journal     what these three write down         helper      what they share
checker     finds stale reads in the journals   live        what is shown meanwhile    summary   afterwards
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence

NEEDED = ("fastapi", "gunicorn", "uvicorn", "uvicorn_worker", "httpx")
SECONDS_MIN = 2.0
CUT_SECONDS_MIN = 4.0  # a cut of 2.4 s, of which the first shows nothing: no row is a second late yet
DESCRIPTION = """\
Starts two hosts on this machine, each with its own segment, bridge, shop (examples/shop under gunicorn) and
`cachee warm` (not with --cut), which loads ahead what will soon be read. Sends real HTTP reads and writes
to both, and checks every answer against the database. Then it takes everything away again.
Exit code 0: no stale read (with --cut: stale reads, all of them within the promised bound); 1: otherwise;
2: it cannot run.
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser()
    options = arguments.parse_args(argv)
    if options.cut and options.seconds < CUT_SECONDS_MIN:
        arguments.error(f"--cut needs --seconds {CUT_SECONDS_MIN:g} or more: it lasts for a part of them")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"cachee demo needs {', '.join(missing)}: pip install 'cachee-shm[demo]'", file=sys.stderr)
        return 2
    from cachee_shm.cli.demo.run import run

    return run(options)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="cachee demo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--seconds", type=seconds, default=12.0, metavar="N", help="of load (default: 12)")
    found.add_argument(
        "--cut", action="store_true", help="stop both bridges for a while: there must be stale reads"
    )
    found.add_argument(
        "--workers", type=int, default=4, metavar="N", help="gunicorn workers per host (default: 4)"
    )
    found.add_argument("--port-base", type=int, metavar="PORT", help="use this port and the next three")
    found.add_argument(
        "--keep-logs", action="store_true", help="keep the folder with logs and journals, and name it"
    )
    return found


def seconds(text: str) -> float:
    value = float(text)
    if not SECONDS_MIN <= value <= 3600:
        raise argparse.ArgumentTypeError(f"from {SECONDS_MIN:g} to 3600")
    return value
