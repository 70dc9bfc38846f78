"""``cachee peers`` and ``cachee peers forget``: ask this host's bridge, by the socket beside its segments.

If no bridge answers, no host can be forgotten, but ``cachee peers`` still shows what the segments know.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from cachee_shm import config
from cachee_shm.cli.existing import existing, looked_into
from cachee_shm.cli.operator import ask
from cachee_shm.cli.terminal import ago, shown, table
from cachee_shm.errors import BridgeError, NotForgotten
from cachee_shm.segment import spec_of

COLUMNS = ("PEER", "WHERE", "STATE", "FOR", "NAMESPACE", "LAG", "BEHIND", "FRESH", "")


def peers(options: argparse.Namespace) -> int:
    """Print the peers, their state and their lag; 1 if no bridge answers."""
    host_config = config.load(options.config)
    try:
        told = ask(host_config, {"do": "peers"})
    except BridgeError as error:
        print(f"cachee: {error}", file=sys.stderr)
        _print_segments(host_config)
        return 1
    if options.json:
        print(json.dumps(told))
    else:
        _print(told)
    return 0


def forget(options: argparse.Namespace) -> int:
    """Tell the bridge to forget a host. ``BridgeError`` if it does not answer, ``NotForgotten`` if it
    refuses."""
    told = ask(config.load(options.config), {"do": "forget", "who": options.who})
    if "error" in told:
        raise NotForgotten(told["error"])
    print(told["done"])
    return 0


# For people


def _print(told: dict[str, Any]) -> None:
    namespaces = [line for row in told["namespaces"] for line in (_namespace_line(row), *_why_lines(row))]
    failures = [_failure_line(peer) for peer in told["peers"]]
    for line in (_discovery_line(told), *namespaces, _unmet_line(told), *failures):
        if line:
            print(shown(line))
    rows = [COLUMNS, *(row for peer in told["peers"] for row in _rows(peer))]
    print(*table([[shown(cell) for cell in row] for row in rows]), sep="\n")


def _discovery_line(told: dict[str, Any]) -> str:
    asked = told["discovery"]
    if asked is None:
        return ""
    answered = ago(asked["answered_ago_s"])
    last = f"{asked['named']} addresses, {answered} ago" if answered else "no answer yet"
    return f"{asked['what']}: {last}" + (f"; since then: {asked['failure']}" if asked["failure"] else "")


def _namespace_line(row: dict[str, Any]) -> str:
    if not row["isolated"]:
        return f"namespace {row['namespace']}: not isolated"
    since = ago(row["isolated_for_s"])
    line = f"namespace {row['namespace']}: isolated {f'for {since}' if since else 'since the start'}"
    line += f", policy {row['policy']}"
    if row["silent"]:
        line += f"; nothing fresh from {', '.join(row['silent'])}"
    if row["removed_in_s"] is not None:
        line += f"; forgetting {', '.join(row['removing'])} in {ago(row['removed_in_s'])}"
    return line


def _why_lines(row: dict[str, Any]) -> list[str]:
    """What isolates the namespace, and what would end that."""
    return [f"  waits for {why['who'] or 'itself'} ({why['reason']}): {why['end']}" for why in row["why"]]


def _unmet_line(told: dict[str, Any]) -> str:
    return "" if told["ready"] else f"not ready: not met yet: {', '.join(told['unmet'])}"


def _failure_line(peer: dict[str, Any]) -> str:
    failure = peer.get("failure", "")
    return f"{peer['name'] or peer['address']} is not linked: {failure}" if failure else ""


def _rows(peer: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each shared namespace; the first row names the peer."""
    state = f"relayed by {peer['through']}" if peer["through"] else peer["state"]
    who = (peer["name"] or "?", peer["address"] or "(it dials us)", state, ago(peer["for_s"]))
    streams = [
        (name, str(stream["lag"]), str(stream["behind"]), ago(stream["fresh_ago_s"]), _remark(peer, name))
        for name, stream in peer["namespaces"].items()
    ]
    first, *more = streams or [("", "", "", "", "")]
    return [(*who, *first), *(("", "", "", "", *stream) for stream in more)]


def _remark(peer: dict[str, Any], namespace: str) -> str:
    if namespace in peer["removed_from"]:
        return "is being forgotten"
    return "isolates this host" if namespace in peer["isolates"] else ""


# Without a bridge


def _print_segments(host_config: config.Config) -> None:
    for namespace in existing(host_config.host.name):
        if host_config.defaults is None and namespace not in host_config.namespaces:
            continue
        with looked_into(spec_of(host_config, namespace)) as cache:
            until, now = cache.serve_until, cache.now_ms()
            names = ", ".join(name for _, name, _, _ in cache.sources()) or "nobody"
        print(f"namespace {namespace}: {_served(until, now)}; it has met {names}")


def _served(until_ms: int, now_ms: int) -> str:
    if not until_ms:
        return "isolated, as no bridge has ever told it otherwise"
    if until_ms < now_ms:
        return f"isolated for {ago((now_ms - until_ms) / 1000)}, until a bridge runs and has heard every peer"
    return f"not isolated for another {ago((until_ms - now_ms) / 1000)}"
