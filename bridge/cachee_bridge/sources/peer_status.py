"""What the workers of this host are told of its peers, in one namespace: they read it in the segment.

    of each member   how far it says that it has applied this host's ring; whether it can be reached;
                     how fresh its word is
    of all           until when this counts: a bridge that dies or hangs is known by its silence

A member can be reached if it was fresh within lost_after. One that has just been met, or is known from a
former life of the bridge, is given that long to become so; and while configured addresses have not answered,
nothing counts for as long after the start: a worker that waits for peers must not read that there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store
    from cachee_bridge.streams.stream import Inbox


class PeerStatus:
    """Not of the protocol: nothing here changes what is sent or applied."""

    def __init__(self, store: Store, lost_after_s: float, now: float) -> None:
        self._store, self._lost_after_s, self._begun_at = store, lost_after_s, now
        self._met_at: dict[str, float] = {}

    def tell(self, sources: Mapping[str, Inbox], now: float, hindered: bool) -> None:
        """`sources`: of the members, by name. `hindered`: a configured address is unanswered."""
        self._met_at = {name: self._met_at.get(name, now) for name in sources}
        for name, inbox in sources.items():
            heard_at = max(inbox.freshness.at, self._met_at[name])
            reachable = now <= heard_at + self._lost_after_s
            self._store.source_tell(inbox.index, reachable, milliseconds(inbox.freshness.at))
        if not hindered or now > self._begun_at + self._lost_after_s:
            self._store.bridge_vouch(milliseconds(now + self._lost_after_s))

    def go_on(self, sources: Mapping[str, Inbox], fresh_ms: Mapping[str, int], until_ms: int) -> None:
        """All is as it was told, but that these members are fresh as of then, and it counts until then."""
        for name, ms in fresh_ms.items():
            self._store.source_tell(sources[name].index, True, ms)
        self._store.bridge_vouch(until_ms)


def milliseconds(at: float) -> int:
    """Of the segment's clock, which is this host's; 0 for what has never been."""
    return max(0, int(at * 1000)) if at > float("-inf") else 0
