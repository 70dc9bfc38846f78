"""A peer has proven its name: is this a link to another host, and the one to keep?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_shm.errors import PeerConflict

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.arbiter import Arbiter
    from cachee_bridge.protocol.dialling import Dialling
    from cachee_bridge.protocol.gossip import Gossip
    from cachee_bridge.protocol.isolation import Isolation
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.protocol.offers import Offers
    from cachee_bridge.protocol.readiness import Readiness


class Admission:
    def __init__(
        self,
        name: str,
        instance: int,
        links: LinkTable,
        book: AddressBook,
        dialling: Dialling,
        readiness: Readiness,
        isolation: Isolation,
        offers: Offers,
        gossip: Gossip,
        arbiter: Arbiter,
        ends: LinkEnds,
    ) -> None:
        self._name, self._instance, self._links, self._book = name, instance, links, book
        self._dialling, self._readiness, self._isolation = dialling, readiness, isolation
        self._offers, self._gossip, self._arbiter, self._ends = offers, gossip, arbiter, ends

    def on_proven(self, link: Link, now: float) -> None:
        """Close the link, or tell the peer this host's namespaces."""
        if link.name == self._name:
            self._on_own_name(link, now)
            return
        if link.address is not None:
            self._dialling.answered(link.address, link.name)
            if link.name in self._links.up:
                self._gossip.teach_own(self._links.up[link.name])
        if self._arbiter.keeps(link, self._links.claimants(link), now):
            link.accept(self._offers.states(link))

    def _on_own_name(self, link: Link, now: float) -> None:
        """The other end is this host itself, or a second host of its name: PeerConflict."""
        if link.instance != self._instance:
            raise PeerConflict(
                f"another host is named {self._name!r} too; the link to it is closed; rename one of them"
            )
        if link.address is not None:  # the other end of the same link just waits to be closed
            self._book.found_self(link.address, link.remote_host, now)
            self._readiness.look()
            self._ends.close(link, "this host itself", now, "debug")
            self._isolation.extend(now)
