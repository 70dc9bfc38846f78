"""The command line of ``cachee``.

Exit codes: 0 done, 1 a miss or nothing of that name, 2 wrong usage or configuration, 3 any other error of
Cachee. Errors go to standard error, in one paragraph.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence

from cachee_shm import __version__, _core
from cachee_shm.errors import CacheeError, ConfigError

OK, MISS, USAGE, FAILED = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["demo"]:  # its own options; nothing of it is needed for the other commands
        from cachee_shm.cli.demo import main as demo

        return demo(words[1:])
    return _run(_parser().parse_args(words))


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _told(error, USAGE)
    except CacheeError as error:
        return _told(error, FAILED)
    except BrokenPipeError:  # `cachee stat | head`: nobody reads on, and Python's exit must not try to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _told(error: CacheeError, code: int) -> int:
    print(f"cachee: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cachee",
        description="Look into this host's caches, and try things out.",
        epilog="Exit codes: 0 done, 1 miss or not found, 2 usage or configuration, 3 any other error.",
    )
    version = f"cachee {__version__} (segment layout {_core.LAYOUT})"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_keys(commands)
    _add_segments(commands)
    _add_peers(commands)
    _add_init(commands)
    commands.add_parser(
        "demo", help="two hosts on this machine, real HTTP, stale reads counted", add_help=False
    )
    return parser


def _add_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    stat = commands.add_parser("stat", help="what a namespace's segment holds and has done")
    stat.add_argument("--json", action="store_true", help="as one JSON object")
    _namespaced(stat, "stat")

    get = commands.add_parser("get", help="print a value")
    get.add_argument("key")
    _namespaced(get, "get")

    put = commands.add_parser("set", help="store a value and announce it to the other hosts")
    put.add_argument("key")
    put.add_argument("value", help="a string; - reads it from standard input")
    put.add_argument("--json", action="store_true", help="the value is JSON: store what it stands for")
    put.add_argument("--ttl", type=_seconds, metavar="SECONDS", help="default: the namespace's")
    put.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="may be repeated")
    _namespaced(put, "put")

    delete = commands.add_parser("del", help="delete keys, on every host")
    delete.add_argument("keys", nargs="+", metavar="key")
    _namespaced(delete, "delete")


def _add_segments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    segment = commands.add_parser("segment", help="the shared memory of this machine")
    verbs = segment.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = verbs.add_parser("ls", help="every segment: name, size, user, who is attached")
    listing.set_defaults(command=_later("segments", "list_all"))
    remove = verbs.add_parser("rm", help="remove segments that nobody is attached to")
    remove.add_argument(
        "names",
        nargs="+",
        metavar="name",
        help="a namespace of this host, or a name as `cachee segment ls` shows it",
    )
    _configured(remove)
    remove.add_argument(
        "--force", action="store_true", help="also under attached processes: they start afresh"
    )
    remove.set_defaults(command=_later("segments", "remove"))


def _add_peers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    peers = commands.add_parser("peers", help="whom this host's bridge knows, and how it fares with each")
    peers.add_argument("--json", action="store_true", help="as one JSON object")
    _configured(peers)
    peers.set_defaults(command=_later("peers", "peers"))
    verbs = peers.add_subparsers(title="commands", metavar="COMMAND")
    forget = verbs.add_parser("forget", help="a dead host is no member any more, for this host")
    forget.add_argument("who", help="its name, or an address where nobody ever answered")
    _configured(forget, default=argparse.SUPPRESS)  # else it would undo what stands before `forget`
    forget.set_defaults(command=_later("peers", "forget"))


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = commands.add_parser("init", help="write a first configuration, a secret and a hash key")
    init.add_argument("--path", default="/etc/cachee/cachee.toml", help="default: %(default)s")
    init.add_argument("--group", help="whose processes share the segments; its namesake gets the secret")
    init.add_argument(
        "--peers",
        type=_peers,
        default=[],
        metavar="HOST:PORT,...",
        help="the bridges of all hosts, this one too",
    )
    init.set_defaults(command=_later("init", "init"))


def _namespaced(parser: argparse.ArgumentParser, function: str) -> None:
    parser.add_argument("-n", "--namespace", help="default: the configuration's only one, or `default`")
    _configured(parser)
    parser.set_defaults(command=_later("keys", function))


def _configured(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    where = "default: $CACHEE_CONFIG, then /etc/cachee/cachee.toml"
    parser.add_argument("--config", metavar="FILE", help=where, default=default)


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """The command's function, imported when it runs: `cachee init` needs no segment, and none needs all."""

    def command(options: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(f"cachee_shm.cli.{module}"), function)(options)
        return code

    return command


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 up")
    return value


def _peers(text: str) -> list[str]:
    return [peer.strip() for peer in text.split(",") if peer.strip()]
