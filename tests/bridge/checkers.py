"""Hosts with checkers, joined in memory by a Cable."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from cachee_bridge.checker.checker import Checker
from cachee_bridge.ports.effects import Answered, Log
from cachee_bridge.protocol.questions import Peer
from cachee_bridge.wire.messages import Asked
from tests.bridge.meshes import Cable, FakeStore, Node

STEP_S = 0.001


class Store(FakeStore):
    """With what the checker reads of a ring."""

    def __init__(self, **shape: Any) -> None:
        super().__init__(ring_slots=1 << 12, **shape)
        self.loses: Callable[[bytes], bool] = lambda payload: False
        """Payloads of peers that are not applied, although the cursor moves."""

    def read_ring(self, cursor: int, records_max: int) -> tuple[int, bytes] | None:
        if cursor > self.tail:
            return None
        end = min(self.tail, cursor + records_max)
        records = [self.records[position] for position in range(cursor + 1, end + 1)]
        return end, b"".join(
            struct.pack("<QQBBHHxx", one.position, one.hash, one.kind, one.own, one.source, one.digest)
            for one in records
        )

    def apply(self, source: int, payload: bytes) -> int:
        return 0 if self.loses(payload) else super().apply(source, payload)


class Checked:
    """The checker of one node, and its surroundings."""

    def __init__(self, node: Node, every_s: float = 1.0, seed: int = 1) -> None:
        self.node = node
        self.said: list[Log] = []
        self.told: dict[int, Callable[[Answered], None]] = {}
        self.asked: list[tuple[str, int]] = []
        self.checker = Checker(node.name, self, every_s, random.Random(seed))

    @property
    def now(self) -> float:
        return self.node.cable.now

    def step(self) -> None:
        if self.checker.next_due(self.now) <= self.now:
            self.checker.tick(self.now)

    def view(self) -> Any:
        return self.checker.view(self.now)

    @property
    def suspects(self) -> list[Any]:
        return self.view()["suspects"]

    # Around

    def namespaces(self) -> list[str]:
        return list(self.node.stores)

    def segment(self, namespace: str) -> Any:
        return self.node.stores.get(namespace)

    def peers(self, namespace: str, now: float) -> list[Peer]:
        questions = self.node.mesh.questions
        return questions.peers(namespace) + questions.lost(namespace, now - 2.0)

    def send(self, namespace: str) -> None:
        self.node.stores[namespace].stalled = False
        self.node.mesh.ring_moved(namespace, self.now)

    def ask(
        self,
        peer: str,
        what: int,
        namespace: str,
        rows: Sequence[Asked],
        told: Callable[[Answered], None],
    ) -> None:
        self.asked.append((peer, what))
        self.told[self.node.mesh.questions.ask(peer, what, namespace, rows, self.now)] = told

    def arm(self, namespace: str, hash: int) -> None:
        for node in self.node.cable.nodes.values():
            node.stores[namespace].arm(hash, 120.0)

    def say(self, level: str, text: str, **fields: Any) -> None:
        self.said.append(Log(level, text, fields))  # type: ignore[arg-type]

    def answered(self) -> bool:
        """Tells what came meanwhile."""
        answered, self.node.answered = self.node.answered, []
        for one in answered:
            self.told.pop(one.number)(one)
        return bool(answered)


class Crew:
    """Nodes and their checkers, all of one namespace."""

    def __init__(self, names: str = "ab", every_s: float = 1.0, **settings: Any) -> None:
        self.cable = Cable()
        self.nodes = {
            name: self.cable.node(name, tuple(names), {"shop": Store()}, **settings) for name in names
        }
        self.checked: dict[str, Checked] = {}
        self.cable.run(1.0)
        for name, node in self.nodes.items():
            self.check(name, node, every_s)

    def check(self, name: str, node: Node, every_s: float, seed: int = 1) -> None:
        """Another life of its checker."""
        self.checked[name] = Checked(node, every_s, seed)

    def store(self, name: str) -> Store:
        store = self.nodes[name].stores["shop"]
        assert isinstance(store, Store)
        return store

    def run(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Time passes in steps of 1 ms; the meshes tick every 50 ms."""
        for number in range(round(seconds / STEP_S)):
            if until():
                return
            self.cable.now += STEP_S
            for node in self.nodes.values():
                node.store._freeze(int(self.cable.now * 1000))
            if number % 50 == 0:
                for node in list(self.cable.nodes.values()):
                    node.mesh.tick(self.cable.now)
            for checked in self.checked.values():
                checked.step()
            self.settle()

    def settle(self) -> None:
        self.cable.settle()
        while sum(checked.answered() for checked in self.checked.values()):
            self.cable.settle()
