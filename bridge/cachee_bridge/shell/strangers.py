"""Links that were closed before their other end had proven anything; one line a minute sums them up.

A port scanner, a load balancer's probe or an attacker may connect thousands of times a second. Each minute
the first one of a reason is told at once (at most FIRSTS_MAX of them); all others are counted by reason and
by address, and one line says the counts at the end of the minute.
"""

from __future__ import annotations

import re

from cachee_bridge.ports.views import Refusal

PERIOD_S = 60.0
FIRSTS_MAX = 8
KINDS_MAX = 64
"""Reasons and addresses that are counted one by one; the rest are counted together."""
SHOWN_MAX = 5
RECENT_S = 120.0
"""How long after its last occurrence a reason is still shown to people who ask."""
REASON_CHARACTERS = 100
OTHERS = "others"


class Strangers:
    """`now` is in seconds, of any clock."""

    def __init__(self) -> None:
        self._began_at = float("-inf")
        self._reasons: dict[str, int] = {}
        self._hosts: dict[str, int] = {}
        self._unsaid = 0
        self._recent: dict[str, Refusal] = {}
        """By reason, without its numbers."""

    def turned_away(self, host: str, where: str, reason: str, now: float) -> list[str]:
        """One came from `where`, which is at address `host`; the lines to be logged now."""
        lines = self.due(now)
        kind = re.sub(r"\d+", "N", reason)[:REASON_CHARACTERS]
        first = kind not in self._reasons and len(self._reasons) < FIRSTS_MAX
        _count(self._reasons, kind)
        _count(self._hosts, host)
        self._keep(kind, where, reason, now)
        if first:
            return [*lines, f"turned away a link from {where}: {reason}"]
        self._unsaid += 1
        return lines

    def recent(self, now: float) -> list[Refusal]:
        """Those of the last RECENT_S, one for each reason, the last one last."""
        return [each for each in self._recent.values() if now - each.at <= RECENT_S]

    def _keep(self, kind: str, where: str, reason: str, now: float) -> None:
        before = self._recent.pop(kind, None)
        times = before.times if before is not None and now - before.at <= RECENT_S else 0
        if len(self._recent) >= KINDS_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[kind] = Refusal(where, reason[:REASON_CHARACTERS], times + 1, now)

    def due(self, now: float) -> list[str]:
        """The line that sums up a minute, once it has passed."""
        if now < self._began_at + PERIOD_S:
            return []
        total = sum(self._reasons.values())
        line = (
            f"turned away {total} links in {PERIOD_S:g} s that had proven nothing: "
            f"{_listed(self._reasons)}; from {_listed(self._hosts)}"
        )
        lines = [line] if self._unsaid else []
        self._began_at, self._unsaid = now, 0
        self._reasons.clear()
        self._hosts.clear()
        return lines


def _count(counts: dict[str, int], kind: str) -> None:
    kind = kind if kind in counts or len(counts) < KINDS_MAX else OTHERS
    counts[kind] = counts.get(kind, 0) + 1


def _listed(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{kind} ({times})" for kind, times in most[:SHOWN_MAX]]
    rest = sum(times for _, times in most[SHOWN_MAX:])
    return ", ".join([*shown, *([f"{OTHERS} ({rest})"] if rest else [])])
