"""How a namespace gets over a member that is removed without having left.

What such a member wrote last is unknown, so whatever was loaded before its removal stays doubtful for good.
But to evict all that at once would send every host of the mesh to the origin in one instant. Readers withhold
doubtful values already, once they are older than `isolation_ttl`: the namespace is isolated from a member
that is lost. So:

    lost           | removed: a line is drawn      | isolation_ttl later      |
    ---------------+-------------------------------+--------------------------+----------------
    isolated       | isolated still                | what was loaded before the line is evicted:
                   |                               | none of it was served any more
    lifetimes are capped; values loaded since the line do not reach the cap before it ends

That is the one flush that a removal without a leave asks for, and the instant at which it happens evicts
nothing that a reader would have got. A policy under which older values are served (or none are capped) has
nothing to wait for, and evicts at the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store


class Removal:
    """Those being removed in one namespace: members by name, and addresses at which nobody ever answered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._line = 0
        self.drawn_at = float("-inf")
        self._relied_on = False
        self.names: set[str] = set()
        self.whole = False
        """A line is drawn, and since then nobody else was lost."""

    @property
    def under_way(self) -> bool:
        """Whether what was capped has to stay so."""
        return bool(self.names) or self._relied_on

    def begin(self, name: str, now: float) -> bool:
        """Whether it had not begun. The line is drawn anew: one is enough for all who are being removed."""
        if name in self.names:
            return False
        self.names.add(name)
        self._line = self._store.draw_line()
        self.drawn_at = now
        self.whole = True
        return True

    def interrupt(self) -> None:
        """Somebody else was lost: what happened since the line is not known either."""
        self.whole = False

    def rely(self) -> bool:
        """Whether of somebody unknown nothing can have been missed but what concerns values from before the
        line; then those have to go, whoever comes back."""
        self._relied_on |= self.whole
        return self.whole

    def cancel(self, name: str) -> None:
        """It is back."""
        self.names.discard(name)
        self.whole &= self.under_way

    def ends_at(self) -> float:
        """When what lies before the line is not served any more; inf if no member is being removed."""
        if not self.under_way:
            return float("inf")
        return self.drawn_at + (self._store.isolation_ttl_s if self._store.on_isolation == "cap" else 0.0)

    def end(self) -> set[str]:
        """Evict what lies before the line; who is removed."""
        self._store.evict_before(self._line)
        names, self.names = self.names, set()
        self._relied_on = self.whole = False
        return names
