"""This host's canaries: written in rounds, filled by the peers, and in a race written again before they fill.

write     the canary of one namespace gets the next number, and goes out at once
fill      a peer that holds nothing older stores the new canary, as a worker would that loads a value: under
          a token from before its answer. So there is something to evict at the next write
race      in every RACE_EVERY-th round the canary is written again before the peers fill: each of these
          fills comes after the write, under a token from before it, and must be refused
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cachee_bridge.checker.suspects import Watch
from cachee_bridge.wire.messages import FILL, STORED, Asked

if TYPE_CHECKING:
    from cachee_bridge.checker.around import Around, Watched
    from cachee_bridge.ports.effects import Answered

RACE_EVERY = 4
RACE_S = 0.2
"""How long a race waits for the answers, whose tokens the fills use."""


@dataclass
class Canary:
    """Of one namespace."""

    hash: int
    draws: int = 1
    """How often the hash was drawn."""
    number: int = 0
    position: int = 0
    written_at: float = float("-inf")
    rounds: int = 0


@dataclass
class Race:
    """Peers that have seen a canary, and wait for it until it has been written again."""

    namespace: str
    number: int
    """Of the canary."""
    ends_at: float
    awaited: int
    """Answers that are still to come."""
    tokens: dict[str, int] = field(default_factory=dict)


class Canaries:
    """Of one host."""

    def __init__(self, life: bytes, around: Around) -> None:
        """`life`: how their values begin, before the number: the host's name, and what no other life has."""
        self._life, self._around = life, around
        self.of: dict[str, Canary] = {}
        """By namespace."""
        self._race: Race | None = None

    def write(self, namespace: str, segment: Watched, now: float) -> Canary | None:
        """The next number, and send it. None: there is no room for it."""
        if namespace not in self.of:
            self.of[namespace] = Canary(self._draw(segment, 1))
        canary = self.of[namespace]
        canary.number += 1
        if not segment.canary_set(canary.hash, self._value(canary.number)):
            return None
        canary.position, canary.written_at = segment.tail, now
        self._around.send(namespace)
        return canary

    def redraw(self, watch: Watch) -> None:
        """A peer holds another host's canary of this hash: from the next write on, it has another hash."""
        canary, segment = self.of[watch.namespace], self._around.segment(watch.namespace)
        if segment is not None and canary.hash == watch.hash:
            canary.draws += 1
            canary.hash = self._draw(segment, canary.draws)

    def _draw(self, segment: Watched, draws: int) -> int:
        host = self._life.partition(b" ")[0]
        return segment.canary_hash(zlib.crc32(host if draws == 1 else b"%s %d" % (host, draws)))

    def watch(self, peer: str, namespace: str, segment: Watched) -> Watch:
        """Whether `peer` evicts what the last write of this canary has replaced."""
        canary = self.of[namespace]
        at = canary.position, segment.incarnation, canary.written_at
        return Watch(peer, namespace, canary.hash, "canary", *at, number=canary.number)

    def begin_round(self, namespace: str, peers: int, now: float) -> None:
        """The canary was written, and `peers` peers are asked. Every few rounds this is a race."""
        canary = self.of[namespace]
        canary.rounds += 1
        if canary.rounds % RACE_EVERY == 0:
            self._race = Race(namespace, canary.number, now + RACE_S, peers)

    def answered(self, watch: Watch, now: float) -> None:
        """Some answer to a first question, or none: a race whose peers have all answered is to end."""
        race = self._race
        if race is not None and (watch.number, watch.looks) == (race.number, 1):
            race.awaited -= 1
            if race.awaited <= 0:
                race.ends_at = now

    def seen(self, watch: Watch, token: int) -> None:
        """The peer holds nothing older: let it store the newest, so that the next write has something to
        evict."""
        if watch.number != self.of[watch.namespace].number:
            return
        if self._race is not None and self._race.namespace == watch.namespace:
            self._race.tokens[watch.peer] = token
        else:
            self._fill(watch.peer, watch.namespace, watch.number, token, None)

    def race_ends(self) -> float:
        """When the race is to end; inf when there is none."""
        return self._race.ends_at if self._race is not None else float("inf")

    def end_race(self, now: float) -> list[Watch]:
        """Write the canary again, then let the peers fill what was there before. What is to be watched, after
        the fills."""
        race, self._race = self._race, None
        segment = self._around.segment(race.namespace) if race is not None else None
        if race is None or segment is None or not race.tokens:
            return []
        if self.write(race.namespace, segment, now) is None:
            return []
        watches = [self.watch(peer, race.namespace, segment) for peer in race.tokens]
        for watch, token in zip(watches, race.tokens.values(), strict=True):
            self._fill(watch.peer, race.namespace, watch.number - 1, token, watch)
        return watches

    def _fill(self, peer: str, namespace: str, number: int, token: int, watch: Watch | None) -> None:
        """`watch`: of the write that came before this fill and after its token."""

        def told(answered: Answered) -> None:
            answer = answered.answer
            if watch is not None and answer is not None and answer.holdings:
                stored = answer.holdings[0].held == STORED
                applied = answer.incarnation == watch.incarnation and answer.cursor >= watch.position
                watch.refilled = stored and applied

        rows = [Asked(self.of[namespace].hash, token, self._value(number))]
        self._around.ask(peer, FILL, namespace, rows, told)

    def _value(self, number: int) -> bytes:
        return self._life + b"%d" % number
