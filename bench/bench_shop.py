"""The shop of examples/shop under load, on Cachee and on what people use instead (target S11).

Two hosts, each gunicorn with four workers; real HTTP over loopback. Customers read one host: four requests of
five are for a product's page (a product and its price), one for a page of the catalogue (twenty products). A
manager changes ten prices a second on the other host. The database is one SQLite file. The shop's code is the
same for all; the caches are in shop_caches.py:

  cachee      ours: a segment for each host, and a bridge between them; near_objects, as in the shop's guide
  redis-py    one Redis for both hosts, over a unix socket, with hiredis
  pub/sub     a dict in each worker; other workers' writes drop its entries by a channel of Redis
  TTL 1 s     a dict in each worker, whose entries live for a second

Equal freshness: of the two per-process caches the targets take "pub/sub", which is about as fresh as ours. On
both, a change is on its way to the other host when it is answered, and is there within milliseconds. (The
channel loses what is published while a worker is not connected; ours does not.) Stale reads are counted for
all: they began after a change had been answered, and showed an older price. "TTL 1 s" shows what a lifetime
alone costs. No target compares it, because its reads are stale for up to a second.

The workers of the host that is read have one core; customers, the other host, bridges and Redis have the
others. Requests/s: eight customers, each of whom sends the next request as the answer comes. p50 and p99:
requests come at a tenth of the rate that the slowest can do, the same for all, and a latency counts from
when its request was due. Calls of the database are counted in both. "CPU" is the processor time of the host
that is read, for each request of the eight customers: it tells more than requests/s on a shared machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mesh
import psutil
from measuring import Apart, Target, apart, interleaved, percentile, ratio, save, start, table, targets_table
from rivals import Absent, Room, redis_server, wanted
from shop_customers import Customers, Found

from cachee_shm.ports import free_ports

BENCH = Path(__file__).resolve().parent
SHOP = BENCH.parent / "examples" / "shop"
US, REDIS, PUBSUB, TTL = "cachee", "redis-py", "pub/sub", "TTL 1 s"
WORKERS = 4  # as gunicorn.conf.py of the shop has it
CONNECTIONS = 8
STROLL_SHARE = 0.6
SERVES_S = 60.0
NEAR = 'near_cache = "256KiB"\nnear_objects = true\n'  # as the shop's guide has it
FLOORS = {REDIS: 2.0, PUBSUB: 1.0}


@dataclass(frozen=True)
class Shop:
    """One shop that serves on two hosts. `calls`: a file with a byte for each call of its database."""

    customers: Customers
    calls: Path
    workers: list[psutil.Process]

    def cpu_s(self) -> float:
        """What the workers of the host that is read have run."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers)


@dataclass(frozen=True)
class Turn:
    """What the customers of one shop have found: as fast as it can, and at the pace of all."""

    rush: Found
    stroll: Found
    calls: int
    cpu_us: float  # of a request of the rush

    @property
    def per_second(self) -> float:
        return self.rush.requests / self.rush.seconds

    @property
    def stale_ns(self) -> list[int]:
        return self.rush.stale_ns + self.stroll.stale_ns

    def page_ms(self, percent: float) -> float:
        return percentile(self.stroll.page_ns, percent) / 1e6

    def catalogue_ms(self, percent: float) -> float:
        """A short turn may have none."""
        return percentile(self.stroll.catalogue_ns or [0], percent) / 1e6


@contextmanager
def bound(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started in here are on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(name: str, room: Room, measured: frozenset[int], hosts: list[dict[str, str]]) -> Iterator[Shop]:
    """A shop whose customers read its first host and whose prices change on its second.

    `hosts`: what the environment of each tells its cache.
    """
    folder = room.folder / name.replace("/", "-").replace(" ", "-")
    folder.mkdir()
    calls, ports = folder / "calls", free_ports(len(hosts))
    calls.touch()
    common = {**os.environ, "SHOP_CACHE": name, "SHOP_LOADS": str(calls)}
    common["SHOP_DATABASE"] = str(folder / "shop.sqlite3")
    create = [sys.executable, "-c", "import database; database.create()"]
    subprocess.run(create, cwd=SHOP, env=common, check=True)
    server = [sys.executable, "-m", "gunicorn", "shop_on:app", "--pythonpath", str(BENCH)]
    servers = []
    with ExitStack() as stack:
        for number, (own, port) in enumerate(zip(hosts, ports, strict=True)):
            command = [*server, "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
            whole = {**common, **own, "SHOP_HOST": f"web-{number + 1}"}
            log = stack.enter_context((folder / f"web-{number + 1}.log").open("wb"))
            with bound(room.apart.others if number else measured):
                process = subprocess.Popen(command, cwd=SHOP, env=whole, stdout=log, stderr=log)
            stack.callback(mesh.stop_process, process)
            servers.append(process)
        for port in ports:
            mesh.wait_for(lambda at=port: serves(at), SERVES_S, f"the shop on {name} does not serve")  # type: ignore[misc]
        workers = psutil.Process(servers[0].pid).children
        mesh.wait_for(
            lambda: len(workers()) == WORKERS, SERVES_S, f"the shop on {name} has not all its workers"
        )
        yield Shop(Customers(*ports), calls, workers())


def serves(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/pages/1", timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def shops(room: Room, measured: frozenset[int]) -> Iterator[dict[str, Shop]]:
    """All of them, serving; of what cannot be had, a line each."""
    with ExitStack() as stack:
        met = stack.enter_context(mesh.mesh("shop", 1, "16MiB", room.apart, options=NEAR))
        configured = [{"CACHEE_CONFIG": host.config} for host in (met.here, met.peers[0][0])]
        found = {US: stack.enter_context(serving(US, room, measured, configured))}
        path = ""
        for name in (REDIS, PUBSUB, TTL):
            try:
                for module in ("cachebox", "redis", "hiredis"):
                    wanted(module)
                path = path or stack.enter_context(redis_server(room))
            except Absent as reason:
                print(f"{name} is left out: {reason}")
                continue
            both = [{"SHOP_REDIS": path}] * 2
            found[name] = stack.enter_context(serving(name, room, measured, both))
        yield found


def turns(found: dict[str, Shop], rush_s: float, stroll_s: float) -> dict[str, Callable[[], Turn]]:
    """The first turn of each, which warms up, finds the pace of all: a share of what the slowest can do."""
    paces: list[float] = []

    def turn(shop: Shop) -> Turn:
        before, ran_s = shop.calls.stat().st_size, shop.cpu_s()
        rush = shop.customers.rush(CONNECTIONS, rush_s)
        cpu_us = (shop.cpu_s() - ran_s) * 1e6 / rush.requests
        if len(paces) < len(found):
            paces.append(STROLL_SHARE * rush.requests / rush.seconds)
        stroll = shop.customers.stroll(4 * CONNECTIONS, stroll_s, min(paces))
        return Turn(rush, stroll, shop.calls.stat().st_size - before, cpu_us)

    return {name: lambda shop=shop: turn(shop) for name, shop in found.items()}  # type: ignore[misc]


def tables(found: dict[str, list[Turn]]) -> list[str]:
    def median(turns: list[Turn], of: Callable[[Turn], float]) -> float:
        return statistics.median(map(of, turns))

    speed = [
        [
            name,
            f"{median(turns, lambda turn: turn.per_second):.0f}",
            f"{median(turns, lambda turn: turn.cpu_us):.0f}",
            *(f"{median(turns, lambda turn, p=percent: turn.page_ms(p)):.2f}" for percent in (50, 99)),  # type: ignore[misc]
            *(f"{median(turns, lambda turn, p=percent: turn.catalogue_ms(p)):.2f}" for percent in (50, 99)),  # type: ignore[misc]
        ]
        for name, turns in found.items()
    ]
    fresh = []
    for name, turns in found.items():
        stale = [ns for turn in turns for ns in turn.stale_ns]
        fresh.append(
            [
                name,
                str(sum(turn.rush.requests + turn.stroll.requests for turn in turns)),
                str(sum(turn.rush.changes + turn.stroll.changes for turn in turns)),
                str(len(stale)),
                f"{max(stale, default=0) / 1e6:.1f}",
                str(sum(turn.calls for turn in turns)),
            ]
        )
    head = ("", "requests/s", "CPU, us", "page p50", "p99", "catalogue p50", "p99")
    return [
        table("As fast as it can; then at the same pace, milliseconds", head, speed),
        table(
            "Freshness, all turns",
            ("", "reads", "changes", "stale", "the latest, ms", "database calls"),
            fresh,
        ),
    ]


def targets(found: dict[str, list[Turn]]) -> list[Target]:
    def times(rival: str, of: Callable[[Turn], float], is_cost: bool) -> float | None:
        if rival not in found:
            return None
        ours, theirs = ([of(turn) for turn in found[name]] for name in (US, rival))
        return ratio(theirs, ours) if is_cost else ratio(ours, theirs)

    measures: list[tuple[str, Callable[[Turn], float], bool]] = [
        ("requests/s", lambda turn: turn.per_second, False),
        ("CPU of a request", lambda turn: turn.cpu_us, True),
        ("p50 of a page", lambda turn: turn.page_ms(50), True),
        ("p99 of a page", lambda turn: turn.page_ms(99), True),
    ]
    return [
        Target("S11", f"{what}, times as good as on {rival}", times(rival, of, is_cost), floor, " x", True)
        for rival, floor in FLOORS.items()
        for what, of, is_cost in measures
    ]


def draw(found: dict[str, list[Turn]]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        rates, latencies = figure.subplots(1, 2)
        rates.bar(
            list(found), [statistics.median(turn.per_second for turn in turns) for turns in found.values()]
        )
        rates.set_title("requests/s")
        for name, turns in found.items():
            pages = sorted(ns / 1e6 for turn in turns for ns in turn.stroll.page_ns)
            latencies.plot(pages, [at / len(pages) for at in range(len(pages))], label=name)
        latencies.set_xscale("log")
        latencies.set_title("a page at the same pace, ms")
        latencies.legend()

    return on


def main() -> None:
    chosen = start(__doc__ or "", repeats=5)
    cores = apart()
    os.sched_setaffinity(0, cores.others)  # customers are elsewhere than the shop
    aside = Apart(cores.others, cores.others)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-", dir=shared) as folder,
        shops(Room(0, Path(folder), aside), cores.measured) as serve,
    ):
        found = interleaved(turns(serve, *((0.3, 0.3) if chosen.quick else (2.0, 4.0))), chosen.repeats)
    print(*tables(found), sep="\n")
    judged = targets(found)
    print(targets_table(judged))
    figures = {
        name: [
            {
                "per_second": turn.per_second,
                "cpu_us": turn.cpu_us,
                "page_ms": [turn.page_ms(percent) for percent in (50, 99)],
                "catalogue_ms": [turn.catalogue_ms(percent) for percent in (50, 99)],
                "stale_ms": [ns / 1e6 for ns in turn.stale_ns],
                "database_calls": turn.calls,
            }
            for turn in turns
        ]
        for name, turns in found.items()
    }
    save(chosen.out, "shop", {"turns": figures}, judged, draw(found))


if __name__ == "__main__":
    main()
