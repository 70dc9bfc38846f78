"""All links of one host. Input: bytes, records, now. Output: effects.

The shell, in full:

    mesh = Mesh(name, stores, settings, random.SystemRandom())
    mesh.start(now); mesh.add_peers(addresses, now); perform(mesh.effects())
    socket opened        mesh.link_opened(link, address or None, now, remote_host, identity)
    dial failed          mesh.connect_failed(address, reason, now, dialled)
    own address dialled  mesh.found_self(address, now)
    the DNS answered     mesh.discovered(addresses, ttl_s, now), or mesh.discovery_failed(reason, now)
    bytes came           mesh.received(link, data, now)
    socket drained       mesh.writable(link, now)
    socket closed        mesh.link_closed(link, reason, now)
    ring healed further  mesh.ring_moved(namespace, now)
    deadline passed      deadline = mesh.tick(now)
    secret changed       mesh.renew(secrets)
    unopened segments    mesh.tell_unserved(namespaces)
    GoOn was an effect   mesh.go_on(now)
    after each of these  perform(mesh.effects())

Here: which links exist and who is at their other end. How one link proves itself is in link.py, what is said
on it once it is up in session.py, where to dial in addresses.py, by which way each source is followed in
paths.py, who belongs no more in belonging.py.

Two links to one host, which happens when both dial at once: each side keeps the one that the smaller name
dialled. Two hosts under one name: the second is turned away, and the first is asked for a sign of life on its
link. If it gives one and then the second comes again, both are alive, and that is said aloud; if it gives
none, the first was a former life of the second, and its link ends.

What a peer sends is looked at in slices, and not beyond its budget: intake.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cachee_bridge.links.link import Link
from cachee_bridge.links.stamps import microseconds
from cachee_bridge.links.states import LinkState
from cachee_bridge.links.versions import RANDOM_BYTES, greeting
from cachee_bridge.membership.addresses import ADDRESSES_MAX, AddressBook
from cachee_bridge.ports.effects import Close, Connect, Discover, Effect, GoOn, Level, Log, Proven, Send
from cachee_bridge.ports.reasons import Reason
from cachee_bridge.ports.settings import Settings
from cachee_bridge.ports.store import Store
from cachee_bridge.ports.views import DiscoveryView, NamespaceView, PeerView, StreamView
from cachee_bridge.protocol.belonging import Belonging
from cachee_bridge.protocol.gossip import Gossip
from cachee_bridge.protocol.intake import Intake
from cachee_bridge.protocol.isolation import Isolation
from cachee_bridge.protocol.paths import Paths
from cachee_bridge.protocol.session import Session
from cachee_bridge.protocol.views import streams_of
from cachee_bridge.wire import auth
from cachee_bridge.wire.budget import Budget
from cachee_bridge.wire.messages import (
    ROWS_MAX,
    Beat,
    Calm,
    Follow,
    Frame,
    Hello,
    Leave,
    Message,
    Peers,
    Replay,
    State,
    Sync,
    printable,
)
from cachee_shm.errors import BridgeError, BridgeRunning, FrameError, PeerConflict

if TYPE_CHECKING:
    from cachee_bridge.wire.identity import Identity

__all__ = ["Mesh", "PeerView", "Settings", "Store", "StreamView"]

HANDSHAKE_S = 5.0
"""From an open socket to UP. A round trip of 200 ms and a busy peer need less than 1."""
HANDSHAKES_MAX = 64
"""Inbound links that have not proven themselves: what strangers can make this host hold is 64 * 4 KiB."""
REACH_S = 0.25
"""How often it is looked for hosts that are out of reach."""
GOSSIP_S = 10.0
"""One random peer is told again who is up: what was lost with a link, or given up, is learned again."""
HELD_LOOK_S = 0.1
"""How often a peer that is over its budget is looked at: a tenth of what it may send in a second."""


class Mesh:
    """The protocol core. Not thread-safe; every time is `now`: seconds of this host's CLOCK_BOOTTIME."""

    def __init__(
        self, name: str, stores: Mapping[str, Store], settings: Settings, rng: random.Random
    ) -> None:
        """`rng` makes nonces too: pass random.SystemRandom() outside of tests. AuthError for an unusable
        secret."""
        auth.check_secrets(settings.secrets)
        self._name, self._settings, self._rng = name, settings, rng
        self._instance = rng.getrandbits(64)
        self._stores = dict(stores)
        self._session = Session(name, settings, rng, self._say)
        self._links: dict[int, Link] = {}
        self._session.links = self._links
        self._up: dict[str, Link] = {}
        """By name, those that are up."""
        self._ready: list[Link] = []
        """Links with something to send."""
        self._book = AddressBook(name, settings.backoff_first_s, settings.backoff_max_s, rng)
        self._paths = Paths(name, settings, self._session, self._book, self._say)
        self._gossip = Gossip(self._book, self._up)
        self._membership = Belonging(self._book, self._session, settings, self._say)
        self._met: set[str] = set()
        self._since: dict[str, float] = {}
        self._came: dict[str, tuple[int, float]] = {}
        """By name, which bridge was up last, and since when."""
        """By name, when it was linked or the link to it was lost."""
        self._started_at = 0.0
        self._told_until = float("inf")
        """Of addresses that peers tell of later, this host does not wait for an answer before it is ready."""
        self._ready_once = False
        self._unanswered: list[str] = []
        self._next_reach = float("-inf")
        self._known: tuple[int, bool] | None = None
        """What that was made of."""
        self._complaints: dict[str, str] = {}
        """By address, why dialling it last came to nothing."""
        self._leaving = False
        self._next_beat = self._next_gossip = 0.0
        self._isolation = Isolation(self._session, settings.lost_after_s, self._say)
        self._effects: list[Effect] = []
        self._intake = Intake(self._session, self._on_message, self._guarded, self._emit, self._say)
        self._goes_on = False
        """GoOn is among the effects, or is being waited for."""

    # What the shell calls

    def start(self, now: float) -> None:
        """Once, before anything else. Cursors come from the stores."""
        for namespace, store in self._stores.items():
            self._session.enter(namespace, store, now)
        self._started_at = now
        self._next_beat, self._next_gossip = now, now + GOSSIP_S

    def add_peers(self, addresses: Iterable[str], now: float) -> None:
        """Configured addresses ("host:port"). Each isolates this host until somebody has answered there."""
        for address in addresses:
            self._book.configure(address, now)
        self._look_at_addresses()

    def discover(self, what: str, now: float) -> None:
        """Ask for more addresses, by Discover, again and again. Until it answers this host is isolated."""
        self._membership.discover(what, self._rng, now)
        self._look_at_addresses()

    def discovered(self, addresses: Collection[str], ttl_s: float, now: float) -> None:
        """All addresses that discovery names, for `ttl_s`."""
        self._membership.discovered(addresses, ttl_s, self._met.__contains__, now)
        self._look_at_addresses()

    def discovery_failed(self, reason: str, now: float) -> None:
        """It did not answer."""
        self._membership.failed(reason, now)

    def forget(self, who: str, now: float) -> str:
        """Remove a lost peer, by name, or an address where nobody answered; what will happen, in words.

        NotForgotten, with the reason, when nothing will.
        """
        return self._membership.forget(who, self._reaches, self._met.__contains__, now)

    def add_namespace(self, namespace: str, store: Store, now: float) -> None:
        """A namespace made after the start, or made anew; peers are told at once."""
        self._session.enter(namespace, store, now)
        for link in self._up.values():
            link.unshare(namespace)
        self._session.announce(namespace)
        for link in list(self._up.values()):
            if link.surplus and namespace not in link.theirs:
                self._session.members[namespace].refuse(link.name, Reason.SURPLUS)
            if namespace in link.theirs:
                self._guarded(link, now, self._session.meet, link, link.theirs[namespace], None, now)
        self._flush()

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """Whose segments exist on this host and cannot be opened: peers must not take them for absent."""
        self._session.tell_unserved(namespaces)
        self._flush()

    def renew(self, secrets: Sequence[bytes]) -> None:
        """For links that begin from now on. AuthError for an unusable secret: nothing changes."""
        auth.check_secrets(secrets)
        self._settings = replace(self._settings, secrets=tuple(secrets))

    def link_opened(
        self,
        link: int,
        address: str | None,
        now: float,
        remote_host: str = "",
        identity: Identity | None = None,
    ) -> None:
        """A socket is connected. `link` is a number never used before; `address` is None for an inbound one;
        `remote_host` is the IP address of the other end (IPv6 without brackets); `identity` is what its
        certificate says, which the CA has signed, None without TLS."""
        if address is None and self._leaving:
            self._effects.append(Close(link, "leaving"))
            return
        if address is None:
            self._make_room(now)
        settings = self._settings
        budget = Budget(settings.peer_budget, now)
        self._links[link] = Link(
            link, address, remote_host, self._hello(), settings.secrets, self._ready, now, budget, identity
        )
        self._flush()

    def connect_failed(self, address: str, reason: str, now: float, dialled: Collection[str] = ()) -> None:
        """A Connect came to nothing. `dialled`: the IP addresses that were tried, if the name had any."""
        failures = self._book.failed(address, now, dialled)
        self._complain(address, failures, f"{address} cannot be reached: {reason}")
        self._look_at_addresses()

    def found_self(self, address: str, now: float) -> None:
        """It leads to this host, as its interfaces say: nobody else is waited for there."""
        if self._book.is_own(address, now):
            self._look_at_addresses()

    def received(self, link: int, data: bytes, now: float, wire_bytes: int = 0) -> None:
        """Bytes from `link`, in order. Bad bytes close that link only. `wire_bytes`: as sent, with TLS."""
        known = self._links.get(link)
        if known is None:
            return
        self._intake.receive(known, data, now, wire_bytes)
        self._ask_to_go_on()
        self._flush()

    def go_on(self, now: float) -> None:
        """Some milliseconds of what takes longer."""
        self._goes_on = False
        self._intake.go_on(now)
        self._session.go_on(self._up)
        self._ask_to_go_on()
        self._flush()

    def writable(self, link: int, now: float) -> None:
        """Everything sent on `link` has left the process's buffers, or they have fallen to their low mark.
        To be called after each Send that did, else the link comes to rest after `ALLOWANCE_BYTES`."""
        known = self._links.get(link)
        if known is not None:
            was_full = not known.room()
            known.drained()
            if was_full and known.up:  # else all that there was to send has been
                self._session.pump(known)
                self._flush()

    def link_closed(self, link: int, reason: str, now: float) -> None:
        """The other end closed, or an error."""
        known = self._links.get(link)
        if known is not None:
            if known.up:
                self._say("warning", f"the link to {known} closed: {reason}", peer=known.name)
            failures = self._forget(known, now)
            if known.address is not None and not known.up:
                text = f"{known.address} ended the link before it was up: {reason}"
                self._complain(known.address, failures, text)

    def ring_moved(self, namespace: str, now: float) -> None:
        """The pump has healed up to a new `pump_cursor`, or some worker waits for the peers: send."""
        for link in self._paths.ordered(self._up.values()):
            self._session.pump(link, namespace)
            self._session.ask_cursor(link, namespace)
        self._flush()

    def tick(self, now: float) -> float:
        """Beats, time-outs, reconnects. Returns when to be called next (also harmless at any other time)."""
        self._intake.read_on(self._links.values(), now)
        self._ask_to_go_on()
        self._end_silent(now)
        self._review(now)
        self._membership.look(self._reaches, self._moved_at, now)
        self._look_at_addresses()
        if now >= self._next_beat:
            self._next_beat = now + self._settings.heartbeat_s
            self._beats(now)
        if now >= self._next_gossip:
            self._next_gossip = now + GOSSIP_S
            self._look_around(now)
        if not self._leaving:
            for address in self._book.due(now, self._needs_no_dial, self._session.is_missed):
                self._effects.append(Connect(address))
        discovery = self._membership.discovery
        if discovery is not None and not self._leaving and discovery.due(now):
            self._effects.append(Discover())
        self._extend(now)
        self._isolation.tell(now, self._unanswered)
        if not self._unanswered:
            self.unmet()
        self._flush()
        held = any(link.throttle.held_since is not None for link in self._links.values())
        due = now + HELD_LOOK_S if held else self._next_beat
        asked = float("inf") if discovery is None else discovery.next_due()
        return max(now, min(due, self._next_beat, self._book.next_due(self._needs_no_dial), asked))

    def leave(self, now: float) -> None:
        """Leave for good (not a restart): only with no worker attached and the ring healed to its tail."""
        self._leaving = True
        self._session.leave()
        for link in self._up.values():
            self._session.say_leave(link)
        self._flush()

    def left(self) -> bool:
        """True when every linked peer has applied everything. Bound the wait; then stop()."""
        return self._leaving and not any(self._session.unacked(link) for link in self._up.values())

    def stop(self, now: float) -> None:
        """Say goodbye and close every link: before the process ends, after leave() or for a restart."""
        for link in list(self._links.values()):
            self._close(link, "its bridge stops", now, "debug")

    def moved(self) -> set[str]:
        """Namespaces whose rings have moved by what came since the last call."""
        moved, self._session.moved = self._session.moved, set()
        return moved

    def effects(self) -> list[Effect]:
        """What to do now, in order; each is returned once."""
        effects, self._effects = self._effects, []
        effects += self._isolation.effects()
        return effects

    def tally(self) -> tuple[int, int]:
        """How many peers are up, of how many that `peers` would name, but for this host itself."""
        names = self._session.missed().union(self._up)
        others = (known for known in self._book if not known.is_self)
        return len(self._up), len(names) + sum(known.name not in names for known in others)

    def peers(self) -> list[PeerView]:
        """For logs and health."""
        names = set(self._up).union(self._session.missed())
        views = [self._view(name) for name in sorted(names)]
        for known in self._book:
            if known.name is None or known.name not in names:
                state = "self" if known.is_self else "connecting" if known.dialling else "waiting"
                views.append(PeerView(known.name or "", known.address, state))
        return views

    def namespaces(self, now: float) -> list[NamespaceView]:
        """For people and health."""
        return self._isolation.views(now, self._unanswered, self._reaches)

    def discovery(self) -> DiscoveryView | None:
        """For people and health; None where peers are configured."""
        return self._membership.discovery_view()

    def unmet(self) -> list[str]:
        """Whom this host knows of and has not met since its start. None, once all were met: who joins or dies
        later is no reason to send its users away."""
        if self._ready_once:
            return []
        asked = self._membership.unanswered(self._met.__contains__)
        unmet = list(dict.fromkeys([*asked, *self._book.unmet(self._met.__contains__, self._told_until)]))
        self._ready_once = not unmet
        return unmet

    # Who is at the other end

    def _guarded(self, link: Link, now: float, call: Callable[..., None], *arguments: object) -> None:
        """What goes wrong on a link costs that link; that another bridge has the segments does not."""
        try:
            call(*arguments)
        except BridgeRunning:
            raise
        except BridgeError as error:
            serious = link.up or isinstance(error, PeerConflict)  # of strangers there may be thousands
            self._close(link, str(error), now, "error" if serious else "warning" if link.dialled else "debug")

    def _on_message(self, link: Link, message: Message, now: float) -> None:
        link.check(message)
        if isinstance(message, Leave):
            self._on_leave(link, message, now)
        elif isinstance(message, State) and link.state in (LinkState.STATE, LinkState.UP):
            self._on_state(link, message, now)
        elif link.up:
            self._on_word(link, message, now)
        else:
            link.shake(message)
            if link.state is LinkState.PROVEN:
                self._on_proven(link, now)

    def _on_proven(self, link: Link, now: float) -> None:
        """The peer is who it says: is it somebody to talk to on this link?"""
        if link.name == self._name:
            self._on_own_name(link, now)
            return
        if link.address is not None:
            self._complaints.pop(link.address, None)
            self._book.answered(link.address, link.name)
            if link.name in self._up:
                self._gossip.teach_own(self._up[link.name])
        if self._wins(link, [rival for rival in self._links.values() if rival.claims(link)], now):
            link.accept(self._session.states(link))

    def _on_own_name(self, link: Link, now: float) -> None:
        if link.instance != self._instance:
            raise PeerConflict(
                f"another host is named {self._name!r} too; the link to it is closed; rename one of them"
            )
        if link.address is not None:  # the other end of the same link just waits to be closed
            self._book.found_self(link.address, link.remote_host, now)
            self._look_at_addresses()
            self._close(link, "this host itself", now, "debug")
            self._extend(now)

    def _wins(self, link: Link, rivals: list[Link], now: float) -> bool:
        """Whether `link` stays beside `rivals`, which have its name; else it is closed."""
        if any(rival.instance != link.instance for rival in rivals):
            self._contest(link, rivals, now)
            return False
        # The acceptor waits for STATE: until then it cannot know that the dialler means this link.
        decided = link.dialled or link.state is LinkState.STATE
        if decided and not all(link.replaces(rival) for rival in rivals):
            self._close(link, "another link to this host is up", now, "debug")
            return False
        return True

    def _contest(self, link: Link, rivals: list[Link], now: float) -> None:
        """Another life of a bridge has this name: it was restarted and its old link is dead, or two live.

        The old link is asked; while it is in doubt the new one is turned away, and comes back.
        """
        for rival in rivals:
            self._ask_rival(rival, link, now)
        reason = f"a link to another {link.name!r} is up and is being checked; come again"
        self._close(link, reason, now, "info")

    def _ask_rival(self, rival: Link, link: Link, now: float) -> None:
        """PeerConflict if `rival` has shown that it lives since `link`'s other end last came."""
        instance, alive_at = rival.outlived
        # A link that was opened before may bring a dead one's late word.
        if instance == link.instance and link.stamps.opened_at >= alive_at:
            raise PeerConflict(
                f"two live hosts are named {link.name!r}; the second is turned away; rename one"
            )
        if rival.up and rival.rival_at is None:
            rival.rival_at, rival.rival_instance = now, link.instance
            self._session.beats.beat(rival, now)

    def _on_state(self, link: Link, state: State, now: float) -> None:
        """The peer's namespaces. With the first one the link is up."""
        rises = not link.up
        rival = self._up.get(link.name)
        if rises and not self._wins(link, [rival] if rival is not None else [], now):
            return
        if rises and rival is None and self._is_late(link):
            self._close(link, "another bridge of that name was up meanwhile; come again", now, "info")
            return
        link.was_late = rises and self._book.is_late(link.name, now, self._settings.lost_after_s)
        link.on_state(state)
        self._up[link.name] = link
        self._paths.linked(link)
        if rises:
            self._session.uncover(link.name)
        if rises and rival is not None:
            self._close(rival, "replaced by another link", now, "debug")
        for row in state.namespaces:
            # A STATE that ends a handshake was sent after this side's HELLO had come: as good as an echo.
            self._session.meet(link, row, link.stamps.opened_at if rises else None, now)
        if rises:
            self._on_up(link, now)
        if len(state.namespaces) < ROWS_MAX and not link.told_all:
            link.told_all = True
            self._session.drop_absent(link, now)
        self._extend(now)

    def _is_late(self, link: Link) -> bool:
        """A host that lost power may be heard once more, after it came back as another and was met: what it
        was is no news of what it is. Who lives after all comes again."""
        instance, since = self._came.get(link.name, (link.instance, 0.0))
        return instance != link.instance and link.stamps.opened_at < since

    def _on_up(self, link: Link, now: float) -> None:
        self._effects.append(Proven(link.number))
        self._intake.came_up(link)
        link.was_late = False
        self._told_until = min(self._told_until, now + self._settings.lost_after_s)
        self._remember(link.name)
        self._since[link.name] = now
        self._came[link.name] = (link.instance, now)
        self._book.linked(link.name)
        if link.reach:
            self._book.learn(link.name, link.reach, now)
        self._look_at_addresses()
        self._say("info", f"{link.name} is up", peer=link.name, address=link.address or link.reach)
        self._gossip.teach_own(link)
        self._gossip.teach(link, self._reached())
        for other in self._up.values():
            self._gossip.teach(other, [link.name])

    def _remember(self, name: str) -> None:
        """Whoever was met has answered at the addresses that lead to him; who has none need not be known."""
        if len(self._met) >= ADDRESSES_MAX:
            self._met &= {known.name or "" for known in self._book}.union(self._up)
        self._met.add(name)
        self._known = None

    def _on_word(self, link: Link, message: Message, now: float) -> None:
        if isinstance(message, Frame):
            self._session.on_frame(link, message, now)
        elif isinstance(message, Beat | Calm):
            self._on_beat(link, message, now)
        elif isinstance(message, Replay):
            self._session.on_replay(link, message, now)
        elif isinstance(message, Follow):
            self._session.relaying.on_follow(link, message)
        elif isinstance(message, Sync):
            link.syncs[message] = None
        elif isinstance(message, Peers):
            self._on_peers(message, now)
        else:
            raise FrameError(f"{type(message).__name__} in state UP; the link is closed")

    def _on_beat(self, link: Link, beat: Beat | Calm, now: float) -> None:
        stamp = link.stamps.take(beat, now)
        if stamp is not None:
            self._book.works(link.name)
            if link.rival_at is not None and beat.echo >= microseconds(link.rival_at):
                link.rival_at, link.outlived = None, (link.rival_instance, now)
        self._session.beats.on_beat(link, beat, stamp, now)

    def _on_peers(self, message: Peers, now: float) -> None:
        for peer in message.peers:
            if peer.name == self._name:
                if self._book.told_self(peer.address, now):
                    self._look_at_addresses()
            elif not self._reaches(peer.name):
                self._book.learn(peer.name, peer.address, now)

    def _on_leave(self, link: Link, leave: Leave, now: float) -> None:
        if link.up and leave.heads:
            link.leaving = True
            self._say("info", f"{link.name} leaves for good", peer=link.name)
            self._session.on_leave(link, leave, now)
            self._session.beats.beat(link, now)
            return
        level: Level = "info" if link.up else "warning" if link.dialled else "debug"
        self._say(level, f"{link} closes the link: {leave.reason}", peer=link.name)
        self._close(link, "", now, "debug")

    # Keeping house

    def _extend(self, now: float) -> None:
        self._isolation.extend(now, self._unanswered)

    def _complain(self, address: str, failures: int, text: str) -> None:
        """Once for each reason, however often it is dialled."""
        if failures == 1 or (failures and self._complaints.get(address) != text):
            if len(self._complaints) >= ADDRESSES_MAX:
                self._complaints.clear()
            self._complaints[address] = text
            self._say("warning", f"{text}; it is dialled again", address=address)

    def _make_room(self, now: float) -> None:
        """Among the inbound links that prove nothing the oldest gives way: to keep others out, strangers must
        come faster than those prove themselves."""
        strangers = [known for known in self._links.values() if not (known.dialled or known.up)]
        if len(strangers) >= HANDSHAKES_MAX:
            self._close(strangers[0], "pushed out by newer links; it has proven nothing", now, "debug")

    def _ask_to_go_on(self) -> None:
        if (self._session.applies_maps or self._intake.waits) and not self._goes_on:
            self._goes_on = True
            self._effects.append(GoOn())

    def _reaches(self, name: str) -> bool:
        """Whether `name` is linked, or heard by way of others."""
        return name in self._up or name in self._paths.relayed

    def _reached(self) -> list[str]:
        return sorted(self._paths.relayed.keys() | self._up.keys())

    def _needs_no_dial(self, name: str) -> bool:
        """Everybody is met once; then only who is needed, or is not heard by way of others."""
        return name in self._up or (name in self._met and self._paths.spares(name))

    def _review(self, now: float) -> None:
        """By which ways the sources come, and which links nobody needs any more."""
        before = self._paths.relayed, self._paths.wanted
        unneeded = self._paths.review(self._up, now)
        if (self._paths.relayed, self._paths.wanted) != before:
            self._book.reach_changed()
        for link in unneeded:
            self._close(link, "both ends hear of each other by way of others", now, "debug")

    def _look_at_addresses(self) -> None:
        asked = self._membership.discovery
        now_known = self._book.changes, asked is not None and not asked.answers
        if now_known != self._known:
            self._known = now_known
            self._unanswered = self._membership.unanswered(self._met.__contains__)

    def _end_silent(self, now: float) -> None:
        for link in list(self._links.values()):
            reason = link.silent(now, self._settings.lost_after_s, HANDSHAKE_S)
            if reason is not None:
                self._close(link, reason, now, "warning" if link.up else "debug")
        if now < self._next_reach:
            return
        self._next_reach = now + REACH_S
        if self._book.out_of_reach(now, self._reaches, self._settings.lost_after_s - REACH_S):
            self._session.register.lost_at = now

    def _beats(self, now: float) -> None:
        self._session.beats.heads.are_known = False
        for link in self._up.values():
            self._session.beats.beat_if_due(link, now)
            if link.room() and self._session.unacked(link):
                link.send(Sync())

    def _look_around(self, now: float) -> None:
        self._session.look_for_room(now)
        kept = self._session.waited_for().union(self._up)
        self._session.register.keep(kept)
        self._since = {name: at for name, at in self._since.items() if name in kept}
        self._came = {name: came for name, came in self._came.items() if name in kept}
        if self._up:
            link = self._rng.choice(list(self._up.values()))
            self._gossip.teach(link, self._reached())

    def _hello(self) -> Hello:
        return greeting(self._settings, self._name, self._instance, self._rng.randbytes(RANDOM_BYTES))

    def _flush(self) -> None:
        while self._ready:
            self._send(self._ready.pop(0))

    def _send(self, link: Link) -> None:
        for data in link.sent():
            self._effects.append(Send(link.number, data))

    def _close(self, link: Link, reason: str, now: float, level: Level) -> None:
        """Say why ("" when the peer has said it), close, forget."""
        if reason:
            self._say(level, f"closing the link to {link}: {reason}", peer=link.name)
            link.send(Leave(printable(reason), ()))
        self._send(link)
        self._effects.append(Close(link.number, reason, not (link.dialled or link.proven)))
        self._forget(link, now)

    def _forget(self, link: Link, now: float) -> int:
        """How many links dialled at its address have failed in a row; 0 if it was not dialled."""
        del self._links[link.number]
        self._intake.forget(link)
        if self._up.get(link.name) is link:
            del self._up[link.name]
            self._book.reach_changed(link.name)
        failures = 0
        if link.address is not None:
            failures = self._book.failed(link.address, now, (link.remote_host,))
        self._session.relaying.unlinked(link)
        if link.up and link.name not in self._up:
            self._part(link, now)
        return failures

    def _part(self, link: Link, now: float) -> None:
        """The last link to a host is gone."""
        self._since[link.name] = now
        self._paths.unlinked(link, now)
        if link.leaving and not self._session.is_missed(link.name):
            self._book.left(link.name)
        else:
            self._book.lost(link.name, now)
            if self._paths.wants(link.name):
                self._membership.lost(now)

    def _view(self, name: str) -> PeerView:
        link = self._up.get(name)
        address = (link.address or link.reach) if link is not None else self._book.of(name)
        streams = streams_of(self._session, name, link)
        inbound, held = (not link.dialled, link.throttle.times_held) if link is not None else (False, 0)
        through = "" if link is not None else self._paths.relayed.get(name, "")
        state = "up" if link else "relayed" if through else "down"
        return PeerView(name, address, state, self._moved_at(name), inbound, through, held, streams)

    def _moved_at(self, name: str) -> float:
        """When it came to be up or down."""
        return self._since.get(name, self._started_at)

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _say(self, level: Level, text: str, **fields: str | int | float) -> None:
        self._effects.append(Log(level, text, fields))
