"""Meshes joined in memory, and a store that remembers what was done to it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cachee_bridge.ports.effects import (
    Answered,
    Brought,
    Close,
    Connect,
    Discover,
    GoOn,
    Log,
    Pause,
    Resume,
    Send,
    SendEach,
    ServeUntil,
    TickSoon,
)
from cachee_bridge.protocol.mesh import Mesh, Settings
from cachee_bridge.wire.identity import Identity
from tests.stand_in.ring import Shape
from tests.stand_in.segment import Segment
from tests.stand_in.wire import APPLIED_AS, parse

SECRET = b"0123456789abcdef"


def key(number: int) -> bytes:
    """The wire record KEY of one hash."""
    return b"\x01" + number.to_bytes(8, "little")


class FakeStore(Segment):
    """The model of a segment (tests/stand_in), with what was asked of it, and a pump that heals at once."""

    def __init__(self, incarnation: int = 1, ring_slots: int = 128, source_slots: int = 64) -> None:
        shape = Shape(ring_slots, key_bits=3, tag_bits=3, source_slots=source_slots, words=1)
        super().__init__(shape, incarnation)
        self.isolation_ttl_s = 10.0
        self.applied: list[tuple[int, bytes]] = []
        self.stored: list[tuple[int, int, int]] = []
        self.mended: list[tuple[int, bytes]] = []
        """Maps that it was asked to raise the fences of, by source."""
        self.evicted_before: list[int] = []
        self.told: dict[int, tuple[bool, int]] = {}
        self.acked: dict[int, int] = {}
        self.shown: bytes | None = None
        self.stalled = False
        """The pump does not come to its turn."""

    def _pump(self, was: int) -> None:
        """Heal, unless the pump had stopped before position `was`: it stays where it is."""
        if self.pump_cursor == was:
            self.heal(was, self.tail - was, was, b"")

    def heal(self, cursor: int, max_records: int, after: int, head: bytes) -> tuple[int, int, bytes]:
        return super().heal(cursor, 0 if self.stalled else max_records, after, head)

    def announce(self, *payloads: bytes) -> None:
        """Own announcements; b"" is a record that is not this host's own. The pump is stalled until there
        are others."""
        self.stalled = True
        self._append(payloads)

    def _append(self, payloads: Iterable[bytes]) -> None:
        for payload in payloads:
            for kind, hashed, _ in parse(payload):
                self.append(APPLIED_AS[kind], hashed, own=True)
            if not payload:
                super().draw_line()

    def commit(self, *payloads: bytes) -> None:
        """The same, and the pump is well."""
        self.stalled = False
        self._append(payloads)

    def write(self, *payloads: bytes) -> None:
        """The same, and all is healed already."""
        self.commit(*payloads)
        self.heal(self.pump_cursor, self.tail, 0, b"")

    def hold(self, *keys: int) -> None:
        """Values of these keys, as if loaded just now; each lies in the word of the index of its number."""
        for each in keys:
            assert self.fill(each, "loaded", self.tail, self.now_ms())

    def map_after(self, cursor: int) -> bytes:
        return super().map_after(cursor) if self.shown is None else self.shown

    @property
    def map_bytes(self) -> int:
        return len(self.map)

    @property
    def map(self) -> bytes:
        """Of all that was ever announced; or whatever a test shows in its place."""
        return self.map_after(0)

    @map.setter
    def map(self, shown: bytes) -> None:
        self.shown = shown

    @property
    def words(self) -> int:
        """Of the index."""
        return self.shape.words

    @words.setter
    def words(self, words: int) -> None:
        self.shape = replace(self.shape, words=words)

    def fence_map(
        self, source: int, buckets: bytes, version: int, at: int, steps: int, known: bool = False
    ) -> tuple[int, int]:
        was, begins = self.tail, not at
        version, at = super().fence_map(source, buckets, version, at, steps, known)
        if begins:
            self.mended.append((source, buckets))
        self._pump(was)
        return version, at

    def evict_map(self, source: int, buckets: bytes, version: int, at: int, words: int) -> tuple[int, int]:
        was = self.tail
        at, evicted = super().evict_map(source, buckets, version, at, words)
        self._pump(was)
        return at, evicted

    def apply(self, source: int, payload: bytes) -> int:
        was = self.tail
        count = super().apply(source, payload)
        self.applied.append((source, payload))
        self._pump(was)
        return count

    def source_store(self, index: int, incarnation: int, cursor: int) -> None:
        super().source_store(index, incarnation, cursor)
        self.stored.append((index, incarnation, cursor))

    def draw_line(self) -> int:
        line = super().draw_line()
        self._pump(line - 1)
        return line

    def evict_before(self, position: int) -> None:
        super().evict_before(position)
        self.evicted_before.append(position)

    def source_acked(self, index: int, position: int) -> None:
        super().source_acked(index, position)
        self.acked[index] = position

    def source_tell(self, index: int, reachable: bool, fresh_ms: int) -> None:
        super().source_tell(index, reachable, fresh_ms)
        self.told[index] = (reachable, fresh_ms)

    def raise_incarnation(self, incarnation: int) -> None:
        super().raise_incarnation(incarnation)
        self.acked.clear()

    @property
    def table(self) -> dict[int, tuple[str, int, int]]:
        """The members, by index."""
        return {index: (name, incarnation, cursor) for index, name, incarnation, cursor in self.sources()}

    def workers_know(self, name: str) -> tuple[int | None, bool]:
        """(how far `name` has applied this ring, whether it can be reached), as workers are told."""
        reachable, acked = next(told[1:3] for told in self._peers() if told[0] == name)
        return acked, reachable

    def cursor_of(self, name: str) -> int | None:
        """How far `name` has been applied; None when it is not known."""
        return next((cursor for known, _, cursor in self.table.values() if known == name), None)

    def payloads(self) -> list[bytes]:
        """What was applied, whoever sent it."""
        return [payload for _, payload in self.applied]


class Node:
    """One host: a mesh, its stores, and what it has been told to do."""

    def __init__(
        self, cable: Cable, name: str, stores: dict[str, FakeStore], boot: int = 0, **settings: Any
    ) -> None:
        self.name, self.cable, self.stores = name, cable, stores
        self.said: list[Log] = []
        self.answered: list[Answered] = []
        self.brought: list[Brought] = []
        self.serve_until: dict[str, float] = {}
        self.closed: list[str] = []
        self.dialled: list[str] = []
        self.paused: set[int] = set()
        self.asked = self.soon = 0
        """How often it has asked the DNS; and for a tick at the next heartbeat."""
        defaults = {"address": f"{name}:1", "backoff_first_s": 0.1, "backoff_max_s": 0.4}
        cable.lives += 1
        self.mesh = Mesh(name, stores, Settings(**{**defaults, **settings}), random.Random(cable.lives), boot)
        self.mesh.start(cable.now)

    @property
    def store(self) -> FakeStore:
        return self.stores["shop"]

    def write(self, *payloads: bytes, namespace: str = "shop") -> None:
        self.stores[namespace].commit(*payloads)
        self.mesh.ring_moved(namespace, self.cable.now)
        self.cable.settle()

    def texts(self, *levels: str) -> str:
        return "\n".join(log.text for log in self.said if not levels or log.level in levels)

    def state_of(self, name: str) -> str:
        return next((peer.state for peer in self.mesh.views.peers() if peer.name == name), "unknown")

    def isolated(self, namespace: str = "shop") -> bool:
        return self.cable.now > self.serve_until.get(namespace, float("-inf"))


class Cable:
    """Carries bytes at once, in order. `cut` names pairs between which nothing gets through."""

    def __init__(self) -> None:
        self.now = 100.0
        self.nodes: dict[str, Node] = {}
        self.ends: dict[int, tuple[Node, int]] = {}
        """The other end of each link, and its number there."""
        self.cut: set[frozenset[str]] = set()
        self.deaf: set[tuple[str, str]] = set()
        """(from, to): lost on the way, link by link still open."""
        self.identities: dict[str, Identity] = {}
        """What the certificate of a host says, by its name; without one, no TLS."""
        self.carried: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        """By (from, to), what was sent."""
        self.full: set[str] = set()
        """Hosts whose sockets never drain (what they send still arrives)."""
        self.dns: list[str] | None = []
        """What discovery names (hosts); None: it fails."""
        self.links = self.lives = 0

    def node(
        self,
        name: str,
        peers: tuple[str, ...] = (),
        stores: dict[str, FakeStore] | None = None,
        discovers: bool = False,
        boot: int = 0,
        **settings: Any,
    ) -> Node:
        """A host that listens at "NAME:1" and is configured with `peers` (names), or `discovers` them."""
        node = Node(self, name, stores if stores is not None else {"shop": FakeStore()}, boot, **settings)
        self.nodes[name] = node
        if discovers:
            node.mesh.discover("dns:mesh:1", self.now)
        node.mesh.set_peers([f"{peer}:1" for peer in peers], self.now)
        return node

    def run(self, seconds: float) -> None:
        """Ticks in steps of 50 ms."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            for node in list(self.nodes.values()):
                node.mesh.tick(self.now)
            self.settle()

    def settle(self) -> None:
        while sum(self._perform(node) for node in list(self.nodes.values())):
            pass

    def break_link(self, one: Node, other: Node) -> None:
        for link, (node, back) in list(self.ends.items()):
            owner = self.ends[back][0] if back in self.ends else None
            if owner is one and node is other:
                self.ends.pop(link), self.ends.pop(back)
                one.mesh.link_closed(link, "broken", self.now)
                other.mesh.link_closed(back, "broken", self.now)
        self.settle()

    def remove(self, node: Node) -> None:
        """The host is gone, without a word."""
        del self.nodes[node.name]

    def open(self, one: Node, address: str) -> None:
        other = self.nodes.get(address.split(":")[0])
        if other is None or frozenset((one.name, other.name)) in self.cut:
            one.mesh.connect_failed(address, "refused", self.now)
            return
        here, there = self.links + 1, self.links + 2
        self.links += 2
        self.ends[here], self.ends[there] = (other, there), (one, here)
        one.mesh.link_opened(here, address, self.now, other.name, self.identities.get(other.name))
        other.mesh.link_opened(there, None, self.now, one.name, self.identities.get(one.name))

    def _perform(self, node: Node) -> bool:
        effects = node.mesh.effects()
        for effect in effects:
            self._one(node, effect)
        return bool(effects)

    def _one(self, node: Node, effect: object) -> None:
        if isinstance(effect, Send):
            self._carry(node, effect)
        elif isinstance(effect, SendEach):
            for link, data in zip(*effect, strict=True):
                self._carry(node, Send(link, data))
        elif isinstance(effect, Discover):
            self._answer(node)
        elif isinstance(effect, Connect):
            node.dialled.append(effect.address)
            self.open(node, effect.address)
        elif isinstance(effect, Close):
            node.closed.append(effect.reason)
            other, back = self.ends.pop(effect.link, (None, 0))
            if other is not None and self.ends.pop(back, None):
                other.mesh.link_closed(back, "closed", self.now)
        elif isinstance(effect, TickSoon):
            node.soon += 1
        elif isinstance(effect, GoOn):
            node.mesh.go_on(self.now)
        elif isinstance(effect, ServeUntil):
            node.serve_until.update(dict.fromkeys(effect.namespaces, effect.until))
        elif isinstance(effect, Pause):
            node.paused.add(effect.link)
        elif isinstance(effect, Resume):
            node.paused.remove(effect.link)
        elif isinstance(effect, Log):
            node.said.append(effect)
        elif isinstance(effect, Answered):
            node.answered.append(effect)
        elif isinstance(effect, Brought):
            node.brought.append(effect)

    def _answer(self, node: Node) -> None:
        node.asked += 1
        if self.dns is None:
            node.mesh.discovery_failed("no server answers", self.now)
        else:
            node.mesh.discovered([f"{name}:1" for name in self.dns], 1.0, self.now)

    def _carry(self, node: Node, effect: Send) -> None:
        other, back = self.ends.get(effect.link, (None, 0))
        if other is None or other not in self.nodes.values():
            return
        if frozenset((node.name, other.name)) in self.cut or (node.name, other.name) in self.deaf:
            return
        self.carried[node.name, other.name].append(effect.data)
        other.mesh.received(back, effect.data, self.now)
        for namespace in sorted(other.mesh.moved()):  # as the pump does
            other.mesh.ring_moved(namespace, self.now)
        if node.name not in self.full:
            node.mesh.writable((effect.link,), self.now)


def two(cable: Cable, **settings: Any) -> list[Node]:
    """One identical configuration for both, as in production."""
    nodes = [cable.node(name, ("a", "b"), **settings) for name in ("a", "b")]
    cable.run(1.0)
    return nodes


def three(cable: Cable) -> list[Node]:
    nodes = [cable.node(name, ("a", "b", "c")) for name in ("a", "b", "c")]
    cable.run(1.0)
    return nodes
