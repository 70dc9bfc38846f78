"""Beats: what two ends of a link tell each other at a heartbeat, and what is made of it.

    said     heads of this host's rings, cursors in the peer's, a stamp, and the echo of the peer's newest
             one: all of it at the calm pace, else of the namespaces in which anything moved
    heard    a head makes a source fresh, or shows that something is missing; a cursor says what the peer has

On a calm link one sum stands in the place of a row for each namespace (ledger.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cachee_bridge.links.beat_schedule import calm_heartbeats
from cachee_bridge.links.ledger import Heads, positions_of
from cachee_bridge.routing.relaying import in_parts
from cachee_bridge.wire.messages import HOPS_MAX, ROWS_MAX, SENT, Beat, Calm, Cursor, Head, Sync

if TYPE_CHECKING:
    from cachee_bridge.links.ledger import Ledger, Pair
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.session import Session

COMPARED_BYTES = 16
"""Of a budget (budget.py), for each namespace whose positions are added up to compare a sum."""
CALM_WIRE = 3
"""A peer of an older wire is told a row for each namespace."""


class Beats:
    def __init__(self, name: str, settings: Settings, session: Session) -> None:
        self._name, self._settings, self._session = name, settings, session
        self._calm_s = settings.heartbeat_s * calm_heartbeats(settings.heartbeat_s, settings.lost_after_s)
        self.heads = Heads()

    # Heard

    def on_beat(self, link: Link, beat: Beat | Calm, stamp: float | None, now: float) -> None:
        """`stamp`: when the stamp that it echoes left here, in seconds; None = it echoes none."""
        self._on_rows(link, beat, stamp, now)
        if isinstance(beat, Calm):
            self._on_rest(link, beat, stamp, now)

    def _on_rows(self, link: Link, beat: Beat | Calm, stamp: float | None, now: float) -> None:
        if not link.dialled:
            link.beat_schedule.answer(now, self._settings.heartbeat_s)
        for head in beat.heads:
            known_at = None if stamp is None else stamp - head.age_us / 1e6
            self._session.touched.add(head.namespace)
            if head.source != link.name:
                self._session.relaying.on_head(link, head, known_at, now)
            elif head.namespace in link.shared:
                self._on_head(link, head, known_at, now)
        for cursor in beat.cursors:
            if (cursor.source, cursor.holder) == (self._name, link.name):
                self._on_cursor(link, cursor, now)
            else:
                self._session.relaying.on_cursor(link, cursor, now)

    def _on_rest(self, link: Link, calm: Calm, stamp: float | None, now: float) -> None:
        """The shared namespaces that no row is about: all are as the sums say, or nothing of it counts."""
        named = {head.namespace for head in calm.heads if head.source == link.name} & link.shared
        if not self._agrees(link, named, calm):
            if now >= link.asked_rows_at + self._settings.heartbeat_s:
                link.asked_rows_at = now
                link.send(Sync("", HOPS_MAX))  # to be answered, and passed on to nobody
            return
        word = self._session.register.word(link.name)
        if stamp is None or stamp < word.fresh_at:
            return
        if word.fresh_at + self._settings.lost_after_s / 2 < stamp:
            self._session.touched |= word.covered
        for namespace in word.covered & named:
            self._session.members[namespace].cover(link.name, False)
        word.fresh_at = stamp
        word.heard(stamp)
        for namespace in (word.apart & link.shared) - named:
            self._session.touched.add(namespace)
            inbox = self._session.members[namespace].sources[link.name]
            inbox.head_heard(inbox.cursor, stamp)
            self._session.members[namespace].cover(link.name, True)

    def _agrees(self, link: Link, named: set[str], calm: Calm) -> bool:
        """Whether all heads but those that are named are applied here, and the peer has acknowledged what it
        says."""
        ledger = self._ledger(link)
        compared = len(named) + ledger.expect(self._session.members, link.name, link)
        link.throttle.budget.owe(COMPARED_BYTES * compared)
        return ledger.expected.without(named) == (calm.heads_sum, calm.cursors_sum)

    def _ledger(self, link: Link) -> Ledger:
        """With all that has changed of the peer's rings here."""
        word = self._session.register.word(link.name)
        if word.stirred:
            link.ledger.change(word.stirred)
            word.stirred = set()
        return link.ledger

    def on_syncs(self, link: Link, syncs: Iterable[Sync], now: float) -> int:
        """One answer to all of them; how many rows and messages it took."""
        link.relayed.told_at = float("-inf")
        return self.beat(link, now) + sum(self._session.relaying.on_sync(link, sync, now) for sync in syncs)

    def _on_head(self, link: Link, head: Head, stamp: float | None, now: float) -> None:
        members = self._session.members[head.namespace]
        inbox = self._session.follow(link, members, head.incarnation, head.head, now)
        if inbox is None or head.incarnation < inbox.incarnation:
            return
        if inbox.head_heard(head.head, stamp):
            self._session.ask(link, members, inbox, now)
        members.settle(link.name)

    def _on_cursor(self, link: Link, cursor: Cursor, now: float) -> None:
        """How far the peer has applied this host's ring."""
        if cursor.namespace not in link.shared:
            return
        members = self._session.members[cursor.namespace]
        if self._session.outdone(link, members, cursor.incarnation, cursor.cursor, now):
            return
        if cursor.incarnation == members.store.incarnation:
            link.acked[cursor.namespace] = cursor.cursor
            link.ledger.change((cursor.namespace,))
            members.acked(link.name, cursor.cursor)
            outbox = link.outboxes.get(cursor.namespace)
            if outbox is None or cursor.cursor >= outbox.carried:
                link.unconfirmed.discard(cursor.namespace)

    # Said

    def beat_if_due(self, link: Link, now: float) -> None:
        """At each heartbeat; what it lacks is sent at each."""
        self._session.pump(link)
        is_calm = link.beat_schedule.is_calm(now)
        if link.beat_schedule.due(now, not link.unconfirmed):
            self.beat(link, now, whole=is_calm, calmly=is_calm and link.version >= CALM_WIRE)

    def beat(self, link: Link, now: float, whole: bool = True, calmly: bool = False) -> int:
        """Heads, cursors, stamp, echo; how many rows. Not `whole`: only of namespaces in which anything
        moved since they were told. `calmly`: of these in rows, and of the others in sums. Left out only if
        the socket has been full for long."""
        self._session.pump(link)
        if link.room():
            self._session.send_empty(link)
        if not link.has_room_for_beats():
            return 0
        stirred, link.stirred = link.stirred, set()
        moved = (stirred | link.unconfirmed) & link.shared
        ledger = self._ledger(link)
        told = self._news(link, moved) if calmly else None
        calmly = told is not None
        if told is None:
            told = positions_of(self._session.members, link.name, link.shared if whole else moved)
        ledger.tell(link, told)
        heads = tuple(Head(ns, self._name, *at[0], 0, SENT) for ns, at in sorted(told.items()) if at[0])
        held = ((ns, told[ns][1]) for ns in sorted(told))
        cursors = tuple(Cursor(ns, link.name, *at, self._name) for ns, at in held if at is not None)
        more_heads, more_cursors = self._session.relaying.rows(link, now)
        stamp, echo = link.stamps.next(now), link.stamps.newest_heard
        if calmly:
            link.send(Calm(stamp, echo, heads, cursors, *ledger.told.without(told)))
            heads, cursors = (), ()
        if more_heads or more_cursors or not calmly:
            for part in in_parts(Beat(stamp, echo, (*heads, *more_heads), (*cursors, *more_cursors))):
                link.send(part)
        heartbeat_s = self._settings.heartbeat_s
        calm_s = heartbeat_s if link.relays else self._calm_s
        link.beat_schedule.beaten(now, calm_s if whole else None, heartbeat_s)
        return 2 * len(told) + len(more_heads) + len(more_cursors)

    def _news(self, link: Link, moved: set[str]) -> dict[str, Pair] | None:
        """What a calm heartbeat has rows of. None: of more than go into one message."""
        self.heads.look(self._session.members, self._session.relaying.links())
        known = positions_of(self._session.members, link.name, link.ledger.candidates(link, moved))
        news = link.ledger.news(link, known, moved)
        if len(news) > ROWS_MAX:
            return None
        link.ledger.settle(known.keys() - news)
        return {namespace: known[namespace] for namespace in news}
