"""The sources of one namespace, and until when it may be served.

A member is a source that has been met, in this life of the bridge or a former one (the segment's source table
knows), and has not left. Freshness runs out by itself: nothing has to happen for a namespace to become
isolated, and time alone never ends isolation.

    serve until = the oldest freshness of any member, and of healing at home, + lost_after
                  not extended while a configured address is unanswered, or a peer is refused
"""

from __future__ import annotations

from cachee_bridge.frames import FinalHead
from cachee_bridge.freshness import Freshness
from cachee_bridge.ports import Store
from cachee_bridge.repair import Contact, Rung, contact
from cachee_bridge.stream import Inbox

DEPARTED_MAX = 4096


class Members:
    def __init__(self, namespace: str, store: Store, lost_after_s: float, pace_s: float, now: float) -> None:
        self.namespace = namespace
        self.store = store
        self._lost_after_s, self._pace_s = lost_after_s, pace_s
        self.inboxes = {
            name: Inbox(store, index, incarnation, cursor, pace_s)
            for index, name, incarnation, cursor in store.sources()
        }
        self.home = Freshness()
        """What this host wrote before `home.at` is healed: no half-done write is served for ever."""
        self.departed: dict[str, tuple[int, int]] = {}
        """(incarnation, cursor) by name of those that left, all applied: nothing is missed if they return."""
        self.refused: set[str] = set()
        """Peers that have this namespace and cannot be followed: they isolate."""
        self.until = float("-inf")
        self.whole = store.tail == 0 and not self.inboxes
        """Nothing can have been missed by not knowing of a source: since birth or the last flush, this
        namespace has never been isolated (but for its first lost_after, when no contact counts as whole)."""
        self._settled_from = now + lost_after_s

    @property
    def starting(self) -> bool:
        """Not isolated has never been said yet: every bridge starts like that."""
        return self.until == float("-inf")

    def isolated(self, now: float) -> bool:
        """Whether readers have begun to refuse by policy."""
        return now > self.until

    def judge(self, now: float) -> None:
        """To be called before anything else happens at `now`."""
        if (not self.starting or now > self._settled_from) and self.isolated(now):
            self.whole = False

    def extended(self, now: float, hindered: bool) -> float | None:
        """A later `until` than was told before, or None. `hindered`: a configured address is unanswered."""
        self.home.told(now, self.store.tail, self.store.pump_cursor)
        self.home.applied(self.store.pump_cursor)
        if hindered or self.refused:
            return None
        fresh = min([self.home.at, *(inbox.freshness.at for inbox in self.inboxes.values())])
        until = fresh + self._lost_after_s
        if until <= self.until:
            return None
        self.until = until
        return until

    def stale(self, now: float) -> list[str]:
        """Names of the members whose word is too old."""
        late = [name for name, inbox in self.inboxes.items() if inbox.freshness.at + self._lost_after_s < now]
        unhealed = ["its own pump"] if self.home.at + self._lost_after_s < now else []
        return unhealed + sorted(self.refused.union(late))

    def meet(self, name: str, incarnation: int, tail: int, now: float) -> Contact:
        """`name` says that its ring is `incarnation` with `tail`: climb the ladder as far as needed.

        SegmentError when the source table is full: the peer cannot be followed.
        """
        inbox = self.inboxes.get(name)
        known = (inbox.incarnation, inbox.cursor) if inbox is not None else self.departed.get(name)
        step = contact(known, incarnation, tail, False)
        if step.rung is Rung.FLUSH and inbox is None:
            step = contact(None, incarnation, tail, self.whole and not self.isolated(now))
        if step.rung is not Rung.IMPOSSIBLE and (inbox is None or step.rung is not Rung.GO_ON):
            self._begin(name, incarnation, step)
        return step

    def _begin(self, name: str, incarnation: int, step: Contact) -> None:
        inbox = self.inboxes.get(name)
        if inbox is None:
            inbox = Inbox(self.store, self.store.source_open(name), 0, 0, self._pace_s)
        flush = step.rung is Rung.FLUSH
        inbox.begin(incarnation, step.cursor, flush)
        self.inboxes[name] = inbox
        self.departed.pop(name, None)
        self.whole |= flush

    def leaving(self, name: str, final: FinalHead) -> None:
        """`name` has said its final head."""
        inbox = self.inboxes.get(name)
        if inbox is not None and inbox.incarnation == final.incarnation:
            inbox.final = final.head
            self.settle(name)

    def settle(self, name: str) -> bool:
        """Let `name` go if it has left and all is applied; whether it did."""
        inbox = self.inboxes.get(name)
        if inbox is None or not inbox.departed():
            return False
        self.store.source_forget(inbox.index)
        del self.inboxes[name]
        self.departed[name] = (inbox.incarnation, inbox.cursor)
        if len(self.departed) > DEPARTED_MAX:
            del self.departed[next(iter(self.departed))]
        return True

    def cursor(self, name: str) -> tuple[int, int] | None:
        """(incarnation, cursor) of what has been applied of `name`, also when it has left."""
        inbox = self.inboxes.get(name)
        return (inbox.incarnation, inbox.cursor) if inbox is not None else self.departed.get(name)
