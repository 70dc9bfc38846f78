"""What is done again and again as time passes, each in its own period."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cachee_bridge.ports.effects import Discover
from cachee_bridge.wire.messages import Sync

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.belonging import Belonging
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.dialling import Dialling
    from cachee_bridge.protocol.gossip import Gossip
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.protocol.paths import Paths
    from cachee_bridge.protocol.presence import Presence
    from cachee_bridge.protocol.session import Session

REACH_S = 0.25
"""How often it is looked for hosts that are out of reach."""
GOSSIP_S = 10.0
"""One random peer is told again which hosts are up: addresses that were lost with a link, or given up, are
learned again."""
HELD_LOOK_S = 0.1
"""How often a peer that is over its budget is looked at: a tenth of what it may send in a second."""


class Rounds:
    def __init__(
        self,
        settings: Settings,
        rng: random.Random,
        links: LinkTable,
        session: Session,
        book: AddressBook,
        paths: Paths,
        dialling: Dialling,
        belonging: Belonging,
        presence: Presence,
        gossip: Gossip,
        ends: LinkEnds,
        effects: Collected,
    ) -> None:
        self._heartbeat_s, self._lost_after_s = settings.heartbeat_s, settings.lost_after_s
        self._rng, self._links, self._session, self._book = rng, links, session, book
        self._paths, self._dialling, self._belonging = paths, dialling, belonging
        self._presence, self._gossip, self._ends, self._effects = presence, gossip, ends, effects
        self._next_beat = self._next_gossip = 0.0
        self._next_reach = float("-inf")

    def start(self, now: float) -> None:
        self._next_beat, self._next_gossip = now, now + GOSSIP_S

    def close_links(self, now: float) -> None:
        """Links that are silent, and links that neither end needs."""
        self._ends.close_silent(now, self._lost_after_s)
        if now >= self._next_reach:
            self._next_reach = now + REACH_S
            if self._book.absent.out_of_reach(now, self._paths.reaches, self._lost_after_s - REACH_S):
                self._session.namespaces.register.lost_at = now
        for link in self._paths.review(now):
            self._ends.close(
                link,
                "relays carry the records of both ends to each other, so this link is not needed",
                now,
                "debug",
            )

    def speak(self, now: float) -> None:
        """Beats and gossip."""
        if now >= self._next_beat:
            self._next_beat = now + self._heartbeat_s
            self._beat(now)
        if now >= self._next_gossip:
            self._next_gossip = now + GOSSIP_S
            self._look_around(now)

    def dial(self, now: float) -> None:
        """Addresses that are due, and discovery. Not while this host leaves."""
        if self._session.farewell.begun:
            return
        self._dialling.dial(now)
        discovery = self._belonging.discovery
        if discovery is not None and discovery.due(now):
            self._effects.add(Discover())

    def is_calm(self) -> bool:
        """Whether nothing has to be said before the next calm beats."""
        return not self._session.farewell.begun and all(map(_is_calm, self._links.by_number.values()))

    def next_due(self, now: float, calm: bool) -> float:
        """When there is something to do again. `calm`: nothing that happens at each heartbeat."""
        due = self._next_beat
        if calm:
            due = self._session.beats.next_calm(now)
        elif any(link.throttle.held_since is not None for link in self._links.by_number.values()):
            due = min(now + HELD_LOOK_S, due)
        discovery = self._belonging.discovery
        asked = float("inf") if discovery is None else discovery.next_due()
        return max(now, min(due, self._dialling.next_due(), asked))

    def _beat(self, now: float) -> None:
        beats, farewell = self._session.beats, self._session.farewell
        beats.begin_round()
        for link in self._links.up.values():
            beats.beat_if_due(link, now)
            if link.room() and farewell.unacked(link):
                link.send(Sync())

    def _look_around(self, now: float) -> None:
        namespaces, up = self._session.namespaces, self._links.up
        self._session.meeting.look_for_room(now)
        kept = namespaces.waited_for().union(up)
        namespaces.register.keep(kept)
        self._presence.keep(kept)
        if up:
            self._gossip.teach(self._rng.choice(list(up.values())), self._paths.reached())


def _is_calm(link: Link) -> bool:
    is_read = link.throttle.held_since is None
    return link.up and is_read and not link.relays and link.beat_schedule.is_quiet(not link.unconfirmed)
