"""Collects what all linked hosts know about one key, for `cachee explain` on the operator socket.

    {"do": "explain", "namespace": "shop", "hash": 123}

    {"hosts": {HOST: [{"at": seconds, "kind": "received", "layer": ..., ...}, ...] or {"error": why}},
     "holds": {HOST: {"held": "shared", "position": 41, "filled": false, "fence": 40, "age_s": 1.2,
                      "digest": "...", "cursor": 977} or {"error": why}},
     "clocks": {HOST: seconds}}

`hosts` has the rows of each host's journal (core/journal.h), `holds` what each holds now. A peer says how
long before its answer something happened, so all times are of this host's wall clock, whatever the peer's
shows.
`clocks` says how wrong a peer's times may be: half of what question and answer took.

    {"do": "arm", "namespace": "shop", "hash": 123, "seconds": 60}

    {"armed": [HOST, ...], "unheard": {HOST: why}}

The answer comes once all linked peers have answered, or were waited for long enough. Hosts of the namespace
that are not linked are in it, with the error that says so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cachee_bridge.protocol.questions import ARM_MS_MAX, holding_of
from cachee_bridge.wire.fields import NAMESPACE
from cachee_bridge.wire.messages import ARM, HOLDS, JOURNAL, Asked

if TYPE_CHECKING:
    from cachee_bridge.ports.effects import Answered
    from cachee_bridge.shell.shell import Shell
    from cachee_bridge.wire.messages import Holding, JournalRow

HELD = ("absent", "shared", "local", "stored", "refused")
COPIED = ("kind", "why", "layer", "source", "incarnation", "sequence", "pid", "command", "service", "digest")
"""Of a row of a journal; `at` and `since` are seconds of the wall clock."""


LINKED = ("up", "self")
"""States of peers that are asked; this host itself needs no question."""


class Explaining:
    """For the bridge of `host`."""

    def __init__(self, host: str, shell: Shell) -> None:
        self._host, self._shell = host, shell

    async def explain(self, namespace: str, hashed: int) -> dict[str, Any]:
        """What every host knows. {"error": why} for what this host does not serve, or no hash can be."""
        store = self._shell.segment(namespace) if NAMESPACE.fullmatch(namespace) else None
        if store is None or not 0 < hashed < 1 << 64:
            return {
                "error": f"this host serves no namespace {namespace[:64]!r}, or {hashed} is no key's hash"
            }
        asked = (Asked(hashed),)
        holds, journals = await asyncio.gather(
            self._shell.inquiries.of_all(HOLDS, namespace, asked),
            self._shell.inquiries.of_all(JOURNAL, namespace, asked),
        )
        own = [{"at": row["at"], "since": row["since"], **_copied(row)} for row in store.journal(hashed)]
        clocks = {peer: answered.took_s / 2 for peer, answered in journals.items() if answered.answer}
        silent = {peer: {"error": why} for peer, why in self._unlinked(namespace).items()}
        return {
            "hosts": {**silent, **{peer: self._rows(one) for peer, one in journals.items()}, self._host: own},
            "holds": {
                **silent,
                **{peer: _held_by(one) for peer, one in holds.items()},
                self._host: _holding(holding_of(store, hashed)),
            },
            "clocks": {**clocks, self._host: 0.0},
        }

    async def arm(self, namespace: str, hashed: int, seconds: float) -> dict[str, Any]:
        """Watch a key here and at every linked peer: {"armed": [HOST, ...], "unheard": {HOST: why}}."""
        store = self._shell.segment(namespace) if NAMESPACE.fullmatch(namespace) else None
        if store is None or not 0 < hashed < 1 << 64:
            return {
                "error": f"this host serves no namespace {namespace[:64]!r}, or {hashed} is no key's hash"
            }
        ms = round(min(max(seconds, 0.0), ARM_MS_MAX / 1000) * 1000)
        store.arm(hashed, ms / 1000)
        asked = (Asked(hashed, ms),)
        answers = await self._shell.inquiries.of_all(ARM, namespace, asked)
        unheard = {peer: one.failure for peer, one in answers.items() if one.answer is None}
        armed = [self._host, *sorted(answers.keys() - unheard.keys())]
        return {"armed": armed, "unheard": {**self._unlinked(namespace), **unheard}}

    def _unlinked(self, namespace: str) -> dict[str, str]:
        """Hosts of the namespace that cannot be asked."""
        return {
            peer.name: f"it is not linked ({peer.failure or peer.state})"
            for peer in self._shell.mesh.views.peers()
            if peer.state not in LINKED and namespace in peer.namespaces
        }

    def _rows(self, answered: Answered) -> list[dict[str, Any]] | dict[str, Any]:
        if answered.answer is None:
            return {"error": answered.failure}
        said_at = answered.at - answered.took_s / 2 + self._shell.mesh.questions.wall_ahead_s
        return [_row(row, said_at) for row in answered.answer.journal]


def _row(row: JournalRow, said_at: float) -> dict[str, Any]:
    """`said_at`: when the peer answered, by this host's wall clock."""
    since = said_at - row.since_us / 1e6 if row.since_us else 0.0
    return {"at": said_at - row.age_us / 1e6, "since": since, **_copied(row._asdict())}


def _copied(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in COPIED}


def _held_by(answered: Answered) -> dict[str, Any]:
    if answered.answer is None:
        return {"error": answered.failure}
    return {**_holding(answered.answer.holdings[0]), "cursor": answered.answer.cursor}


def _holding(holding: Holding) -> dict[str, Any]:
    if not holding.held:
        return {"held": HELD[0], "fence": holding.fence}
    return {
        "held": HELD[holding.held],
        "position": holding.version >> 1,
        "filled": bool(holding.version & 1),
        "fence": holding.fence,
        "age_s": holding.age_ms / 1000,
        "digest": f"{holding.digest:016x}",
    }
