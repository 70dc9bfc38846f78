"""Backends of frameworks, each beside its usual rivals, in one run (target S13).

Each is asked through its framework's own face: dogpile.cache by a region, aiocache by `await`, cachelib and
Flask-Caching by their caches. Keys are read at random from 1,000; values are dicts of five fields. One
process, one thread, interleaved turns (see measuring.py); Redis is a server on this host, over a unix
socket. dogpile.cache's "memory" hands out the very object that was set; "memory_pickle" and ours hand out
copies. Ours is a segment without a bridge, of the shape that `attach()` has by default. `get_many` is of 20
keys.

A framework or a rival that is not installed is left out, and said.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Target, apart, interleaved, ratio, save, start, table, targets_table
from rivals import Absent, Room, redis_server, wanted

from cachee_shm import attach
from cachee_shm.backing import Backing

KEYS = 1_000
MANY = 20
TURN, QUICK_TURN = 4_000, 100  # operations
SLOW = 10  # as many times fewer, of what asks a server or the file system
VALUE = {
    "id": 4711,
    "name": "Ada Lovelace",
    "active": True,
    "balance": 1815.12,
    "roles": ["author", "analyst"],
}
VERBS = ("get", "set", "get_many")
US = "cachee"
NAMES = [f"user:{number}" for number in range(KEYS)]


@dataclass(frozen=True)
class Face:
    """One backend, as its framework shows it."""

    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]
    get_many: Callable[[Sequence[str]], Any]
    is_async: bool = False
    is_slow: bool = False


def dogpile(room: Room, redis: Callable[[], str]) -> Iterator[tuple[str, Callable[[], Face]]]:
    make_region = wanted("dogpile.cache").make_region

    def face(name: str, arguments: dict[str, Any], is_slow: bool = False) -> Face:
        region = make_region().configure(name, expiration_time=3600, arguments=arguments)
        if name == "cachee_shm":
            region.backend._backing = Backing(attached=attach(private=True))
        return Face(region.get, region.set, region.get_multi, is_slow=is_slow)

    yield US, lambda: face("cachee_shm", {})
    yield "memory", lambda: face("dogpile.cache.memory", {})
    yield "memory_pickle", lambda: face("dogpile.cache.memory_pickle", {})
    yield "redis", lambda: face("dogpile.cache.redis", {"url": f"unix://{redis()}"}, is_slow=True)


def aiocache(room: Room, redis: Callable[[], str]) -> Iterator[tuple[str, Callable[[], Face]]]:
    wanted("aiocache")

    def ours() -> Face:
        from cachee_shm.aiocache import CacheeCache

        cache = CacheeCache()
        cache._backing = Backing(attached=attach(private=True))
        return Face(cache.get, cache.set, cache.multi_get, is_async=True)

    def memory() -> Face:
        cache = wanted("aiocache").SimpleMemoryCache()
        return Face(cache.get, cache.set, cache.multi_get, is_async=True)

    yield US, ours
    yield "memory", memory


def cachelib(room: Room, redis: Callable[[], str]) -> Iterator[tuple[str, Callable[[], Face]]]:
    module = wanted("cachelib")

    def face(cache: Any, is_slow: bool = False) -> Face:
        return Face(cache.get, cache.set, lambda keys: cache.get_many(*keys), is_slow=is_slow)

    def ours() -> Face:
        from cachee_shm.cachelib import CacheeCache

        cache = CacheeCache()
        cache._backing = Backing(attached=attach(private=True))
        return face(cache)

    yield US, ours
    yield "SimpleCache", lambda: face(module.SimpleCache(threshold=2 * KEYS))
    yield "FileSystem", lambda: face(module.FileSystemCache(str(room.folder / "files"), threshold=0), True)


def flask_caching(room: Room, redis: Callable[[], str]) -> Iterator[tuple[str, Callable[[], Face]]]:
    module, flask = wanted("flask_caching"), wanted("flask")

    app = flask.Flask("bench")
    app.app_context().push()

    def face(kind: str, is_slow: bool = False, **options: Any) -> Face:
        config = {"CACHE_TYPE": kind, "CACHE_THRESHOLD": 2 * KEYS, **options}
        cache = module.Cache(app, config=config)
        backend = app.extensions["cache"][cache]
        if kind.startswith("cachee_shm"):
            backend._backing = Backing(attached=attach(private=True))
        return Face(cache.get, cache.set, lambda keys: cache.get_many(*keys), is_slow=is_slow)

    yield US, lambda: face("cachee_shm.flask.CacheeCache")
    yield "SimpleCache", lambda: face("SimpleCache")
    yield "redis", lambda: face("RedisCache", True, CACHE_REDIS_URL=f"unix://{redis()}")


SECTIONS = {
    "dogpile.cache": dogpile,
    "aiocache": aiocache,
    "cachelib": cachelib,
    "Flask-Caching": flask_caching,
}


@contextmanager
def faces(room: Room) -> Iterator[dict[str, dict[str, Face]]]:
    """By framework and backend; of what is not to be had, a line each."""
    with ExitStack() as stack:
        sockets: list[str] = []

        def redis() -> str:
            if not sockets:
                sockets.append(stack.enter_context(redis_server(room)))
            return sockets[0]

        found: dict[str, dict[str, Face]] = {}
        for framework, section in SECTIONS.items():
            try:
                for name, make in section(room, redis):
                    try:
                        found.setdefault(framework, {})[name] = make()
                    except Absent as reason:
                        print(f"{framework}, {name} is left out: {reason}")
            except Absent as reason:
                print(f"{framework} is left out: {reason}")
        yield found


def turn(face: Face, verb: str, count: int) -> Callable[[], float]:
    """Nanoseconds of an operation."""
    chosen = random.Random(7).choices(NAMES, k=count)
    groups = [chosen[at : at + MANY] for at in range(0, count - MANY + 1, MANY)]
    arguments: list[tuple[Any, ...]] = {
        "get": [(name,) for name in chosen],
        "set": [(name, VALUE) for name in chosen],
        "get_many": [(group,) for group in groups],
    }[verb]
    call = getattr(face, verb)

    def sync() -> float:
        began = time.perf_counter_ns()
        for each in arguments:
            call(*each)
        return (time.perf_counter_ns() - began) / len(arguments)

    async def awaited() -> float:
        began = time.perf_counter_ns()
        for each in arguments:
            await call(*each)
        return (time.perf_counter_ns() - began) / len(arguments)

    return (lambda: asyncio.run(awaited())) if face.is_async else sync


def fill(face: Face) -> None:
    async def awaited() -> None:
        for name in NAMES:
            await face.set(name, VALUE)
        assert await face.get(NAMES[-1]) == VALUE

    if face.is_async:
        asyncio.run(awaited())
        return
    for name in NAMES:
        face.set(name, VALUE)
    assert face.get(NAMES[-1]) == VALUE


def targets_of(samples: dict[str, dict[str, list[float]]]) -> list[Target]:
    """How many times as fast as the rival that the table names."""

    def times(framework: str, rival: str, verb: str) -> float | None:
        ours, theirs = (samples.get(f"{framework}, {name}", {}).get(verb) for name in (US, rival))
        return ratio(theirs, ours) if ours and theirs else None

    wished = (("dogpile.cache", "memory_pickle"), ("aiocache", "memory"))
    return [
        Target(
            "S13",
            f"{framework}: {verb}, {rival}'s time over ours",
            times(framework, rival, verb),
            1,
            " x",
            True,
        )
        for framework, rival in wished
        for verb in VERBS
    ]


def main() -> None:
    options = start(__doc__ or "", repeats=9)
    count = QUICK_TURN if options.quick else TURN
    samples: dict[str, dict[str, list[float]]] = {}
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-", dir=shared) as folder,
        faces(Room(KEYS, Path(folder), apart())) as found,
    ):
        subjects = {
            f"{of}, {name}": face for of, backends in found.items() for name, face in backends.items()
        }
        for face in subjects.values():
            fill(face)
        for verb in VERBS:
            turns = {
                name: turn(face, verb, max(MANY, count // (SLOW if face.is_slow else 1)))
                for name, face in subjects.items()
            }
            for name, each in interleaved(turns, options.repeats).items():
                samples.setdefault(name, {})[verb] = each
    medians = {name: {verb: statistics.median(of[verb]) for verb in VERBS} for name, of in samples.items()}
    for framework in found:
        rows = [
            [name.partition(", ")[2], *(f"{of[verb] / 1000:.2f}" for verb in VERBS)]
            for name, of in medians.items()
            if name.startswith(f"{framework}, ")
        ]
        print(table(f"{framework}, microseconds", ("", "get", "set", f"get_many of {MANY}"), rows))
    targets = targets_of(samples)
    print(targets_table(targets))
    save(
        options.out,
        "frameworks",
        {"median_ns": medians, "samples_ns": samples},
        targets,
        lambda f: draw(f, medians),
    )


def draw(figure: Any, medians: dict[str, dict[str, float]]) -> None:
    for axes, verb in zip(figure.subplots(1, len(VERBS)), VERBS, strict=True):
        axes.barh(list(medians), [of[verb] / 1000 for of in medians.values()])
        axes.set_xscale("log")
        axes.set_title(f"{verb}, µs")


if __name__ == "__main__":
    main()
