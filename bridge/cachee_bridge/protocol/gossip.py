"""What peers are told of addresses: where others can be dialled, and where they themselves have answered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import ROWS_MAX, PeerAddress, Peers

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.paths import Paths
    from cachee_bridge.protocol.readiness import Readiness


class Gossip:
    def __init__(
        self, name: str, book: AddressBook, links: LinkTable, paths: Paths, readiness: Readiness
    ) -> None:
        self._name, self._book, self._links = name, book, links
        self._paths, self._readiness = paths, readiness

    def on_peers(self, message: Peers, now: float) -> None:
        """Addresses that a peer knows of. What leads to a host that is reached already is not needed."""
        for peer in message.peers:
            if peer.name == self._name:
                if self._book.told_self(peer.address, now):
                    self._readiness.look()
            elif not self._paths.reaches(peer.name):
                self._book.learn(peer.name, peer.address, now)

    def teach(self, link: Link, about: Iterable[str]) -> None:
        """The addresses of the hosts that are linked, or heard through a relay."""
        rows = [PeerAddress(name, at) for name in about if name != link.name and (at := self._where(name))]
        if rows:
            link.send(Peers(tuple(rows[:ROWS_MAX])))

    def teach_own(self, link: Link) -> None:
        """At which addresses the peer itself has answered: it may not reach them from inside."""
        rows = [PeerAddress(link.name, at) for at in self._book.table.answering(link.name)]
        if rows:
            link.send(Peers(tuple(rows[:ROWS_MAX])))

    def _where(self, name: str) -> str:
        up = self._links.up.get(name)
        gone, reach = (up.leaving, up.reach) if up is not None else (False, "")
        return "" if gone else reach or self._book.table.of(name)
