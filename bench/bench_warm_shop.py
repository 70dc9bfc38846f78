"""A shop with a slow origin under a storm of writes, with and without loading ahead (target W7).

Each shop has two hosts with real bridges. On the first, two workers serve pages in asyncio: a page reads a
product, its price and its stock, one after the other, each by `aget_or_load` from an origin that takes 20 ms.
On the second, prices and stocks are written: half of the writes fall on products as popular as those whose
pages are read (Zipf), half on any product. The memory has room for all entries, and none expires: only writes
make reads miss.

  without     prewarm = false
  ahead       prewarm = true, with its defaults; both workers call prewarm.run, and one of them loads ahead

Both shops run at the same time and have the same customers and the same writes, so load of the machine falls
on both. Requests come at a given rate, whether or not those before were answered; a latency counts from when
its request was due. It is repeated for three storms: writes are 1, 5 and 20 % of the reads (--writes).

  waited      pages that took as long as a load, or longer
  loads       of the origin, on demand and ahead; a load ahead counts when its value is read or is known to be
              wasted: before that it may still replace a load on demand
  stale       a read that began after every host had applied a write, and had an older version
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import mesh
from measuring import Apart, Target, percentile, ratio, save, start, table, targets_table

import cachee_shm
from cachee_shm import prewarm

PROCESSES = multiprocessing.get_context("spawn")
WITHOUT, AHEAD = "without", "ahead"
LASTING = 'unknown_ttl = "0s"\n'  # else what a new segment loads ends all at once, 30 s after it was made
OPTIONS = {WITHOUT: LASTING, AHEAD: LASTING + "prewarm = true\n"}
WORKERS = 2
PRODUCTS = 2000
KINDS = ("product", "price", "stock")
WRITTEN = (1, 2)  # prices and stocks: a product itself stays as it is
PAGES_PER_S = 300.0
LOAD_S = 0.02
MEMORY = "8MiB"
STORMS = (0.01, 0.05, 0.2)
LEARN_S, WINDOW_S = 20.0, 10.0
QUICK_LEARN_S, QUICK_WINDOW_S = 0.5, 1.0
SYNC_S = 0.05
WAIT_S = 60.0
P99_MAX, LOADS_MAX = 0.6, 1.05


@dataclass(frozen=True)
class Plan:
    """How long it runs: it learns at first, and then is measured in windows."""

    learn_s: float
    window_s: float
    windows: int

    @property
    def seconds(self) -> float:
        return self.learn_s + self.window_s * self.windows

    def window(self, at_s: float) -> int | None:
        number = int((at_s - self.learn_s) // self.window_s)
        return number if 0 <= number < self.windows else None


class Popularity:
    """Products by Zipf's law: the lower the number, the likelier."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._sums = list(accumulate(1 / rank for rank in range(1, PRODUCTS + 1)))

    def product(self) -> int:
        return bisect_left(self._sums, self.chance.random() * self._sums[-1])

    def moments(self, seconds: float, per_second: float) -> Iterator[float]:
        """As independent customers come."""
        at = 0.0
        while (at := at + self.chance.expovariate(per_second)) < seconds:
            yield at


class Database:
    """What all processes share: each row's version, and the one that every host is known to have applied."""

    def __init__(self) -> None:
        rows = len(KINDS) * PRODUCTS
        self.version = PROCESSES.Array("q", rows, lock=False)
        self.applied = PROCESSES.Array("q", rows, lock=False)


def row_of(kind: int, product: int) -> int:
    return kind * PRODUCTS + product


def key_of(row: int) -> str:
    return f"{KINDS[row // PRODUCTS]}:{row % PRODUCTS}"


@dataclass
class Window:
    """What the customers of a shop have seen meanwhile."""

    page_ns: list[int] = field(default_factory=list)
    loads: int = 0
    stale: int = 0

    def add(self, other: Window) -> None:
        self.page_ns += other.page_ns
        self.loads += other.loads
        self.stale += other.stale

    def page_ms(self, percent: float) -> float:
        return percentile(self.page_ns, percent) / 1e6

    @property
    def waited(self) -> float:
        return sum(ns >= LOAD_S * 1e9 for ns in self.page_ns) / len(self.page_ns)


class Worker:
    """One process of the host that is read."""

    def __init__(self, cache: cachee_shm.Cache, database: Database, plan: Plan) -> None:
        self._cache, self._database, self._plan = cache, database, plan
        self._began = 0.0
        self.windows = [Window() for _ in range(plan.windows)]

    async def load(self, key: str) -> int:
        kind, product = key.split(":")
        self._now().loads += 1
        version = int(self._database.version[row_of(KINDS.index(kind), int(product))])
        await asyncio.sleep(LOAD_S)
        return version

    def _now(self) -> Window:
        return self._at(time.monotonic() - self._began)

    def _at(self, at_s: float) -> Window:
        number = self._plan.window(at_s)
        return Window() if number is None else self.windows[number]

    async def run(self, loads_ahead: bool, seed: int, pipe: Connection) -> None:
        cache = self._cache
        for kind in KINDS:
            cache.origin(f"{kind}:", load=self.load)
        ahead = asyncio.create_task(prewarm.run(cache)) if loads_ahead else None
        rows = range(len(KINDS) * PRODUCTS)
        for first in rows[:: len(rows) // 20]:
            await asyncio.gather(*(cache.aget_or_load(key_of(row)) for row in rows[first : first + 300]))
        pipe.send("ready")
        self._began = await asyncio.to_thread(pipe.recv)
        popularity, pages = Popularity(seed), []
        for at in popularity.moments(self._plan.seconds, PAGES_PER_S / WORKERS):
            await asyncio.sleep(max(0.0, self._began + at - time.monotonic()))
            pages.append(asyncio.create_task(self._page(popularity.product(), at)))
        await asyncio.wait_for(asyncio.gather(*pages), WAIT_S)
        if ahead is not None:
            ahead.cancel()
            with suppress(asyncio.CancelledError):
                await ahead

    async def _page(self, product: int, at: float) -> None:
        seen = self._at(at)
        for kind in range(len(KINDS)):
            row = row_of(kind, product)
            newest = self._database.applied[row]
            seen.stale += await self._cache.aget_or_load(key_of(row)) < newest
        seen.page_ns.append(int((time.monotonic() - self._began - at) * 1e9))


def serve(
    config: str, loads_ahead: bool, database: Database, plan: Plan, seed: int, pipe: Connection
) -> None:
    with cachee_shm.attach(mesh.NAMESPACE, config=config) as cache:
        worker = Worker(cache, database, plan)
        asyncio.run(worker.run(loads_ahead, seed, pipe))
        pipe.send(worker.windows)


class Shop:
    """One that serves. Its writers' cache is the second host's."""

    def __init__(self, stack: ExitStack, name: str, database: Database, plan: Plan) -> None:
        everywhere = frozenset(os.sched_getaffinity(0))
        met = stack.enter_context(
            mesh.mesh(f"warm-{name}", 1, MEMORY, Apart(everywhere, everywhere), options=OPTIONS[name])
        )
        self.read, self.written = met.cache, met.peers[0][1]
        self.pipes: list[Connection] = []
        for number in range(WORKERS):
            ours, theirs = PROCESSES.Pipe()
            arguments = (met.here.config, name == AHEAD, database, plan, number, theirs)
            process = PROCESSES.Process(target=serve, args=arguments)
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.kill)
            self.pipes.append(ours)

    def told(self) -> list[Any]:
        """What each worker says next."""
        found = []
        for pipe in self.pipes:
            if not pipe.poll(WAIT_S):
                raise SystemExit("a worker of the shop does not answer")
            found.append(pipe.recv())
        return found


@dataclass
class Found:
    """Of one shop in one storm."""

    windows: list[Window]
    loads: int  # while it was measured, as the docstring above counts them
    ahead: int  # loads
    wasted: int


Storm = dict[str, Found]


def storm(share: float, plan: Plan) -> Storm:
    """Both shops at once."""
    database = Database()
    with ExitStack() as stack:
        shops = {name: Shop(stack, name, database, plan) for name in OPTIONS}
        for shop in shops.values():
            shop.told()
        began = time.monotonic() + 0.2
        for shop in shops.values():
            for pipe in shop.pipes:
                pipe.send(began)
        learned: dict[str, Ahead] = {}

        def note() -> None:
            learned.update({name: ahead_of(shop) for name, shop in shops.items()})

        timer = threading.Timer(began + plan.learn_s - time.monotonic(), note)
        timer.start()
        write(database, [shop.written for shop in shops.values()], share, plan, began)
        timer.join()
        return {name: found_of(shop, plan, learned[name]) for name, shop in shops.items()}


class Ahead(NamedTuple):
    """Loads ahead of a shop so far."""

    loads: int
    read: int
    wasted: int

    @property
    def known(self) -> int:
        return self.read + self.wasted


def ahead_of(shop: Shop) -> Ahead:
    return Ahead(*(shop.read.warm_stats() or (0, 0, 0)))


def found_of(shop: Shop, plan: Plan, learned: Ahead) -> Found:
    windows = [Window() for _ in range(plan.windows)]
    for of_worker in shop.told():
        for window, seen in zip(windows, of_worker, strict=True):
            window.add(seen)
    ahead = ahead_of(shop)
    begun, known = ahead.loads - learned.loads, ahead.known - learned.known
    return Found(windows, sum(window.loads for window in windows) - begun + known, ahead.loads, ahead.wasted)


def write(
    database: Database, caches: Sequence[cachee_shm.Cache], share: float, plan: Plan, began: float
) -> None:
    """The storm. A row's version is raised before its key is deleted, as a database commits."""
    popularity = Popularity(99)
    chance = popularity.chance
    unsynced: dict[int, int] = {}
    synced = began
    for at in popularity.moments(plan.seconds, share * PAGES_PER_S * len(KINDS)):
        time.sleep(max(0.0, began + at - time.monotonic()))
        product = popularity.product() if chance.random() < 0.5 else chance.randrange(PRODUCTS)
        row = row_of(chance.choice(WRITTEN), product)
        database.version[row] += 1
        unsynced[row] = database.version[row]
        for cache in caches:
            cache.delete(key_of(row))
        if time.monotonic() - synced >= SYNC_S:
            for cache in caches:
                if not cache.wait_synced(WAIT_S):
                    raise SystemExit("the hosts do not apply the writes")
            for each, version in unsynced.items():
                database.applied[each] = version
            unsynced.clear()
            synced = time.monotonic()


def rows(found: dict[float, Storm]) -> list[tuple[str, ...]]:
    return [
        (
            f"{100 * share:g} % writes, {name}",
            f"{median(window.page_ms(50) for window in shop.windows):.2f}",
            f"{median(window.page_ms(99) for window in shop.windows):.1f}",
            f"{100 * median(window.waited for window in shop.windows):.2f} %",
            str(shop.loads),
            str(shop.ahead),
            str(shop.wasted),
            str(sum(window.stale for window in shop.windows)),
            str(sum(len(window.page_ns) for window in shop.windows)),
        )
        for share, shops in found.items()
        for name, shop in shops.items()
    ]


HEADER = ("", "page p50, ms", "p99", "waited", "loads", "ahead, in all", "wasted", "stale", "pages")


def targets(found: dict[float, Storm]) -> Iterator[Target]:
    for share, shops in found.items():
        without, ahead = shops[WITHOUT].windows, shops[AHEAD].windows
        storm = f"{100 * share:g} % writes"
        p99 = ratio([window.page_ms(99) for window in ahead], [window.page_ms(99) for window in without])
        loads = shops[AHEAD].loads / max(1, shops[WITHOUT].loads)
        yield Target("W7", f"{storm}: p99 of a page, of what it is without", p99, P99_MAX, " x")
        yield Target("W7", f"{storm}: loads of the origin, of those without", loads, LOADS_MAX, " x")
    stale = sum(
        window.stale for shops in found.values() for shop in shops.values() for window in shop.windows
    )
    yield Target("W7", "stale reads in all", stale, 0)


def draw(figure: Any, found: dict[float, Storm]) -> None:
    """How many pages took longer."""
    each = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (share, shops) in zip(each, found.items(), strict=True):
        for name, shop in shops.items():
            pages = sorted(ns / 1e6 for window in shop.windows for ns in window.page_ns)
            axes.plot(pages, [1 - at / len(pages) for at in range(len(pages))], label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{100 * share:g} % writes")
        axes.set_xlabel("ms")
        axes.legend()
    each[0].set_ylabel("pages that took longer")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--writes", type=float, nargs="+", metavar="SHARE", help="of the reads")
    parser.add_argument(
        "--budget", type=float, metavar="SHARE", help="prewarm_budget, in place of its default"
    )


def main() -> None:
    chosen = start(__doc__ or "", 3, options)
    shares = chosen.writes or (STORMS[1:2] if chosen.quick else STORMS)
    lengths = (QUICK_LEARN_S, QUICK_WINDOW_S) if chosen.quick else (LEARN_S, WINDOW_S)
    plan = Plan(*lengths, chosen.repeats)
    if chosen.budget is not None:
        OPTIONS[AHEAD] += f"prewarm_budget = {chosen.budget}\n"
    found = {share: storm(share, plan) for share in shares}
    print(table("Both shops at once", HEADER, rows(found)))
    judged = list(targets(found))
    print(targets_table(judged))
    data = {
        str(share): {name: asdict(shop) for name, shop in shops.items()} for share, shops in found.items()
    }
    save(chosen.out, "warm_shop", {"storms": data}, judged, lambda figure: draw(figure, found))


if __name__ == "__main__":
    main()
