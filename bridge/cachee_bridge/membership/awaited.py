"""Addresses at which this host waits for an answer: those that the configuration or discovery names, until a
host that has been met has answered there. They isolate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.membership.address_table import place_of

if TYPE_CHECKING:
    from cachee_bridge.membership.absent import Absent
    from cachee_bridge.membership.address_table import Address, AddressTable

TOLD_FAILURES_MAX = 2
"""After so many failed dials, an address that is only learned from peers is no longer awaited."""


class Awaited:
    """Of one host."""

    def __init__(self, table: AddressTable, absent: Absent) -> None:
        self._table, self._absent = table, absent
        self._open: dict[str, Address] = {}
        """Expected addresses, without those at which a host has answered that is met."""

    def changed(self, known: Address) -> None:
        """It is new, or something about it has changed."""
        if known.expected and not (known.is_self or known.given_up):
            self._open[known.address] = known
        else:
            self._open.pop(known.address, None)

    def drop(self, address: str) -> None:
        """Forget the address."""
        self._open.pop(address, None)

    def unanswered(self, met: Callable[[str], bool]) -> list[str]:
        """Expected addresses at which no host that has been `met` has answered: these isolate."""
        for known in list(self._open.values()):
            if known.name is not None and met(known.name):
                del self._open[known.address]
        return [known.address for known in sorted(self._open.values(), key=place_of)]

    def nameless(self) -> list[str]:
        """Those of them at which no host at all has answered."""
        return [known.address for known in sorted(self._open.values(), key=place_of) if known.name is None]

    def unmet(self, met: Callable[[str], bool], told_until: float) -> list[str]:
        """Addresses at which no host that has been `met` has answered yet: the expected ones, and, for their
        first dials, those that were learned before `told_until`. Later ones do not count, because a peer
        could make up new ones without end."""
        return [
            known.address
            for known in self._table
            if not (known.is_self or known.given_up or self._absent.has_left(known.name))
            and (known.name is None or not met(known.name))
            and (known.expected or (known.failures < TOLD_FAILURES_MAX and known.since <= told_until))
        ]

    def expects(self, name: str, is_up: Callable[[str], bool]) -> bool:
        """Whether `name` may be at an expected address: its own, or one where nobody else is linked."""
        return any(
            known.name == name or not is_up(known.name or "")
            for known in self._table
            if known.expected and not (known.is_self or known.given_up)
        )
