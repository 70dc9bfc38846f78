"""Which hosts have been met since the start, and at which addresses no host has answered.

An address at which no host has answered isolates every namespace. Until each known host has been met once,
this host is not ready for users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.membership.addresses import ADDRESSES_MAX

if TYPE_CHECKING:
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.belonging import Belonging


class Readiness:
    def __init__(
        self, book: AddressBook, belonging: Belonging, links: LinkTable, lost_after_s: float
    ) -> None:
        self._book, self._belonging, self._links = book, belonging, links
        self._lost_after_s = lost_after_s
        self._met: set[str] = set()
        self._told_until = float("inf")
        """An answer at an address that peers name after this time is not waited for."""
        self._was_ready = False
        self.unanswered: list[str] = []
        """What isolates this host, whatever it hears from the peers that were met. Kept by `look`."""
        self._looked_at: tuple[int, bool] | None = None
        """Of the address book and of discovery, when `unanswered` was made."""

    def is_met(self, name: str) -> bool:
        """Whether a link to `name` has been up since the start."""
        return name in self._met

    def met(self, name: str, now: float) -> None:
        """A link to `name` is up. Beyond the bound, peers without an address are dropped: none is dialled."""
        self._told_until = min(self._told_until, now + self._lost_after_s)
        if len(self._met) >= ADDRESSES_MAX:
            self._met &= {known.name or "" for known in self._book.table}.union(self._links.up)
        self._met.add(name)
        self._looked_at = None

    def look(self) -> None:
        """The address book or discovery may have changed."""
        asked = self._belonging.discovery
        state = self._book.changes, asked is not None and not asked.answers
        if state != self._looked_at:
            self._looked_at = state
            self.unanswered = self._belonging.unanswered(self.is_met)

    def unmet(self) -> list[str]:
        """Hosts that this host knows of and has not met since its start. Empty from when all were met: a host
        that joins or dies later is no reason to send users away."""
        if self._was_ready:
            return []
        asked = self._belonging.unanswered(self.is_met)
        unmet = list(dict.fromkeys([*asked, *self._book.awaited.unmet(self.is_met, self._told_until)]))
        self._was_ready = not unmet
        return unmet
