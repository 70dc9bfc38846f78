"""memcached and warp_cache, written full with the loads of filling.py, and what they hold then.

memcached reports over its socket (`stats`, `stats slabs`) how much memory that took; warp_cache's files show
it. The number of entries is counted by reading back all keys, as for Cachee.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from filling import MIB, TURNS, Held, Load, Writer, name, names, sizes_held
from measuring import Apart
from rivals import Room, ready, server, wanted

SLOTS_TRIED = 4096  # to see what one takes


# memcached


@dataclass(frozen=True)
class Memcached:
    """One that runs: a client, and the socket at which it tells of itself."""

    client: Any
    error: type[Exception]
    path: Path

    def set(self, key: str, value: bytes) -> bool:
        try:
            return bool(self.client.set(key, value))
        except self.error:
            return False

    def has(self, key: str) -> bool:
        return self.client.get(key) is not None

    def tells(self, what: str) -> dict[str, int]:
        """`stats`, or `stats slabs`: those of its answers that are numbers. pylibmc knows the first alone."""
        said = b""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.path))
            sock.sendall(what.encode() + b"\r\n")
            while not said.endswith(b"END\r\n"):
                said += sock.recv(1 << 16)
        return {key: int(n) for key, n in re.findall(r"^STAT (\S+) (\d+)\r$", said.decode(), re.MULTILINE)}


@contextmanager
def memcached(memory: int, folder: Path, apart: Apart) -> Iterator[Memcached]:
    module = wanted("pylibmc")
    path = folder / "memory.sock"
    largest = min(2 * MIB, memory // 2)  # it takes no more for the size of an item
    command = ["memcached", "-s", str(path), "-m", str(memory // MIB), "-t", "1", "-u", "root"]
    command += ["-I", str(largest)]
    with server(command, Room(0, folder, apart)):
        client = module.Client([str(path)])
        ready(lambda: client.get("up"), module.Error, "memcached")  # a set would take a page for its size
        yield Memcached(client, module.Error, path)


def fill_memcached(load: Load, memory: int, folder: Path, apart: Apart) -> Held:
    """Its memory does not include its hash table, and there is no table but that: so it is added."""
    with memcached(memory, folder, apart) as running:
        writer = Writer(0, load, running.set, running.has)
        count = writer.write(memory * TURNS)
        sizes = list(sizes_held(running.client.get_multi, names([count])))
        stats = running.tells("stats")
        return Held(
            stats["limit_maxbytes"] + stats["hash_bytes"],
            stats["limit_maxbytes"],
            len(sizes),
            sum(sizes) + len(sizes) * len(name(0, 0)),
            chunk_bytes(running.tells("stats slabs")),
            count.sets,
            count.failed,
            items=stats["bytes"],
        )


def chunk_bytes(slabs: dict[str, int]) -> int:
    """Of all chunks that hold an item or a part of one."""
    return sum(
        number * slabs[key.replace("used_chunks", "chunk_size")]
        for key, number in slabs.items()
        if key.endswith(":used_chunks")
    )


# warp_cache


def fill_warp_cache(load: Load, memory: int) -> Held:
    """Values of one size: its slots are as large as the largest that may come, so it is told the least."""
    value = bytes(load.most)
    value_most = least(lambda most: stores(value, 64, most), load.most)
    key_most = least(lambda most: stores(value, most, value_most), len(name(0, 0)))
    with warp(SLOTS_TRIED, key_most, value_most) as (_, took):
        slots = memory * SLOTS_TRIED // took()
    with warp(slots, key_most, value_most) as (cached, took):
        keys = [name(0, number) for number in range(2 * slots)]
        for key in keys:
            cached.set(value, key)
        entries = sum(cached.get(key) is not None for key in keys)
        key_value = entries * (load.most + len(name(0, 0)))
        return Held(took(), took(), entries, key_value, took(), len(keys), cached.cache_info().oversize_skips)


def stores(value: bytes, key_most: int, value_most: int) -> bool:
    with warp(1, key_most, value_most) as (cached, _):
        cached.set(value, name(0, 0))
        return cached.get(name(0, 0)) == value


def least(is_enough: Callable[[int], bool], start: int) -> int:
    return next(number for number in range(start, start + 4096) if is_enough(number))


@contextmanager
def warp(slots: int, key_most: int, value_most: int) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A cache, and what its files take. They are named after the function that it decorates."""

    def load(key: str) -> object:
        return None

    load.__qualname__ = load.__name__ = title = f"bench_memory_{os.getpid()}"
    try:
        yield (
            wanted("warp_cache").cache(
                max_size=slots, backend="shared", max_key_size=key_most, max_value_size=value_most
            )(load),
            lambda: sum(os.stat(path).st_size for path in _files(title)),
        )
    finally:
        for path in _files(title):
            with suppress(OSError):
                os.unlink(path)


def _files(title: str) -> list[str]:
    return glob(f"/dev/shm/warp_cache_*{title}_*")
