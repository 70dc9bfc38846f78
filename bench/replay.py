"""A trace replayed through the real cache: get, and set what was not there.

With several writers, each is a process of its own that replays every n-th chunk of the trace, in turns: the
order of the requests stays the trace's, so what changes is what several processes cost, each with pages of
its own in the same segment.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import posix_ipc
from room import KEY_BYTES, Room, config_of
from traces import Trace

import cachee_shm

CHUNK = 100  # requests of one writer before it is the next one's turn
TURN_S = 60
READ, DELETE, OVERWRITE = range(3)


@dataclass(frozen=True)
class Outcome:
    """The share of reads that missed, and how many entries there were at the end."""

    miss: float
    entries: int
    seconds: float


def replay(trace: Trace, room: Room, writers: int, mutations: float) -> Outcome:
    """`mutations` is the share of the requests that delete or overwrite their key instead of reading it."""
    names = [number.to_bytes(KEY_BYTES, "little") for number in range(trace.distinct)]
    keys = [names[number] for number in trace.requests]
    verbs = _verbs(len(keys), mutations)
    start = time.perf_counter()
    misses, entries = (_alone if writers == 1 else _in_turns)(keys, verbs, room, writers)
    seconds = time.perf_counter() - start
    return Outcome(misses / max(1, verbs.count(READ)), entries, seconds)


def _verbs(count: int, mutations: float) -> array[int]:
    drawn = random.Random(2)
    if not mutations:
        return array("B", bytes(count))
    return array(
        "B", drawn.choices((READ, DELETE, OVERWRITE), (1 - mutations, mutations / 2, mutations / 2), k=count)
    )


def _run(cache: cachee_shm.Cache, keys: Sequence[bytes], verbs: Sequence[int], value: bytes) -> int:
    """Misses."""
    get, put, drop = cache.get, cache.set, cache.delete
    misses = 0
    for key, verb in zip(keys, verbs, strict=True):
        if verb == READ:
            if get(key) is None:
                misses += 1
                put(key, value)
        elif verb == OVERWRITE:
            put(key, value)
        else:
            drop(key)
    return misses


def _alone(keys: list[bytes], verbs: array[int], room: Room, writers: int) -> tuple[int, int]:
    with cachee_shm.attach(private=True, config=config_of(room.memory, "hits")) as cache:
        return _run(cache, keys, verbs, bytes(room.value_bytes)), len(cache)


def _in_turns(keys: list[bytes], verbs: array[int], room: Room, writers: int) -> tuple[int, int]:
    fork = multiprocessing.get_context("fork")
    config = config_of(room.memory, f"bench-{os.getpid()}")
    turns = [fork.Semaphore(0) for _ in range(writers)]
    missed = fork.Array("q", writers)

    def write(number: int) -> None:
        own, following = turns[number], turns[(number + 1) % writers]
        with cachee_shm.attach("bench", config=config) as cache:
            for at in range(number * CHUNK, len(keys) + number * CHUNK, writers * CHUNK):
                if not own.acquire(timeout=TURN_S):
                    raise SystemExit("the writer before this one is stuck or dead")
                part = slice(at, at + CHUNK)
                missed[number] += _run(cache, keys[part], verbs[part], bytes(room.value_bytes))
                following.release()

    with cachee_shm.attach("bench", config=config) as cache:
        processes = [fork.Process(target=write, args=(number,)) for number in range(writers)]
        try:
            _finish(processes, turns[0])
            return sum(missed), len(cache)
        finally:
            posix_ipc.unlink_shared_memory(cache.name)


def _finish(processes: list[Any], first: Any) -> None:
    for process in processes:
        process.start()
    try:
        first.release()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("a writer failed: no figures")
    finally:
        for process in processes:
            process.terminate()
