"""Which of its namespaces this host names to each peer, in STATE.

A peer is never told about a namespace that its certificate excludes. If this host's own certificate excludes
a namespace, no peer is told about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import EXISTS, GONE, ROWS_MAX, UNSERVED, NamespaceState, State

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.protocol.namespaces import Namespaces


class Offers:
    def __init__(self, namespaces: Namespaces, links: LinkTable) -> None:
        self._namespaces, self._links = namespaces, links
        self._unserved: frozenset[str] = frozenset()
        """Namespaces whose segments exist on this host, and which its bridge cannot open."""

    def states(self, link: Link) -> list[State]:
        """All namespaces that the peer may know of, in as many messages as needed; the last has room left."""
        rows = [
            self._row(namespace)
            for namespace in sorted(self._unserved.union(self._namespaces.members))
            if self._namespaces.is_allowed_here(namespace) and link.allows(namespace)
        ]
        if link.version < 3:  # a peer of wire 2 closes the link if there are more
            rows = rows[:ROWS_MAX]
        parts = range(0, len(rows) + (link.version >= 3), ROWS_MAX)
        return [State(tuple(rows[at : at + ROWS_MAX])) for at in parts or (0,)]

    def announce(self, namespace: str) -> None:
        """Tell the peers one namespace of this host: it is new, or has another incarnation."""
        for link in self._links.told():
            if self._namespaces.is_allowed_here(namespace) and link.allows(namespace):
                link.send(State((self._row(namespace),)))

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """`namespaces` cannot be opened now. Peers are told of each change."""
        changed = self._unserved ^ namespaces
        self._unserved = namespaces
        for namespace in sorted(changed - self._namespaces.members.keys()):
            self.announce(namespace)

    def _row(self, namespace: str) -> NamespaceState:
        members = self._namespaces.members.get(namespace)
        if members is None:
            return NamespaceState(namespace, EXISTS if namespace in self._unserved else GONE, 0, UNSERVED)
        store = members.store
        return NamespaceState(namespace, store.incarnation, store.tail, store.hash_key_fingerprint)
