"""Reads of a trace with writes of other hosts among them, in six mixes: what a host sees that loads ahead.

Drawn as the simulator did by which the policy was found: the same numbers from the same seeds. One read is
one time unit, of a millisecond. Writes are a share of all operations.

  uniform   any key that was read before
  popular   in proportion to all reads of the trace
  recent    a key that was read 300 reads ago on average
  bursty    popular keys, five writes on average, 50 units apart
  tail      45 % keys that are never read again, 45 % counters (half of them never read again, half at a tenth
            of their writes), 10 % popular
  mixed     40 % of the writes in bursts, 27 % recent, 33 % tail
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MIXES = ("uniform", "popular", "recent", "bursty", "tail", "mixed")
SEED = 99
BITS64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST_TIME = 1000


def mixed64(x: int) -> int:
    """SplitMix64 (Steele, Lea, Flood, 2014)."""
    x = (x + GOLDEN) & BITS64
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & BITS64
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & BITS64
    return x ^ x >> 31


class Chance:
    """A stream of numbers that is the same everywhere."""

    def __init__(self, seed: int) -> None:
        self._state = mixed64(seed)

    def bits(self) -> int:
        self._state = (self._state + GOLDEN) & BITS64
        return mixed64(self._state)

    def share(self) -> float:
        """From 0 to 1."""
        return (self.bits() >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        return ((self.bits() >> 32) * n) >> 32

    def exponential(self) -> float:
        return -math.log(1 - self.share())


@dataclass
class Operations:
    """Keys by number, times in ms, and which are writes of another host."""

    keys: array[int] = field(default_factory=lambda: array("I"))
    times: array[int] = field(default_factory=lambda: array("Q"))
    writes: bytearray = field(default_factory=bytearray)

    def add(self, key: int, time: int, is_write: bool) -> None:
        self.keys.append(key)
        self.times.append(time)
        self.writes.append(is_write)


class Burst(NamedTuple):
    """A key that is written again at a time. Compared by the time alone, as the simulator's are."""

    due: int
    key: int
    left: int

    def __lt__(self, other: tuple[int, ...]) -> bool:
        return self.due < other[0]


@dataclass
class Counter:
    """A key that is written again and again, and hardly ever read."""

    key: int
    polled: bool
    life: int


class Mixture:
    """The writes of one mix among the reads of one trace."""

    def __init__(
        self, reads: Sequence[int], capacity: int, mix: str, rate: float, steps: Sequence[int]
    ) -> None:
        self._reads, self._mix, self._steps = reads, mix, steps
        self._capacity, self._per_read = capacity, rate / (1 - rate)
        self._chance = Chance(SEED)
        self._keys = max(reads) + 1
        self._seen: list[int] = []
        self._dead: list[int] = []
        self._bursts: list[Burst] = []
        self._counters: list[Counter] = []
        self._owed, self._time = 0.0, FIRST_TIME
        self.operations = Operations()

    def draw(self) -> Operations:
        """All of it."""
        last = {key: at for at, key in enumerate(self._reads)}
        known = bytearray(self._keys)
        for at, key in enumerate(self._reads):
            self._time += self._steps[at] if self._steps else 1
            self.operations.add(key, self._time, False)
            if not known[key]:
                known[key] = True
                self._seen.append(key)
            if last[key] == at:
                self._dead.append(key)
            self._owed += self._per_read
            self._write_what_is_due(at)
        return self.operations

    def _write_what_is_due(self, at: int) -> None:
        draw = self._chance
        while self._bursts and self._bursts[0].due <= self._time:
            _, key, left = heapq.heappop(self._bursts)
            self.operations.add(key, self._time, True)
            self._owed -= 1
            if left > 1:
                self._burst(key, left - 1)
        while self._owed >= 1 or (self._owed > 0 and draw.share() < self._owed):
            self._owed -= 1
            self.operations.add(self._written(at), self._time, True)

    def _burst(self, key: int, left: int) -> None:
        due = self._time + 1 + int(50 * self._chance.exponential())
        heapq.heappush(self._bursts, Burst(due, key, left))

    def _popular(self) -> int:
        return self._reads[self._chance.below(len(self._reads))]

    def _written(self, at: int) -> int:
        draw, mix = self._chance, self._mix
        if mix == "mixed":
            dice = draw.share()
            mix = "bursty" if dice < 0.08 else "recent" if dice < 0.5 else "tail"
        if mix == "uniform":
            return self._seen[draw.below(len(self._seen))]
        if mix == "popular":
            return self._popular()
        if mix == "recent":
            return self._reads[at - min(at, 1 + int(300 * draw.exponential()))]
        return self._written_in_bursts() if mix == "bursty" else self._written_in_the_tail()

    def _written_in_bursts(self) -> int:
        key, more = self._popular(), 0
        while more < 19 and self._chance.share() < 0.8:
            more += 1
        if more:
            self._burst(key, more)
        return key

    def _written_in_the_tail(self) -> int:
        draw = self._chance
        dice = draw.share()
        if dice < 0.1:
            return self._popular()
        if dice < 0.55 and self._dead:
            return self._dead[-1 - draw.below(min(len(self._dead), self._capacity // 2))]
        if len(self._counters) < max(50, self._capacity // 4) and (not self._counters or draw.share() < 0.1):
            self._counters.append(self._new_counter())
            return self._counters[-1].key
        number = draw.below(len(self._counters))
        counter = self._counters[number]
        if counter.polled and draw.share() < 0.1:
            self.operations.add(counter.key, self._time, False)
        counter.life -= 1
        if counter.life <= 0:
            self._counters[number] = self._new_counter(life_first=True)
        return counter.key

    def _new_counter(self, life_first: bool = False) -> Counter:
        key, self._keys = self._keys, self._keys + 1
        polled = not life_first and self._chance.share() < 0.5
        life = 5 + int(30 * self._chance.exponential())
        polled = self._chance.share() < 0.5 if life_first else polled
        self.operations.add(key, self._time, False)
        return Counter(key, polled, life)


def day_and_night(reads: int) -> tuple[list[int], list[int]]:
    """Keys and time steps: two populations of 100,000 keys, Zipf .9, one by day and one by night, five times
    slower by night, drifting."""
    n, draw = 100_000, Chance(7)
    weights, total = [], 0.0
    for rank in range(n):
        total += (rank + 1) ** -0.9
        weights.append(total)
    populations = []
    for a in range(2):
        keys = [a * n + i for i in range(n)]
        for i in range(n - 1, 0, -1):
            j = draw.below(i + 1)
            keys[i], keys[j] = keys[j], keys[i]
        populations.append(keys)
    drawn, steps = [], []
    for i in range(reads):
        phase = math.sin(2 * math.pi * i / 400_000)
        keys = populations[0 if draw.share() < 0.5 + 0.45 * phase else 1]
        if i % 200 == 0:
            for each in populations:
                j = draw.below(n)
                k = draw.below(1000)
                each[j], each[k] = each[k], each[j]
        drawn.append(keys[min(n - 1, bisect_left(weights, draw.share() * total))])
        steps.append(1 if phase > 0 else 5)
    return drawn, steps


def numbered(keys: Sequence[int]) -> array[int]:
    """Keys as numbers from 0, in the order of their first request."""
    numbers: dict[int, int] = {}
    return array("I", (numbers.setdefault(key, len(numbers)) for key in keys))
