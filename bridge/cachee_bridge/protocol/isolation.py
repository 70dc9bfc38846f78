"""Until when each namespace may be served as usual, and why not longer; it tells workers and people."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cachee_bridge.ports.effects import Effect, Level, ServeUntil
from cachee_bridge.ports.reasons import Reason, Why
from cachee_bridge.sources.peer_status import milliseconds

if TYPE_CHECKING:
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.ports.views import NamespaceView
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.readiness import Readiness
    from cachee_bridge.sources.members import Members

PERIOD_S = 0.15
PERIOD_PART = 4
"""As a part of lost_after: a namespace without news is examined at least this often."""
TELL_S = 1.0
"""How often the freshness of each source is written for people, if nothing else has changed."""


class Calm:
    """Namespaces with the same members, each of which reports that all its namespaces are fresh. The time
    until which they may be served is computed once, and written to each."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.namespaces: dict[str, Members] = {}
        self.tell_at = float("-inf")
        self.until = self.extended_at = float("-inf")
        """Until when all of them were last extended, and when that was done."""

    def add(self, namespace: str, members: Members) -> None:
        """It may have been extended less far than the others."""
        self.namespaces[namespace] = members
        self.until = float("-inf")


class Isolation:
    """The isolation of all namespaces of one host. A namespace is examined when something was received in it,
    and otherwise in its turn; calm namespaces are examined together."""

    def __init__(self, namespaces: Namespaces, readiness: Readiness, lost_after_s: float, say: Say) -> None:
        self._namespaces, self._readiness = namespaces, readiness
        self._lost_after_s, self._say = lost_after_s, say
        self._period_s = min(PERIOD_S, lost_after_s / PERIOD_PART)
        self._turns: list[tuple[float, str]] = []
        """A heap of (when, namespace). Of the entries of one namespace, the one in `_turn_of` counts."""
        self._turn_of: dict[str, float] = {}
        self._calm: dict[frozenset[str], Calm] = {}
        self._calm_of: dict[str, Calm] = {}
        self._calm_at = float("-inf")
        """When the calm namespaces are examined next."""
        self._calm_fresh_at = float("-inf")
        """How fresh all members of all calm ones were when it last was."""
        self._hindered = True
        self._looked_at: set[str] = set()
        """Namespaces that were examined since `report` was last called."""
        self._isolated: set[str] = set()
        """Namespaces that were last reported as isolated."""
        self._effects: list[Effect] = []

    def effects(self) -> list[Effect]:
        """Each is returned once."""
        effects, self._effects = self._effects, []
        return effects

    def extend(self, now: float) -> None:
        """Extend the time until which namespaces may be served, and write the state of the peers for
        workers."""
        hindered = bool(self._readiness.unanswered)
        self._look_at(self._due(now, hindered), now, hindered)
        if now >= self._calm_at:
            self._calm_at = now + self._period_s
            for calm in list(self._calm.values()):
                self._extend_calm(calm, now, hindered)
            self._look_at(self._due(now, hindered), now, hindered)
            self._calm_fresh_at = self._oldest_word()

    def extend_if_all_reported(self, now: float) -> None:
        """The calm ones at once, if the last of their members has reported that all is fresh: the next tick
        may be three heartbeats away."""
        if not self._namespaces.register.has_reports:
            return
        self._namespaces.register.has_reports = False
        if self._calm and self._oldest_word() >= self._calm_fresh_at + self._period_s:
            self._calm_at = now
            self.extend(now)

    def _oldest_word(self) -> float:
        """In every calm namespace each member was fresh at this time, or later."""
        names = set().union(*self._calm)
        return min((self._namespaces.register.word(name).fresh_at for name in names), default=float("-inf"))

    @property
    def is_calm(self) -> bool:
        """Whether every namespace is calm: none needs a look before its members report again."""
        return len(self._calm_of) == len(self._namespaces.members) and not self._readiness.unanswered

    def _look_at(self, namespaces: Sequence[str], now: float, hindered: bool) -> None:
        """Examine these namespaces one by one."""
        for namespace in namespaces:
            members = self._namespaces.members.get(namespace)
            if members is None:
                continue
            members.peer_status.tell(members.sources, now, hindered)
            if (until := members.horizon.extended(now, hindered)) is not None:
                self._effects.append(ServeUntil((namespace,), until))
            self._looked_at.add(namespace)
            self._place(namespace, members, now)

    def _due(self, now: float, hindered: bool) -> list[str]:
        if hindered != self._hindered:
            self._hindered = hindered
            self._namespaces.touched.update(self._namespaces.members)
        names, self._namespaces.touched = self._namespaces.touched, set()
        names |= self._namespaces.register.changed
        self._namespaces.register.changed = set()
        while self._turns and self._turns[0][0] <= now:
            turn, namespace = heapq.heappop(self._turns)
            if self._turn_of.get(namespace) == turn:
                names.add(namespace)
        return sorted(names)

    def _place(self, namespace: str, members: Members, now: float) -> None:
        """Put the namespace among the calm ones, or give it its own turn."""
        if (before := self._calm_of.pop(namespace, None)) is not None:
            del before.namespaces[namespace]
            if not before.namespaces:
                del self._calm[before.names]
        if members.is_calm(now):
            names = frozenset(members.sources)
            calm = self._calm_of[namespace] = self._calm.setdefault(names, Calm(names))
            calm.add(namespace, members)
            self._turn_of.pop(namespace, None)
        else:
            turn = self._turn_of[namespace] = now + self._period_s
            heapq.heappush(self._turns, (turn, namespace))

    def _extend_calm(self, calm: Calm, now: float, hindered: bool) -> None:
        """Extend all of `calm` at once. A namespace that is no longer calm is examined by itself."""
        words = {name: self._namespaces.register.word(name).fresh_at for name in calm.names}
        until = min([now, *words.values()]) + self._lost_after_s
        if hindered or until < now:
            self._namespaces.touched.update(calm.namespaces)
            return
        if until <= calm.until and now < calm.extended_at + self._lost_after_s / 2:
            return  # nothing later to write, and what workers read of this bridge counts for long
        calm.until, calm.extended_at = until, now
        fresh_ms: dict[str, int] = {}
        if now >= calm.tell_at:
            calm.tell_at = now + TELL_S
            fresh_ms = {name: milliseconds(at) for name, at in words.items()}
        counts_until_ms = milliseconds(now + self._lost_after_s)
        extended = []
        for namespace, members in calm.namespaces.items():
            if not members.is_calm(now):
                self._namespaces.touched.add(namespace)
                continue
            members.peer_status.go_on(members.sources, fresh_ms, counts_until_ms)
            if members.horizon.go_on(now, until):
                extended.append(namespace)
        if extended:
            self._effects.append(ServeUntil(tuple(extended), until))

    def report(self, now: float) -> None:
        """A line for people for each namespace that is isolated now and was not, or was and is not."""
        looked_at, self._looked_at = self._looked_at, set()
        for namespace in sorted(looked_at):
            members = self._namespaces.members[namespace]
            isolated = members.horizon.isolated(now)
            if isolated == (namespace in self._isolated):
                continue
            self._isolated.symmetric_difference_update((namespace,))
            late = ", ".join([*members.horizon.stale(now), *self._readiness.unanswered])
            text = f"isolated: nothing fresh from {late}" if isolated else "no longer isolated"
            level: Level = "warning" if isolated and not members.horizon.starting else "info"
            self._say(level, f"namespace {namespace} is {text}", namespace=namespace)

    def views(self, now: float, is_reached: Callable[[str], bool]) -> list[NamespaceView]:
        """For people and health. `is_reached`: the named peer is linked, or heard through a relay."""
        views, unanswered = [], self._readiness.unanswered
        for _, members in sorted(self._namespaces.members.items()):
            why: list[Why] = []
            if members.horizon.isolated(now):
                why = [*map(_expected, unanswered), *members.horizon.why(now, is_reached)]
            views.append(members.horizon.view(now, list(unanswered), why))
        return views


def _expected(what: str) -> Why:
    """An address ("host:port"), or what discovery asks for ("dns:NAME:PORT", "srv:NAME")."""
    return Why(Reason.DISCOVERY if what.startswith(("dns:", "srv:")) else Reason.UNANSWERED, what)
