"""``cachee explain``: what happened to a key on every host, and which process served an old copy of it."""

from __future__ import annotations

import argparse
import json
import sys

from cachee_shm.attaching import spec_for
from cachee_shm.cli.existing import looked_into
from cachee_shm.cli.terminal import shown, table
from cachee_shm.explain import Explanation, Row, clock, watch
from cachee_shm.explain import explain as explained

COLUMNS = ("TIME", "HOST", "WHAT", "WHO", "POSITION", "LAYER", "WHY")
RATE = 256
OF_ALL_KEYS = "clear"
"""The "why" of rows about all keys: a clear, or the eviction of everything when a host was met."""


def explain(options: argparse.Namespace) -> int:
    """Print what the hosts' journals have about the key; 1 if they have nothing."""
    with looked_into(spec_for(options.namespace, options.config, False)) as cache:
        unwatched = watch(cache, options.key, options.watch) if options.watch else {}
        told = explained(cache, options.key)
        sampling = cache.spec.journal
    for host, why in unwatched.items():
        print(f"cachee: not watched on {shown(host)}: {shown(why)}", file=sys.stderr)
    if options.json:
        print(json.dumps(told.as_dict()))
    elif options.why_stale:
        print("\n".join(map(shown, told.why_stale().lines)))
        if not told.why_stale().read and not _is_journalled(told, sampling):
            print(_nothing(sampling))
        _print_unheard(told)
    else:
        _print(told, sampling)
    if options.why_stale:
        return 0 if told.why_stale().write or told.why_stale().read else 1
    return 0 if told.rows else 1


def _print(told: Explanation, sampling: str) -> None:
    print(f"key '{shown(told.key)}' in namespace {told.namespace}, hash {told.hash:016x}")
    for line in table([COLUMNS, *map(_cells, told.rows)] if told.rows else []):
        print(line)
    if not told.rows:
        print(_nothing(sampling))
    elif not _is_journalled(told, sampling):
        print(f"these rows are about all keys. Of this key {_nothing(sampling)}")
    for line in told.ahead.lines if told.ahead else ():
        print(line)
    for host, seconds in sorted(told.clocks.items()):
        if host != told.host:
            print(f"times of {shown(host)} may be wrong by {seconds * 1000:.3g} ms, seen from {told.host}")
    _print_unheard(told)


def _cells(row: Row) -> tuple[str, ...]:
    who = f"{row.service or row.command} {row.pid}" if row.pid else "?"
    what = f"{row.kind} of {row.source}" if row.kind == "received" else row.kind
    position = f"#{row.sequence}" if row.sequence else ""
    why = row.why
    if row.since:
        why = f"{why}{', ' if why else ''}stored at {clock(row.since)[:-4]}"
    return tuple(map(shown, (clock(row.at), row.host, what, who, position, row.layer, why)))


def _is_journalled(told: Explanation, sampling: str) -> bool:
    """Whether the journal records this key. For a watched key, the journal has a row that says so."""
    is_chosen = sampling == "all" or (sampling == "sampled" and told.hash % RATE == 0)
    return is_chosen or any(row.why != OF_ALL_KEYS for row in told.rows)


def _nothing(sampling: str) -> str:
    why = {
        "sampled": f"one key in {RATE} is journalled, and this one is not, or nothing has happened to it",
        "all": "nothing has happened to it for as long as the journal reaches back",
        "off": 'no key is journalled here (journal = "off")',
    }[sampling]
    return f"nothing is known: {why}; `cachee explain --watch 60 KEY` watches it from now on"


def _print_unheard(told: Explanation) -> None:
    for host, why in sorted(told.unheard.items()):
        print(f"nothing was heard of {shown(host)}: {shown(why)}")
