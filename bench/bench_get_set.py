"""get and set on one host, beside every rival that is installed, in one run (targets S1 to S4).

Every subject does the same operations on the same keys, in turns (see measuring.py), one process, one
thread, in a `for` loop whose own cost is in every figure and stands in the table as "the loop alone". Keys
are str, made beforehand, except where the title says otherwise; values are bytes objects of 100 bytes.

  cachee             a host of a mesh: a default_ttl, a real bridge, and four peers linked to it, each with a
                     bridge of its own. No turn begins before the peers have applied what was written
  cachee, local      a segment without a bridge and without a lifetime
  cachee, near       with near_cache, as by default: this process keeps what it reads; no other row does.
                     For the hot key of 100 bytes it is a host of the mesh; for the dict, a local one with
                     near_objects
  msgpack.unpackb    decoding the dict's packed bytes, with no cache around it

dict, cachebox and theine return the object that they hold; all others make a new one from shared bytes, or
from what a server sent. Nothing is timed before every subject was seen to hold the keys. This process has a
core of its own where there are two or more, bridges have the others, servers all of them. A slow rival does
fewer operations in its turn: as many as take 60 ms, and the next ones in the next turn. "Random": keys are
read in another order than that in which they were stored.

The last table sets what near_cache saves beside what it costs: the hot read, and the memory of 8 workers that
have each read all keys twice. A worker's memory is what a forked process adds to its private pages by this.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import mesh
import msgpack
import rivals
from measuring import Target, apart, interleaved, ratio, save, start, table, targets_table
from rivals import Store, cachee

import cachee_shm

PEERS = 4
MANY = 100
WORKERS = 8
NEAR_BYTES = 4 << 20
NEAR_SHARE = 64  # of the memory, as the configuration bounds it
TURN_MS = 60.0
SETS_MOST = 16_000  # in a turn: half of the ring, so that no peer is lapped
LEAST_CALLS = 10
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
US, LOOP, LOCAL, NEAR = "cachee", "the loop alone", "cachee, local", "cachee, near"
UNPACK = "msgpack.unpackb"
SINGLE = "cachee: get"
GET_HOT = "get, one hot key, 100 bytes"

Turn = Callable[[], float]
Samples = dict[str, list[float]]


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


class Slices:
    """A part of a list for each turn, each going on where the one before ended."""

    def __init__(self, whole: Sequence[Any], count: int) -> None:
        self.whole = whole
        self.count = min(count, len(whole))
        self.at = 0

    def next(self) -> Sequence[Any]:
        if self.count == len(self.whole):
            return self.whole
        if self.at + self.count > len(self.whole):
            self.at = 0
        self.at += self.count
        return self.whole[self.at - self.count : self.at]


def affordable(ns_of: Callable[[int], float], most: int) -> int:
    """How many operations fit into a turn, `most` at most; `ns_of` does some and says what one took."""
    return max(LEAST_CALLS, min(most, int(TURN_MS * 1e6 / ns_of(LEAST_CALLS))))


class Bench:
    """The subjects, filled; and the tables as they come."""

    def __init__(
        self,
        stores: dict[str, Store],
        near: Store,
        near_hot: Store,
        keys: list[str],
        settle: Callable[[], None],
        quick: bool,
        repeats: int,
    ) -> None:
        self.stores = stores
        self.near = near
        self.near_hot = near_hot
        self.keys = keys
        self.reads = random.Random(2).sample(keys, len(keys))
        self.settle = settle
        self.hot_most = 2_000 if quick else 200_000
        self.sets_most = min(SETS_MOST, len(keys))
        self.repeats = repeats
        self.sections: dict[str, Samples] = {}
        for name, store in stores.items():
            # Twice, since a peer that falls behind, on a machine that does much else, may evict all of it.
            missing = self.missing_after_fill(store) and self.missing_after_fill(store)
            if missing:
                raise SystemExit(f"{name} does not hold {missing} of the keys: nothing to compare")

    def missing_after_fill(self, store: Store) -> int:
        """How many keys a subject does not hold after all were written."""
        for at in range(0, len(self.keys), SETS_MOST):
            store.fill(self.keys[at : at + SETS_MOST], VALUE)
            self.settle()
        store.put([HOT], VALUE)
        self.settle()
        return sum(value != VALUE for value in held(store, [*self.keys, HOT]))

    def measure(self, title: str, turns: dict[str, Turn]) -> Samples:
        """Runs one section and prints its table."""
        samples = interleaved(turns, self.repeats)
        self.sections[title] = samples
        rows = [
            (name, f"{statistics.median(ns):,.0f}", f"{min(ns):,.0f}", f"{ratio(samples[US], ns):.3f}")
            for name, ns in samples.items()
        ]
        print(table(f"{title} (ns per operation)", ("", "median", "best", "cachee / it"), rows), flush=True)
        return samples

    def hot(self, call: Callable[[Any], object], argument: Any) -> Turn:
        count = affordable(lambda n: calls(call, repeat(argument, n), n), self.hot_most)
        return lambda: calls(call, repeat(argument, count), count)

    def over(self, call: Callable[[Any], object], arguments: Sequence[Any], most: int, per_call: int) -> Turn:
        """A turn that calls it with each of the next arguments, `most` at most; nanoseconds per key."""
        count = affordable(lambda n: calls(call, arguments[:n], n), most)
        slices = Slices(arguments, count)
        return lambda: calls(call, slices.next(), slices.count) / per_call

    def get_hot(self) -> Samples:
        turns: dict[str, Turn] = {LOOP: lambda: loop_alone(repeat(HOT, self.hot_most), self.hot_most)}
        turns |= {name: self.hot(store.get, HOT) for name, store in self.stores.items()}
        turns[NEAR] = self.hot(self.near_hot.get, HOT)
        return self.measure(GET_HOT, turns)

    def get_random(self) -> Samples:
        turns: dict[str, Turn] = {LOOP: lambda: loop_alone(self.reads, len(self.reads))}
        turns |= {
            name: self.over(store.get, self.reads, len(self.reads), 1) for name, store in self.stores.items()
        }
        return self.measure(f"get, random over {len(self.keys):,} keys, 100 bytes", turns)

    def get_built_key(self) -> Samples:
        """A web service makes its keys: no subject finds their hash in the str object."""
        numbers = [int(key.partition(":")[2]) for key in self.reads]

        def built(get: Callable[[str], object]) -> Callable[[int], object]:
            return lambda number: get(f"user:{number}")

        turns = {
            name: self.over(built(store.get), numbers, len(numbers), 1) for name, store in self.stores.items()
        }
        return self.measure(f'get, random over {len(numbers):,} keys, each made for it: f"user:{{n}}"', turns)

    def get_dict(self) -> Samples:
        packed = msgpack.packb(PROFILE)
        turns = {UNPACK: self.hot(msgpack.unpackb, packed)}
        for name, store in [*self.stores.items(), (NEAR, self.near)]:
            if store.put_object is None:
                store.put([HOT], PROFILE)
            else:
                store.put_object(HOT, PROFILE)
            turns[name] = self.hot(store.get_object or store.get, HOT)
        return self.measure(f"get, one hot key, a dict of {len(packed)} bytes packed", turns)

    def set_hot(self) -> Samples:
        turns = {}
        for name, store in self.stores.items():
            put = self.putting(store)
            count = affordable(lambda n, put=put: put(repeat(HOT, n), n), self.sets_most)  # type: ignore[misc]
            turns[name] = self.settling(name, lambda put=put, n=count: put(repeat(HOT, n), n))  # type: ignore[misc]
        return self.measure("set, one hot key, 100 bytes", turns)

    def set_random(self) -> Samples:
        turns = {}
        for name, store in self.stores.items():
            put = self.putting(store)
            count = affordable(lambda n, put=put: put(self.keys[:n], n), self.sets_most)  # type: ignore[misc]
            slices = Slices(self.keys, count)
            turns[name] = self.settling(name, lambda put=put, s=slices: put(s.next(), s.count))  # type: ignore[misc]
        return self.measure(f"set, random over {len(self.keys):,} keys, 100 bytes", turns)

    def putting(self, store: Store) -> Callable[[Iterable[str], int], float]:
        return lambda keys, count: puts(store, keys, count)

    def settling(self, name: str, turn: Turn) -> Turn:
        """What Cachee wrote is applied by the peers before the next subject has its turn."""

        def both() -> float:
            took = turn()
            self.settle()
            return took

        return both if name == US else turn

    def get_many(self) -> Samples:
        lists = [self.reads[at : at + MANY] for at in range(0, len(self.reads), MANY)]
        turns = {SINGLE: self.over(self.stores[US].get, self.reads, len(self.reads), 1)}
        for name, store in self.stores.items():
            if store.get_many is not None:
                turns[name] = self.over(store.get_many, lists, len(lists), MANY)
        return self.measure(f"get_many, random, {MANY} keys a call: each key", turns)

    def set_many(self) -> Samples:
        lists = [dict.fromkeys(self.keys[at : at + MANY], VALUE) for at in range(0, len(self.keys), MANY)]
        single = self.putting(self.stores[US])
        slices = Slices(self.keys, self.sets_most)
        turns = {"cachee: set": self.settling(US, lambda: single(slices.next(), slices.count))}
        for name, store in self.stores.items():
            if store.set_many is not None:
                turn = self.over(store.set_many, lists, self.sets_most // MANY, MANY)
                turns[name] = self.settling(name, turn)
        return self.measure(f"set_many, random, {MANY} keys a call: each key", turns)


def held(store: Store, keys: Sequence[str]) -> Iterator[object]:
    """What a subject holds under the keys, asked for in its fastest way."""
    if store.get_many is None:
        for key in keys:
            value = store.get(key)
            yield value[0] if isinstance(value, tuple) else value  # theine says whether it was there
    else:
        for at in range(0, len(keys), 1000):
            values: Any = store.get_many(keys[at : at + 1000])
            yield from (
                (values.get(key) for key in keys[at : at + 1000]) if isinstance(values, dict) else values
            )


def compared(samples: Samples, rival: str) -> float | None:
    return ratio(samples[US], samples[rival]) if rival in samples else None


def run(bench: Bench) -> list[Target]:
    hot, random_, built, value = bench.get_hot(), bench.get_random(), bench.get_built_key(), bench.get_dict()
    set_hot, set_random = bench.set_hot(), bench.set_random()
    many = bench.get_many()
    bench.set_many()

    def near_to(rival: str) -> float | None:
        return ratio(hot[NEAR], hot[rival]) if rival in hot else None

    asked = [
        ("S1", "get, hot", hot, "cachebox", 1.1),
        ("S1", "get, hot", hot, "warp_cache", 0.33),
        ("S2", "get, random", random_, "cachebox", 1.0),
        ("S2", "get, random, key made for it", built, "cachebox", 1.0),
        ("S3", "get of a dict", value, UNPACK, 1.0),
        ("S4", f"set, hot, {PEERS} peers", set_hot, "warp_cache", 0.5),
        ("S4", f"set, hot, {PEERS} peers", set_hot, "LMDB", 0.1),
        ("S4", f"set, random, {PEERS} peers", set_random, "warp_cache", 0.5),
        ("S4", f"set, random, {PEERS} peers", set_random, "LMDB", 0.1),
    ]
    return [
        *(
            Target(name, f"{what}: cachee / {rival}", compared(samples, rival), limit)
            for name, what, samples, rival, limit in asked
        ),
        Target("S1", "get, hot: cachee, near / cachebox", near_to("cachebox"), 0.9),
        Target("S1", "get, hot: cachee, near / dict", near_to("dict"), 1.6),
        Target("S3", "get of a dict: cachee, near / dict", ratio(value[NEAR], value["dict"]), 1.6),
        Target("S2", f"get_many of {MANY}, for a key: it / get", ratio(many[US], many[SINGLE]), 0.65),
    ]


def private_bytes() -> int:
    """What this process has in pages that it shares with nobody."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def grown_by(fill: Callable[[], object]) -> int:
    """The private bytes that `fill`, and what it returns, add to a forked process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            gc.disable()  # it would write into every page that is still shared
            before = private_bytes()
            filled = fill()
            os.write(write, str(private_bytes() - before).encode())
            del filled
        finally:
            os._exit(0)
    os.close(write)
    grown = os.read(read, 64)
    os.close(read)
    os.waitpid(pid, 0)
    if not grown:
        raise SystemExit("the process whose memory was to be measured has failed")
    return int(grown)


def gain_and_memory(bench: Bench, off: cachee_shm.Cache, on: cachee_shm.Cache) -> str:
    """The hot read with and without near_cache, and what a host holds once its workers have read all keys."""

    def dict_of_all() -> object:
        return {key[:1] + key[1:]: VALUE[:1] + VALUE[1:] for key in bench.keys}

    def read_all(cache: cachee_shm.Cache) -> Callable[[], None]:
        def read() -> None:
            for key in bench.keys:
                own_key = key[:1] + key[1:]  # the key object of a request is the worker's own
                cache.get(own_key)
                cache.get(own_key)

        return read

    hot = bench.sections[GET_HOT]
    rows = []
    for name, label, shared, fill in (
        (US, "near_cache off", off.spec.memory_bytes, read_all(off)),
        (NEAR, f"near_cache {on.spec.near_bytes >> 10} KiB", on.spec.memory_bytes, read_all(on)),
        ("dict", "a dict in each", 0, dict_of_all),
    ):
        each = grown_by(fill)
        sizes = (shared, each, shared + WORKERS * each)
        rows.append(
            (label, f"{statistics.median(hot[name]):,.0f}", *(f"{size / 1e6:,.1f}" for size in sizes))
        )
    title = f"near_cache: the hot read, and the memory of {WORKERS} workers and {len(bench.keys):,} keys"
    return table(title, ("", "get, ns", "shared, MB", "each, MB", f"all {WORKERS}, MB"), rows)


def draw(sections: dict[str, Samples]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        axes = figure.subplots(2, 4).flat
        for axis, (title, samples) in zip(axes, sections.items(), strict=True):
            names = list(reversed(samples))
            colours = ["tab:orange" if name.startswith(US) else "tab:gray" for name in names]
            axis.barh(names, [statistics.median(samples[name]) for name in names], color=colours)
            axis.set_xscale("log")
            axis.set_title(title.replace(", ", ",\n", 1), fontsize=7)
            axis.tick_params(labelsize=6)
            axis.set_xlabel("ns per operation (median)", fontsize=6)

    return on


def make_keys(count: int) -> list[str]:
    keys = [f"user:{number}" for number in range(10_000, 10_000 + count)]
    random.Random(1).shuffle(keys)
    return keys


def main() -> None:
    chosen = start(f"{__doc__}\n{rivals.__doc__}", repeats=11)
    keys = make_keys(2_000 if chosen.quick else 200_000)
    memory = "16MiB" if chosen.quick else "128MiB"  # 200,000 entries take about 40 MB
    with ExitStack() as stack:
        cores = apart()
        others = stack.enter_context(rivals.rivals(len(keys), cores))
        ours = stack.enter_context(mesh.mesh("here", PEERS, memory, cores))
        alone = stack.enter_context(mesh.local("local", memory))
        spec = ours.cache.spec
        near_bytes = min(NEAR_BYTES, spec.memory_bytes // NEAR_SHARE)
        near_hot = stack.enter_context(cachee_shm.Cache(spec._replace(near_bytes=near_bytes)))
        near = stack.enter_context(mesh.local("near", "16MiB", near_cache="256KiB", near_objects=True))
        stores = {US: cachee(ours.cache), LOCAL: cachee(alone), **others}
        bench = Bench(stores, cachee(near), cachee(near_hot), keys, ours.settle, chosen.quick, chosen.repeats)
        targets = run(bench)
        print(gain_and_memory(bench, ours.cache, near_hot))
    print(targets_table(targets))
    save(chosen.out, "get_set", {"ns_per_operation": bench.sections}, targets, draw(bench.sections))


if __name__ == "__main__":
    main()
