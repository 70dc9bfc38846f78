"""A host between a peer and attackers, who may say anything at any stage of a link.

"v" is the victim and "g" its peer, both real meshes, joined by a cable; with a shared secret, or without.
Each attacker opens a link or is dialled, shakes hands as far as he likes, with the secret if he knows it, and
says what an input's script makes up. Meanwhile v and g write, and time passes.

    Nothing but an effect comes out of v's mesh, whatever comes in.
    Who does not know the secret gets no further than AUTH, and nothing of him is applied.
    Who has a certificate is believed in its name and its namespace alone.
    The link to g stays up; what v and g wrote arrives at the other, once, in order; g is not isolated.
    What an attacker makes v hold is bounded, also if he never reads.
"""

from __future__ import annotations

from cachee_bridge.links.link import UNREAD_BYTES_MAX, Link
from cachee_bridge.links.stamps import microseconds
from cachee_bridge.links.states import LinkState
from cachee_bridge.links.versions import OFFER, RANDOM_BYTES
from cachee_bridge.membership.addresses import ADDRESSES_MAX
from cachee_bridge.ports.effects import Send
from cachee_bridge.protocol.opening import HANDSHAKES_MAX
from cachee_bridge.streams.freshness import WAITING_MAX
from cachee_bridge.wire import auth
from cachee_bridge.wire.frames import PREFIX, decode, encode
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    PAYLOAD_ALL_KNOWN,
    ROWS_MAX,
    Auth,
    Beat,
    Hello,
    Message,
    NamespaceState,
    State,
)
from cachee_bridge.wire.seal import SEAL_BYTES, Seal
from tests.bridge.meshes import SECRET, Cable, FakeStore, Node, key
from tests.fuzz.script import Script

CERTIFICATE = Identity({"evil": frozenset({"shop"})})
"""Of some attackers."""
OPS_MAX = 60
"""Of one attacker."""
AGAIN_MAX = 1500
"""A message many times over: what is not bounded shows."""
SOURCES_MAX = 4
"""As a segment has few places for sources."""
REPLIES_BYTES = 1 << 20
"""What may come to lie beyond that before the next tick: replies to a burst of a peer's whole budget."""


class Store(FakeStore):
    def __init__(self) -> None:
        """Nobody is lapped, and there is room for few sources."""
        super().__init__(ring_slots=1 << 20, source_slots=SOURCES_MAX + 1)

    def source_store(self, index: int, incarnation: int, cursor: int) -> None:
        assert 0 <= incarnation < 2**64 and 0 <= cursor < 2**64
        super().source_store(index, incarnation, cursor)


def stores() -> dict[str, FakeStore]:
    return {"shop": Store(), "news": Store()}


class World(Cable):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script, self.secrets = script, (SECRET,) if script.below(2) else ()
        self.attackers: dict[int, Attacker] = {}
        self.heard = 0
        """What attackers have sent, in messages or pieces of bytes."""
        self.believed = False
        """Some attacker has come as far as STATE who may: what he says counts."""
        self.g = self.node("g", (), stores(), secrets=self.secrets, newest_wire=script.one_of(3, 3, 2))
        self.v = self.node("v", ("g",), stores(), secrets=self.secrets)
        self.run(0.1)
        self.written: dict[str, list[bytes]] = {"v": [], "g": []}
        assert self.v.state_of("g") == self.g.state_of("v") == "up"

    def link(self, number: int) -> Link | None:
        return self.v.mesh._links.by_number.get(number)

    def write(self, node: Node) -> None:
        payload = key(2**32 + len(self.written[node.name]))
        self.written[node.name].append(payload)
        node.write(payload)

    def _carry(self, node: Node, effect: Send) -> None:
        if effect.link in self.attackers:
            self.attackers[effect.link].hear(effect.data)
        else:
            super()._carry(node, effect)

    # What must hold

    def check(self) -> None:
        assert "g" in self.v.mesh._links.up and "v" in self.g.mesh._links.up
        links = self.v.mesh._links.by_number
        assert sum(not (link.dialled or link.up) for link in links.values()) <= HANDSHAKES_MAX
        assert len(self.v.mesh._book.table) <= ADDRESSES_MAX
        for number, link in links.items():
            if (attacker := self.attackers.get(number)) is not None:
                attacker.check(link)
        if not self.believed:
            assert self.foreign() == 0
        for members in self.v.mesh._session.namespaces.members.values():
            assert all(len(inbox.freshness._waiting) <= WAITING_MAX for inbox in members.sources.values())
            assert len(members.sources) <= SOURCES_MAX

    def foreign(self) -> int:
        """How much of what v applied is not g's, and how many sources it has beside g."""
        held = self.v.stores.values()
        names = [{index: slot[0] for index, slot in store.table.items()} for store in held]
        return sum(
            sum(name != "g" for name in known.values())
            + sum(known.get(source) != "g" for source, _ in store.applied)
            for known, store in zip(names, held, strict=True)
        )

    def check_end(self) -> None:
        """Written once more on both sides, and a moment later."""
        self.write(self.v), self.write(self.g)
        self.run(0.2)
        self.check()
        assert arrived(self.g.store) == self.written["v"]
        assert [one for one in arrived(self.v.store) if one in self.written["g"]] == self.written["g"]
        assert not self.g.isolated("shop") and not self.g.isolated("news")


def arrived(store: FakeStore) -> list[bytes]:
    return [payload for payload in store.payloads() if payload not in (PAYLOAD_ALL, PAYLOAD_ALL_KNOWN)]


class Attacker:
    def __init__(self, world: World) -> None:
        script = world.script
        self.world, self.script = world, script
        self.dialled, self.knows = script.below(2) == 1, script.below(4) > 0
        self.reads = script.below(4) > 0
        self.name = script.one_of("evil", "evil", "other", "g", f"n{script.below(64)}")
        self.seal: Seal | None = None
        self.theirs: Hello | None = None
        self.stamp = self.chunk = 0
        world.links += 1
        self.number = world.links
        world.attackers[self.number] = self
        nonce = b"n" * RANDOM_BYTES + script.one_of(OFFER + b"\3", bytes(8))  # wire 3, or 2
        mode = "secret" if world.secrets else "none"
        self.mine = Hello("cachee", 2, self.name, 99, nonce, mode, "", "")
        script.right = {
            "name": lambda: self.name,
            "incarnation": lambda: 4,
            "echo": lambda: self.stamp,
            "mode": lambda: self.mine.mode,
        }
        address = "evil:1" if self.dialled else None
        self.identity = CERTIFICATE if script.seldom(4) else None
        world.v.mesh.link_opened(self.number, address, world.now, "10.0.0.9", self.identity)
        world.settle()

    @property
    def may_be_believed(self) -> bool:
        return self.knows or not self.world.secrets

    def attack(self) -> None:
        for _, step in zip(range(self.script.below(4)), (self.greet, self.prove, self.rise), strict=False):
            step()
        for _ in range(OPS_MAX):
            if self.script.over or self.world.link(self.number) is None:
                break
            self.act()
            self.world.check()

    # Shaking hands

    def greet(self) -> None:
        self.say(encode(self.mine))

    def prove(self) -> None:
        if not self.world.secrets or self.theirs is None:
            return
        sides = (self.theirs, self.mine) if self.dialled else (self.mine, self.theirs)
        said = auth.transcript(*sides)
        secret = SECRET if self.knows else b"some other secret"
        role = auth.ACCEPTOR if self.dialled else auth.DIALLER
        self.say(encode(Auth(auth.prove((secret,), role, said))))
        seals = auth.seals(secret, said)
        self.seal = seals[1] if self.dialled else seals[0]

    def rise(self) -> None:
        rows = tuple(NamespaceState(name, 4, 20, 7) for name in ("shop", "news"))
        self.say(encode(State(rows)))

    # Saying and hearing

    def say(self, message: bytes) -> None:
        self.send(message + self.seal.of(message) if self.seal is not None else message)

    def send(self, data: bytes) -> None:
        if self.number in self.world.v.paused:  # he is not read: it waits in his own kernel
            return
        self.world.heard += 1
        self.chunk = max(self.chunk, len(data))
        link = self.world.link(self.number)
        if link is not None and link.state in (LinkState.STATE, LinkState.UP):
            self.world.believed |= self.may_be_believed
        self.world.v.mesh.received(self.number, data, self.world.now)
        self.world.settle()

    def hear(self, data: bytes) -> None:
        """What v says; as far as it can be read."""
        message = plain(data)
        if isinstance(message, Hello):
            self.theirs = message
        elif isinstance(message, Beat):
            self.stamp = message.stamp
        if self.reads:
            self.world.v.mesh.writable((self.number,), self.world.now)

    def act(self) -> None:
        script, world = self.script, self.world
        op = script.below(24)
        if op == 0:
            self.send(script.raw(script.below(200)))
        elif op == 1:
            world.run(0.05 * (1 + script.below(4)))
        elif op == 2:
            world.write(world.v if script.below(2) else world.g)
        elif op == 3:
            self.say_in_pieces(script.message())
        elif op == 4 and script.seldom(4):
            self.say_again(script.message(), rounds=script.one_of(1, 1, 1, 20))
        elif op == 5 and script.seldom(4):
            world.v.mesh.link_closed(self.number, "broken", world.now)
        elif op == 6:
            self.say(encode(Beat(1, self.stamp, (), ())))
        else:
            self.say(script.message())

    def say_in_pieces(self, message: bytes) -> None:
        whole = message + (self.seal.of(message) if self.seal is not None else b"")
        at = 1 + self.script.below(16)
        self.send(whole[:at])
        self.send(whole[at:])

    def say_again(self, message: bytes, rounds: int) -> None:
        """As often as he is read, and on after he was not read for a while."""
        for _ in range(rounds):
            for _ in range(min(AGAIN_MAX, 2_000_000 // len(message))):
                if self.world.link(self.number) is None or self.number in self.world.v.paused:
                    break
                self.say(message)
            self.world.check()
            if rounds > 1:
                self.world.run(0.1)

    # What must hold

    def check(self, link: Link) -> None:
        if not self.may_be_believed:
            assert link.state in (LinkState.HELLO, LinkState.AUTH)
        if self.identity is not None:
            assert link.shared <= {"shop"} and (link.name or "evil") == "evil"
        held = link.decoder.bytes_max + PREFIX.size + SEAL_BYTES
        assert len(link.decoder.kept) <= held + (self.chunk if link.throttle.held_since is not None else 0)
        assert link._under_way <= UNREAD_BYTES_MAX + REPLIES_BYTES
        assert len(link.theirs) <= ROWS_MAX
        assert link.stamps.echoed <= microseconds(link.stamps.stamped_at)
        assert set(link.outboxes) | set(link.acked) | link.shared <= set(self.world.v.stores)


def plain(data: bytes) -> Message:
    """The message in `data`, whatever seal follows it. FrameError: v says what nobody would take."""
    length, number = PREFIX.unpack_from(data)
    return decode(number, data[PREFIX.size : PREFIX.size - 1 + length])


def one_input(data: bytes) -> int:
    """How many messages v has had of attackers."""
    script = Script(data)
    world = World(script)
    while not script.over and len(world.attackers) < 2 * HANDSHAKES_MAX:
        if script.seldom(16):  # a crowd that opens links and says nothing
            for _ in range(HANDSHAKES_MAX):
                Attacker(world)
        Attacker(world).attack()
        world.check()
    world.check_end()
    return world.heard
