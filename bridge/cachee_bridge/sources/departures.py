"""Hosts that are no members any more: how far the ring of each is applied here, in case it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

Position = tuple[int, int]
"""(incarnation, cursor)."""
DEPARTED_MAX = 4096
"""Of each kind. The oldest is dropped."""


class Departures:
    """Of one namespace. A host is in one of the three tables at most."""

    def __init__(self, store: Store) -> None:
        self.left: dict[str, Position] = {}
        """By name, hosts that left. Everything that they wrote is applied."""
        self.absent: dict[str, Position] = {}
        """By name, linked hosts that lost this namespace. Everything was evicted then."""
        self.removed: dict[str, Position] = {}
        """By name, hosts that were removed without having left. What they wrote since may be missed."""
        self.removed_is_complete = True
        """False once a name was dropped from `removed`: then an unknown host may be a returning one."""
        for _, name, incarnation, cursor in store.forgotten():
            if name:
                self.removed[name] = incarnation, cursor
            else:  # the segment's own table has dropped some name
                self.removed_is_complete = False

    def position(self, name: str) -> Position | None:
        """Where the ring of `name` was applied up to; None if `name` is in no table."""
        return self.left.get(name) or self.absent.get(name) or self.removed.get(name)

    def has_left(self, name: str, position: Position) -> None:
        _keep(self.left, name, position)

    def is_absent(self, name: str, position: Position) -> None:
        _keep(self.absent, name, position)

    def was_removed(self, name: str, position: Position) -> None:
        if not _keep(self.removed, name, position):
            self.removed_is_complete = False

    def returned(self, name: str) -> None:
        """`name` is a member again."""
        for table in (self.left, self.absent, self.removed):
            table.pop(name, None)


def _keep(known: dict[str, Position], name: str, position: Position) -> bool:
    """False if the oldest name was dropped for it."""
    known[name] = position
    if len(known) <= DEPARTED_MAX:
        return True
    del known[next(iter(known))]
    return False
