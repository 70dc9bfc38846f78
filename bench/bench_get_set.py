"""get and set on one host, beside dict, cachebox and warp_cache, in one run (targets S1 to S4).

Every subject does the same operations on the same keys, in turns (see measuring.py), one process, one
thread, in a `for` loop whose own cost is in every figure and stands in the table as "the loop alone". Keys
are str, made beforehand, except where the title says otherwise; values are bytes objects of 100 bytes.

  cachee             attach(config=...) with a [bridge] and a default_ttl, as on a host of a mesh; no peer is
                     connected, and serve_until lies far ahead, as it does while all peers are heard
  cachee, local      the same without a bridge and without a lifetime
  dict               dict.get and d[key] = value: no lifetime, no sharing, no bound
  cachebox           TTLCache.get and c[key] = value: one process alone
  cachebox [key]     TTLCache's c[key]: its faster way to read what is there
  warp_cache         warp_cache.cache(backend="shared"): called for get (its faster way), .set for set; its
                     memory is shared between processes, as Cachee's is
  msgpack.unpackb    decoding the dict's packed bytes, with no cache around it

dict and cachebox return the object that they hold; Cachee and warp_cache make a new one from shared bytes.
Nothing is timed before every subject was seen to hold every key. A rival that is not installed is left out.
"""

from __future__ import annotations

import glob
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import msgpack
import posix_ipc
from measuring import Target, interleaved, ratio, save, start, table, targets_table

import cachee_shm

try:
    import cachebox
except ImportError:
    cachebox = None
try:
    import warp_cache
except ImportError:
    warp_cache = None

MEMORY = "256MiB"  # 200,000 entries take about 40 MB
FOR_EVER_MS = 1 << 62
TTL_S = 3600
VALUE = bytes(range(100))
PROFILE = {
    "id": 4711,
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "active": True,
    "balance": 1815.12,
    "roles": ["author", "analyst"],
}
HOT = "user:4711"
US, LOOP, LOCAL, UNPACK = "cachee", "the loop alone", "cachee, local", "msgpack.unpackb"

Turn = Callable[[], float]
Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Store:
    """One subject: its ways to read and to write one key."""

    get: Callable[[str], object]
    put: Callable[[Iterable[str], object], None]  # all keys, in the subject's own loop


def calls(call: Callable[[Any], object], arguments: Iterable[Any], count: int) -> float:
    """Nanoseconds per call."""
    start = time.perf_counter_ns()
    for argument in arguments:
        call(argument)
    return (time.perf_counter_ns() - start) / count


def loop_alone(arguments: Iterable[Any], count: int) -> float:
    start = time.perf_counter_ns()
    for _ in arguments:
        pass
    return (time.perf_counter_ns() - start) / count


def puts(store: Store, keys: Iterable[str], count: int) -> float:
    start = time.perf_counter_ns()
    store.put(keys, VALUE)
    return (time.perf_counter_ns() - start) / count


def items(target: Any) -> Callable[[Iterable[str], object], None]:
    """Writing by item assignment."""

    def put(keys: Iterable[str], value: object) -> None:
        for key in keys:
            target[key] = value

    return put


def cachee_store(cache: cachee_shm.Cache) -> Store:
    def put(keys: Iterable[str], value: object) -> None:
        store = cache.set
        for key in keys:
            store(key, value)

    return Store(cache.get, put)


@contextmanager
def attached(has_bridge: bool) -> Iterator[cachee_shm.Cache]:
    """A segment of this run's own, removed at its end."""
    table: dict[str, Any] = {"memory": MEMORY}
    config: dict[str, Any] = {"namespaces": {"bench": table}}
    config["host"] = {"name": f"bench-{os.getpid()}-{int(has_bridge)}"}
    if has_bridge:
        table["default_ttl"] = f"{TTL_S}s"
        config["bridge"] = {"listen": "127.0.0.1:7946", "peers": []}
    cache = cachee_shm.attach("bench", config=config)
    try:
        cache.set_serve_until(FOR_EVER_MS)
        yield cache
    finally:
        cache.close()
        posix_ipc.unlink_shared_memory(cache.name)


@contextmanager
def warp_store(keys: int) -> Iterator[Store]:
    """warp_cache's shared backend. Its memory is named after the function that it decorates."""

    def load(key: str) -> object:
        return None

    load.__qualname__ = load.__name__ = f"bench_{os.getpid()}"
    cached = warp_cache.cache(
        max_size=2 * keys, ttl=TTL_S, backend="shared", max_key_size=64, max_value_size=256
    )(load)

    def put(keys: Iterable[str], value: object) -> None:
        store = cached.set
        for key in keys:
            store(value, key)

    try:
        yield Store(cached, put)
    finally:
        for path in glob.glob(f"/dev/shm/warp_cache_*bench_{os.getpid()}_*"):
            with suppress(OSError):
                os.unlink(path)


class Bench:
    """The subjects, filled; and the tables as they come."""

    def __init__(self, stores: dict[str, Store], keys: list[str], quick: bool, repeats: int) -> None:
        self.stores = stores
        self.keys = keys
        self.hot_count = 2_000 if quick else 200_000
        self.repeats = repeats
        self.sections: dict[str, Samples] = {}
        for store in stores.values():
            store.put([*keys, HOT], VALUE)
        self.check()

    def check(self) -> None:
        for name, store in self.stores.items():
            missing = sum(store.get(key) != VALUE for key in [*self.keys, HOT])
            if missing:
                raise SystemExit(
                    f"{name} does not hold {missing} of {len(self.keys) + 1} keys: nothing to compare"
                )

    def measure(self, title: str, turns: dict[str, Turn]) -> Samples:
        """Runs one section and prints its table."""
        samples = interleaved(turns, self.repeats)
        self.sections[title] = samples
        rows = [
            (name, f"{statistics.median(ns):.0f}", f"{min(ns):.0f}", f"{ratio(samples[US], ns):.2f}")
            for name, ns in samples.items()
        ]
        print(table(f"{title} (ns per operation)", ("", "median", "best", "cachee / it"), rows), flush=True)
        return samples

    def hot(self) -> Iterable[str]:
        return repeat(HOT, self.hot_count)

    def get_hot(self) -> Samples:
        turns: dict[str, Turn] = {LOOP: lambda: loop_alone(self.hot(), self.hot_count)}
        for name, store in self.stores.items():
            turns[name] = lambda get=store.get: calls(get, self.hot(), self.hot_count)  # type: ignore[misc]
        return self.measure("get, one hot key, 100 bytes", turns)

    def get_random(self) -> Samples:
        keys, count = self.keys, len(self.keys)
        turns: dict[str, Turn] = {LOOP: lambda: loop_alone(keys, count)}
        for name, store in self.stores.items():
            turns[name] = lambda get=store.get: calls(get, keys, count)  # type: ignore[misc]
        return self.measure(f"get, random over {count:,} keys, 100 bytes", turns)

    def get_built_key(self) -> Samples:
        """A web service makes its keys: no subject finds their hash in the str object."""
        numbers = [int(key.partition(":")[2]) for key in self.keys]
        turns: dict[str, Turn] = {}
        for name, store in self.stores.items():
            turns[name] = lambda get=store.get: calls(  # type: ignore[misc]
                lambda number: get(f"user:{number}"), numbers, len(numbers)
            )
        return self.measure(
            f'get, random over {len(numbers):,} keys, each made for the call: f"user:{{n}}"', turns
        )

    def get_dict(self) -> Samples:
        packed = msgpack.packb(PROFILE)
        turns: dict[str, Turn] = {
            UNPACK: lambda: calls(msgpack.unpackb, repeat(packed, self.hot_count), self.hot_count)
        }
        for name, store in self.stores.items():
            store.put([HOT], PROFILE)
            turns[name] = lambda get=store.get: calls(get, self.hot(), self.hot_count)  # type: ignore[misc]
        return self.measure(f"get, one hot key, a dict of {len(packed)} bytes packed", turns)

    def set_hot(self) -> Samples:
        turns: dict[str, Turn] = {}
        for name, store in self.writers():
            turns[name] = lambda store=store: puts(store, self.hot(), self.hot_count)  # type: ignore[misc]
        return self.measure("set, one hot key, 100 bytes", turns)

    def set_random(self) -> Samples:
        turns: dict[str, Turn] = {}
        for name, store in self.writers():
            turns[name] = lambda store=store: puts(store, self.keys, len(self.keys))  # type: ignore[misc]
        return self.measure(f"set, random over {len(self.keys):,} keys, 100 bytes", turns)

    def writers(self) -> list[tuple[str, Store]]:
        return [(name, store) for name, store in self.stores.items() if name != "cachebox [key]"]


def compared(samples: Samples, rival: str) -> float | None:
    return ratio(samples[US], samples[rival]) if rival in samples else None


def run(bench: Bench) -> list[Target]:
    hot, random_, built, value = bench.get_hot(), bench.get_random(), bench.get_built_key(), bench.get_dict()
    set_hot, set_random = bench.set_hot(), bench.set_random()
    return [
        Target("S1", "get, hot: cachee / cachebox", compared(hot, "cachebox"), 0.9),
        Target("S1", "get, hot: cachee / warp_cache", compared(hot, "warp_cache"), 0.4),
        Target("S1", "get, hot: cachee / dict", compared(hot, "dict"), 2.0),
        Target("S2", "get, random: cachee / cachebox", compared(random_, "cachebox"), 1.0),
        Target(
            "S2", "get, random, key made for the call: cachee / cachebox", compared(built, "cachebox"), 1.0
        ),
        Target("S3", "get of a dict: cachee / msgpack.unpackb", compared(value, UNPACK), 1.25),
        Target("S4", "set, hot, no peer: cachee / warp_cache", compared(set_hot, "warp_cache"), 0.25),
        Target("S4", "set, random, no peer: cachee / warp_cache", compared(set_random, "warp_cache"), 0.25),
    ]


def draw(sections: dict[str, Samples]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        axes = figure.subplots(2, 3).flat
        for axis, (title, samples) in zip(axes, sections.items(), strict=True):
            names = list(reversed(samples))
            colours = ["tab:orange" if name == US else "tab:gray" for name in names]
            axis.barh(names, [statistics.median(samples[name]) for name in names], color=colours)
            axis.set_title(title.replace(", ", ",\n", 1), fontsize=8)
            axis.tick_params(labelsize=7)
            axis.set_xlabel("ns per operation (median)", fontsize=7)

    return on


def make_keys(count: int) -> list[str]:
    keys = [f"user:{number}" for number in range(10_000, 10_000 + count)]
    random.Random(1).shuffle(keys)
    return keys


def main() -> None:
    chosen = start(__doc__, repeats=15)
    keys = make_keys(2_000 if chosen.quick else 200_000)
    with attached(True) as mesh, attached(False) as local, rivals(len(keys)) as others:
        bench = Bench(
            {US: cachee_store(mesh), LOCAL: cachee_store(local), **others}, keys, chosen.quick, chosen.repeats
        )
        targets = run(bench)
    print(targets_table(targets))
    save(chosen.out, "get_set", {"ns_per_operation": bench.sections}, targets, draw(bench.sections))


@contextmanager
def rivals(keys: int) -> Iterator[dict[str, Store]]:
    plain: dict[str, object] = {}
    found = {"dict": Store(plain.get, items(plain))}
    if cachebox is None or warp_cache is None:
        print("cachebox or warp_cache is missing and left out: pip install 'cachee-shm[bench]'")
    if cachebox is not None:
        box = cachebox.TTLCache(2 * keys, TTL_S)
        found["cachebox"] = Store(box.get, items(box))
        found["cachebox [key]"] = Store(box.__getitem__, items(box))
    if warp_cache is None:
        yield found
    else:
        with warp_store(keys) as warp:
            yield {**found, "warp_cache": warp}


if __name__ == "__main__":
    main()
