"""Until when each namespace may be served, what workers and people are told of it, and why not longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cachee_bridge.effects import Effect, Level, ServeUntil
from cachee_bridge.exchange import Exchange, Say
from cachee_bridge.ports import NamespaceView
from cachee_bridge.reasons import Reason, Why


class Isolation:
    """Of all namespaces of one host."""

    def __init__(self, exchange: Exchange, say: Say) -> None:
        self._exchange, self._say = exchange, say
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
        for namespace, members in self._exchange.members.items():
            members.bulletin.tell(members.inboxes, now, bool(unanswered))
            if (until := members.extended(now, bool(unanswered))) is not None:
                self._effects.append(ServeUntil(namespace, until))

    def tell(self, now: float, unanswered: Sequence[str]) -> None:
        """People, of each change."""
        for namespace, members in self._exchange.members.items():
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
        """For people and health. `is_reached`: a peer is linked, or heard by way of others."""
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
