"""Which of its namespaces this host names to each peer, in STATE.

A peer is never told about a namespace that its certificate excludes. If this host's own certificate excludes
a namespace, no peer is told about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import EXISTS, GONE, ROWS_MAX, UNSERVED, Doubt, NamespaceState, State

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.protocol.namespaces import Namespaces


class Offers:
    def __init__(self, namespaces: Namespaces, links: LinkTable) -> None:
        self._namespaces, self._links = namespaces, links
        self._unserved: frozenset[str] = frozenset()
        """Namespaces whose segments exist on this host, and which its bridge cannot open."""

    def states(self, link: Link) -> list[State | Doubt]:
        """All namespaces that the peer may know of, in as many STATEs as needed; the last has room left."""
        rows = [
            self._row(namespace)
            for namespace in sorted(self._unserved.union(self._namespaces.members))
            if self._namespaces.is_allowed_here(namespace) and link.allows(namespace)
        ]
        if link.version < 3:  # a peer of wire 2 closes the link if there are more
            rows = rows[:ROWS_MAX]
        parts = range(0, len(rows) + (link.version >= 3), ROWS_MAX)
        return [message for at in parts or (0,) for message in self._messages(rows[at : at + ROWS_MAX])]

    def announce(self, namespace: str) -> None:
        """Tell the peers one namespace of this host: it is new, or has another incarnation."""
        for link in self._links.told():
            if self._namespaces.is_allowed_here(namespace) and link.allows(namespace):
                for message in self._messages([self._row(namespace)]):
                    link.send(message)

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """`namespaces` cannot be opened now. Peers are told of each change."""
        changed = self._unserved ^ namespaces
        self._unserved = namespaces
        for namespace in sorted(changed - self._namespaces.members.keys()):
            self.announce(namespace)

    def _messages(self, rows: list[NamespaceState]) -> list[State | Doubt]:
        """A peer that begins at the tail of a row has to know whether writes of unknown outcome lie before
        it. Asked after the tails were read."""
        members = self._namespaces.members
        doubtful = [
            row.namespace
            for row in rows
            if row.namespace in members and members[row.namespace].store.in_doubt
        ]
        state = State(tuple(rows))
        return [Doubt(tuple(doubtful)), state] if doubtful else [state]

    def _row(self, namespace: str) -> NamespaceState:
        members = self._namespaces.members.get(namespace)
        if members is None:
            return NamespaceState(namespace, EXISTS if namespace in self._unserved else GONE, 0, UNSERVED)
        store = members.store
        return NamespaceState(namespace, store.incarnation, store.tail, store.hash_key_fingerprint)
