"""What peers are told of addresses: where others can be dialled, and where they themselves have answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import ROWS_MAX, PeerAddress, Peers

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.membership.addresses import AddressBook


class Gossip:
    def __init__(self, book: AddressBook, up: Mapping[str, Link]) -> None:
        """`up`: by name, the links that are up; the mesh's own."""
        self._book, self._up = book, up

    def teach(self, link: Link, about: Iterable[str]) -> None:
        """The addresses of the hosts that are linked, or heard through a relay."""
        rows = [PeerAddress(name, at) for name in about if name != link.name and (at := self._where(name))]
        if rows:
            link.send(Peers(tuple(rows[:ROWS_MAX])))

    def teach_own(self, link: Link) -> None:
        """At which addresses the peer itself has answered: it may not reach them from inside."""
        rows = [PeerAddress(link.name, at) for at in self._book.answering(link.name)]
        if rows:
            link.send(Peers(tuple(rows[:ROWS_MAX])))

    def _where(self, name: str) -> str:
        up = self._up.get(name)
        gone, reach = (up.leaving, up.reach) if up is not None else (False, "")
        return "" if gone else reach or self._book.of(name)
