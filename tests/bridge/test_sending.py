"""What a peer is sent from this host's ring, and how much of that its budget is charged.

Most often one frame is made for all peers: it has the bytes that each link's outbox would have sent.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

from cachee_bridge.links import link as link_module
from cachee_bridge.ports.effects import Send, SendEach
from cachee_bridge.protocol.sending import Sending
from cachee_bridge.streams.buckets import read_piece
from cachee_bridge.wire.budget import MESSAGE_BYTES
from cachee_bridge.wire.frames import NUMBERS, Decoder, decode, encode
from cachee_bridge.wire.messages import Frame, Replay
from tests.bridge.meshes import SECRET, Cable, FakeStore, Node, key
from tests.bridge.peers import Peer, linked_peer

STEPS = 120
UNKNOWN, CLEAR = b"\x07" + bytes(8), b"\x04"
NAMESPACES = ("shop", "news")


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


def test_a_request_is_answered_from_the_ring(peer):
    peer.store.write(key(1), key(2))
    first = peer.store.tail - 1
    assert peer.say(Replay("shop", "web-1", 7, first)) == [
        Frame("shop", "web-1", 7, first, first + 1, key(1) + key(2))
    ]


def test_what_is_sent_for_the_first_time_is_charged_to_nobody_and_what_is_asked_for_again_is(peer):
    budget = peer.node.mesh._links.by_number[1].throttle.budget
    peer.say(Replay("shop", "web-1", 7, 1))
    before = budget.owed
    assert [len(peer.write(key(number))) for number in (1, 2, 3)] == [1, 1, 1]
    assert budget.owed == before
    request = Replay("shop", "web-1", 7, 1)
    (again,) = peer.say(request)
    came, positions = MESSAGE_BYTES + len(encode(request)), peer.store.tail
    assert budget.owed - before == came + positions + len(again.payload)


def test_what_waits_for_a_peer_that_asks_for_the_first_time_is_charged_to_nobody():
    """Else a peer that joins is not read for a while, because of what others wrote before it came."""
    peer = Peer()
    peer.store.write(*[key(number) for number in range(20)])
    budget = peer.node.mesh._links.by_number[1].throttle.budget
    before, request = budget.owed, Replay("shop", "web-1", 7, peer.store.tail - 19)
    (first,) = peer.say(request)
    assert len(first.payload) == 20 * len(key(1))
    assert budget.owed - before == MESSAGE_BYTES + len(encode(request))


def test_a_request_for_a_lapped_range_is_answered_by_a_map(peer):
    peer.store.write(*[key(number) for number in range(200)])
    (answer,) = peer.say(Replay("shop", "web-1", 7, 1))
    assert (answer.first, answer.last) == (1, peer.store.tail)
    assert answer.payload == b"\x06" + read_piece(peer.store, 0, 1)[1:]  # as wire 2 has it
    assert f"web-2, namespace shop: lapped; a map of buckets stands for 1..{answer.last}" in peer.node.texts(
        "info"
    )
    assert peer.view.lapped == 1


def each_by_its_outbox(self: Sending, namespace: str, links: Iterable[Any], max_records: int) -> int:
    """What `forward` did before there was a frame for all, and does for links that lack more."""
    healed = self._namespaces.packers[namespace].heal(max_records).healed
    wanted = self._namespaces.members[namespace].store.sync_asked()
    for link in links:
        self.pump(link, namespace)
        self.ask_cursor(link, namespace, wanted)
    return healed


class InOrder(Cable):
    """What is sent on several links at once is carried in the order of the links. A frame for all goes out
    before what one link is sent by itself, so without this the hosts would hear it in another order."""

    def _perform(self, node: Node) -> bool:
        effects = node.mesh.effects()
        sends: list[Send] = []
        for effect in effects:
            if isinstance(effect, SendEach):
                sends += map(Send, effect.links, effect.data)
            elif isinstance(effect, Send):
                sends.append(effect)
            else:
                self._one(node, effect)
        for send in sorted(sends, key=lambda send: send.link):
            self._one(node, send)
        return bool(effects)


class Script:
    """A host that writes, with peers that hear it well and badly, as its seed says."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cable = InOrder()
        secrets = self.rng.choice(((), (SECRET,)))
        stores = {namespace: FakeStore(incarnation=9, ring_slots=32) for namespace in NAMESPACES}
        self.a = self.cable.node("a", ("b", "c", "d"), stores=stores, secrets=secrets)
        for name in ("b", "c", "d"):
            peers = {namespace: FakeStore() for namespace in NAMESPACES[: self.rng.randint(1, 2)]}
            wire = self.rng.choice((2, 3, 3))
            self.cable.node(name, ("a",), stores=peers, secrets=secrets, newest_wire=wire)
        self.cable.run(1.0)

    def run(self) -> dict[tuple[str, str, str], list[bytes]]:
        """What was said by one host to another about each namespace in frames, and ("") beside them. In which
        order two namespaces wait for room does not matter. Seals count, and are left out."""
        for _ in range(STEPS):
            self.rng.choice(self.actions)(self)
        self.cable.full.clear()
        self.cable.run(3.0)
        said: dict[tuple[str, str, str], list[bytes]] = defaultdict(list)
        for (sender, hearer), messages in self.cable.carried.items():
            for message in messages:
                end = 4 + int.from_bytes(message[:4], "little")
                frame = decode(message[4], message[5:end]) if message[4] == NUMBERS[Frame] else None
                namespace = frame.namespace if isinstance(frame, Frame) else ""
                said[sender, hearer, namespace].append(message[:end])
        return said

    def write(self) -> None:
        kinds = [key(self.rng.randrange(6)) for _ in range(6)] + [b"", b"", UNKNOWN, CLEAR]
        count = self.rng.choice((1, 1, 1, 2, 5, 40))
        self.a.write(*self.rng.choices(kinds, k=count), namespace=self.rng.choice(NAMESPACES))

    def apply(self) -> None:
        """What comes from a peer moves the ring too."""
        peer = self.cable.nodes[self.rng.choice("bcd")]
        peer.write(*[key(self.rng.randrange(6))] * self.rng.choice((1, 3)), namespace="shop")

    def move(self) -> None:
        """Records of others, which the mesh has to heal."""
        namespace = self.rng.choice(NAMESPACES)
        self.a.stores[namespace].commit(*[b""] * self.rng.choice((1, 2, 40)))
        self.a.mesh.ring_moved(namespace, self.cable.now, self.rng.choice((1, 2, 4096)))
        self.cable.settle()

    def stall(self) -> None:
        self.a.stores[self.rng.choice(NAMESPACES)].announce(key(self.rng.randrange(6)))

    def fill(self) -> None:
        self.cable.full ^= {"a"}

    def wait(self) -> None:
        self.cable.run(self.rng.choice((0.1, 0.2, 0.5)))

    def want(self) -> None:
        """A worker waits for the peers."""
        store = self.a.stores[self.rng.choice(NAMESPACES)]
        store.wanted = max(0, store.tail - self.rng.choice((0, 0, 1, 5)))

    def ask_again(self) -> None:
        peer = self.cable.nodes[self.rng.choice("bcd")]
        link = peer.mesh._links.up.get("a")
        if link is not None and "shop" in link.shared:
            tail = self.a.store.tail
            first = max(1, tail - self.rng.choice((0, 3, 60)))
            link.send(Replay("shop", "a", self.a.store.incarnation, first))
            self.cable.settle()

    actions = (write, write, write, write, apply, apply, move, move, stall, fill, wait, wait, want, ask_again)


@pytest.mark.parametrize("seed", range(40))
def test_a_frame_for_all_is_what_each_outbox_would_have_sent(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "ALLOWANCE_BYTES", 400)
    sent = Script(seed).run()
    monkeypatch.setattr(Sending, "forward", each_by_its_outbox)
    assert sent == Script(seed).run()


def test_a_write_is_framed_once_for_all_links(monkeypatch: pytest.MonkeyPatch) -> None:
    cable = Cable()
    a = cable.node("a", ("b", "c"))
    cable.node("b", ("a",)), cable.node("c", ("a",))
    cable.run(1.0)
    pumped = []
    monkeypatch.setattr(Sending, "pump", lambda self, link, namespace=None: pumped.append(self._name))
    cable.carried.clear()
    for number in range(3):
        a.write(key(number))
    assert "a" not in pumped
    assert len(cable.carried["a", "b"]) == len(cable.carried["a", "c"]) == 3
    assert cable.carried["a", "b"] == cable.carried["a", "c"]


def test_applied_records_alone_send_nothing_and_pack_nothing() -> None:
    cable = Cable()
    a = cable.node("a", ("b",))
    cable.node("b", ("a",))
    cable.run(1.0)
    a.store.commit(b"", b"")
    packed = []
    pack = a.store.pack
    a.store.pack = lambda *arguments: packed.append(arguments) or pack(*arguments)  # type: ignore[method-assign]
    cable.carried.clear()
    a.mesh.ring_moved("shop", cable.now)
    cable.settle()
    assert not cable.carried
    assert len(packed) == 1  # in `heal`
    cable.run(1.0)
    frames = [
        m for data in cable.carried["a", "b"] for m in Decoder(1 << 20).feed(data) if isinstance(m, Frame)
    ]
    assert [(frame.last, frame.payload) for frame in frames] == [(a.store.tail, b"")]
