"""The beats that this host sends: heads of its rings, its cursors in the peer's, a stamp, and the echo of the
peer's newest stamp.

At the calm pace a beat covers all shared namespaces, else those in which anything moved. On a calm link one
sum stands in the place of a row for each namespace (ledger.py). beats_heard.py handles the peer's beats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cachee_bridge.links.beat_schedule import calm_heartbeats
from cachee_bridge.links.ledger import Heads, positions_of
from cachee_bridge.routing.relaying import in_parts
from cachee_bridge.wire.messages import ROWS_MAX, SENT, Beat, Calm, Cursor, Head, Sync

if TYPE_CHECKING:
    from cachee_bridge.links.ledger import Pair
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.sending import Sending
    from cachee_bridge.routing.relaying import Relaying

CALM_WIRE = 3
"""A peer of an older wire version is sent a row for each namespace."""


class Beats:
    def __init__(
        self,
        name: str,
        settings: Settings,
        namespaces: Namespaces,
        links: LinkTable,
        sending: Sending,
        relaying: Relaying,
    ) -> None:
        self._name, self._namespaces, self._links = name, namespaces, links
        self._sending, self._relaying = sending, relaying
        self._heartbeat_s = settings.heartbeat_s
        self._calm_s = settings.heartbeat_s * calm_heartbeats(settings.heartbeat_s, settings.lost_after_s)
        self._heads = Heads()
        self.wall_ahead_s = 0.0
        """What the wall clock is ahead of the mesh's: calm beats are sent at its multiples."""

    def begin_round(self) -> None:
        """A heartbeat has passed: the tails of all rings are read again, once for all links."""
        self._heads.are_known = False

    def answer(self, link: Link, syncs: Iterable[Sync], now: float) -> int:
        """One answer to all of them; how many rows and messages it took."""
        link.relayed.told_at = float("-inf")
        return self.beat(link, now) + sum(self._relaying.on_sync(link, sync, now) for sync in syncs)

    def answer_beat(self, link: Link, now: float) -> None:
        """The end that was dialled answers a beat. The tails are read after the stamp has come that is
        echoed."""
        self._heads.are_known = False
        self.beat(link, now, calmly=link.version >= CALM_WIRE)

    def next_calm(self, now: float) -> float:
        """When calm beats are due next on all links: by the time of day, the same on all hosts."""
        rounds = math.floor((now + self.wall_ahead_s + self._heartbeat_s / 2) / self._calm_s)
        return (rounds + 1) * self._calm_s - self.wall_ahead_s

    def beat_if_due(self, link: Link, now: float) -> None:
        """At each heartbeat; what it lacks is sent at each."""
        if link.hungry or link.relayed.outboxes:
            self._sending.pump(link)
        is_calm = link.beat_schedule.is_calm(now)
        if link.beat_schedule.due(now, not link.unconfirmed):
            self.beat(link, now, whole=is_calm, calmly=is_calm and link.version >= CALM_WIRE)

    def beat(self, link: Link, now: float, whole: bool = True, calmly: bool = False) -> int:
        """Heads, cursors, stamp, echo; how many rows. Not `whole`: only of namespaces in which anything
        moved since they were told. `calmly`: of these in rows, and of the others in sums. Left out only if
        the socket has been full for long."""
        if link.hungry or link.relayed.outboxes:
            self._sending.pump(link)
        if link.blank and link.room():
            self._sending.send_empty(link)
        if not link.has_room_for_beats():
            return 0
        stirred, link.stirred = link.stirred, set()
        moved = (stirred | link.unconfirmed) & link.shared
        ledger = self._namespaces.ledger_of(link)
        told = self._news(link, moved) if calmly else None
        calmly = told is not None
        if told is None:
            told = positions_of(self._namespaces.members, link.name, link.shared if whole else moved)
        ledger.tell(link, told)
        heads, cursors = self._rows(link, told) if told else ((), ())
        more_heads, more_cursors = self._relaying.rows(link, now)
        stamp, echo = link.stamps.next(now), link.stamps.newest_heard
        if calmly:
            link.send(Calm(stamp, echo, heads, cursors, *ledger.told.without(told)))
            heads, cursors = (), ()
        if more_heads or more_cursors or not calmly:
            for part in in_parts(Beat(stamp, echo, (*heads, *more_heads), (*cursors, *more_cursors))):
                link.send(part)
        link.owes_beat = False
        link.beat_schedule.beaten(now, self._next_at(link, now) if whole else None)
        return 2 * len(told) + len(more_heads) + len(more_cursors)

    def _rows(self, link: Link, told: dict[str, Pair]) -> tuple[tuple[Head, ...], tuple[Cursor, ...]]:
        heads = tuple(Head(ns, self._name, *at[0], 0, SENT) for ns, at in sorted(told.items()) if at[0])
        held = ((ns, told[ns][1]) for ns in sorted(told))
        return heads, tuple(Cursor(ns, link.name, *at, self._name) for ns, at in held if at is not None)

    def _next_at(self, link: Link, now: float) -> float:
        """When the next calm beat is due, half a heartbeat early; or late at the end that was dialled, which
        answers and sends one by itself only if none comes."""
        half_s = self._heartbeat_s / 2
        if link.relays:
            return now + half_s
        return self.next_calm(now) - half_s if link.dialled else self.next_calm(now) + half_s

    def _news(self, link: Link, moved: set[str]) -> dict[str, Pair] | None:
        """The namespaces for which a calm heartbeat has rows. None: more than fit into one message."""
        self._heads.look(self._namespaces.members, self._links.up.values())
        known = positions_of(self._namespaces.members, link.name, link.ledger.candidates(link, moved))
        news = link.ledger.news(link, known, moved)
        if len(news) > ROWS_MAX:
            return None
        link.ledger.settle(known.keys() - news)
        return {namespace: known[namespace] for namespace in news}
