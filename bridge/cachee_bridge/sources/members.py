"""The sources of one namespace, and until when it may be served.

A member is a source that has been met, in this life of the bridge or a former one (the segment's source table
knows), and has neither left nor been removed. Freshness runs out by itself: nothing has to happen for a
namespace to become isolated, and time alone never ends isolation.

    heard       = the oldest freshness of any member, and of healing at home, + lost_after; it counts for
                  nothing while an expected address is unanswered, or a peer is refused
    serve until = the latest that was heard, but not extended while a member is being removed (removal.py)

A member that is being removed is not asked for its freshness; if it comes back meanwhile it is asked again at
once, and what was heard without it counts no more.

Beyond `serve until` readers follow the policy. Under "flush" they take everything from before it for evicted;
so that nothing of that, nor of what they loaded meanwhile, outlives the isolation, all is evicted before it
ends.

A member that was removed and comes back in the same life of its segment goes on where it was; in another,
what the former one wrote since is unknown. Where the name of such a one had to be given up, for want of
room, it may be anybody's: then no newcomer is taken for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.ports.reasons import Reason, Why
from cachee_bridge.ports.views import NamespaceView
from cachee_bridge.sources.peer_status import PeerStatus
from cachee_bridge.sources.register import Listed, Register
from cachee_bridge.sources.removal import Removal
from cachee_bridge.streams.freshness import Freshness
from cachee_bridge.streams.repair import Contact, Rung, contact
from cachee_bridge.streams.stream import Inbox
from cachee_bridge.wire.messages import PAYLOAD_ALL, FinalHead
from cachee_shm.errors import SegmentError

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

DEPARTED_MAX = 4096
NO_SLOT = 0
NAMELESS = ""
"""Among the forgotten: there are some whose names are not known any more."""
REFUSED_MAX = 4096
"""One is enough to isolate; peers that come under ever new names are not all kept."""


class Members:
    def __init__(
        self, namespace: str, store: Store, lost_after_s: float, pace_s: float, now: float, register: Register
    ) -> None:
        self.namespace, self.register = namespace, register
        self.store = store
        self._lost_after_s, self._pace_s = lost_after_s, pace_s
        known = [
            (name, Inbox(store, index, incarnation, cursor, pace_s, register.word(name), namespace))
            for index, name, incarnation, cursor in store.sources()
        ]
        self.sources = Listed(namespace, register.members, known)
        self.home = Freshness()
        """What this host wrote before `home.at` is healed: no half-done write is served for ever."""
        self.departed: dict[str, tuple[int, int]] = {}
        """(incarnation, cursor) by name of those that left, all applied: nothing is missed if they return."""
        self.forgotten = {name: (incarnation, cursor) for _, name, incarnation, cursor in store.forgotten()}
        """The same of those that were removed: what they wrote since is missed."""
        self.absent: dict[str, tuple[int, int]] = {}
        """The same of those that were linked and had this namespace no more: all was evicted then."""
        self.refused: Listed[Reason] = Listed(namespace, register.refused)
        """Peers that have this namespace and cannot be followed: they isolate."""
        self.removal = Removal(store)
        self.bulletin = PeerStatus(store, lost_after_s, now)
        self.heard_until = self.until = float("-inf")
        """The latest that was heard without who was being removed; and told to readers."""
        self.whole = store.tail == 0 and not self.sources
        """Nothing can have been missed by not knowing of a source: since birth or the last flush, this
        namespace has never been isolated (but for its first lost_after, when no contact counts as whole)."""
        self._whole_at = self._entered_at = now
        self._settled_from = now + lost_after_s
        self.apart: set[str] = set()
        """Members whose word of all their namespaces does not cover this one."""
        for name in self.sources:
            self._changed(name)

    @property
    def starting(self) -> bool:
        """Not isolated has never been said yet: every bridge starts like that."""
        return self.until == float("-inf")

    def isolated(self, now: float) -> bool:
        """Whether readers have begun to refuse by policy."""
        return now > self.until

    def look_for_gaps(self, now: float) -> None:
        """Whether something may have been missed by not knowing of a source: since this was last heard, or at
        a time when somebody was out of reach. To be called before anything is made of `whole`, or changed."""
        started = self.heard_until > float("-inf") or now > self._settled_from
        alone_at = now if started and now > self.heard_until else float("-inf")
        alone_at = max(alone_at, self.register.lost_at)
        if alone_at > self._whole_at:
            self.whole = False
        if alone_at > self.removal.drawn_at:
            self.removal.interrupt()

    def _make_whole(self, now: float) -> None:
        """All that is older is evicted."""
        self.whole, self._whole_at = True, now

    def extended(self, now: float, hindered: bool) -> float | None:
        """A later `until` than was told before, or None. `hindered`: an expected address is unanswered."""
        self.look_for_gaps(now)
        heard = self._heard(now, hindered)
        self.heard_until = max(self.heard_until, heard)
        if heard <= self.until or self.removal.under_way:
            return None
        if self.store.on_isolation == "flush" and self._readers_isolated(now):
            self.store.apply(0, PAYLOAD_ALL)
        self.until = heard
        return self.until

    def is_calm(self, now: float) -> bool:
        """Not isolated, all is healed at home, and each member is fresh by what it says of all its
        namespaces, as of when it says so."""
        if self.apart or self.refused or self.removal.under_way or now > self.until:
            return False
        return self.store.tail == self.store.pump_cursor

    def go_on(self, now: float, until: float) -> bool:
        """It is calm, and was heard until then. Whether that is later than was told before."""
        self.home.at = now
        self.heard_until = max(self.heard_until, until)
        if until <= self.until:
            return False
        self.until = until
        return True

    def _heard(self, now: float, hindered: bool) -> float:
        self.home.head_heard(now, self.store.tail, self.store.pump_cursor)
        self.home.applied(self.store.pump_cursor)
        if hindered or self.refused.keys() - self.removal.names:
            return float("-inf")
        counting = self.sources.keys() - self.removal.names
        fresh = min([self.home.at, *(self.sources[name].freshness.at for name in counting)])
        return fresh + self._lost_after_s

    def _readers_isolated(self, now: float) -> bool:
        """Also by what a former life of the bridge told them."""
        return now > max(self.until, self.store.serve_until / 1000)

    def stale(self, now: float) -> list[str]:
        """Names of the members whose word is too old."""
        late = [name for name, inbox in self.sources.items() if inbox.freshness.at + self._lost_after_s < now]
        unhealed = ["its own pump"] if self.home.at + self._lost_after_s < now else []
        return unhealed + sorted({*self.refused, *late})

    def why(self, now: float, is_reached: Callable[[str], bool]) -> list[Why]:
        """What holds `until` back. `is_reached`: the named peer is linked, or heard through a relay."""
        found = [] if self.home.at + self._lost_after_s >= now else [Why(Reason.OWN_PUMP, "")]
        for name in self.stale(now)[len(found) :]:
            known = self.refused.get(name)
            if name not in self.removal.names:
                found.append(Why(known or (Reason.BEHIND if is_reached(name) else Reason.SILENT), name))
        if self.removal.under_way:
            found.append(Why(Reason.REMOVAL, ", ".join(sorted(self.removal.names))))
        return found

    def view(self, now: float, unanswered: list[str], why: list[Why]) -> NamespaceView:
        """For people; `unanswered` isolates as well."""
        removing, ends_at = sorted(self.removal.names), self.removal.ends_at(self._hold_s())
        silent, policy = self.stale(now) + unanswered, self.store.on_isolation
        return NamespaceView(self.namespace, self.until, policy, silent, removing, ends_at, why)

    def refuse(self, name: str, reason: Reason) -> None:
        """It has this namespace and cannot be followed: it isolates until it can."""
        self.removal.cancel(name)
        self.cover(name, False)
        if len(self.refused) < REFUSED_MAX or name in self.refused:
            self.refused[name] = reason

    def meet(self, name: str, incarnation: int, tail: int, now: float, is_late: bool = False) -> Contact:
        """`name` says that its ring is `incarnation` with `tail`: climb the ladder as far as needed.

        `is_late`: it existed for long before this host reached it, so this may not be its first life.

        SegmentError when the source table is full: the peer cannot be followed.
        """
        self.look_for_gaps(now)
        inbox, known = self.sources.get(name), self.cursor(name)
        self.removal.cancel(name)
        step = contact(known, incarnation, tail, False)
        if name in self.forgotten and step.rung is not Rung.GO_ON:
            step = contact(None, incarnation, tail, False)
        elif step.rung is Rung.FLUSH and inbox is None:
            step = contact(None, incarnation, tail, self._believes_in_births(now) and not is_late)
        if step.rung is not Rung.IMPOSSIBLE and (inbox is None or step.rung is not Rung.GO_ON):
            self._begin(name, incarnation, step, now)
        return step

    def _believes_in_births(self, now: float) -> bool:
        if NAMELESS in self.forgotten:
            return False
        return (self.whole and not self.isolated(now)) or self._relies()

    def _relies(self) -> bool:
        relies = self.removal.rely()
        self._note_removal()
        return relies

    def _note_removal(self) -> None:
        if self.removal.under_way:
            self.register.removing.add(self.namespace)
        else:
            self.register.removing.discard(self.namespace)

    def _begin(self, name: str, incarnation: int, step: Contact, now: float) -> None:
        inbox = self.sources.get(name)
        if inbox is None:
            index, word = self.store.source_open(name), self.register.word(name)
            inbox = Inbox(self.store, index, 0, 0, self._pace_s, word, self.namespace)
        flush = step.rung is Rung.FLUSH
        inbox.begin(incarnation, step.cursor, flush)
        self.sources[name] = inbox
        self._changed(name)
        self.departed.pop(name, None)
        self.absent.pop(name, None)
        self.forgotten.pop(name, None)
        if flush:
            self._make_whole(now)

    def _changed(self, name: str) -> None:
        """It has become a member, or ceased to be: what it said of all its namespaces is of others."""
        self.cover(name, False)
        self.register.changed.add(self.namespace)
        self.register.word(name).stirred.add(self.namespace)

    def cover(self, name: str, is_covered: bool) -> None:
        """Whether what `name` says of all its namespaces is said of this one as well, from now on."""
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
        """Another life of the namespace takes its place."""
        self.register.removing.discard(self.namespace)
        for listed in (self.sources, self.refused):
            for name in list(listed):
                listed.take(name)
                self._changed(name)

    def drop_absent(self, name: str, now: float) -> bool:
        """`name` is linked and has this namespace no more. What it wrote last is unknown, so evict all, once.
        Whether it was waited for."""
        inbox = self.sources.take(name)
        if inbox is None and name not in self.refused:
            return False
        self._changed(name)
        self.removal.cancel(name)
        self.refused.take(name)
        self.store.apply(inbox.index if inbox is not None else 0, PAYLOAD_ALL)
        if inbox is not None:
            self.store.source_forget(inbox.index)
            keep(self.absent, name, (inbox.incarnation, inbox.cursor))
        self._make_whole(now)
        return True

    def leaving(self, name: str, final: FinalHead) -> None:
        """`name` has said its final head."""
        inbox = self.sources.get(name)
        if inbox is not None and inbox.incarnation == final.incarnation:
            inbox.final = final.head
            self.settle(name)

    def settle(self, name: str) -> bool:
        """Let `name` go if it has left and all is applied; whether it did."""
        inbox = self.sources.get(name)
        if inbox is None or not inbox.departed():
            return False
        self.store.source_forget(inbox.index)
        del self.sources[name]
        self._changed(name)
        keep(self.departed, name, (inbox.incarnation, inbox.cursor))
        return True

    def acked(self, name: str, position: int) -> None:
        """`name` says that it has applied this host's ring up to `position`."""
        inbox = self.sources.get(name)
        if inbox is not None:
            self.store.source_acked(inbox.index, position)

    def cursor(self, name: str) -> tuple[int, int] | None:
        """(incarnation, cursor) of what has been applied of `name`, also when it is no member any more."""
        inbox = self.sources.get(name)
        if inbox is not None:
            return inbox.incarnation, inbox.cursor
        return self.departed.get(name) or self.absent.get(name) or self.forgotten.get(name)

    # Removal without a leave

    def remove(self, name: str, now: float) -> bool:
        """Begin to get over `name`, once it is lost; whether that has begun now."""
        self.look_for_gaps(now)
        waited_for = name in self.sources or name in self.refused
        begun = waited_for and self._lost(name, now) and self.removal.begin(name, now)
        self._note_removal()
        return begun

    def expect_no_more(self, address: str, now: float) -> bool:
        """Nobody ever answered at `address`. Where that has isolated nobody, nothing is to be got over."""
        self.look_for_gaps(now)
        begun = self.isolated(now) and self.removal.begin(address, now)
        self._note_removal()
        return begun

    def removed(self, now: float) -> set[str]:
        """Whose removal ends now."""
        self._note_removal()
        if now < self.removal.ends_at(self._hold_s()):
            return set()
        self.look_for_gaps(now)
        if self.removal.whole:
            self._make_whole(now)
        names = self.removal.end()
        self._note_removal()
        for name in names & (self.sources.keys() | self.refused.keys()):
            self._set_aside(name)
        return names

    def _set_aside(self, name: str) -> None:
        self.refused.take(name)
        inbox = self.sources.take(name)
        self._changed(name)
        self.store.source_set_aside(self._slot_of(name) if inbox is None else inbox.index)
        self.forgotten[name] = (0, 0) if inbox is None else (inbox.incarnation, inbox.cursor)
        if len(self.forgotten) > DEPARTED_MAX:
            del self.forgotten[next(iter(self.forgotten))]
            self.forgotten[NAMELESS] = (0, 0)

    def _slot_of(self, name: str) -> int:
        """Of one that was never followed."""
        try:
            return self.store.source_open(name)
        except SegmentError:
            return NO_SLOT

    def _hold_s(self) -> float:
        return self.store.isolation_ttl_s if self.store.on_isolation == "cap" else 0.0

    def heard_at(self, name: str) -> float:
        """Everything that `name` announced before this has been applied; the start, if nothing came since."""
        inbox = self.sources.get(name)
        return max(self._entered_at, inbox.freshness.at if inbox is not None else float("-inf"))

    def _lost(self, name: str, now: float) -> bool:
        return self.heard_at(name) + self._lost_after_s < now


def keep(known: dict[str, tuple[int, int]], name: str, position: tuple[int, int]) -> None:
    """The oldest gives way where there are DEPARTED_MAX."""
    known[name] = position
    if len(known) > DEPARTED_MAX:
        del known[next(iter(known))]
