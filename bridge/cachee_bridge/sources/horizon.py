"""Until when a namespace may be served.

Freshness expires by itself: a namespace becomes isolated if nothing happens. Time alone never ends isolation.

    heard       = the oldest freshness of any member, and of healing at home, + lost_after. It counts for
                  nothing while an expected address is unanswered, or a peer is refused
    serve until = the latest that was heard, but not extended while a member is being removed (removal.py)

The freshness of a member that is being removed does not count. If the member comes back meanwhile, its
freshness counts again at once, and what was heard without it no longer counts.

Beyond `until` readers follow the policy. Under "flush" they treat everything from before `until` as evicted.
Everything is evicted before such an isolation ends, so that neither those values nor those that were loaded
meanwhile outlive it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cachee_bridge.ports.reasons import Reason, Why
from cachee_bridge.ports.views import NamespaceView
from cachee_bridge.streams.freshness import Freshness
from cachee_bridge.wire.messages import PAYLOAD_ALL_KNOWN

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store
    from cachee_bridge.sources.register import Register
    from cachee_bridge.sources.removal import Removal
    from cachee_bridge.streams.stream import Inbox


class Horizon:
    """Of one namespace."""

    def __init__(
        self,
        namespace: str,
        store: Store,
        sources: Mapping[str, Inbox],
        refused: Mapping[str, Reason],
        removal: Removal,
        register: Register,
        lost_after_s: float,
        now: float,
    ) -> None:
        """`sources`: the members, by name; `refused`: peers that cannot be followed. Both change from
        outside."""
        self.namespace, self._store = namespace, store
        self._sources, self._refused = sources, refused
        self._removal, self._register, self._lost_after_s = removal, register, lost_after_s
        self.home = Freshness()
        """Everything that this host wrote before `home.at` is healed, so that no half-done write is served
        for ever."""
        self.until = float("-inf")
        """The value that was last written for readers."""
        self._heard_until = float("-inf")
        """The latest that was heard without the members that are being removed."""
        self.whole = store.tail == 0 and not sources
        """Whether no unknown source can have been missed: since the segment was made or last flushed, the
        namespace has never been isolated (except in its first lost_after, when no contact counts as
        whole)."""
        self._whole_at = now
        self._settled_from = now + lost_after_s

    @property
    def starting(self) -> bool:
        """`until` has not been written yet: every bridge starts isolated."""
        return self.until == float("-inf")

    def isolated(self, now: float) -> bool:
        """Whether readers have begun to refuse by policy."""
        return now > self.until

    # Sources that this host did not know of

    def look_for_gaps(self, now: float) -> None:
        """Records of an unknown source may have been missed while nothing was heard, or while some member of
        any namespace was out of reach. To be called before `whole` is read or set."""
        started = self._heard_until > float("-inf") or now > self._settled_from
        alone_at = now if started and now > self._heard_until else float("-inf")
        alone_at = max(alone_at, self._register.lost_at)
        if alone_at > self._whole_at:
            self.whole = False
        if alone_at > self._removal.drawn_at:
            self._removal.interrupt()

    def make_whole(self, now: float) -> None:
        """Everything older has been evicted."""
        self.whole, self._whole_at = True, now

    # Extension

    def extended(self, now: float, hindered: bool) -> float | None:
        """A later `until` than the one written before, or None. `hindered`: an expected address is
        unanswered."""
        self.look_for_gaps(now)
        heard = self._heard(now, hindered)
        self._heard_until = max(self._heard_until, heard)
        if heard <= self.until or self._removal.under_way:
            return None
        if self._store.on_isolation == "flush" and self.readers_isolated(now):
            self._store.apply(0, PAYLOAD_ALL_KNOWN)  # it stands for no missed record
        self.until = heard
        return self.until

    def go_on(self, now: float, until: float) -> bool:
        """The namespace is calm, and was heard until then. Returns whether `until` is later than the one
        written before."""
        self.home.at = now
        self._heard_until = max(self._heard_until, until)
        if until <= self.until:
            return False
        self.until = until
        return True

    def _heard(self, now: float, hindered: bool) -> float:
        self.home.head_heard(now, self._store.tail, self._store.pump_cursor)
        self.home.applied(self._store.pump_cursor)
        if hindered or self._refused.keys() - self._removal.names:
            return float("-inf")
        counting = self._sources.keys() - self._removal.names
        fresh = min([self.home.at, *(self._sources[name].freshness.at for name in counting)])
        return fresh + self._lost_after_s

    def readers_isolated(self, now: float) -> bool:
        """By this life of the bridge, and by the `until` of a former one."""
        return now > max(self.until, self._store.serve_until / 1000)

    # For people

    def stale(self, now: float) -> list[str]:
        """Names of the members that have not been fresh within lost_after, and of refused peers."""
        late = [
            name for name, inbox in self._sources.items() if inbox.freshness.at + self._lost_after_s < now
        ]
        unhealed = ["its own pump"] if self.home.at + self._lost_after_s < now else []
        return unhealed + sorted({*self._refused, *late})

    def why(self, now: float, is_reached: Callable[[str], bool]) -> list[Why]:
        """What holds `until` back. `is_reached`: the named peer is linked, or heard through a relay."""
        found = [] if self.home.at + self._lost_after_s >= now else [Why(Reason.OWN_PUMP, "")]
        for name in self.stale(now)[len(found) :]:
            known = self._refused.get(name)
            if name not in self._removal.names:
                found.append(Why(known or (Reason.BEHIND if is_reached(name) else Reason.SILENT), name))
        if self._removal.under_way:
            found.append(Why(Reason.REMOVAL, ", ".join(sorted(self._removal.names))))
        return found

    def view(self, now: float, unanswered: list[str], why: list[Why]) -> NamespaceView:
        """`unanswered` isolates as well."""
        removing, ends_at = sorted(self._removal.names), self._removal.ends_at()
        silent, policy = self.stale(now) + unanswered, self._store.on_isolation
        return NamespaceView(self.namespace, self.until, policy, silent, removing, ends_at, why)
