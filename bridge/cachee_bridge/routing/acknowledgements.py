"""How far other hosts have applied a source, reported hop by hop towards the source.

A follower reports its cursors in its beats to each relay that it asks for the source. The relay passes them
on through the link that the source's records come by. So a source knows how far hosts have come to which it
has no link, and `wait_synced` works across relays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import Beat, Cursor

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.store import Store
    from cachee_bridge.routing.following import Following
    from cachee_bridge.sources.members import Members

EAGER_S = 1.0
"""For this long after a source has asked for cursors, those of its followers are passed on at once."""


class Acknowledgements:
    def __init__(
        self, name: str, lost_after_s: float, members: Mapping[str, Members], following: Following
    ) -> None:
        self._name, self._lost_after_s = name, lost_after_s
        self._members, self._following = members, following
        self._holders: dict[tuple[str, str], dict[str, tuple[int, int, float]]] = {}
        """By (namespace, source) and follower: incarnation, cursor, and when the follower reported them."""
        self._eager: dict[str, float] = {}
        """By source, until when cursors are passed on at once."""
        self.of_own_ring: dict[tuple[str, str], int] = {}
        """By (namespace, peer): how far the peer has applied this host's ring, as relays report."""

    def hurry(self, source: str, now: float) -> None:
        """`source` has asked for cursors."""
        self._eager[source] = now + EAGER_S

    def rows(self, link: Link, now: float) -> list[Cursor]:
        """For a beat to the peer: this host's cursors in the sources that the peer relays, and those of the
        hosts that follow these sources here."""
        rows = []
        passed_on = {source for _, source in self._holders}
        for source in sorted(link.follows):
            if source == link.name and source not in passed_on:
                continue  # this host's cursors in the peer's own rings have rows of their own
            for namespace in sorted(link.shared):
                inbox = self._members[namespace].sources.get(source)
                if inbox is not None and source != link.name:
                    rows.append(Cursor(namespace, source, inbox.incarnation, inbox.cursor, self._name))
                held = self._holders.get((namespace, source), {})
                for holder, (incarnation, cursor, at) in list(held.items()):
                    if at + self._lost_after_s < now:
                        del held[holder]
                    elif holder != link.name:
                        rows.append(Cursor(namespace, source, incarnation, cursor, holder))
        return rows

    def on_cursor(self, link: Link, row: Cursor, now: float) -> None:
        """A cursor in another source than this host, or of another host than the peer."""
        members = self._members.get(row.namespace)
        if members is None or row.holder == self._name or row.namespace not in link.shared:
            return
        if row.source != self._name:
            self._pass_on(link, row, now)
        elif row.holder in members.sources and _possible(row, members.store):
            self.of_own_ring[row.namespace, row.holder] = row.cursor
            members.acked(row.holder, row.cursor)

    def _pass_on(self, link: Link, row: Cursor, now: float) -> None:
        known = self._members[row.namespace].sources
        if (
            row.source not in link.followed
            or row.holder == row.source
            or not {row.source, row.holder} <= known.keys()
        ):
            return
        held = self._holders.setdefault((row.namespace, row.source), {})
        had, said = held.get(row.holder, (0, 0, 0.0))[:2], (row.incarnation, row.cursor)
        if said >= had:
            held[row.holder] = (*said, now)
        # Only a newer cursor is passed on at once: in a circle of relays, reports would otherwise go round
        # without end.
        if said > had and now <= self._eager.get(row.source, float("-inf")):
            for way in self._following.through(row.source):
                if way is not link and row.namespace in way.shared:
                    way.send(Beat(way.stamps.next(now), way.stamps.newest_heard, (), (row,)))

    def keep(self, names: set[str]) -> None:
        """Forget all other sources and peers."""
        self.of_own_ring = {of: cursor for of, cursor in self.of_own_ring.items() if of[1] in names}
        self._holders = {of: held for of, held in self._holders.items() if of[1] in names}
        self._eager = {name: until for name, until in self._eager.items() if name in names}


def _possible(row: Cursor, store: Store) -> bool:
    return row.incarnation == store.incarnation and row.cursor <= store.tail
