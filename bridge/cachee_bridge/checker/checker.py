"""Checks that peers evict what this host writes, by real writes and real questions. Input: now, answers.

    checker = Checker(host, around, every_s, random.Random())
    deadline passed   checker.tick(now)
    after each input  deadline = checker.next_due(now): after a tick, and after an answer was told
    for people        checker.view(now); checker.nines.of(peer).propagation

A round, every `every_s`, of one namespace after the other and of at most PEERS_MAX peers in turn: this host's
canary of the namespace is written (canaries.py), and each peer is asked at once what it holds of it, and of
some keys that were written here lately (samples.py). What may be older than the write is asked for again and
again (watching.py, suspects.py).

Canaries count in the nines (nines.py), real keys do not: nobody knows when they were written. A peer whose
link is lost is not asked, and counts as one that has seen nothing.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from cachee_bridge.checker.canaries import Canaries
from cachee_bridge.checker.nines import Nines
from cachee_bridge.checker.samples import Sample, samples_of
from cachee_bridge.checker.suspects import Watch
from cachee_bridge.checker.watching import Watching

if TYPE_CHECKING:
    from cachee_bridge.checker.around import Around, Watched
    from cachee_bridge.protocol.questions import Peer
    from cachee_bridge.wire.messages import Answer

PEERS_MAX = 8
"""Asked in one round."""
NOTE_S = 0.5
"""How long before a round the ring's tail is noted: sampled keys were written after that."""


class Checker:
    """Of one host."""

    def __init__(self, host: str, around: Around, every_s: float, rng: random.Random) -> None:
        """`every_s`: between two rounds; 0: there are none, and nothing is ever written."""
        self._around, self._every_s, self._rng = around, every_s, rng
        life = f"{host} {rng.getrandbits(32):08x} ".encode()
        self.nines = Nines()
        self.canaries = Canaries(life, around)
        self.watching = Watching(
            life, around, self._seen, self.canaries.answered, self._late, self.canaries.redraw
        )
        self._next_round: float | None = None
        self._turn = 0
        """Which namespace the next round is about."""
        self._peers_from: dict[str, int] = {}
        """By namespace, where the next round begins among its peers."""
        self._without_room: set[str] = set()
        """Namespaces whose last canary was not written."""
        self._noted: tuple[str, float, int] | None = None
        """The namespace, when its ring's tail was noted, and that."""

    def tick(self, now: float) -> None:
        """Whatever is due."""
        if self._every_s <= 0:
            return
        if self._next_round is None:
            self._next_round = now + self._rng.uniform(0, self._every_s)
        if now >= self.canaries.race_ends():
            self._end_race(now)
        if now >= self._next_round - self._note_s and self._noted is None:
            self._note_tail(now)
        if now >= self._next_round:
            self._next_round = now + self._every_s * self._rng.uniform(0.9, 1.1)
            self._round(now)
        self.watching.look(now)

    def next_due(self, now: float) -> float:
        """When to tick next."""
        if self._every_s <= 0:
            return float("inf")
        if self._next_round is None:
            return now
        due = self._next_round - (self._note_s if self._noted is None else 0)
        return max(now, min(due, self.canaries.race_ends(), self.watching.next_due()))

    def view(self, now: float) -> dict[str, Any]:
        """Counts and suspects, ready for JSON."""
        return {
            "every_s": self._every_s,
            **self.nines.view(self.watching.young(now)),
            "suspects": self.watching.suspects(now),
        }

    # Rounds

    @property
    def _note_s(self) -> float:
        return min(NOTE_S, self._every_s / 2)

    def _namespace(self) -> str:
        """Of the next round; "" = this host serves none."""
        names = sorted(self._around.namespaces())
        return names[self._turn % len(names)] if names else ""

    def _note_tail(self, now: float) -> None:
        namespace = self._namespace()
        segment = self._around.segment(namespace)
        self._noted = namespace, now, segment.tail if segment is not None else 0

    def _round(self, now: float) -> None:
        namespace, noted = self._namespace(), self._noted
        self._turn, self._noted = self._turn + 1, None
        segment = self._around.segment(namespace)
        peers = self._chosen(namespace, now)
        if segment is None or not peers:
            return
        samples: list[Sample] = []
        if noted is not None and noted[0] == namespace:
            samples = samples_of(segment, noted[2], self._rng)
        if self.canaries.write(namespace, segment, now) is None:
            self._say_no_room(namespace)
            return
        self._without_room.discard(namespace)
        self._end_race(now)
        for peer in peers:
            watches = [self.canaries.watch(peer.name, namespace, segment)]
            if peer.is_linked and noted is not None:
                watches += self._of_keys(peer.name, namespace, segment, samples, noted[1])
            self.watching.ask(watches)
        self.canaries.begin_round(namespace, len(peers), now)

    def _say_no_room(self, namespace: str) -> None:
        """Once, until there is room again."""
        if namespace not in self._without_room:
            self._without_room.add(namespace)
            text = "the segment has no room for a canary: until it has, this host cannot check its peers"
            self._around.say("warning", text, namespace=namespace)

    def _chosen(self, namespace: str, now: float) -> list[Peer]:
        """At most PEERS_MAX, in rotation; not those that cannot be asked."""
        able = []
        for peer in sorted(self._around.peers(namespace, now), key=lambda peer: peer.name):
            seen = self.nines.of(peer.name)
            seen.region = peer.region or seen.region
            seen.error = "too old to be asked: upgrade its bridge" if peer.too_old else ""
            if not peer.too_old:
                able.append(peer)
        first = self._peers_from.get(namespace, 0) % max(1, len(able))
        self._peers_from[namespace] = first + PEERS_MAX
        return (able[first:] + able[:first])[:PEERS_MAX]

    def _of_keys(
        self, peer: str, namespace: str, segment: Watched, samples: list[Sample], since: float
    ) -> list[Watch]:
        incarnation = segment.incarnation
        return [
            Watch(peer, namespace, one.hash, "key", one.position, incarnation, since, digest=one.digest)
            for one in samples
        ]

    def _end_race(self, now: float) -> None:
        for watch in self.canaries.end_race(now):
            self.watching.ask([watch])

    # What comes of them

    def _late(self, watch: Watch) -> None:
        if watch.what == "canary":
            self.nines.of(watch.peer).canaries += 1

    def _seen(self, watch: Watch, answer: Answer, now: float) -> None:
        if watch.what == "canary":
            if not watch.is_late:
                self.nines.of(watch.peer).canaries += 1
            self.nines.seen(watch.peer, now - watch.written_at, at_first=watch.looks == 0)
            self.canaries.seen(watch, answer.tail)
