"""Processes that work on one cache for a bench: each attaches to the same memory, each has a core.

A member reads from its pipe what to do, does it, and answers; the bench's own process only waits meanwhile. A
member's cache is Cachee's or warp_cache's, the only other cache in these benches that has shared memory.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import glob
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import mesh

import cachee_shm

PROCESSES = multiprocessing.get_context("spawn")
ANSWER_S = 60.0
STOP_S = 10.0
WARP_KEYS = 100_000


@dataclass(frozen=True)
class Shared:
    """How a process gets at a memory that others share; the same in all of them."""

    kind: str  # "cachee" or "warp_cache"
    config: Mapping[str, Any]
    name: str

    @contextmanager
    def attached(self) -> Iterator[tuple[Callable[[str], Any], Callable[[str, Any], object]]]:
        """The ways to get and to set."""
        if self.kind == "cachee":
            with cachee_shm.attach(mesh.NAMESPACE, config=self.config) as cache:
                yield cache.get, cache.set
        else:
            cached = warp(self.name)
            yield cached, lambda key, value: cached.set(value, key)


def warp(name: str) -> Any:
    """warp_cache's memory is named after the function that it decorates."""

    def load(key: str) -> object:
        return None

    load.__qualname__ = load.__name__ = name
    module = importlib.import_module("warp_cache")
    return module.cache(max_size=WARP_KEYS, backend="shared", max_key_size=64, max_value_size=256)(load)


@contextmanager
def shared_memories(memory: str) -> Iterator[dict[str, Shared]]:
    """Cachee's, without a bridge, and warp_cache's where that is installed; removed at the end."""
    config = mesh.local_config("crew", memory)
    name = config["host"]["name"].replace("-", "_")
    try:
        found = {"cachee": Shared("cachee", config, name)}
        try:
            importlib.import_module("warp_cache")
        except ImportError as error:
            print(f"warp_cache is left out: {error} (pip install 'cachee-shm[bench]')")
        else:
            found["warp_cache"] = Shared("warp_cache", {}, name)
        yield found
    finally:
        mesh.remove(config["host"]["name"])
        for path in glob(f"/dev/shm/warp_cache_*{name}_*"):
            with suppress(OSError):
                os.unlink(path)


class Member:
    """One process, bound to `cores`, that serves `orders`: a generator function over its pipe."""

    def __init__(self, serve: Callable[..., None], cores: frozenset[int], *arguments: Any) -> None:
        self.pipe, far_end = PROCESSES.Pipe()
        self.process: BaseProcess = PROCESSES.Process(
            target=_serve, args=(serve, cores, far_end, arguments), daemon=True
        )
        self.process.start()
        far_end.close()  # its death is our end of the pipe

    def tell(self, *order: Any) -> None:
        self.pipe.send(order)

    def answer(self) -> Any:
        try:
            if self.pipe.poll(ANSWER_S):
                return self.pipe.recv()
        except EOFError:
            pass
        self.process.join(0.1)
        raise SystemExit(f"a process of this bench does not answer; its exit code: {self.process.exitcode}")

    def stop(self) -> None:
        """It ends by itself; by SIGKILL when it cannot, as one that hangs."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(STOP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(
    serve: Callable[..., None], cores: frozenset[int], pipe: Connection, arguments: tuple[Any, ...]
) -> None:
    os.sched_setaffinity(0, cores)
    gc.disable()
    with suppress(EOFError, KeyboardInterrupt):
        serve(pipe, *arguments)


def orders(pipe: Connection) -> Iterator[tuple[Any, ...]]:
    """What a member is told, one after the other, until it is told nothing more."""
    while (order := pipe.recv()) is not None:
        yield order


@contextmanager
def member(serve: Callable[..., None], cores: frozenset[int], *arguments: Any) -> Iterator[Member]:
    started = Member(serve, cores, *arguments)
    try:
        yield started
    finally:
        started.stop()
