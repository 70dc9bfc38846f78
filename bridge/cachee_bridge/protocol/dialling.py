"""Which addresses are dialled, and what is said when dialling one comes to nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cachee_bridge.membership.addresses import ADDRESSES_MAX
from cachee_bridge.ports.effects import Connect

if TYPE_CHECKING:
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.paths import Paths
    from cachee_bridge.protocol.readiness import Readiness


class Dialling:
    def __init__(
        self,
        book: AddressBook,
        links: LinkTable,
        namespaces: Namespaces,
        paths: Paths,
        readiness: Readiness,
        effects: Collected,
    ) -> None:
        self._book, self._links, self._namespaces = book, links, namespaces
        self._paths, self._readiness, self._effects = paths, readiness, effects
        self._complaints: dict[str, str] = {}
        """By address, what was last logged of it."""
        self.failures: dict[str, str] = {}
        """By address, why dialling it last came to nothing."""

    def dial(self, now: float) -> None:
        """Dial each address whose time has come."""
        for address in self._book.due(now, self._is_needless, self._namespaces.is_missed):
            self._effects.add(Connect(address))

    def next_due(self) -> float:
        """When `dial` is to be called next."""
        return self._book.next_due(self._is_needless)

    def failed(self, address: str, reason: str, now: float, dialled: Collection[str]) -> None:
        """No connection to `address`. `dialled`: the IP addresses that were tried, if the name had any."""
        failures = self._book.failed(address, now, dialled)
        self.note(address, reason)
        self.complain(address, failures, f"{address} cannot be reached: {reason}")

    def note(self, address: str, reason: str) -> None:
        """For people who ask why a host is not linked."""
        if len(self.failures) >= ADDRESSES_MAX:
            self.failures.clear()
        self.failures[address] = reason

    def complain(self, address: str, failures: int, text: str) -> None:
        """Once for each reason, however often the address is dialled."""
        if failures == 1 or (failures and self._complaints.get(address) != text):
            if len(self._complaints) >= ADDRESSES_MAX:
                self._complaints.clear()
            self._complaints[address] = text
            self._effects.say("warning", f"{text}; it is dialled again", address=address)

    def answered(self, address: str, name: str) -> None:
        """`name` has proven itself on a link that was dialled at `address`."""
        self._complaints.pop(address, None)
        self.failures.pop(address, None)
        self._book.answered(address, name)

    def _is_needless(self, name: str) -> bool:
        """Each host is met once; then a host is dialled only if it is not heard well through relays."""
        return name in self._links.up or (self._readiness.is_met(name) and self._paths.spares(name))
