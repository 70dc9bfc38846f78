"""Django's caches beside each other, through Django's interface, in one run (target S13).

  cachee          cachee_shm.django.CacheeCache, a segment without a bridge
  LocMem          Django's own, one process
  django-redis    a Redis server over a unix socket, hiredis
  pymemcache      Django's PyMemcacheCache, memcached over a unix socket
  diskcache       diskcache.DjangoCache, in /dev/shm

All do the same, through Django's interface: a string of 100 characters; `get_many` of ten keys; `aget` in
an event loop that runs for the whole turn. What is not installed is left out.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rivals
from measuring import Target, apart, interleaved, ratio, save, start, table, targets_table
from rivals import Absent, Room

import cachee_shm

KEYS = 1_000
MANY = 10
TURN_MS = 40.0
LEAST_CALLS = 5
TIMEOUT_S = 3600
VALUE = "x" * 100
US, LOCMEM = "cachee", "LocMem"
VERBS = ("get", "set", "get_many", "aget")
FLOORS = (
    (LOCMEM, ("get", "set", "get_many"), 1.5),
    ("django-redis", ("get", "set", "get_many"), 10),
    ("pymemcache", ("get", "set", "get_many"), 10),
    (LOCMEM, ("aget",), 20),
)

Samples = dict[str, list[float]]


def measured(
    folder: Path, repeats: int, turn_ms: float
) -> tuple[list[str], list[Target], dict[str, Samples]]:
    """Tables, targets, and the samples: nanoseconds per call, by verb and backend, of one interleaved run."""
    with ExitStack() as stack:
        caches = {}
        room = Room(KEYS, folder, apart())
        for name, make in BACKENDS.items():
            try:
                caches[name] = stack.enter_context(make(room))
            except Absent as error:
                print(f"{name} is left out: {error}")
        for name, cache in caches.items():
            cache.set_many(dict.fromkeys(names(), VALUE), TIMEOUT_S)
            assert cache.get_many(names()) == dict.fromkeys(names(), VALUE), name
        found: dict[str, Samples] = {}
        for verb in VERBS:
            turns = {name: turn(cache, verb, turn_ms) for name, cache in caches.items()}
            found[verb] = interleaved(turns, repeats)
    return tables(found), targets(found), found


def names() -> list[str]:
    return [f"user:{number}" for number in range(KEYS)]


def turn(cache: Any, verb: str, turn_ms: float) -> Callable[[], float]:
    """One turn of a backend, as long as it takes; it returns nanoseconds per call."""
    keys = names()
    groups = [keys[at : at + MANY] for at in range(0, KEYS, MANY)]
    calls: dict[str, Callable[[], int]] = {
        "get": lambda: each(cache.get, keys),
        "set": lambda: each(lambda key: cache.set(key, VALUE, TIMEOUT_S), keys),
        "get_many": lambda: each(cache.get_many, groups),
        "aget": lambda: asyncio.run(aget_each(cache, keys, time.perf_counter() + turn_ms / 1000)),
    }
    once = calls[verb]

    def run() -> float:
        begun, count = time.perf_counter(), 0
        while count < LEAST_CALLS or time.perf_counter() - begun < turn_ms / 1000:
            count += once()
        return (time.perf_counter() - begun) * 1e9 / count

    return run


def each(call: Callable[[Any], object], arguments: Sequence[Any]) -> int:
    """As many calls as fit into a millisecond, or all of them."""
    end, count = time.perf_counter() + 0.001, 0
    for one in arguments:
        call(one)
        count += 1
        if not count % 16 and time.perf_counter() > end:
            break
    return count


async def aget_each(cache: Any, keys: Sequence[str], end: float) -> int:
    count = 0
    while time.perf_counter() < end:
        for key in keys[:16]:
            await cache.aget(key)
        count += 16
    return count


def tables(found: dict[str, Samples]) -> list[str]:
    rows = []
    for name in found["get"]:
        rows.append([name, *(f"{min(found[verb][name]) / 1000:.2f}" for verb in VERBS)])
        if name != US:
            rows.append(
                [
                    "  times as long as cachee",
                    *(f"{ratio(found[verb][name], found[verb][US]):.1f}" for verb in VERBS),
                ]
            )
    return [table("Django, microseconds per call: the best turn of each", ("", *VERBS), rows)]


def targets(found: dict[str, Samples]) -> list[Target]:
    return [
        Target(
            "S13",
            f"Django: {verb}, times as fast as {rival}",
            ratio(found[verb][rival], found[verb][US]) if rival in found[verb] else None,
            floor,
            is_floor=True,
        )
        for rival, verbs, floor in FLOORS
        for verb in verbs
    ]


# Backends


def configured() -> None:
    from django.conf import settings

    if not settings.configured:
        settings.configure(CACHES={}, USE_TZ=True)


@contextmanager
def cachee(room: Room) -> Iterator[Any]:
    configured()
    from cachee_shm.django import CacheeCache

    cache = CacheeCache("bench", {"OPTIONS": {"private": True}})
    yield cache
    assert isinstance(cache.shm, cachee_shm.Cache)
    cache.shm.close()


@contextmanager
def locmem(room: Room) -> Iterator[Any]:
    from django.core.cache.backends.locmem import LocMemCache

    yield LocMemCache("bench", {"OPTIONS": {"MAX_ENTRIES": 10 * KEYS}})


@contextmanager
def django_redis(room: Room) -> Iterator[Any]:
    module = rivals.wanted("django_redis.cache")
    with rivals.redis_server(room) as path:
        yield module.RedisCache(f"unix://{path}", {})


@contextmanager
def pymemcache(room: Room) -> Iterator[Any]:
    wanted = rivals.wanted("pymemcache")
    from django.core.cache.backends.memcached import PyMemcacheCache

    path = room.folder / "django-memcached"
    user = ["-u", "root"] if os.getuid() == 0 else []
    with rivals.server(["memcached", "-s", str(path), *user], room):
        client = wanted.Client(f"unix:{path}")
        rivals.ready(client.version, OSError, "memcached")
        client.close()
        yield PyMemcacheCache(f"unix:{path}", {})


@contextmanager
def diskcache(room: Room) -> Iterator[Any]:
    module = rivals.wanted("diskcache")
    cache = module.DjangoCache(str(room.folder / "django-diskcache"), {})
    yield cache
    cache.close()


BACKENDS = {
    US: cachee,
    LOCMEM: locmem,
    "django-redis": django_redis,
    "pymemcache": pymemcache,
    "diskcache": diskcache,
}


def draw(found: dict[str, Samples]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        for axis, (verb, samples) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
            axis.bar(list(samples), [min(turns) / 1000 for turns in samples.values()])
            axis.set_title(f"{verb}, microseconds")
            axis.set_yscale("log")
            axis.tick_params(axis="x", rotation=60)

    return on


def main() -> None:
    chosen = start(__doc__, repeats=15)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-", dir=shared) as folder:
        shown, judged, found = measured(Path(folder), chosen.repeats, 5 if chosen.quick else TURN_MS)
    print(*shown)
    print(targets_table(judged))
    save(chosen.out, "django", {"ns_per_call": found}, judged, draw(found))


if __name__ == "__main__":
    main()
