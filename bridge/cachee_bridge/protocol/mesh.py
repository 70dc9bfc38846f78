"""The protocol of one host, with all its links. Input: bytes, records, now. Output: effects.

The shell, in full:

    mesh = Mesh(name, stores, settings, random.SystemRandom())
    mesh.start(now); mesh.set_peers(addresses, now); perform(mesh.effects())
    socket opened        mesh.link_opened(link, address or None, now, remote_host, identity)
    dial failed          mesh.connect_failed(address, reason, now, dialled)
    own address dialled  mesh.found_self(address, now)
    the DNS answered     mesh.discovered(addresses, ttl_s, now), or mesh.discovery_failed(reason, now)
    bytes came           mesh.received(link, data, now)
    sockets drained      mesh.writable(links, now)
    socket closed        mesh.link_closed(link, reason, now)
    ring written to      mesh.ring_moved(namespace, now)
    deadline passed      deadline = mesh.tick(now)
    secret changed       mesh.renew(secrets)
    unopened segments    mesh.tell_unserved(namespaces)
    GoOn was an effect   mesh.go_on(now)
    TickSoon was one     deadline = mesh.tick(now), at the next heartbeat
    after each of these  perform(mesh.effects())

The parts:

    a link's life    opening.py, link.py (proof), admission.py, arbiter.py (two links to one name), arrival.py
                     (up), link_ends.py
    its messages     intake.py (slices, budget), dispatch.py, session.py (what follows from each)
    peers            addresses.py, dialling.py, gossip.py, paths.py (by which way a source is followed),
                     belonging.py (which hosts belong no more), readiness.py, presence.py
    for readers      isolation.py (until when a namespace may be served)
    for people       views.py
    between bridges  questions.py (what a peer holds of a key, and what happened to it),
                     fetches.py (peer fill)
    time             rounds.py
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cachee_bridge.links.link_table import LinkTable
from cachee_bridge.membership.addresses import AddressBook
from cachee_bridge.ports.effects import Effect, GoOn
from cachee_bridge.ports.settings import Settings
from cachee_bridge.ports.store import Store
from cachee_bridge.ports.views import PeerView, StreamView
from cachee_bridge.protocol.admission import Admission
from cachee_bridge.protocol.arbiter import Arbiter
from cachee_bridge.protocol.arrival import Arrival
from cachee_bridge.protocol.belonging import Belonging
from cachee_bridge.protocol.budgets import Budgets
from cachee_bridge.protocol.collected import Collected
from cachee_bridge.protocol.dialling import Dialling
from cachee_bridge.protocol.dispatch import Dispatch
from cachee_bridge.protocol.fetches import Fetches
from cachee_bridge.protocol.gossip import Gossip
from cachee_bridge.protocol.intake import Intake
from cachee_bridge.protocol.isolation import Isolation
from cachee_bridge.protocol.link_ends import LinkEnds
from cachee_bridge.protocol.opening import Opening
from cachee_bridge.protocol.paths import Paths
from cachee_bridge.protocol.presence import Presence
from cachee_bridge.protocol.questions import Questions
from cachee_bridge.protocol.readiness import Readiness
from cachee_bridge.protocol.rounds import Rounds
from cachee_bridge.protocol.session import Session
from cachee_bridge.protocol.views import Views
from cachee_bridge.sources.boots import instance_of
from cachee_bridge.wire import auth

if TYPE_CHECKING:
    from cachee_bridge.wire.identity import Identity

__all__ = ["Mesh", "PeerView", "Settings", "Store", "StreamView"]

HEAL_RECORDS_MAX = 4096
"""Takes a fraction of a millisecond; then the healed records are sent before more are healed."""


class Mesh:
    """The protocol core. Not thread-safe; every time is `now`: seconds of this host's CLOCK_BOOTTIME."""

    _goes_on = False
    """GoOn is among the effects, or `go_on` is still to be called."""

    def __init__(
        self, name: str, stores: Mapping[str, Store], settings: Settings, rng: random.Random, boot: int = 0
    ) -> None:
        """`rng` makes nonces too: pass random.SystemRandom() outside of tests. `boot`: u32, the life of the
        host's shared memory (sources/boots.py). AuthError for an unusable secret."""
        auth.check_secrets(settings.secrets)
        instance, lost_after_s = instance_of(boot, rng.getrandbits(64)), settings.lost_after_s
        self._stores, self._rng = dict(stores), rng
        self._effects, self._links = effects, links = Collected(), LinkTable()
        self._presence = presence = Presence()
        self._session = session = Session(name, settings, links, rng, effects)
        self._book = book = AddressBook(name, settings.backoff_first_s, settings.backoff_max_s, rng)
        self._paths = paths = Paths(name, settings, session, links, book, effects.say)
        self._belonging = belonging = Belonging(book, session.namespaces, settings, effects.say)
        self._readiness = readiness = Readiness(book, belonging, links, lost_after_s)
        self._isolation = isolation = Isolation(session.namespaces, readiness, lost_after_s, effects.say)
        self._dialling = dialling = Dialling(book, links, session.namespaces, paths, readiness, effects)
        self._ends = ends = LinkEnds(links, session, book, dialling, paths, belonging, presence, effects)
        gossip, arbiter = Gossip(name, book, links, paths, readiness), Arbiter(session.beats, ends)
        self._opening = Opening(name, instance, settings, rng, links, ends, session.farewell, effects)
        admission = Admission(
            name, instance, links, book, dialling, readiness, isolation, session.offers, gossip, arbiter, ends
        )
        arrival = Arrival(
            lost_after_s,
            links,
            session,
            book,
            paths,
            readiness,
            isolation,
            presence,
            Budgets(),
            gossip,
            arbiter,
            ends,
            effects,
        )
        self.questions = Questions(links, session.namespaces, effects)
        self.fetches = fetches = Fetches(name, settings, links, session.namespaces, effects)
        """What this host asks its peers, about keys and for values, and what it answers them."""
        dispatch = Dispatch(
            session, admission, arrival, arbiter, gossip, book, self.questions, fetches, ends, effects
        )
        self._intake = Intake(session.beats, session.receiving, dispatch.on_message, ends.guarded, effects)
        self._rounds = Rounds(
            settings, rng, links, session, book, paths, dialling, belonging, presence, gossip, ends, effects
        )
        self.views = Views(links, session, book, paths, presence, isolation, belonging, readiness, ends)
        """For people and health."""

    def start(self, now: float, wall_ahead_s: float = 0.0) -> None:
        """Once, before anything else. Cursors come from the stores. `wall_ahead_s`: what the wall clock is
        ahead of `now`. Hosts whose wall clocks agree beat at one moment."""
        self._session.beats.wall_ahead_s = wall_ahead_s
        for namespace, store in self._stores.items():
            self._session.namespaces.enter(namespace, store, now)
            self.fetches.entered(namespace, now)
        self._presence.started_at = now
        self._rounds.start(now)

    # Peers

    def set_peers(self, addresses: Iterable[str], now: float) -> None:
        """Set all addresses ("host:port") of the configuration. Each isolates this host until a host has
        answered there, or until the configuration no longer names it."""
        self._effects.stir()
        self._belonging.configured(addresses, self._readiness.is_met, now)
        self._readiness.look()

    def discover(self, what: str, now: float) -> None:
        """Ask `what` for addresses again and again, by Discover effects. Until the first answer this host is
        isolated."""
        self._effects.stir()
        self._belonging.discover(what, self._rng, now)
        self._readiness.look()

    def discovered(self, addresses: Collection[str], ttl_s: float, now: float) -> None:
        """All addresses that discovery names, for `ttl_s`."""
        self._effects.stir()
        self._belonging.discovered(addresses, ttl_s, self._readiness.is_met, now)
        self._readiness.look()

    def discovery_failed(self, reason: str, now: float) -> None:
        """Discovery did not answer."""
        self._effects.stir()
        self._belonging.failed(reason, now)

    def forget(self, who: str, now: float) -> str:
        """Remove a lost peer, by name, or an address where no host answered. Returns what will happen, in
        words.

        NotForgotten, with the reason, when nothing will.
        """
        self._effects.stir()
        return self._belonging.forget(who, self._paths.reaches, self._readiness.is_met, now)

    def connect_failed(self, address: str, reason: str, now: float, dialled: Collection[str] = ()) -> None:
        """A Connect failed. `dialled`: the IP addresses that were tried, if the name had any."""
        self._effects.stir()
        self._dialling.failed(address, reason, now, dialled)
        self._readiness.look()

    def found_self(self, address: str, now: float) -> None:
        """`address` leads to this host, as its interfaces say: no other host is waited for there."""
        if self._book.is_own(address, now):
            self._effects.stir()
            self._readiness.look()

    # Namespaces

    def add_namespace(self, namespace: str, store: Store, now: float) -> None:
        """Add a namespace that was made after the start, or made anew; peers are told at once."""
        self._effects.stir()
        self._session.namespaces.enter(namespace, store, now)
        self.fetches.entered(namespace, now)
        for link in self._links.up.values():
            link.unshare(namespace)
        self._session.offers.announce(namespace)
        for link in list(self._links.up.values()):
            self._session.meeting.entered(link, namespace)
            if namespace in link.theirs:
                meet, row = self._session.meeting.meet, link.theirs[namespace]
                self._ends.guarded(link, now, meet, link, row, None, now)
        self._effects.flush(self._links.ready)

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """Namespaces whose segments exist on this host but cannot be opened: peers must not take them for
        absent."""
        self._effects.stir()
        self._session.offers.tell_unserved(namespaces)
        self._effects.flush(self._links.ready)

    def ring_moved(self, namespace: str, now: float, max_records: int = HEAL_RECORDS_MAX) -> int:
        """This ring has new records, or a worker waits for the peers: heal at most `max_records` records,
        then send. Returns the healed position."""
        self._effects.stir()
        healed = self._session.sending.forward(namespace, self._paths.ordered(), max_records)
        self._effects.flush(self._links.ready)
        return healed

    def moved(self) -> set[str]:
        """Namespaces whose rings have grown by received records since the last call."""
        return self._session.namespaces.take_moved()

    # Links

    def renew(self, secrets: Sequence[bytes]) -> None:
        """Use these secrets for new links. AuthError for an unusable secret: nothing changes."""
        self._opening.renew(secrets)

    def link_opened(
        self,
        link: int,
        address: str | None,
        now: float,
        remote_host: str = "",
        identity: Identity | None = None,
    ) -> None:
        """A socket is connected. `link` is a number never used before; `address` is None for an inbound one;
        `remote_host` is the IP address of the other end (IPv6 without brackets); `identity` is the content of
        its verified certificate, None without TLS."""
        self._effects.stir()
        self._opening.open(link, address, remote_host, identity, now)
        self._effects.flush(self._links.ready)

    def received(self, link: int, data: bytes, now: float, wire_bytes: int = 0) -> None:
        """Bytes from `link`, in order. Bad bytes close that link only. `wire_bytes`: as sent, with TLS."""
        known = self._links.by_number.get(link)
        if known is None:
            return
        self._intake.receive(known, data, now, wire_bytes)
        if not known.beat_schedule.is_quiet(True):
            self._effects.stir()
        self._isolation.extend_if_all_reported(now)
        self._ask_to_go_on()
        self._effects.flush(self._links.ready)

    def go_on(self, now: float) -> None:
        """Do some milliseconds of the work that takes longer."""
        self._effects.stir()
        self._goes_on = False
        self._intake.go_on(now)
        self._session.receiving.go_on(self._links.up)
        self._ask_to_go_on()
        self._effects.flush(self._links.ready)

    def writable(self, links: Iterable[int], now: float) -> None:
        """Everything sent on `links` has left the process's buffers, or they have fallen to their low mark.
        Call this after each such Send; otherwise the link stops sending after `ALLOWANCE_BYTES`."""
        for link in links:
            known = self._links.by_number.get(link)
            if known is not None and known.drained() and known.up:  # else all that there was to send has been
                self._session.sending.pump(known)
                self._effects.stir()
        self._effects.flush(self._links.ready)

    def link_closed(self, link: int, reason: str, now: float) -> None:
        """The other end closed, or an error."""
        known = self._links.by_number.get(link)
        if known is not None:
            self._effects.stir()
            self._ends.closed(known, reason, now)

    # Time

    def tick(self, now: float) -> float:
        """Beats, time-outs, reconnects. Returns when to be called next (also harmless at any other time):
        where all is calm, at the next calm beats, or earlier if TickSoon says so."""
        self._intake.read_on(self._links.by_number.values(), now)
        self._ask_to_go_on()
        self._rounds.close_links(now)
        self._belonging.look(self._paths.reaches, self._presence.since, now)
        self._readiness.look()
        self._rounds.speak(now)
        self._rounds.dial(now)
        self._isolation.extend(now)
        self._isolation.report(now)
        self.questions.expire(now)
        self.fetches.look(now)
        if not self._readiness.unanswered:
            self._readiness.unmet()
        self._effects.flush(self._links.ready)
        calm = self._isolation.is_calm and self._rounds.is_calm() and not self.fetches.is_busy
        self._effects.put_off(calm)
        return min(self._rounds.next_due(now, calm), max(now, self.questions.next_due()))

    # The end

    def leave(self, now: float) -> None:
        """Leave for good (not for a restart). Call it only when no worker is attached and the ring is healed
        to its tail."""
        self._effects.stir()
        self._session.farewell.begin()
        for link in self._links.up.values():
            self._session.farewell.say(link)
        self._effects.flush(self._links.ready)

    def left(self) -> bool:
        """True when every linked peer has applied everything. Bound the wait; then stop()."""
        farewell = self._session.farewell
        return farewell.begun and not any(farewell.unacked(link) for link in self._links.up.values())

    def stop(self, now: float) -> None:
        """Say goodbye and close every link: before the process ends, after leave() or for a restart."""
        for link in list(self._links.by_number.values()):
            self._ends.close(link, "its bridge stops", now, "debug")

    # Effects

    def effects(self) -> list[Effect]:
        """What to do now, in order; each is returned once."""
        return [*self._effects.take(), *self._isolation.effects()]

    def _ask_to_go_on(self) -> None:
        if (self._session.receiving.applies_maps or self._intake.waits) and not self._goes_on:
            self._goes_on = True
            self._effects.add(GoOn())
