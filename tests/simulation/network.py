"""Links that behave like TCP: bytes arrive in order in each direction, but late, in other pieces, cut off, or
stuck for a while.

If a process dies, what it had written still arrives, and then the end of the link. If a host loses power,
bytes that were on their way arrive, and then nothing, until bytes of a peer reach the rebooted host. A lossy
network goes beyond TCP: it drops and repeats whole frames of a link that is up. The protocol does not rely on
their arrival.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

RELAYED = (4, 5, 6, 11)
"""BEAT, FRAME, REPLAY, CALM."""
CUT = 0.25
"""How often what arrives is read in two pieces."""


class End(Protocol):
    """A bridge, as the network sees it."""

    name: str

    @property
    def powered(self) -> bool:
        """Whether its host runs: a dead process's kernel answers, a dead host does not."""
        ...

    def opened(self, link: int, address: str | None) -> None: ...
    def failed(self, address: str) -> None: ...
    def received(self, link: int, data: bytes) -> None: ...
    def drained(self, link: int) -> None: ...
    def closed(self, link: int) -> None: ...


@dataclass
class Way:
    """One direction of a link."""

    source: End
    target: End
    link: int
    """As the target knows it; the source's is `back`."""
    back: int
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    """(when it arrives, what); b"" is the end."""
    busy: bool = False
    ended: bool = False


class Network:
    def __init__(
        self,
        rng: random.Random,
        now: Callable[[], float],
        at: Callable[[float, Callable[[], object]], None],
    ) -> None:
        """`at(delay, call)` calls later."""
        self._rng, self._now, self._at = rng, now, at
        self._ways: dict[int, Way] = {}
        """By the source's number of the link."""
        self._last = 0
        self.listening: dict[str, End] = {}
        self.blocked: set[tuple[str, str]] = set()
        self.latency: dict[tuple[str, str], float] = {}
        self.lossy = 0.0
        self.slow = 0.002

    def connect(self, source: End, address: str) -> None:
        self._at(self._delay(), lambda: self._connected(source, address))

    def send(self, link: int, data: bytes) -> None:
        way = self._ways.get(link)
        if way is None or way.ended:
            return
        copies = 1
        if data[4] in RELAYED and self._rng.random() < self.lossy:
            copies = self._rng.choice((0, 0, 2))
        for _ in range(copies):
            self._put(way, data)
        if not copies:
            self._at(self._delay(way), lambda: way.source.drained(way.back))

    def close(self, link: int) -> None:
        """By its owner: what was sent goes first."""
        way = self._ways.pop(link, None)
        if way is not None:
            self._end(way)

    def reset(self, rng: random.Random) -> None:
        """Some link breaks; each side learns of it in its own time, and what was under way is cut off
        anywhere."""
        if not self._ways:
            return
        way = self._ways[rng.choice(sorted(self._ways))]
        for one in (way, self._ways.get(way.link)):
            if one is not None and not one.ended:
                data = b"".join(piece for _, piece in one.queue)
                one.queue.clear()
                if cut := data[: rng.randrange(len(data) + 1)]:
                    self._put(one, cut)
                self._end(one)

    def power_off(self, end: End) -> None:
        for way in list(self._ways.values()):
            if way.source is end:
                del self._ways[way.back]

    def forget(self, end: End) -> None:
        """The process died: the kernel ends its links."""
        for way in list(self._ways.values()):
            if way.source is end:
                self.close(way.back)

    def _connected(self, source: End, address: str) -> None:
        target = self.listening.get(address)
        if target is None or {(source.name, target.name), (target.name, source.name)} & self.blocked:
            self._at(self._delay() + 0.1, lambda: source.failed(address))
            return
        here, there = self._last + 1, self._last + 2
        self._last += 2
        self._ways[here] = Way(source, target, there, here)
        self._ways[there] = Way(target, source, here, there)
        target.opened(there, None)
        source.opened(here, address)

    def _delay(self, way: Way | None = None) -> float:
        latency = self.latency.get((way.source.name, way.target.name), 0.0) if way is not None else 0.0
        return latency + self._rng.expovariate(1.0) * self.slow + 0.0001

    def _put(self, way: Way, data: bytes) -> None:
        way.queue.append((self._now() + self._delay(way), data))
        self._move(way)

    def _end(self, way: Way) -> None:
        way.ended = True
        self._put(way, b"")

    def _move(self, way: Way) -> None:
        if not way.busy and way.queue:
            way.busy = True
            self._at(max(0.0, way.queue[0][0] - self._now()), lambda: self._arrive(way))

    def _arrive(self, way: Way) -> None:
        if (way.source.name, way.target.name) in self.blocked:
            self._at(0.05, lambda: self._arrive(way))
            return
        way.busy = False
        if way.queue:
            _, data = way.queue.popleft()
            if data:
                self._deliver(way, data)
            elif way.link in self._ways:
                del self._ways[way.link]
                way.target.closed(way.link)
        self._move(way)

    def _deliver(self, way: Way, data: bytes) -> None:
        if way.link not in self._ways:
            self._refuse(way)
            return
        cut = self._rng.randrange(len(data) + 1) if self._rng.random() < CUT else 0
        for piece in (data[:cut], data[cut:]):
            if piece and way.link in self._ways:
                way.target.received(way.link, piece)
        if way.back in self._ways:
            way.source.drained(way.back)

    def _refuse(self, way: Way) -> None:
        """Nobody is there any more: a kernel says so, a host without power does not."""
        if way.target.powered and way.back in self._ways:
            del self._ways[way.back]
            way.queue.clear()
            way.source.closed(way.back)
