"""How a namespace gets over a member that is removed without having left.

What such a member wrote last is unknown, so any value that was loaded before its removal may be stale for
good. Evicting all of them at once would send every host of the mesh to the origin in one instant. But readers
refuse these values already, once they are older than `isolation_ttl`: the lost member isolates the namespace.
So:

    lost           | removed: a line is drawn      | isolation_ttl later      |
    ---------------+-------------------------------+--------------------------+----------------
    isolated       | isolated still                | what was loaded before the line is evicted:
                   |                               | none of it was served any more
    lifetimes are capped; values loaded since the line do not reach the cap before it ends

This is the one flush that a removal needs, and it evicts nothing that a reader would still have been given. A
policy that does not cap lifetimes has nothing to wait for, and evicts at the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store


class Removal:
    """Of one namespace: the members, and addresses at which no host ever answered, that are being removed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._line = 0
        self.drawn_at = float("-inf")
        self._relied_on = False
        self.names: set[str] = set()
        self.whole = False
        """A line is drawn, and since then no other member was lost."""

    @property
    def under_way(self) -> bool:
        """Whether lifetimes have to stay capped."""
        return bool(self.names) or self._relied_on

    def begin(self, name: str, now: float) -> bool:
        """False if `name` is being removed already. One line, the newest, is enough for all removals."""
        if name in self.names:
            return False
        self.names.add(name)
        self._line = self._store.draw_line()
        self.drawn_at = now
        self.whole = True
        return True

    def interrupt(self) -> None:
        """Another member was lost: records from after the line may be missing too."""
        self.whole = False

    def covers_unknown_sources(self) -> bool:
        """Whether the records that were missed of a source that this host did not know of can concern only
        values from before the line. If so, these values have to be evicted even if the member comes back."""
        self._relied_on |= self.whole
        return self.whole

    def cancel(self, name: str) -> None:
        """The member is back."""
        self.names.discard(name)
        self.whole &= self.under_way

    def ends_at(self) -> float:
        """When what lies before the line is not served any more; inf if no member is being removed."""
        if not self.under_way:
            return float("inf")
        return self.drawn_at + (self._store.isolation_ttl_s if self._store.on_isolation == "cap" else 0.0)

    def end(self) -> set[str]:
        """Evict what lies before the line. Returns what is removed."""
        self._store.evict_before(self._line)
        names, self.names = self.names, set()
        self._relied_on = self.whole = False
        return names
