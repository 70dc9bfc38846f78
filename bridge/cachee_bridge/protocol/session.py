"""The streams between this host and its peers: what is said on a link that is up.

    message    what follows here
    STATE      each namespace that both have is met (members.py, repair.py), then asked for from the cursor;
               the last STATE of the handshake has fewer than ROWS_MAX rows: what no row names, the peer lacks
    FRAME      applied, or asked for again; a map of buckets goes on being applied in `go_on`
    BEAT       heads make sources fresh or show that something is missing; cursors say what the peer has
    CALM       the same in rows of what changed; the rest in two sums (ledger.py), or SYNC asks for the rows
    BEAT, REPLAY that know more of this host's ring than it has written: it goes on under a higher incarnation
    REPLAY     the outbox goes (back) to that position and streams on
    LEAVE      with heads: the peer is no member once all it wrote is applied
    SYNC       a beat, at once

A peer speaks for itself, in namespaces that both have and under one hash key, and for sources that it was
asked to relay (relaying.py); anything else is a FrameError, and the link closes. BridgeError from here means
that too. Nothing is said of a namespace to a peer whose certificate does not allow it, nor to anybody if this
host's own certificate does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from cachee_bridge.links.states import LinkState
from cachee_bridge.ports.reasons import Reason
from cachee_bridge.protocol.beats import Beats
from cachee_bridge.routing.relaying import Relaying
from cachee_bridge.sources.members import Members
from cachee_bridge.sources.register import Register
from cachee_bridge.streams.buckets import PIECE_BYTES, is_piece
from cachee_bridge.streams.repair import Ask, Rung
from cachee_bridge.streams.stream import Inbox, Outbox, Packer, Verdict
from cachee_bridge.wire.budget import WORDS_BYTES
from cachee_bridge.wire.messages import (
    EXISTS,
    GONE,
    PAYLOAD_ALL,
    ROWS_MAX,
    UNSERVED,
    FinalHead,
    Frame,
    Leave,
    NamespaceState,
    Replay,
    State,
    Sync,
)
from cachee_shm.errors import BridgeError, FrameError, SegmentError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.ports.store import Store

Say = Callable[..., None]
"""say(level, text, **fields): a line for people."""
OWN_CERTIFICATE = "(this host's own certificate does not allow it)"
"""In the place of a peer's name, which has no brackets."""
NAMESPACES_MAX = 8192
"""Of one peer: some 3 MiB. A host with more has segments of 16 GiB at least; the surplus is refused alone."""
INCARNATION_BITS = 32
"""Of chance in an incarnation that is drawn above one that a peer knows: two lives must not draw the same."""
INCARNATION_MAX = 2**64 - 2 ** (INCARNATION_BITS + 1)
"""From here on none is drawn that is higher."""
COMPLAINTS_S = 60.0
NO_ROW = NamespaceState("", 1, 0, 1)
RAISE_S = 1.0
"""Between two raises of one namespace: each has its peers evict all that is older."""


class Session:
    """All namespaces of this host, and what is sent and received of them on any link."""

    def __init__(self, name: str, settings: Settings, rng: random.Random, say: Say) -> None:
        self._name, self._settings, self._rng, self._say = name, settings, rng, say
        self.links: Mapping[int, Link] = {}
        """All links of this host, whatever their state; the mesh's own."""
        self.members: dict[str, Members] = {}
        self.relaying = Relaying(name, settings, self.members)
        self._packers: dict[str, Packer] = {}
        self._finals: dict[str, FinalHead] = {}
        """What this host leaves behind, while it leaves."""
        self._maps: list[tuple[str, str]] = []
        """(namespace, source) of maps that are being applied, the next in turn first."""
        self.register = Register()
        self.touched: set[str] = set()
        """Namespaces of which something was heard or changed since isolation.py last looked at them."""
        self.moved: set[str] = set()
        """Namespaces whose rings have moved by what was applied, since the pump last looked at them."""
        self._crowded: set[str] = set()
        """Namespaces whose table of sources had no room for some peer."""
        self.unserved: frozenset[str] = frozenset()
        """Namespaces whose segments exist on this host, and that its bridge cannot open."""
        self._raised_at: dict[str, float] = {}
        """By namespace, when its incarnation was last raised."""
        self._entered_at = float("-inf")
        """When a namespace came last."""
        self.beats = Beats(name, settings, self)

    def enter(self, namespace: str, store: Store, now: float) -> None:
        """A namespace of this host, or a new life of one."""
        lost_after_s, pace_s = self._settings.lost_after_s, 2 * self._settings.heartbeat_s
        if namespace in self.members:
            self.members[namespace].dissolve()
        self.members[namespace] = Members(namespace, store, lost_after_s, pace_s, now, self.register)
        self._entered_at = now
        self.touched.add(namespace)
        self._packers[namespace] = Packer(store)
        if not self._is_mine(namespace):
            self.members[namespace].refuse(OWN_CERTIFICATE, Reason.OWN_CERTIFICATE)
            text = "is not in this host's own certificate: no peer is told or heard, so it stays isolated"
            self._say("warning", f"namespace {namespace} {text}", namespace=namespace)

    def _is_mine(self, namespace: str) -> bool:
        return self._settings.namespaces is None or namespace in self._settings.namespaces

    def is_missed(self, name: str) -> bool:
        """Whether what `name` announces is waited for in any namespace."""
        return name in self.register.members

    def waited_for(self) -> set[str]:
        """Names of all members, and of peers that cannot be followed: whose silence isolates."""
        return (self.register.members.keys() | self.register.refused.keys()) - {OWN_CERTIFICATE}

    def heard_at(self, name: str) -> float:
        """When `name` was last fresh in any namespace; the start, if it was not since."""
        return max(self._entered_at, self.register.word(name).heard_at)

    def is_fresh(self, name: str, since: float) -> bool:
        """Whether `name` is a member, and was fresh after `since` in all namespaces where it is one; the
        start counts for those in which nothing came. Looked at are those that no fresh word covers."""
        if name not in self.register.members:
            return False
        word = self.register.word(name)
        names = word.apart if word.fresh_at > since else self.register.members[name]
        return all(self.members[namespace].heard_at(name) > since for namespace in names)

    def may_relay(self, link: Link) -> bool:
        """Whether the peer can be told, and tell, of every namespace of this host."""
        return link.allows_all or all(link.allows(namespace) for namespace in self.members)

    def states(self, link: Link) -> list[State]:
        """What the peer may know of: as many messages as it needs, of which the last has room left."""
        rows = [
            self._row(namespace)
            for namespace in sorted(self.unserved.union(self.members))
            if self._is_mine(namespace) and link.allows(namespace)
        ]
        if link.version < 3:  # it closes the link for more
            rows = rows[:ROWS_MAX]
        parts = range(0, len(rows) + (link.version >= 3), ROWS_MAX)
        return [State(tuple(rows[at : at + ROWS_MAX])) for at in parts or (0,)]

    def _row(self, namespace: str) -> NamespaceState:
        if namespace not in self.members:
            return NamespaceState(namespace, EXISTS if namespace in self.unserved else GONE, 0, UNSERVED)
        store = self.members[namespace].store
        return NamespaceState(namespace, store.incarnation, store.tail, store.hash_key_fingerprint)

    def _touch(self, namespace: str) -> None:
        self.touched.add(namespace)
        self.moved.add(namespace)

    # Meeting

    def uncover(self, name: str) -> None:
        """A link to `name` has ended, or another one has come up, on which other namespaces may be shared."""
        for namespace in sorted(self.register.word(name).covered):
            self.members[namespace].cover(name, False)
            self.touched.add(namespace)

    def meet(self, link: Link, row: NamespaceState, stamp: float | None, now: float) -> None:
        """Begin or go on to follow one namespace of the peer, and ask for what comes after the cursor.

        `stamp`: something of this host's that left it then had come to the peer before it said `row`.
        """
        members = self.members.get(row.namespace)
        if members is not None:
            self._touch(row.namespace)
        if row.namespace not in link.theirs and len(link.theirs) >= NAMESPACES_MAX:
            self._on_surplus(link, row.namespace, members)
            return
        if (row.fingerprint, row.incarnation) == (UNSERVED, GONE):
            self._on_gone(link, row.namespace, now)
            return
        link.theirs[row.namespace] = row
        if members is None or not self._is_mine(row.namespace):
            return
        if row.fingerprint == UNSERVED:
            self._refuse(link, members, Reason.UNSERVED, "its bridge cannot open its segment")
            return
        if row.fingerprint != members.store.hash_key_fingerprint:
            self._refuse(link, members, Reason.HASH_KEY, "its hash key differs")
            return
        if not self._contact(link, members, row.incarnation, row.tail, now):
            return
        link.beat_schedule.came()
        if row.namespace not in link.shared:
            link.share(row.namespace)
            self._begin_outbox(link, members)
        if link.name in members.refused:
            self.beats.beat(link, now)  # its cursor tells the peer which incarnation is known here
            return
        inbox = members.sources[link.name]
        inbox.linked()
        inbox.head_heard(row.tail, stamp)
        if link.name in link.follows:
            link.send(Replay(row.namespace, link.name, inbox.incarnation, inbox.cursor + 1))
        else:
            self.relaying.distrust(link.name, now)

    def _begin_outbox(self, link: Link, members: Members) -> None:
        """Nothing is sent until the peer asks."""
        namespace = members.namespace
        link.unconfirmed.discard(namespace)
        link.outboxes[namespace] = Outbox(namespace, self._name, members.store, self._packers[namespace])

    def _contact(self, link: Link, members: Members, incarnation: int, tail: int, now: float) -> bool:
        """Climb the ladder for the peer. False: nothing of the namespace can be said to it or heard from it.

        A ring that runs backwards is refused, and the peer is told so: what is said to it goes on.
        """
        try:
            step = members.meet(link.name, incarnation, tail, now, link.was_late)
        except SegmentError as error:
            self._crowded.add(members.namespace)
            self._refuse(link, members, Reason.NO_ROOM, str(error))
            return False
        what = f"{link.name}, namespace {members.namespace}, incarnation {incarnation}, tail {tail}"
        if step.rung is Rung.IMPOSSIBLE:
            known = members.cursor(link.name)
            if members.refused.get(link.name) is not Reason.BACKWARDS:
                text = f"{what}: {known} of it is applied here already; refused until it has a higher one"
                self._say("warning", text, peer=link.name, namespace=members.namespace)
            members.refuse(link.name, Reason.BACKWARDS)
            return True
        members.refused.take(link.name)
        if step.rung is Rung.FLUSH:
            level = "info" if members.starting else "warning"
            self._say(level, f"{what}: what it wrote before is unknown here; evicted all", peer=link.name)
        elif step.rung is Rung.FROM_BIRTH:
            self._say("info", f"{what}: new, followed from its first record", peer=link.name)
        return True

    def look_for_room(self, now: float) -> None:
        """Peers for which a table of sources had no room are met again: somebody may have left since."""
        crowded, self._crowded = self._crowded, set()
        for namespace in sorted(crowded):
            members = self.members[namespace]
            for link in self.relaying.links():
                if members.refused.get(link.name) is Reason.NO_ROOM and namespace in link.theirs:
                    self.meet(link, link.theirs[namespace], None, now)

    def _on_surplus(self, link: Link, namespace: str, members: Members | None) -> None:
        """More namespaces of one peer than are remembered: the others, and the link, go on."""
        if not link.surplus:
            text = f"{link.name} has more than {NAMESPACES_MAX} namespaces; {namespace} and more are refused"
            self._say("error", text, peer=link.name, namespace=namespace)
        link.surplus = True
        if members is not None:
            members.refuse(link.name, Reason.SURPLUS)

    def _refuse(self, link: Link, members: Members, reason: Reason, why: str) -> None:
        """Nothing of this namespace is said to or heard from this peer."""
        members.refuse(link.name, reason)
        link.unshare(members.namespace)
        link.outboxes.pop(members.namespace, None)
        text = f"namespace {members.namespace} of {link.name} is refused, and isolated here: {why}; "
        text += reason.end(link.name)
        self._say("error", text, peer=link.name, namespace=members.namespace)

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """Which they are now; peers are told of each change."""
        changed = self.unserved ^ namespaces
        self.unserved = namespaces
        for namespace in sorted(changed - self.members.keys()):
            self.announce(namespace)

    def _on_gone(self, link: Link, namespace: str, now: float) -> None:
        """The peer could not open its segment, and it was removed there since."""
        if link.theirs.get(namespace, NO_ROW).fingerprint == UNSERVED:
            del link.theirs[namespace]
            if namespace in self.members and link.told_all:
                self._drop_absent(link, [namespace], now)

    def drop_absent(self, link: Link, now: float) -> None:
        """The peer has told all its namespaces. Where it is a member of another one, that is gone there, with
        all that could be stale: what it wrote last is unknown, so all is evicted here, once."""
        self._drop_absent(link, list(self.members), now)

    def _drop_absent(self, link: Link, namespaces: Iterable[str], now: float) -> None:
        for namespace in namespaces:
            members = self.members[namespace]
            if namespace in link.theirs or link.surplus or not self._is_mine(namespace):
                continue
            what = f"{link.name} has no namespace {namespace} any more"
            if not link.allows(namespace):
                if link.name in members.sources:
                    self._touch(namespace)
                    members.refuse(link.name, Reason.CERTIFICATE)
                    text = f"its certificate does not allow namespace {namespace} any more: isolated here"
                    self._say("warning", f"{link.name}: {text}", peer=link.name, namespace=namespace)
            elif members.drop_absent(link.name, now):
                self._touch(namespace)
                text = f"{what}: evicted all that it may have written, and it is waited for no longer"
                self._say("info", text, peer=link.name, namespace=namespace)

    # Hearing

    def on_frame(self, link: Link, frame: Frame, now: float) -> None:
        if frame.namespace in self.members:
            self._touch(frame.namespace)
        if frame.source != link.name:
            self.relaying.on_frame(link, frame, now)
            return
        if frame.namespace not in link.shared:
            raise FrameError(
                f"a Frame of {frame.source}, namespace {frame.namespace}, that was not asked for"
            )
        members = self.members[frame.namespace]
        link.stirred.add(frame.namespace)
        inbox = self.follow(link, members, frame.incarnation, frame.last, now)
        if inbox is None:
            return
        verdict = inbox.receive(frame)
        if frame.payload:
            link.beat_schedule.came()
        if verdict is Verdict.APPLIED:
            self.relaying.applied(frame)
        if verdict is Verdict.GAP:
            self.ask(link, members, inbox, now)
        elif verdict is Verdict.MAP:
            link.throttle.budget.owe(members.store.map_bytes)
            self._apply_map(members, link.name, link)
        elif verdict is Verdict.APPLIED and frame.payload == PAYLOAD_ALL:
            text = (
                f"{link.name}, namespace {members.namespace}: nothing is left that would tell what was missed"
            )
            self._say("warning", f"{text} up to {frame.last}; evicted all", peer=link.name)
        members.settle(link.name)

    def go_on(self, links: Mapping[str, Link]) -> None:
        """Some more of one of the maps that are being applied. `links`: by name, those that are up."""
        if self._maps:
            namespace, name = self._maps.pop(0)
            self._touch(namespace)
            self._apply_map(self.members[namespace], name, links.get(name))
            self.members[namespace].settle(name)

    @property
    def applies_maps(self) -> bool:
        """Whether `go_on` has something to do."""
        return bool(self._maps)

    def _apply_map(self, members: Members, name: str, link: Link | None) -> None:
        inbox = members.sources.get(name)
        if inbox is None or inbox.applying is None:  # begun anew meanwhile
            return
        if link is not None:
            link.throttle.budget.owe(WORDS_BYTES)
        done = inbox.apply_map()
        if done is None:
            self._maps.append((members.namespace, name))
            return
        text = f"{name}, namespace {members.namespace}: lapped; what it may have written up to {done.last}"
        self._say("info", f"{text} is evicted: {done.evicted} entries", peer=name)
        if link is not None:
            link.beat_schedule.came()
            link.stirred.add(members.namespace)
        if inbox.held_back:
            self.relaying.ask_all(members, name)

    def follow(self, link: Link, members: Members, incarnation: int, tail: int, now: float) -> Inbox | None:
        """The peer's inbox, adopting a higher incarnation. None: the word is about what is over."""
        known = members.cursor(link.name)
        if known is None:
            return None
        news = incarnation > known[0] or (link.name not in members.sources and (incarnation, tail) > known)
        if news and not self._contact(link, members, incarnation, tail, now):
            return None
        return members.sources.get(link.name)

    def ask(self, link: Link, members: Members, inbox: Inbox, now: float) -> None:
        ask = inbox.asker.behind(inbox.cursor, now)
        if ask is Ask.REPLAY:
            inbox.repairs.replays += 1
            text = f"{link.name}, namespace {members.namespace}: what follows {inbox.cursor} has not come"
            self._say("info", f"{text}; asked for again", peer=link.name)
            if link.name not in link.follows:  # whoever relays it does not
                self.relaying.follow(link, link.name)
                return
            link.send(Replay(members.namespace, link.name, inbox.incarnation, inbox.cursor + 1))
        elif ask is Ask.HOPELESS:
            raise BridgeError(
                f"{link.name} has not sent namespace {members.namespace} from {inbox.cursor + 1} on, asked "
                f"{inbox.asker.fruitless} times; the link is closed and made anew"
            )

    def on_replay(self, link: Link, replay: Replay, now: float) -> None:
        if replay.source != self._name:
            self.relaying.on_replay(link, replay)
            return
        if replay.namespace not in link.shared:
            raise FrameError(
                f"a Replay of {replay.source}, namespace {replay.namespace}, asked of {self._name}"
            )
        members = self.members[replay.namespace]
        if self.outdone(link, members, replay.incarnation, replay.first - 1, now):
            return
        if replay.incarnation == members.store.incarnation:
            link.outboxes[replay.namespace].ask(replay.first)
            self.pump(link, replay.namespace)

    def outdone(self, link: Link, members: Members, incarnation: int, cursor: int, now: float) -> bool:
        """Whether the peer knows more of this host's ring than this host has written: an earlier life of it
        was born under a clock that was ahead, or the segment is an old copy. The ring goes on under a higher
        incarnation, which its peers meet as a new one."""
        store, namespace = members.store, members.namespace
        known = store.incarnation
        if incarnation < known or (incarnation == known and cursor <= store.tail):
            return False
        if incarnation >= INCARNATION_MAX:
            if now >= link.complain_at:
                link.complain_at = now + COMPLAINTS_S
                text = f"{link.name} claims incarnation {incarnation} of namespace {namespace}: none is "
                self._say("error", f"{text}higher; see who makes it up", peer=link.name, namespace=namespace)
            return True
        if now < self._raised_at.get(namespace, float("-inf")) + RAISE_S:
            return True
        self._raised_at[namespace] = now
        store.raise_incarnation(incarnation + 1 + self._rng.getrandbits(INCARNATION_BITS))
        text = f"{link.name} has applied namespace {namespace} of this host, incarnation {incarnation}, up "
        text += f"to {cursor}; here it was incarnation {known} up to {store.tail}: was the clock set back? "
        self._say("warning", f"{text}It goes on as {store.incarnation}", peer=link.name, namespace=namespace)
        for other in self._told():
            if namespace in other.shared:
                other.acked.pop(namespace, None)
                other.ledger.change((namespace,))
                self._begin_outbox(other, members)
        self.announce(namespace)
        return True

    def announce(self, namespace: str) -> None:
        """Tell the peers one namespace of this host: it is new, or has another incarnation."""
        for link in self._told():
            if self._is_mine(namespace) and link.allows(namespace):
                link.send(State((self._row(namespace),)))

    def _told(self) -> list[Link]:
        """Links whose other end was told of this host's namespaces, whether it has answered by now or not."""
        return [link for link in self.links.values() if link.state in (LinkState.STATE, LinkState.UP)]

    def on_leave(self, link: Link, leave: Leave, now: float) -> None:
        """The peer leaves for good."""
        for final in leave.heads:
            if final.namespace in link.shared:
                self._touch(final.namespace)
                self.members[final.namespace].leaving(link.name, final)
        for namespace in sorted(self.register.refused.get(link.name, ())):
            # It was never followed: what it wrote is evicted with all else.
            self.members[namespace].drop_absent(link.name, now)
            self._touch(namespace)

    # Saying

    def pump(self, link: Link, namespace: str | None = None) -> None:
        """What the link lacks of `namespace`, or of all that had no room yet, in turn, while there is room.

        What it has been sent before is charged to the peer, who asked for it.
        """
        if namespace is not None:
            if namespace not in link.outboxes:
                return
            link.hungry[namespace] = None
        while link.hungry and link.room():
            turn = next(iter(link.hungry)) if namespace is None else namespace
            del link.hungry[turn]
            if turn not in link.outboxes:
                continue
            outbox = link.outboxes[turn]
            again, scanned = outbox.again, outbox.scanned
            frame = self._next(link, outbox)
            link.throttle.budget.owe(max(0, min(outbox.scanned, outbox.looked) - scanned))
            if frame is not None:
                link.send(frame)
                link.beat_schedule.sent()
                if again:
                    link.throttle.budget.owe(PIECE_BYTES if is_piece(frame.payload) else len(frame.payload))
                link.hungry[turn] = None
                link.stirred.add(turn)
                if outbox.carried > link.acked.get(turn, 0):
                    link.unconfirmed.add(turn)
            elif outbox.scanned > outbox.cursor:
                link.blank[turn] = None
            if namespace is not None and namespace not in link.hungry:
                break
        if namespace is None:
            self.relaying.pump(link)

    def _next(self, link: Link, outbox: Outbox) -> Frame | None:
        lapped = outbox.lapped
        frame = outbox.next()
        if outbox.lapped != lapped and frame is not None:
            what = "a map of buckets" if is_piece(frame.payload) else "one record for all"
            text = f"{link.name}, namespace {frame.namespace}: lapped; {what} stands for"
            self._say("info", f"{text} {frame.first}..{frame.last}", peer=link.name)
        return frame

    def ask_cursor(self, link: Link, namespace: str) -> None:
        """Of a peer that has been sent what some worker waits for: now, not with its next beat."""
        outbox, wanted = link.outboxes.get(namespace), self.members[namespace].store.sync_asked()
        lacks = outbox is not None and link.acked.get(namespace, 0) < wanted <= outbox.cursor
        if lacks and link.asked.get(namespace) != wanted:
            link.asked[namespace] = wanted
            link.send(Sync())

    def send_empty(self, link: Link) -> None:
        blank, link.blank = link.blank, {}
        for namespace in blank:
            outbox = link.outboxes.get(namespace)
            if outbox is not None and (frame := outbox.empty()) is not None:
                link.stirred.add(namespace)
                link.send(frame)

    # Leaving, and what people see

    def leave(self) -> None:
        """What is in the rings now is the last of it."""
        self._finals = {
            namespace: FinalHead(namespace, members.store.incarnation, members.store.tail)
            for namespace, members in self.members.items()
        }

    def say_leave(self, link: Link) -> None:
        self.pump(link)
        self.send_empty(link)
        told = (ns for ns in sorted(self._finals) if self._is_mine(ns) and link.allows(ns))
        finals = [self._finals[ns] for ns in told]  # also where the peer refuses this host
        for at in range(0, max(len(finals), 1), ROWS_MAX):
            link.send(Leave("leaves for good", tuple(finals[at : at + ROWS_MAX])))

    def unacked(self, link: Link) -> bool:
        """Whether the peer has not yet applied all that this host leaves behind."""
        finals = [(ns, final) for ns, final in self._finals.items() if ns in link.shared]
        return any(link.acked.get(namespace, -1) < final.head for namespace, final in finals)

    def missed(self) -> set[str]:
        """Names of all members."""
        return set(self.register.members)
