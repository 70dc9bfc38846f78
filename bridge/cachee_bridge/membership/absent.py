"""Hosts that are not linked: which of them have left, and which have been out of reach for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.membership.address_table import AddressTable

UNREACHED_MAX = 4096
"""Names of hosts that could not be reached: as many as there may be addresses."""


class Absent:
    """Of one host."""

    def __init__(self, table: AddressTable) -> None:
        self._table = table
        self._left: set[str] = set()
        self._unreached: set[str] = set()
        """Names that peers reported, and whose addresses were dropped without an answer."""
        self._lost_since: float | None = None
        """Since when the longest unreachable host is out of reach. inf: none is. None: to be computed."""

    def changed(self) -> None:
        """A host became linked, or is so no longer, or an address of one has changed."""
        self._lost_since = None

    def has_left(self, name: str | None) -> bool:
        """Whether `name` has left for good, or was removed, and was not seen since."""
        return name in self._left

    def leave(self, name: str) -> None:
        """`name` has left for good, or is removed."""
        self._left.add(name)
        self._lost_since = None

    def come_back(self, name: str) -> bool:
        """`name` was seen. Whether it had left."""
        had_left = name in self._left
        self._left.discard(name)
        return had_left

    def forget_nameless(self) -> None:
        """Of hosts that have left, those that have no address any more need not be remembered."""
        self._left = {name for name in self._left if self._table.has_name(name)}

    def give_up(self, name: str) -> None:
        """Stop dialling it. Beyond UNREACHED_MAX names, "" stands for any host."""
        self._unreached.add(name if len(self._unreached) < UNREACHED_MAX else "")

    def unlinked(self, name: str, now: float) -> None:
        """`name` is not linked from now on."""
        self._lost_since = None
        for known in self._table.at(name):
            known.since = now

    def out_of_reach(self, now: float, is_up: Callable[[str], bool], lost_after_s: float) -> bool:
        """Whether a host that is at an expected address, or has answered at another, and neither left nor is
        removed, has not been linked here for `lost_after_s`."""
        if self._lost_since is None:
            lost = (
                known.since
                for known in self._table
                if known.expected or known.proven
                if not known.is_self and not is_up(known.name or "") and known.name not in self._left
            )
            self._lost_since = min(lost, default=float("inf"))
        return self._lost_since + lost_after_s < now

    def is_late(self, name: str, now: float, lost_after_s: float) -> bool:
        """Whether peers told of `name` more than `lost_after_s` ago, and it has not been linked since: what
        it wrote in a former life may have been missed. To be asked as it comes up."""
        known = [at.since for at in self._table.at(name)]
        if min(known, default=now) + lost_after_s < now:
            return True
        return name in self._unreached or "" in self._unreached
