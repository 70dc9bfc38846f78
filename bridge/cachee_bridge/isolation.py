"""Until when each namespace may be served, what workers and people are told of it, and why not longer."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from cachee_bridge.effects import Effect, Level, ServeUntil
from cachee_bridge.exchange import Exchange, Say
from cachee_bridge.ports import NamespaceView
from cachee_bridge.reasons import Reason, Why

PERIOD_S = 0.3
PERIOD_PART = 4
"""Of lost_after, at the most: how often a namespace of which nothing new is heard is looked at."""


class Isolation:
    """Of all namespaces of one host. Looked at are those of which something was heard (if it is only that all
    is as before, not more than twice in a period), and of the others each in its turn."""

    def __init__(self, exchange: Exchange, lost_after_s: float, say: Say) -> None:
        self._exchange, self._say = exchange, say
        self._period_s = min(PERIOD_S, lost_after_s / PERIOD_PART)
        self._turns: list[tuple[float, str]] = []
        """A heap: when, and which namespace; of each, the one of `_turn_of` counts."""
        self._turn_of: dict[str, float] = {}
        self._hindered = True
        self._looked_at: set[str] = set()
        """Since people were last told."""
        self._isolated: set[str] = set()
        """Namespaces of which it was said, and not taken back."""
        self._effects: list[Effect] = []

    def effects(self) -> list[Effect]:
        """Each is returned once."""
        effects, self._effects = self._effects, []
        return effects

    def extend(self, now: float, unanswered: Sequence[str]) -> None:
        """How long may be served, and what workers are told of the peers. `unanswered`: addresses at which
        nobody has answered yet; each isolates."""
        for namespace in self._due(now, bool(unanswered)):
            members = self._exchange.members.get(namespace)
            if members is None:
                continue
            members.bulletin.tell(members.inboxes, now, bool(unanswered))
            if (until := members.extended(now, bool(unanswered))) is not None:
                self._effects.append(ServeUntil(namespace, until))
            self._looked_at.add(namespace)
            turn = self._turn_of[namespace] = now + self._period_s
            heapq.heappush(self._turns, (turn, namespace))

    def _due(self, now: float, hindered: bool) -> list[str]:
        if hindered != self._hindered:
            self._hindered = hindered
            self._exchange.touched.update(self._exchange.members)
        names, self._exchange.touched = self._exchange.touched, set()
        refreshed, self._exchange.refreshed = self._exchange.refreshed, set()
        lately = now + self._period_s / 2
        names.update(name for name in refreshed if self._turn_of.get(name, 0.0) < lately)
        while self._turns and self._turns[0][0] <= now:
            turn, namespace = heapq.heappop(self._turns)
            if self._turn_of.get(namespace) == turn:
                names.add(namespace)
        return sorted(names)

    def tell(self, now: float, unanswered: Sequence[str]) -> None:
        """People, of each change."""
        looked_at, self._looked_at = self._looked_at, set()
        for namespace in sorted(looked_at):
            members = self._exchange.members[namespace]
            isolated = members.isolated(now)
            if isolated == (namespace in self._isolated):
                continue
            self._isolated.symmetric_difference_update((namespace,))
            late = ", ".join([*members.stale(now), *unanswered])
            text = f"isolated: nothing fresh from {late}" if isolated else "no longer isolated"
            level: Level = "warning" if isolated and not members.starting else "info"
            self._say(level, f"namespace {namespace} is {text}", namespace=namespace)

    def views(
        self, now: float, unanswered: Sequence[str], is_reached: Callable[[str], bool]
    ) -> list[NamespaceView]:
        """For people and health. `is_reached`: the named peer is linked, or heard through a relay."""
        views = []
        for _, members in sorted(self._exchange.members.items()):
            why: list[Why] = []
            if members.isolated(now):
                why = [*map(_expected, unanswered), *members.why(now, is_reached)]
            views.append(members.view(now, list(unanswered), why))
        return views


def _expected(what: str) -> Why:
    """An address ("host:port"), or what discovery asks for ("dns:NAME:PORT", "srv:NAME")."""
    return Why(Reason.DISCOVERY if what.startswith(("dns:", "srv:")) else Reason.UNANSWERED, what)
