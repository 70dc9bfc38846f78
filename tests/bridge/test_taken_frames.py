"""Frames that are taken at once have the same consequences as frames that are looked at one by one.

Two hosts are told the same, byte for byte, at the same times. In one, the segments take ordinary frames off
a link's bytes; in the other they take none, so Python decodes and looks at each. After each step all that
either host knows or wants is compared: effects, segments, sources, budgets, and what it would relay.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cachee_shm
from cachee_bridge.links.versions import OFFER, RANDOM_BYTES
from cachee_bridge.ports.effects import Close, Send
from cachee_bridge.ports.settings import Settings
from cachee_bridge.protocol.mesh import Mesh
from cachee_bridge.streams.stream import PACK_BYTES
from cachee_bridge.wire import auth
from cachee_bridge.wire.frames import FRAME_NUMBER, PREFIX, encode
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    SENT,
    Auth,
    Beat,
    Calm,
    FinalHead,
    Follow,
    Frame,
    Head,
    Hello,
    Leave,
    NamespaceState,
    Replay,
    State,
    Sync,
)
from cachee_bridge.wire.seal import Seal
from tests.bridge.meshes import SECRET, FakeStore, key
from tests.cachee_shm.bridged import with_bridge

NAMESPACES = ("shop", "news", "a-namespace-with-a-name-of-more-than-31-letters")
INCARNATION = 4


class Watched:
    """A segment that takes frames and counts them, or takes none."""

    taken = 0

    def __init__(self, segment: Any, takes: bool) -> None:
        self.segment, self.takes = segment, takes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.segment, name)

    def receive(self, *arguments: Any) -> Any:
        taken = self.segment.receive(*arguments) if self.takes else None
        Watched.taken += taken[2] if taken else 0
        return taken


def plain(value: Any) -> Any:
    """For comparing: what a part of the protocol knows, without other parts."""
    if isinstance(value, (int, float, str, bytes, type(None))):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple, deque)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {plain_key: plain(each) for plain_key, each in value.items() if type(plain_key) in (str, int)}
    return type(value).__name__


def parts(thing: Any) -> dict[str, Any]:
    return {name: plain(value) for name, value in vars(thing).items()}


class Twins:
    def __init__(self, stores: Callable[[], Any], sealed: bool, budget: float) -> None:
        self.now = 100.0
        self.sealed = sealed
        chosen = Settings(secrets=(SECRET,) if sealed else (), peer_budget=budget)
        self.stores = [{ns: Watched(stores(), takes) for ns in NAMESPACES} for takes in (True, False)]
        self.meshes = [Mesh("web-1", held, chosen, random.Random(7)) for held in self.stores]
        self.said: list[str] = []
        self.closed: set[int] = set()
        self.heard: dict[int, list[Any]] = {}
        self.each(lambda mesh: mesh.start(self.now))

    def each(self, call: Callable[[Mesh], Any]) -> None:
        for mesh in self.meshes:
            call(mesh)
        self.compare()

    def compare(self) -> None:
        effects = [mesh.effects() for mesh in self.meshes]
        assert effects[0] == effects[1], self.said[-5:]
        for effect in effects[0]:
            if isinstance(effect, Close):
                self.closed.add(effect.link)
            elif isinstance(effect, Send):
                self.hear(effect)
        for known in ("known", "logs", "segments"):
            states = [list(getattr(self, known)(at)) for at in (0, 1)]
            assert states[0] == states[1], (known, self.said[-5:])
        for taken, looked_at, cursor in zip(self.carried(0), self.carried(1), self.cursors(0), strict=True):
            assert looked_at <= taken <= cursor, self.said[-5:]

    def hear(self, effect: Send) -> None:
        length, number = PREFIX.unpack_from(effect.data)
        body = effect.data[PREFIX.size : PREFIX.size - 1 + length]
        self.heard.setdefault(effect.link, []).append((number, msgpack.unpackb(body)))

    # What is compared

    def known(self, at: int) -> Iterator[Any]:
        mesh = self.meshes[at]
        namespaces = mesh._session.namespaces
        yield sorted(namespaces.touched), sorted(namespaces.moved)
        for number, link in mesh._links.by_number.items():
            yield number, parts(link), parts(link.throttle), parts(link.throttle.budget)
            yield parts(link.beat_schedule), bytes(link.decoder.kept), parts(link.ledger)
        for namespace, members in namespaces.members.items():
            yield namespace, parts(members), sorted(members.sources)
            for name, inbox in members.sources.items():
                known = {part: value for part, value in parts(inbox).items() if part != "carried"}
                yield name, known, parts(inbox.freshness), parts(inbox.repairs), parts(inbox.asker)
                yield parts(namespaces.register.word(name))

    def carried(self, at: int) -> list[int]:
        """Of frames that are taken at once only the last position of all is known: it may be too high, and
        what is asked of another host then is more than needed."""
        return [inbox.carried for inbox in self.inboxes(at)]

    def cursors(self, at: int) -> list[int]:
        return [inbox.cursor for inbox in self.inboxes(at)]

    def inboxes(self, at: int) -> Iterator[Any]:
        for members in self.meshes[at]._session.namespaces.members.values():
            yield from members.sources.values()

    def logs(self, at: int) -> Iterator[Any]:
        """Where frames overlap, or a cursor has jumped, the log that is kept unread may begin later."""
        for of, log in sorted(self.meshes[at]._session.relaying._logs.items()):
            log.after(0)
            other = self.meshes[1 - at]._session.relaying._logs[of]
            other.after(0)
            kept = min(len(log._frames), len(other._frames))
            yield of, log.incarnation, log.end, list(log._frames)[len(log._frames) - kept :]
            if at == 0:
                assert log.start >= other.start

    def segments(self, at: int) -> Iterator[Any]:
        for namespace, store in self.stores[at].items():
            yield namespace, store.sources(), store.tail, store.pump_cursor, ring_of(store.segment)

    # What happens

    def open(self, number: int, name: str, last: dict[str, int] | None = None) -> Peer:
        self.each(lambda mesh: mesh.link_opened(number, None, self.now, "10.0.0.9"))
        return Peer(self, number, name, last or dict.fromkeys(NAMESPACES, 20))

    def bring(self, number: int, data: bytes) -> None:
        self.said.append(f"{number} {data.hex()[:400]}")
        if number not in self.closed:
            self.each(lambda mesh: mesh.received(number, data, self.now))
        while any(mesh._goes_on for mesh in self.meshes):
            self.each(lambda mesh: mesh.go_on(self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.each(lambda mesh: mesh.tick(self.now))
        for number in self.heard:
            self.each(lambda mesh, number=number: mesh.writable((number,), self.now))


def ring_of(segment: Any) -> Any:
    """All records that are still there."""
    if isinstance(segment, FakeStore):
        return segment.applied, segment.stored
    count, events = segment.read_ring(max(0, segment.tail - segment.ring_slots), 4096)
    return count, events.hex()


class Peer:
    """One link to both hosts, up at once."""

    def __init__(self, twins: Twins, number: int, name: str, last: dict[str, int]) -> None:
        self.twins, self.number, self.name, self.last = twins, number, name, last
        self.life = dict.fromkeys(NAMESPACES, INCARNATION)
        self.seal: Seal | None = None
        mine = Hello("cachee", 2, name, 5, b"n" * RANDOM_BYTES + OFFER + b"\3", self.mode, "", "")
        self.say(mine)
        if twins.sealed:
            theirs = Hello(*next(each for kind, each in twins.heard[number] if kind == 1))
            said = auth.transcript(mine, theirs)
            self.say(Auth(auth.prove((SECRET,), auth.DIALLER, said)))
            self.seal = auth.seals(SECRET, said)[0]
        rows = ((ns, INCARNATION, last[ns], self.fingerprint(ns)) for ns in NAMESPACES)
        self.say(State(tuple(NamespaceState(*each) for each in rows)))

    @property
    def mode(self) -> str:
        return "secret" if self.twins.sealed else "none"

    def fingerprint(self, namespace: str) -> int:
        return int(self.twins.stores[0][namespace].hash_key_fingerprint)

    def whole(self, message: Any) -> bytes:
        data = message if isinstance(message, bytes) else encode(message)
        return data + self.seal.of(data) if self.seal is not None else data

    def say(self, *messages: Any) -> None:
        self.twins.bring(self.number, b"".join(map(self.whole, messages)))


class Script:
    """What comes, drawn from chance: `random.Random`, or hypothesis's."""

    def __init__(self, chance: Any, twins: Twins) -> None:
        self.chance, self.twins = chance, twins
        self.numbers = itertools.count(1)
        self.peers = [twins.open(next(self.numbers), name) for name in ("web-2", "web-3")]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.chance.random() < 0.15:
                self.twins.wait(self.chance.choice((0.0, 0.01, 0.1, 0.3)))
            at = self.chance.randrange(len(self.peers))
            if self.peers[at].number in self.twins.closed:
                self.peers[at] = self.twins.open(next(self.numbers), self.peers[at].name, self.peers[at].last)
            self.step(self.peers[at])

    def step(self, peer: Peer) -> None:
        for namespace, store in self.twins.stores[1].items():  # as if what is missing were sent again
            for _, name, incarnation, cursor in store.sources():
                if (name, incarnation) == (peer.name, peer.life[namespace]):
                    peer.last[namespace] = cursor
        messages = [self.message(peer) for _ in range(self.chance.choice((1, 1, 2, 5, 12, 90)))]
        data = bytearray(b"".join(map(peer.whole, messages)))
        if self.chance.random() < 0.02:
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        cuts = [self.chance.randrange(len(data) + 1) for _ in range(self.chance.choice((0, 0, 0, 1, 3)))]
        at = 0
        for cut in [*sorted(cuts), len(data)]:
            if cut > at:
                self.twins.bring(peer.number, bytes(data[at:cut]))
            at = cut

    def message(self, peer: Peer) -> Any:
        if self.chance.random() < 0.93:
            return self.frame(peer)
        now, chance = int(self.twins.now * 1e6), self.chance
        ns = chance.choice(NAMESPACES)
        head = Head(ns, peer.name, peer.life[ns], peer.last[ns] + chance.choice((0, 0, 0, 3)), 0, SENT)
        echo = chance.choice((0, 100_000_000, now))
        return chance.choice(
            (
                Beat(now, echo, (head,), ()),
                Beat(now, echo, (head,), ()),
                Calm(now, echo, (head,), (), chance.choice((0, 77)), 0),
                Sync(),
                Follow(("web-1", *(("web-2", "web-3") if chance.random() < 0.1 else ()))),
                Replay("shop", chance.choice(("web-1", "web-2", "web-3")), INCARNATION, 1),
                State((NamespaceState(ns, peer.life[ns], peer.last[ns], peer.fingerprint(ns)),)),
                Leave("for good", (FinalHead(ns, peer.life[ns], peer.last[ns] + chance.choice((0, 2))),)),
            )
        )

    def frame(self, peer: Peer) -> Any:
        """In order, most of the time."""
        chance = self.chance
        namespace = chance.choice(NAMESPACES if chance.random() < 0.5 else NAMESPACES[:1])
        odd = chance.random()
        if odd < 0.01:
            return longer_form(namespace, peer.name, peer.last[namespace] + 1)
        first = peer.last[namespace] + 1
        if odd < 0.02:
            first = max(1, first + chance.choice((-5, 1, 2)))
        last = first + chance.choice((0, 0, 0, 1, 7))
        if odd > 0.01:
            peer.last[namespace] = max(peer.last[namespace], last)
        source = chance.choice(("web-2", "web-3", "web-9")) if 0.02 < odd < 0.024 else peer.name
        if 0.03 < odd < 0.031:
            peer.life[namespace] += 1
        incarnation = peer.life[namespace] - (0.031 < odd < 0.033)
        if 0.04 < odd < 0.042:
            namespace = "none"
        return Frame(namespace, source, incarnation, first, last, self.payload())

    def payload(self) -> bytes:
        chance = self.chance
        odd = chance.random()
        if odd < 0.01:
            return PAYLOAD_ALL
        if odd < 0.013:
            return chance.choice((b"\xff", b"\1\0", key(1) + b"\0", b"\6" + bytes(20)))
        if odd < 0.015:
            return key(1) * (PACK_BYTES // 9 + chance.choice((0, 1)))
        records = (key(3), key(4), b"\2" + bytes(16), b"\3" + bytes(8), b"\4", b"\7" + bytes(8), PAYLOAD_ALL)
        return b"".join(chance.choice(records) for _ in range(chance.choice((0, 1, 1, 1, 2, 4))))


def longer_form(namespace: str, source: str, first: int) -> bytes:
    """A frame as another packer may write it: each number in eight bytes."""
    text = b"".join(msgpack.packb(each) for each in (namespace, source))
    numbers = b"".join(b"\xcf" + number.to_bytes(8, "big") for number in (INCARNATION, first, first))
    body = b"\x96" + text + numbers + b"\xc6\0\0\0\0"
    return PREFIX.pack(len(body) + 1, FRAME_NUMBER) + body


@given(chance=st.randoms(use_true_random=False), sealed=st.booleans(), tight=st.booleans())
@settings(deadline=None)
def test_frames_have_the_same_consequences_taken_at_once_or_looked_at_one_by_one(
    chance: random.Random, sealed: bool, tight: bool
) -> None:
    twins = Twins(lambda: FakeStore(incarnation=7), sealed, 60_000 if tight else 16 << 20)
    Script(chance, twins).run(12)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_holds_of_real_segments(seed: int, config: dict[str, Any]) -> None:
    before = Watched.taken
    with ExitStack() as stack:
        names = iter(range(100))

        def segment() -> Any:
            named = {**config, "host": {**config["host"], "name": f"{config['host']['name']}-{next(names)}"}}
            named = with_bridge({**named, "namespaces": {"shop": {"memory": "2MiB"}}})
            real = stack.enter_context(cachee_shm.attach(config=named))
            assert real.bridge_acquire()
            real._freeze(1_000_000)
            real.raise_incarnation(2**62)
            return real

        twins = Twins(segment, sealed=seed % 2 == 1, budget=16 << 20)
        Script(random.Random(seed), twins).run(60)
    assert Watched.taken - before > 100


def test_a_mesh_takes_frames_at_once_where_nothing_is_odd() -> None:
    twins, before = Twins(lambda: FakeStore(incarnation=7), False, 16 << 20), Watched.taken
    peer = twins.open(1, "web-2")
    peer.say(*[Frame("shop", "web-2", INCARNATION, 21 + n, 21 + n, key(n)) for n in range(50)])
    assert Watched.taken - before == 50
    assert [store["shop"].sources()[0][3] for store in twins.stores] == [70, 70]
