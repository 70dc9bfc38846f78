"""Workers of one host, killed while they write, and the truth against which the reads of all hosts are held.

The truth is a shared file. For each key: the origin's number, which only grows, and the newest of them whose
announcement has returned, with the place in its host's ring at or before which that stands. A key is written
by one worker at a time, of one host; whoever comes in its place goes on with its numbers. A reader anywhere
notes that newest number, then whether its host has applied as much of the writer's ring, then reads: what it
gets must be that number or a later one, and whole. On the writer's host it must be in any case.

A nursery forks its workers and kills them (SIGKILL) one after the other: some as they attach, most in a hot
spell, in which they write without a pause. The worker of slot 0 lives through it all. Who comes in place of
a dead one writes other keys first, so that what the dead left half done is seen for a while, and at rest.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import sys
import time
from typing import Any

import cachee_shm
from cachee_shm import Cache
from cachee_shm.config import load
from tests.cachee_shm.processes import forked, until

HOSTS, SLOTS, LIVES, KEYS_EACH = 2, 5, 4, 8  # keys of a life; the fifth in a slot has those of the first
KEYS = range(HOSTS * SLOTS * LIVES * KEYS_EACH)
WRITING, DELETE, SET, TAG = range(4)  # how a key is announced, by its number
HISTORY = 256  # numbers of a key: no reader is late by so many
KEY_BYTES = 16 + 16 * HISTORY
COUNTS = ("reads", "hits", "known", "writes")  # of a slot
SLOT_BYTES = 64
PAUSE_S, REST_S, HOT_S = 0.03, 0.001, 0.004
AS_IT_ATTACHES = 0.2  # of the deaths
ORIGIN_S, ORIGIN_SLOW = 0.001, 0.2  # what the origin takes for some of its reads and writes
CLEARS = 0.0005  # of the writes
FILLER = [bytes([n]) * 40_000 for n in range(256)]


def name(key: int) -> str:
    return f"k{key}"


def kind(key: int) -> int:
    return key % 4


def tags(key: int) -> list[str]:
    return [f"t{key}"] if kind(key) == TAG else []


def written_at(key: int) -> int:
    return key // (SLOTS * LIVES * KEYS_EACH)


def value(number: int) -> bytes:
    """Some are kept in pieces."""
    size = number * 0x9E3779B1 % 8000
    return struct.pack("<q", number) + FILLER[number % 256][: size if number % 16 else 5 * size]


class Truth:
    """The shared file. A word of 8 bytes has one writer, and is read whole."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")  # struct writes byte by byte

    @staticmethod
    def size() -> int:
        return len(KEYS) * KEY_BYTES + HOSTS * SLOTS * SLOT_BYTES

    def _get(self, at: int) -> int:
        return int(self.words[at // 8])

    def _put(self, at: int, number: int) -> None:
        self.words[at // 8] = number

    def origin(self, key: int) -> int:
        return self._get(key * KEY_BYTES)

    def commit(self, key: int, number: int) -> None:
        self._put(key * KEY_BYTES, number)

    def newest(self, key: int) -> tuple[int, int]:
        """The newest number that was announced, and where. (0, 0) where a reader was too late to be told."""
        number = self._get(key * KEY_BYTES + 8)
        at = key * KEY_BYTES + 16 + 16 * (number % HISTORY)
        position, same = self._get(at), self._get(at + 8) == number
        return (number, position) if same else (0, 0)

    def announced(self, key: int, number: int, position: int) -> None:
        at = key * KEY_BYTES + 16 + 16 * (number % HISTORY)
        self._put(at, position)
        self._put(at + 8, number)
        self._put(key * KEY_BYTES + 8, number)

    def _slot(self, host: int, slot: int) -> int:
        return len(KEYS) * KEY_BYTES + (host * SLOTS + slot) * SLOT_BYTES

    def add(self, host: int, slot: int, what: str) -> None:
        at = self._slot(host, slot) + 8 * COUNTS.index(what)
        self._put(at, self._get(at) + 1)

    def count(self, host: int, slot: int, what: str) -> int:
        return self._get(self._slot(host, slot) + 8 * COUNTS.index(what))

    def heat(self, host: int, slot: int, hot: bool) -> None:
        self._put(self._slot(host, slot) + 8 * len(COUNTS), hot)

    def is_hot(self, host: int, slot: int) -> bool:
        return self._get(self._slot(host, slot) + 8 * len(COUNTS)) != 0

    def end(self, host: int, over: bool) -> None:
        """All workers of the host are told to end; a signal would be lost where one was just forked."""
        self._put(self._slot(host, 0) + 8 * len(COUNTS) + 8, over)

    def is_over(self, host: int) -> bool:
        return self._get(self._slot(host, 0) + 8 * len(COUNTS) + 8) != 0


class Worker:
    """One process: it writes the keys of its slot and reads everybody's, until it is told or killed."""

    def __init__(self, truth: Truth, cache: Cache, host: int, slot: int, others: str, life: int) -> None:
        self.truth, self.cache, self.host, self.slot, self.others = truth, cache, host, slot, others
        self.draw = random.Random(life)
        first = ((host * SLOTS + slot) * LIVES + life % LIVES) * KEYS_EACH
        self.own = range(first, first + KEYS_EACH)
        self.parent = os.getppid()

    def live(self) -> None:
        while not self.truth.is_over(self.host) and os.getppid() == self.parent:
            hot = self.truth.is_hot(self.host, self.slot)
            if self.draw.random() < (0.9 if hot else 0.1):
                self.write(self.draw.choice(self.own))
            else:
                self.read(self.draw.choice(KEYS))
            if not hot:
                time.sleep(REST_S)

    def write(self, key: int) -> None:
        number = self.truth.origin(key) + 1
        if kind(key) == WRITING:
            with self.cache.writing(name(key)) as w:
                self.truth.commit(key, number)
                self.origin_takes_time()
                w.set(value(number))
        else:
            self.truth.commit(key, number)
            self.announce(key, number)
        self.truth.announced(key, number, self.cache.tail)
        self.truth.add(self.host, self.slot, "writes")

    def origin_takes_time(self) -> None:
        if self.draw.random() < ORIGIN_SLOW:
            time.sleep(ORIGIN_S)

    def load(self, key: int) -> bytes:
        number = self.truth.origin(key)
        self.origin_takes_time()
        return value(number)

    def announce(self, key: int, number: int) -> None:
        if self.draw.random() < CLEARS:
            self.cache.clear()
        elif kind(key) == DELETE:
            self.cache.delete(name(key))
        elif kind(key) == SET:
            self.cache.set(name(key), value(number))
        else:
            self.cache.delete_tags(*tags(key))

    def read(self, key: int) -> None:
        number, position = self.truth.newest(key)
        is_known = written_at(key) == self.host or cursor(self.cache, self.others) >= position
        found = self.cache.get(name(key))
        self.truth.add(self.host, self.slot, "reads")
        if found is not None:
            self.truth.add(self.host, self.slot, "hits")
            if is_known and number and written_at(key) != self.host:
                self.truth.add(self.host, self.slot, "known")
        else:
            found = self.cache.get_or_load(name(key), self.load, key, tags=tags(key), ttl=3600)
        fault = fault_of(found, number if is_known else 0)
        assert not fault, f"{name(key)} at host {self.host}, slot {self.slot}: {fault}"


def fault_of(found: Any, least: int) -> str:
    """What is wrong with this value where this number is known; nothing, if it is good."""
    number = struct.unpack_from("<q", found)[0]
    if found != value(number):
        return f"TORN: {len(found)} bytes of number {number}"
    return f"STALE: {number}, not {least} or later" if number < least else ""


def cursor(cache: Cache, source: str) -> int:
    """How far the ring of that host has been applied here; -1 before anything was heard of it."""
    return max((at for _, heard, _, at in cache.sources() if heard == source), default=-1)


class Nursery:
    """The workers of one host."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.truth = Truth(arguments["truth"])
        self.config = load(arguments["file"])  # once: no worker shall die while it reads a file
        self.host, self.others = arguments["host"], arguments["others"]
        self.draw = random.Random(self.host)
        self.lives = [0] * SLOTS

    def work(self, slot: int) -> None:
        with cachee_shm.attach("shop", config=self.config) as cache:
            Worker(self.truth, cache, self.host, slot, self.others, self.lives[slot]).live()

    def start(self, slot: int) -> int:
        self.lives[slot] += 1
        return forked(lambda: self.work(slot))

    def kill(self, pid: int, slot: int) -> None:
        if self.draw.random() < AS_IT_ATTACHES:
            time.sleep(self.draw.random() * HOT_S)  # from its first breath on: it was just forked
        else:
            time.sleep(self.draw.expovariate(1 / PAUSE_S))
            self.truth.heat(self.host, slot, True)
            time.sleep(self.draw.random() * HOT_S)
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.truth.heat(self.host, slot, False)
        assert status == -signal.SIGKILL, f"slot {slot} ended by itself: {status}"

    def run(self, kills: int) -> None:
        """So many deaths; then all are asked to end, which one that hangs does not."""
        self.truth.end(self.host, False)
        pids = [self.start(slot) for slot in range(SLOTS)]
        self.survivor_goes_on("known")
        slot = 1
        for _ in range(kills):
            self.kill(pids[slot], slot)
            pids[slot] = self.start(slot)
            if self.draw.random() >= AS_IT_ATTACHES:  # else the one that was just forked is the next
                slot = self.draw.randrange(1, SLOTS)
        self.survivor_goes_on("reads")
        self.truth.end(self.host, True)
        for slot, pid in enumerate(pids):
            _, status = until(lambda pid=pid: ended(pid))
            assert status == 0, f"slot {slot} ended with {status}"

    def survivor_goes_on(self, what: str) -> None:
        before = self.truth.count(self.host, 0, what)
        until(lambda: self.truth.count(self.host, 0, what) > before)


def ended(pid: int) -> tuple[int, int] | None:
    found = os.waitpid(pid, os.WNOHANG)
    return found if found[0] else None


def serve(arguments: dict[str, Any]) -> None:
    """Told a number of deaths, it answers when they have happened and the others have ended; and again."""
    nursery = Nursery(arguments)
    print("ready", flush=True)
    for line in sys.stdin:
        nursery.run(int(line))
        print("done", flush=True)
