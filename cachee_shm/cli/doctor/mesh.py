"""Checks of the mesh, as this host's bridge sees it: peers without a link, refused links, isolation,
staleness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cachee_shm.cli.doctor.finding import PATIENCE_S, Finding, Level, Patient
from cachee_shm.cli.operator import ask
from cachee_shm.cli.terminal import ago

# Patterns of failures, and how to repair each; the first match counts.
MENDS = (
    (
        r"authentication is|does not know this host's secret|proof",
        "secrets differ: copy the same secret_file to both hosts, then `systemctl reload cachee-bridge` "
        "on each",
    ),
    (
        r"certificate|TLS|SSL|tls",
        "check the certificates of both: openssl verify -CAfile CA CERT; openssl x509 -in CERT -dates",
    ),
    (
        r"protocol|wire|version",
        "the releases are too far apart: upgrade the older host (cachee --version on both)",
    ),
    (
        r"named .* too|two live hosts|another .* is up",
        "two hosts have one name: give each its own [host] name, restart its bridge",
    ),
    (
        r"resolve|Name or service|name|DNS|getaddrinfo",
        "the name leads nowhere: getent hosts NAME; correct DNS or bridge.peers",
    ),
    (r"refused", "nobody listens there: on that host, systemctl start cachee-bridge; cachee doctor"),
    (r"", "see that the address is right and no firewall is between: nc -vz HOST PORT"),
)
WORTH_A_WORD = r"authentication is|secret|certificate|protocol|named|two live hosts"
RECENT_S = 120.0
NOT_YET = "not applied yet"  # of the checker: slow, and not wrong
TRACES_MAX = 3


def peers(patient: Patient) -> Iterator[Finding]:
    """Checks that each host of the mesh is linked, or at least relayed, and that discovery answers."""
    if patient.told is None:
        return
    for peer in patient.told["peers"]:
        if peer["state"] in ("down", "waiting", "connecting", "relayed"):
            yield from _peer(peer)
    discovery = patient.told["discovery"]
    if discovery is not None and discovery["failure"]:
        what = f"{discovery['what']} does not answer: {discovery['failure']}"
        state = "known hosts stay; new ones are not found, and until the first answer everything is isolated"
        yield Finding("peers", Level.PROBLEM, what, state, "see the name server: dig +tcp NAME")


def _peer(peer: dict[str, Any]) -> Iterator[Finding]:
    failure, address = peer.get("failure", ""), peer["address"]
    if peer["state"] == "connecting" and not failure:
        return  # the first attempt is under way
    who = f"{peer['name']} ({address})" if peer["name"] and address else peer["name"] or address
    since = f" for {ago(peer['for_s'])}" if peer["for_s"] is not None else ""
    what = f"{who} is not linked{since}: {failure or 'it has not come back'}"
    mend = _mend(failure, peer["name"] or address, address)
    if peer["state"] == "relayed":
        yield Finding("peers", Level.NOTE, what, f"{peer['through']} passes on what it writes", mend)
        return
    isolates = f"it isolates this host in {', '.join(peer['isolates'])}" if peer["isolates"] else ""
    state = isolates or "what it writes does not come; a host that was never met counts as cut off"
    yield Finding("peers", Level.PROBLEM, what, state, mend)


def _mend(failure: str, who: str, address: str = "") -> str:
    if not failure:
        return f"check that it is alive; if it is gone for good: cachee peers forget {who}"
    mend = next(text for pattern, text in MENDS if re.search(pattern, failure))
    mend = mend.replace("HOST PORT", " ".join(address.rsplit(":", 1)) or "HOST PORT")
    if mend.startswith("nobody listens"):
        mend += f"; if it is gone for good, here: cachee peers forget {who}"
    return mend


def refused(patient: Patient) -> Iterator[Finding]:
    """Reports links that were refused within the last two minutes."""
    if patient.told is None:
        return
    for row in patient.told.get("refused", []):
        if row["ago_s"] is None or row["ago_s"] > RECENT_S:
            continue
        is_a_host = re.search(WORTH_A_WORD, row["reason"])
        what = (
            f"links from {row['who']} were refused {row['times']} times, last {ago(row['ago_s'])} "
            f"ago: {row['reason']}"
        )
        state = "nothing that it sent was applied; if it is a host of this mesh, it is not linked"
        mend = (
            _mend(row["reason"], row["who"])
            if is_a_host
            else ("if it is no host of yours (a scan, a probe): nothing")
        )
        yield Finding("refused links", Level.PROBLEM if is_a_host else Level.NOTE, what, state, mend)


def staleness(patient: Patient) -> Iterator[Finding]:
    """Reports stale values that the checker has found at peers."""
    if patient.told is None or patient.config is None:
        return
    caught: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in ask(patient.config, {"do": "checker"}, PATIENCE_S).get("suspects", []):
        if row["name"] != NOT_YET:
            caught.setdefault((row["peer"], row["namespace"], row["name"]), []).append(row)
    for (peer, namespace, name), rows in caught.items():
        first = rows[0]
        what = (
            f"{peer} held an older value in namespace {namespace}: {name} ({len(rows)} times). {first['why']}"
        )
        state = "readers there may have been served stale values, until their lifetime ends"
        mend = (
            f"on {peer}: cachee segment rm --force {namespace} (which empties it); systemctl restart "
            f"cachee-bridge; "
            "report it with the trace, which `cachee doctor --json` and the bridge's log have"
        )
        trace = tuple(line for row in rows[:TRACES_MAX] for line in row["trace"])
        yield Finding("staleness", Level.PROBLEM, what, state, mend, trace)


def isolation(patient: Patient) -> Iterator[Finding]:
    """Reports which namespaces are isolated, by what, and what would end that."""
    if patient.told is None:
        return
    for row in patient.told["namespaces"]:
        if not row["isolated"]:
            continue
        since = ago(row["isolated_for_s"])
        state = f"readers follow on_isolation = {row['policy']}"
        reasons = [
            (f"it waits for {why['who'] or 'itself'} ({why['reason']})", why["end"]) for why in row["why"]
        ]
        for reason, end in reasons or [("no reason is told", "journalctl -u cachee-bridge")]:
            what = (
                f"namespace {row['namespace']} is isolated "
                f"{f'for {since}' if since else 'since the start'}: {reason}"
            )
            yield Finding("isolation", Level.PROBLEM, what, state, end)
