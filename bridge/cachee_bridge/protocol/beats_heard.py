"""Handling of a peer's beats.

a head      the source is fresh, or records of it are missing
a cursor    how far the peer has applied this host's ring
two sums    the same of every shared namespace that no row is about (ledger.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import HOPS_MAX, Beat, Calm, Cursor, Head, Sync

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.contacts import Contacts
    from cachee_bridge.protocol.incarnations import Incarnations
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.receiving import Receiving
    from cachee_bridge.routing.acknowledgements import Acknowledgements
    from cachee_bridge.routing.following import Following

COMPARED_BYTES = 16
"""Charged to a budget (budget.py) for each namespace whose positions are added up to compare a sum."""


class BeatsHeard:
    def __init__(
        self,
        name: str,
        settings: Settings,
        namespaces: Namespaces,
        contacts: Contacts,
        receiving: Receiving,
        incarnations: Incarnations,
        following: Following,
        acknowledgements: Acknowledgements,
    ) -> None:
        self._name, self._settings, self._namespaces = name, settings, namespaces
        self._contacts, self._receiving, self._incarnations = contacts, receiving, incarnations
        self._following, self._acknowledgements = following, acknowledgements

    def on_beat(self, link: Link, beat: Beat | Calm, stamp: float | None, now: float) -> None:
        """`stamp`: when the stamp that it echoes left here, in seconds; None = it echoes none."""
        self._on_rows(link, beat, stamp, now)
        if isinstance(beat, Calm):
            self._on_rest(link, beat, stamp, now)

    def _on_rows(self, link: Link, beat: Beat | Calm, stamp: float | None, now: float) -> None:
        if not link.dialled and link.beat_schedule.answers(now, self._settings.heartbeat_s):
            link.owes_beat = True
        for head in beat.heads:
            known_at = None if stamp is None else stamp - head.age_us / 1e6
            self._namespaces.touched.add(head.namespace)
            if head.source != link.name:
                self._following.on_head(link, head, known_at, now)
            elif head.namespace in link.shared:
                self._on_head(link, head, known_at, now)
        for cursor in beat.cursors:
            if (cursor.source, cursor.holder) == (self._name, link.name):
                self._on_cursor(link, cursor, now)
            else:
                self._acknowledgements.on_cursor(link, cursor, now)

    def _on_head(self, link: Link, head: Head, stamp: float | None, now: float) -> None:
        members = self._namespaces.members[head.namespace]
        inbox = self._contacts.follow(link, members, head.incarnation, head.head, now)
        if inbox is None or head.incarnation < inbox.incarnation:
            return
        if inbox.head_heard(head.head, stamp):
            self._receiving.ask(link, members, inbox, now)
        members.settle(link.name)

    def _on_cursor(self, link: Link, cursor: Cursor, now: float) -> None:
        """How far the peer has applied this host's ring."""
        if cursor.namespace not in link.shared:
            return
        members = self._namespaces.members[cursor.namespace]
        if self._incarnations.outdone(link, members, cursor.incarnation, cursor.cursor, now):
            return
        if cursor.incarnation == members.store.incarnation:
            link.acked[cursor.namespace] = cursor.cursor
            link.ledger.change((cursor.namespace,))
            members.acked(link.name, cursor.cursor)
            outbox = link.outboxes.get(cursor.namespace)
            if outbox is None or cursor.cursor >= outbox.carried:
                link.unconfirmed.discard(cursor.namespace)

    # Sums

    def _on_rest(self, link: Link, calm: Calm, stamp: float | None, now: float) -> None:
        """The shared namespaces without a row. If a sum differs, it says nothing about any of them."""
        named = {head.namespace for head in calm.heads if head.source == link.name} & link.shared
        if not self._agrees(link, named, calm):
            if now >= link.asked_rows_at + self._settings.heartbeat_s:
                link.asked_rows_at = now
                link.send(Sync("", HOPS_MAX))  # to be answered, and passed on to no follower
            return
        word = self._namespaces.register.word(link.name)
        if stamp is None or stamp < word.fresh_at:
            return
        if word.fresh_at + self._settings.lost_after_s / 2 < stamp:
            self._namespaces.touched |= word.covered
        for namespace in word.covered & named:
            self._namespaces.members[namespace].cover(link.name, False)
        word.fresh_at = stamp
        word.heard(stamp)
        self._namespaces.register.has_reports = True
        for namespace in (word.apart & link.shared) - named:
            self._namespaces.touched.add(namespace)
            inbox = self._namespaces.members[namespace].sources[link.name]
            inbox.head_heard(inbox.cursor, stamp)
            self._namespaces.members[namespace].cover(link.name, True)

    def _agrees(self, link: Link, named: set[str], calm: Calm) -> bool:
        """Whether all heads but the `named` ones are applied here, and the peer has acknowledged what it
        says."""
        ledger = self._namespaces.ledger_of(link)
        compared = len(named) + ledger.expect(self._namespaces.members, link.name, link)
        link.throttle.budget.owe(COMPARED_BYTES * compared)
        return ledger.expected.without(named) == (calm.heads_sum, calm.cursors_sum)
