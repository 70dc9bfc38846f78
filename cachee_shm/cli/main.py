"""The command line of ``cachee``.

Exit codes: 0 done, 1 a miss or not found (`doctor`: problems), 2 wrong usage or configuration, 3 any other
error of Cachee. An error is one paragraph on standard error, without control characters.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cachee_shm import __version__, _core
from cachee_shm.cli.existing import NoSegment
from cachee_shm.cli.terminal import shown
from cachee_shm.errors import CacheeError, ConfigError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

OK, MISS, USAGE, FAILED = 0, 1, 2, 3
PORT = 7946


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["demo"]:  # it has its own options, and the other commands need none of its code
        from cachee_shm.cli.demo import main as demo

        return demo(words[1:])
    return _run(parser().parse_args(words))


def _run(options: argparse.Namespace) -> int:
    for name in ("stdout", "stderr"):  # None if the shell has closed it (`>&-`)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except NoSegment as error:
        return _told(error, MISS)
    except ConfigError as error:
        return _told(error, USAGE)
    except CacheeError as error:
        return _told(error, FAILED)
    except BrokenPipeError:  # `cachee stat | head`: the reader has ended
        _write_no_more()
        return OK
    except OSError as error:  # nearly always: no room for the output
        _write_no_more()
        return _told(error, FAILED)


def _write_no_more() -> None:
    """Discard the buffer, so that Python does not try to write it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: CacheeError | OSError, code: int) -> int:
    print(f"cachee: {shown(str(error), kept=chr(10))}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """A parser whose messages quote what was typed with control characters escaped."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(shown(message, kept="\n"), file)


def parser() -> Parser:
    """The parser of all commands; `demo` has its own."""
    made = Parser(
        prog="cachee",
        description="Look into this host's caches, change them, and find out what is wrong.",
        epilog="Exit codes: 0 done; 1 miss or not found (doctor: problems); 2 usage or configuration; 3 any "
        "other error.",
    )
    version = f"cachee {__version__} (segment layout {_core.LAYOUT})"
    made.add_argument("--version", action="version", version=version)
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_counters(commands)
    _add_keys(commands)
    _add_segments(commands)
    _add_peers(commands)
    _add_doctor(commands)
    _add_init(commands)
    _add_warm(commands)
    completion = commands.add_parser(
        "completion",
        help="print a script for the shell that completes these commands",
        description="Prints a script. bash, zsh: source <(cachee completion SHELL). fish: cachee completion "
        "fish | source.",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])
    completion.set_defaults(command=_later("completion", "completion"))
    commands.add_parser(
        "demo",
        help="run two hosts here under real HTTP load, and count stale reads",
        add_help=False,
    )
    return made


def _add_counters(commands: argparse._SubParsersAction[Parser]) -> None:
    stat = commands.add_parser("stat", help="show what one namespace, or each one, holds and does")
    stat.add_argument("--json", action="store_true", help="print all counters as one JSON object")
    _paced(stat)
    stat.add_argument("-n", "--namespace", help="default: the configuration's only one, `default`, or all")
    _configured(stat)
    stat.set_defaults(command=_later("stat", "stat"))

    top = commands.add_parser("top", help="show all namespaces and peers, live; q ends it")
    top.add_argument(
        "--once", action="store_true", help="print one screen without control characters, and end"
    )
    _paced(top)
    _configured(top)
    top.set_defaults(command=_later("top", "top"))


def _paced(parser: Parser) -> None:
    parser.add_argument(
        "--interval", type=_pace, default=1.0, metavar="SECONDS", help="between two looks (default: 1)"
    )


def _add_keys(commands: argparse._SubParsersAction[Parser]) -> None:
    get = commands.add_parser("get", help="print a value")
    get.add_argument("key")
    _namespaced(get, "get")

    put = commands.add_parser("set", help="store a value and announce it to the other hosts")
    put.add_argument("key")
    put.add_argument("value", help="a string; - reads it from standard input")
    put.add_argument("--json", action="store_true", help="the value is JSON: store the decoded object")
    put.add_argument("--ttl", type=_seconds, metavar="SECONDS", help="default: the namespace's")
    put.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="may be repeated")
    _namespaced(put, "put")

    delete = commands.add_parser("del", help="delete keys, on every host")
    delete.add_argument("keys", nargs="+", metavar="key")
    _namespaced(delete, "delete")

    explain = commands.add_parser(
        "explain", help="show what happened to a key on every host, and which process read it stale"
    )
    explain.add_argument("key")
    explain.add_argument("--json", action="store_true", help="as one JSON object")
    explain.add_argument(
        "--why-stale",
        action="store_true",
        help="which service read an old copy, what held it, for how long",
    )
    explain.add_argument(
        "--watch", type=_seconds, metavar="SECONDS", help="first watch the key on every host for this time"
    )
    _read_only(explain)

    tags = commands.add_parser("tags", help="delete all keys that have a tag")
    verbs = tags.add_subparsers(title="commands", metavar="COMMAND", required=True)
    delete_tags = verbs.add_parser("del", help="delete all keys that have one of these tags, on every host")
    delete_tags.add_argument("tags", nargs="+", metavar="tag")
    _namespaced(delete_tags, "delete_tags")


def _add_segments(commands: argparse._SubParsersAction[Parser]) -> None:
    segment = commands.add_parser("segment", help="list or remove the shared memory segments of this machine")
    verbs = segment.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = verbs.add_parser("ls", help="list every segment: name, size, user, attached processes")
    listing.add_argument("--json", action="store_true", help="as one JSON object")
    listing.set_defaults(command=_later("segments", "list_all"))
    remove = verbs.add_parser("rm", help="remove segments to which no process is attached")
    remove.add_argument(
        "names",
        nargs="+",
        metavar="name",
        help="a namespace of this host, or a name as `cachee segment ls` shows it",
    )
    _configured(remove)
    remove.add_argument(
        "--force",
        action="store_true",
        help="also if processes are attached: they move to an empty one",
    )
    remove.set_defaults(command=_later("segments", "remove"))


def _add_peers(commands: argparse._SubParsersAction[Parser]) -> None:
    peers = commands.add_parser("peers", help="show this host's peers, and what isolates its namespaces")
    peers.add_argument("--json", action="store_true", help="as one JSON object")
    _configured(peers)
    peers.set_defaults(command=_later("peers", "peers"))
    verbs = peers.add_subparsers(title="commands", metavar="COMMAND")
    forget = verbs.add_parser("forget", help="stop waiting for a dead host, on this host")
    forget.add_argument("who", help="the host's name, or an address where no host ever answered")
    _configured(forget, default=argparse.SUPPRESS)  # otherwise it would override an option before `forget`
    forget.set_defaults(command=_later("peers", "forget"))


def _add_doctor(commands: argparse._SubParsersAction[Parser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="find what is wrong with this host, and how to repair it",
        epilog="Exit codes: 0 no problem, 1 problems, 3 no problem, but something could not be checked.",
    )
    doctor.add_argument("--json", action="store_true", help="as one JSON object")
    _configured(doctor)
    doctor.set_defaults(command=_later("doctor", "doctor"))


def _add_init(commands: argparse._SubParsersAction[Parser]) -> None:
    init = commands.add_parser("init", help="write a first configuration, a secret and a hash key")
    init.add_argument("--path", default="/etc/cachee/cachee.toml", help="default: %(default)s")
    init.add_argument(
        "--group", help=("the group whose processes share the segments; default: `cachee`, if it exists")
    )
    init.add_argument(
        "--peers",
        type=_peers,
        default=[],
        metavar="HOST[:PORT],...",
        help="the bridges of all hosts, including this one; the default port is 7946",
    )
    init.set_defaults(command=_later("init", "init"))


def _add_warm(commands: argparse._SubParsersAction[Parser]) -> None:
    warm = commands.add_parser(
        "warm",
        help="load ahead for this host with an application's origins, until SIGTERM",
        description="A process of its own that loads what other hosts invalidate before it is asked for, in "
        "namespaces with prewarm = true. One process of a host does so at a time; another takes over when it "
        "ends.",
    )
    warm.add_argument(
        "--app",
        type=_app,
        required=True,
        metavar="MODULE:FUNCTION",
        help="a function of the application that returns its Cache with its origins, or a list of them",
    )
    warm.add_argument(
        "--concurrency", type=_count, default=8, metavar="N", help="loads at once, at most (default: 8)"
    )
    warm.add_argument(
        "--rate", type=_rate, default=1000.0, metavar="N", help="loads a second, at most (default: 1000)"
    )
    _configured(warm)
    warm.set_defaults(command=_later("warm", "warm"))


def _namespaced(parser: Parser, function: str) -> None:
    parser.add_argument("-n", "--namespace", help="default: the configuration's only one, or `default`")
    _configured(parser)
    parser.set_defaults(command=_later("keys", function))


def _read_only(parser: Parser) -> None:
    parser.add_argument("-n", "--namespace", help="default: the configuration's only one, or `default`")
    _configured(parser)
    parser.set_defaults(command=_later("explain", "explain"))


def _configured(parser: Parser, default: str | None = None) -> None:
    where = "default: $CACHEE_CONFIG, then /etc/cachee/cachee.toml"
    parser.add_argument("--config", metavar="FILE", help=where, default=default)


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """The command's function, imported when it runs, because no command needs all modules."""

    def command(options: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(f"cachee_shm.cli.{module}"), function)(options)
        return code

    return command


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 up")
    return value


def _pace(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return value


def _app(text: str) -> tuple[str, str]:
    module, _, function = text.partition(":")
    if not (module and function):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODULE:FUNCTION, such as shop.caches:make")
    return module, function


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _peers(text: str) -> list[str]:
    peers = [peer.strip() for peer in text.split(",") if peer.strip()]
    return [peer if ":" in peer.rpartition("]")[2] else f"{peer}:{PORT}" for peer in peers]
