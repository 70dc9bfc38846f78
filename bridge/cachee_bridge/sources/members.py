"""The sources of one namespace: which are members, which are refused, and what is known of former ones.

A member is a source that has been met, in this life of the bridge or a former one (the segment's source table
knows), and has neither left nor been removed. Its silence isolates the namespace (horizon.py).

A member that was removed and comes back in the same life of its segment goes on where it was; with another
segment, what it wrote in the former one is unknown, and everything is evicted. The table of removed hosts is
bounded. Once a name was dropped from it, an unknown source may be a returning one, so its first contact
evicts everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.sources.boots import Earlier
from cachee_bridge.sources.departures import Departures, Position
from cachee_bridge.sources.horizon import Horizon
from cachee_bridge.sources.peer_status import PeerStatus
from cachee_bridge.sources.register import Listed, Register
from cachee_bridge.sources.removal import Removal
from cachee_bridge.streams.repair import Contact, Rung, contact
from cachee_bridge.streams.stream import Inbox
from cachee_bridge.wire.messages import PAYLOAD_ALL, FinalHead
from cachee_shm.errors import SegmentError

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

NO_SLOT = 0
REFUSED_MAX = 4096
"""One refused peer is enough to isolate. The bound protects against peers with ever new names."""


class Members:
    def __init__(
        self, namespace: str, store: Store, lost_after_s: float, pace_s: float, now: float, register: Register
    ) -> None:
        self.namespace, self.register = namespace, register
        self.store = store
        self._lost_after_s, self._pace_s, self._entered_at = lost_after_s, pace_s, now
        known = [
            (name, Inbox(store, index, incarnation, cursor, pace_s, register.word(name), namespace))
            for index, name, incarnation, cursor in store.sources()
        ]
        self.sources = Listed(namespace, register.members, known)
        """By name, the members."""
        self.refused: Listed[Reason] = Listed(namespace, register.refused)
        """Peers that have this namespace and cannot be followed: they isolate."""
        self.departures = Departures(store)
        self.removal = Removal(store)
        self.horizon = Horizon(
            namespace, store, self.sources, self.refused, self.removal, register, lost_after_s, now
        )
        self.peer_status = PeerStatus(store, lost_after_s, now)
        self.is_new = store.tail == 0 and not self.sources and not self.departures.removed
        """The namespace began with this: no source of it has gone before."""
        self.departed = 0
        """How often a source has gone, or has begun to be removed: what it wrote last may not be applied."""
        self.apart: set[str] = set()
        """Members whose reports on all their namespaces do not cover this one."""
        for name in self.sources:
            self._changed(name)

    def is_calm(self, now: float) -> bool:
        """Not isolated, all is healed at home, and each member is fresh by what it says of all its
        namespaces, as of when it says so."""
        if self.apart or self.refused or self.removal.under_way or self.horizon.isolated(now):
            return False
        return self.store.tail == self.store.pump_cursor

    def refuse(self, name: str, reason: Reason) -> None:
        """The peer has this namespace but cannot be followed: it isolates until it can be."""
        self.removal.cancel(name)
        self.cover(name, False)
        if len(self.refused) < REFUSED_MAX or name in self.refused:
            self.refused[name] = reason

    def meet(
        self,
        name: str,
        incarnation: int,
        tail: int,
        now: float,
        is_late: bool = False,
        known: bool = False,
    ) -> Contact:
        """`name` reports its ring's `incarnation` and `tail`: go up the repair ladder as far as needed.

        `is_late`: it existed for long before this host reached it, or a boot of it was missed, so this may
        not be its first life.
        `known`: up to `tail`, none of its writes has an unknown outcome.

        SegmentError when the source table is full: the peer cannot be followed.
        """
        self.horizon.look_for_gaps(now)
        inbox, applied = self.sources.get(name), self.cursor(name)
        self.removal.cancel(name)
        step = contact(applied, incarnation, tail, False)
        if name in self.departures.removed and step.rung is not Rung.GO_ON:
            step = contact(None, incarnation, tail, False)
        elif step.rung is Rung.FLUSH and inbox is None:
            step = contact(None, incarnation, tail, self._knew_all_sources(now) and not is_late)
        if step.rung is not Rung.IMPOSSIBLE and (inbox is None or step.rung is not Rung.GO_ON):
            self._begin(name, incarnation, step, now, known)
        return step

    def _knew_all_sources(self, now: float) -> bool:
        """Whether this host has known all sources, so that a source that it meets for the first time is
        really new."""
        if not self.departures.removed_is_complete:
            return False
        if self.horizon.whole and not self.horizon.isolated(now):
            return True
        covers = self.removal.covers_unknown_sources()
        self._note_removal()
        return covers

    def _note_removal(self) -> None:
        if self.removal.under_way:
            self.register.removing.add(self.namespace)
        else:
            self.register.removing.discard(self.namespace)

    def _begin(self, name: str, incarnation: int, step: Contact, now: float, known: bool) -> None:
        inbox = self.sources.get(name)
        if inbox is None:
            index, word = self.store.source_open(name), self.register.word(name)
            inbox = Inbox(self.store, index, 0, 0, self._pace_s, word, self.namespace)
        flush = step.rung is Rung.FLUSH
        inbox.begin(incarnation, step.cursor, flush, known)
        self.sources[name] = inbox
        self._changed(name)
        self.departures.returned(name)
        if flush:
            self.horizon.make_whole(now)

    def _changed(self, name: str) -> None:
        """`name` has become a member, or ceased to be one: its report on all its namespaces does not cover
        this."""
        self.cover(name, False)
        self.register.changed.add(self.namespace)
        self.register.word(name).stirred.add(self.namespace)

    def cover(self, name: str, is_covered: bool) -> None:
        """Set whether reports of `name` on all its namespaces cover this one too, from now on."""
        word, inbox = self.register.word(name), self.sources.get(name)
        word.covered.discard(self.namespace)
        word.apart.discard(self.namespace)
        self.apart.discard(name)
        if inbox is None:
            return
        inbox.freshness.cover(is_covered)
        (word.covered if is_covered else word.apart).add(self.namespace)
        if not is_covered:
            self.apart.add(name)

    def dissolve(self) -> None:
        """The namespace's segment was replaced: this object is no longer used."""
        self.register.removing.discard(self.namespace)
        for listed in (self.sources, self.refused):
            for name in list(listed):
                listed.take(name)
                self._changed(name)

    def drop_absent(self, name: str, now: float, earlier: Earlier = Earlier.NONE_MISSED) -> bool:
        """`name` is linked but does not have this namespace. If it had it before, what it wrote last is
        unknown, so everything is evicted, once. Returns whether that was done.

        `earlier`: of the boots of `name`. In one that was missed, `name` may have had this namespace; and in
        an unknown one, if readers are isolated.
        """
        inbox = self.sources.take(name)
        if inbox is None and name not in self.refused:
            if not self._may_have_missed(earlier, now):
                return False
            self.departed += 1
            self.store.apply(NO_SLOT, PAYLOAD_ALL)
            self.horizon.make_whole(now)
            return True
        self._changed(name)
        self.departed += 1
        self.removal.cancel(name)
        self.refused.take(name)
        self.store.apply(inbox.index if inbox is not None else 0, PAYLOAD_ALL)
        if inbox is not None:
            self.store.source_forget(inbox.index)
            self.departures.is_absent(name, (inbox.incarnation, inbox.cursor))
        self.horizon.make_whole(now)
        return True

    def _may_have_missed(self, earlier: Earlier, now: float) -> bool:
        """Whether a peer of such boots may have been a source of this namespace, unknown to this host."""
        if earlier is Earlier.UNKNOWN:
            return self.horizon.readers_isolated(now) and not self._knew_all_sources(now)
        return earlier is Earlier.MISSED

    def leaving(self, name: str, final: FinalHead) -> None:
        """`name` has announced its final head."""
        inbox = self.sources.get(name)
        if inbox is not None and inbox.incarnation == final.incarnation:
            inbox.final = final.head
            self.settle(name)

    def settle(self, name: str) -> bool:
        """Remove `name` from the members if it has left and all its records are applied. Returns whether it
        did."""
        inbox = self.sources.get(name)
        if inbox is None or not inbox.departed():
            return False
        self.store.source_forget(inbox.index)
        del self.sources[name]
        self._changed(name)
        self.departed += 1
        self.departures.has_left(name, (inbox.incarnation, inbox.cursor))
        return True

    def acked(self, name: str, position: int) -> None:
        """`name` acknowledges this host's ring up to `position`."""
        inbox = self.sources.get(name)
        if inbox is not None:
            self.store.source_acked(inbox.index, position)

    def cursor(self, name: str) -> Position | None:
        """(incarnation, cursor) of what has been applied of `name`, also if it is no longer a member."""
        inbox = self.sources.get(name)
        if inbox is not None:
            return inbox.incarnation, inbox.cursor
        return self.departures.position(name)

    # Removal without a leave

    def remove(self, name: str, now: float) -> bool:
        """Begin to remove `name`, if it is lost. Returns whether the removal has begun now."""
        self.horizon.look_for_gaps(now)
        waited_for = name in self.sources or name in self.refused
        begun = waited_for and self._lost(name, now) and self.removal.begin(name, now)
        self.departed += begun
        self._note_removal()
        return begun

    def expect_no_more(self, address: str, now: float) -> bool:
        """No host ever answered at `address`. If that has not isolated the namespace, there is nothing to
        do."""
        self.horizon.look_for_gaps(now)
        begun = self.horizon.isolated(now) and self.removal.begin(address, now)
        self.departed += begun
        self._note_removal()
        return begun

    def removed(self, now: float) -> set[str]:
        """Names of members, and addresses, whose removal ends now."""
        self._note_removal()
        if now < self.removal.ends_at():
            return set()
        self.horizon.look_for_gaps(now)
        if self.removal.whole:
            self.horizon.make_whole(now)
        names = self.removal.end()
        self._note_removal()
        for name in names & (self.sources.keys() | self.refused.keys()):
            self._set_aside(name)
        return names

    def _set_aside(self, name: str) -> None:
        self.refused.take(name)
        inbox = self.sources.take(name)
        self._changed(name)
        self.departed += 1
        self.store.source_set_aside(self._slot_of(name) if inbox is None else inbox.index)
        self.departures.was_removed(name, (0, 0) if inbox is None else (inbox.incarnation, inbox.cursor))

    def _slot_of(self, name: str) -> int:
        """The slot of a source that was never followed."""
        try:
            return self.store.source_open(name)
        except SegmentError:
            return NO_SLOT

    def heard_at(self, name: str) -> float:
        """Everything that `name` announced before this has been applied; the start, if nothing came since."""
        inbox = self.sources.get(name)
        return max(self._entered_at, inbox.freshness.at if inbox is not None else float("-inf"))

    def _lost(self, name: str, now: float) -> bool:
        return self.heard_at(name) + self._lost_after_s < now
