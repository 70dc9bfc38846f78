"""A peer names its namespaces. With the first STATE the link is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.ports.effects import Proven
from cachee_bridge.wire.messages import ROWS_MAX, State

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.arbiter import Arbiter
    from cachee_bridge.protocol.budgets import Budgets
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.gossip import Gossip
    from cachee_bridge.protocol.isolation import Isolation
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.protocol.paths import Paths
    from cachee_bridge.protocol.presence import Presence
    from cachee_bridge.protocol.readiness import Readiness
    from cachee_bridge.protocol.session import Session


class Arrival:
    def __init__(
        self,
        lost_after_s: float,
        links: LinkTable,
        session: Session,
        book: AddressBook,
        paths: Paths,
        readiness: Readiness,
        isolation: Isolation,
        presence: Presence,
        budgets: Budgets,
        gossip: Gossip,
        arbiter: Arbiter,
        ends: LinkEnds,
        effects: Collected,
    ) -> None:
        self._lost_after_s, self._links, self._session = lost_after_s, links, session
        self._book, self._paths, self._readiness, self._isolation = book, paths, readiness, isolation
        self._presence, self._budgets, self._gossip = presence, budgets, gossip
        self._arbiter, self._ends, self._effects = arbiter, ends, effects

    def on_state(self, link: Link, state: State, now: float) -> None:
        """Some namespaces of the peer."""
        rises = not link.up
        if rises and not self._raise(link, state, now):
            return
        self._paths.linked(link)
        doubtful, link.in_doubt = link.in_doubt, frozenset()
        for row in state.namespaces:
            # A STATE that ends a handshake was sent after this side's HELLO had come: as good as an echo.
            stamp = link.stamps.opened_at if rises else None
            known = link.version >= 3 and row.namespace not in doubtful  # wire 2 does not say
            self._session.meeting.meet(link, row, stamp, now, known)
        if rises:
            self._on_up(link, now)
        if len(state.namespaces) < ROWS_MAX and not link.told_all:
            link.told_all = True
            self._session.meeting.drop_absent(link, now)
            self._session.boots.met(link.name, link.instance)
        self._isolation.extend(now)

    def _raise(self, link: Link, state: State, now: float) -> bool:
        """The link is up, unless it has to give way to another one."""
        rival = self._links.up.get(link.name)
        if not self._arbiter.keeps(link, [rival] if rival is not None else [], now):
            return False
        if rival is None and self._presence.is_outdated(link):
            self._ends.close(link, "another bridge of that name was up meanwhile; come again", now, "info")
            return False
        link.was_late = self._book.absent.is_late(link.name, now, self._lost_after_s)
        link.on_state(state)
        self._links.raise_(link)
        self._session.namespaces.uncover(link.name)
        if rival is not None:
            self._ends.close(rival, "replaced by another link", now, "debug")
        return True

    def _on_up(self, link: Link, now: float) -> None:
        self._effects.add(Proven(link.number))
        self._budgets.came_up(link)
        link.was_late = False
        self._readiness.met(link.name, now)
        self._presence.came_up(link, now)
        self._book.linked(link.name)
        if link.reach:
            self._book.learn(link.name, link.reach, now)
        self._readiness.look()
        self._effects.say("info", f"{link.name} is up", peer=link.name, address=link.address or link.reach)
        self._gossip.teach_own(link)
        self._gossip.teach(link, self._paths.reached())
        for other in self._links.up.values():
            self._gossip.teach(other, [link.name])
