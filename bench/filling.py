"""Memory written full: by one process or several, and what is held then.

The entries that are held are counted by reading back every key that was ever written, and not by the store's
own statistics. A set that raises, or that says that it did not store, is a failed one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache as remembered
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import mesh
from crew import member, orders
from measuring import two_cores
from room import entry_bytes, layout_numbers

import cachee_shm
from cachee_shm.errors import CacheeError

TURNS = 3  # of the value memory, in bytes that are written
ORDERS = 10  # in which a writer is told to write its share
BATCH = 1000
TRIES = 16  # to find a key that is still there, for an overwrite
MIB = 1 << 20
ENTRY_OVERHEAD_MIN = 48  # of memcached and of Cachee: how much to write needs no better figure


@dataclass(frozen=True)
class Load:
    """New keys with values of `least` to `most` bytes, log-uniform; so many of the sets overwrite instead.

    `entry_size` is what the configuration of Cachee says of them, if anything.
    """

    name: str
    least: int
    most: int
    overwrites: float = 0.0
    entry_size: str = ""

    @property
    def options(self) -> dict[str, str]:
        return {"entry_size": self.entry_size} if self.entry_size else {}

    def upto(self, most: int) -> Load:
        """The same with no value beyond what a store takes."""
        return replace(self, most=min(self.most, most))

    def size(self, draw: random.Random) -> int:
        if self.least == self.most:
            return self.least
        return int(self.least * (self.most / self.least) ** draw.random())


@dataclass(frozen=True)
class Held:
    """What a store that was written full holds, and what it took for that. All but the counts in bytes."""

    memory: int  # that it was granted
    room: int  # of that: for entries
    entries: int
    key_value: int  # of the entries
    with_headers: int  # the entries with all that the store keeps beside each, padding too
    sets: int
    failed: int
    no_room: int = 0  # of the failed: no room was found; the others were lost to what seemed a newer event
    file: int = 0  # what the segment takes of the machine
    items: int = 0  # what a store that tells it calls the bytes of its entries

    @property
    def live(self) -> float:
        """Keys and values that can be read, over all memory that was granted."""
        return self.key_value / self.memory

    @property
    def live_with_headers(self) -> float:
        return self.with_headers / self.memory


@dataclass
class Count:
    """Of one writer, or of all: keys are numbered from 0."""

    keys: int = 0
    sets: int = 0
    failed: int = 0


@dataclass
class Writer:
    """Writes a load with keys of its own: new ones in order, and again some that are still there."""

    number: int
    load: Load
    put: Callable[[str, bytes], object]
    has: Callable[[str], bool]
    turn: int = 0
    draw: random.Random = field(init=False)
    count: Count = field(default_factory=Count)

    def __post_init__(self) -> None:
        self.draw = random.Random(f"writer {self.number}, turn {self.turn}")
        self.blob = bytes(self.load.most)

    def write(self, budget: int) -> Count:
        """So many bytes of entries, more or less."""
        while budget > 0:
            size = self.load.size(self.draw)
            self._set(self._key(), self.blob[:size])
            budget -= size + ENTRY_OVERHEAD_MIN
        return self.count

    def _key(self) -> str:
        if self.load.overwrites and self.draw.random() < self.load.overwrites:
            for number in (self.draw.randrange(self.count.keys or 1) for _ in range(TRIES)):
                if self.has(key := name(self.number, number)):
                    return key
        self.count.keys += 1
        return name(self.number, self.count.keys - 1)

    def _set(self, key: str, value: bytes) -> None:
        self.count.sets += 1
        try:
            self.count.failed += self.put(key, value) is False
        except CacheeError:
            self.count.failed += 1


def name(writer: int, number: int) -> str:
    """A key of 8 bytes."""
    return f"{writer:x}{number:07x}"


def names(counts: Sequence[Count]) -> Iterator[str]:
    """All keys that were written."""
    return (name(writer, number) for writer, count in enumerate(counts) for number in range(count.keys))


def sizes_held(read: Callable[[list[str]], dict[str, bytes]], keys: Iterator[str]) -> Iterator[int]:
    """Bytes of each value that can be read."""
    while batch := list(islice(keys, BATCH)):
        yield from map(len, read(batch).values())


# Cachee


def fill_cachee(load: Load, memory: int, writers: int, turn: int = 0) -> Held:
    """A segment, written full by so many processes at once; each turn draws other sizes and overwrites."""
    config = mesh.local_config("memory", f"{memory}B", **load.options)
    with ExitStack() as stack:
        stack.callback(mesh.remove, config["host"]["name"])
        cache = stack.enter_context(cachee_shm.attach(mesh.NAMESPACE, config=config))
        stats = cache.stats()
        load = load.upto(stats["value_bytes"] // 8)
        counts = _written(load, stats["value_bytes"] * TURNS, config, writers, turn)
        return _held(cache, memory, counts)


def _written(load: Load, budget: int, config: dict[str, Any], writers: int, turn: int) -> list[Count]:
    cores = two_cores()
    with ExitStack() as stack:
        crew = [
            stack.enter_context(member(write, cores[number % 2], number, load, config, turn))
            for number in range(writers)
        ]
        for one in crew:
            one.answer()
        for _ in range(ORDERS):
            for one in crew:
                one.tell(budget // writers // ORDERS)
            counts: list[Count] = [one.answer() for one in crew]
        return counts


def write(pipe: Connection, number: int, load: Load, config: dict[str, Any], turn: int) -> None:
    """A process of the crew: told how many bytes to write, it answers with its counts so far."""
    with cachee_shm.attach(mesh.NAMESPACE, config=config) as cache:
        writer = Writer(number, load, cache.set, cache.__contains__, turn)
        pipe.send(None)
        for (budget,) in orders(pipe):
            pipe.send(writer.write(budget))


def _held(cache: cachee_shm.Cache, memory: int, counts: Sequence[Count]) -> Held:
    stats, layout = cache.stats(), layout_numbers()
    of_value = remembered(lambda size: entry_bytes(size, stats["page_bytes"], layout))
    keys = names(counts)
    entries = key_value = with_headers = 0
    for size in sizes_held(cache.get_many, keys):
        entries += 1
        key_value += len(name(0, 0)) + size
        with_headers += of_value(size)
    file = os.stat(f"/dev/shm{cache.name}")
    return Held(
        memory,
        stats["value_bytes"],
        entries,
        key_value,
        with_headers,
        sum(count.sets for count in counts),
        sum(count.failed for count in counts),
        stats["no_room"],
        file=max(file.st_size, file.st_blocks * 512),
    )
