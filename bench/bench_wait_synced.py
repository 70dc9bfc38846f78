"""How long until all peers have surely applied a write: `set`, then `wait_synced` (target: never too early).

A host on this machine and its peers, each in a network namespace on one switch, or all on loopback where that
may not be made, which is said: a segment and a real cachee-bridge process each. This process writes on the
first and waits, with one peer, and with four. In turns with it, at the same pace:

  Redis: SET, WAIT      the same question to a server on this host, with as many replicas: in one pipeline, so
                        that one trip to the server carries both (pip install redis; apt-get install
                        redis-server). The server holds the value; a replica's copy is the value
  two event loops       a message through a uvloop process here and one over there, and back: the same way
  raw TCP               a message there and back, over blocking sockets

What is not installed is left out, and named. After each wait this process looks into the peers' segments: if
one has not applied the write, the answer of `wait_synced` was wrong, and is counted. An answer of False is
counted too. There is no target for the time, because only the caller waits.

`wait_synced` looks into the segment and sleeps .2 ms, then .4 and so on, up to 10 ms, between two looks: so
times come in such steps. "at once" is `wait_synced(0)` when every peer has applied everything.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from echoes import two_loops
from measuring import Apart, Target, interleaved, percentile, ratio, save, start, table, targets_table
from mesh import Mesh, cursor_of, mesh, wait_for
from namespaces import Loopback, Place, missing, network
from pingpong import partner
from rivals import Absent, Room, ready, server, wanted

PEERS = (1, 4)
PACES = {"back to back": 0.0, "one per 10 ms": 0.01}
COUNTS, QUICK_COUNTS = (300, 50), (20, 5)  # of a turn, by pace
WAIT_S = 5.0
REDIS_PORT = 16390
REPLICAS_S = 30.0
LOOPS, RAW, AT_ONCE = "two event loops", "raw TCP", "wait_synced(0), nothing owed"
now_ns = time.monotonic_ns
Trips = Callable[[int, float], list[int]]
"""trips(count, pause_s): what each took, in ns, one after the other, begun `pause_s` apart or at once."""


def paced(once: Callable[[int], object], after: Callable[[], object] = lambda: None) -> Trips:
    """Of `once(number)`; `after` is called between two of them and not timed."""

    def trips(count: int, pause_s: float) -> list[int]:
        found: list[int] = []
        begun = 0
        for number in range(count):
            if pause_s and begun:
                time.sleep(max(0.0, pause_s - (now_ns() - begun) / 1e9))
            begun = now_ns()
            once(number)
            found.append(now_ns() - begun)
            after()
        return found

    return trips


class Waiting:
    """Writes on one host of a mesh, and how often the answer to the waiting was wrong."""

    def __init__(self, joined: Mesh) -> None:
        self._cache, self._host = joined.cache, joined.here.name
        self._peers = [cache for _, cache in joined.peers]
        self.asked = self.refused = self.early = 0
        self.trips = paced(self._write, self._look)
        self._was_said = False

    def _write(self, number: int) -> None:
        self._cache.set(f"key-{number % 100}", number)
        self._was_said = self._cache.wait_synced(WAIT_S)

    def _look(self) -> None:
        self.asked += 1
        self.refused += not self._was_said
        written = self._cache._written()[1]
        behind = any(cursor_of(peer, self._host) < written for peer in self._peers)
        self.early += self._was_said and behind

    def at_once(self, count: int, pause_s: float) -> list[int]:
        return paced(lambda number: self._cache.wait_synced(0))(count, pause_s)


@contextmanager
def redis(here: Place | Loopback, there: Sequence[Place | Loopback], port: int) -> Iterator[Trips]:
    """A server here, a replica at each of the others: SET and WAIT for all of them."""
    module = wanted("redis")
    cores = frozenset(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for number, place in enumerate((here, *there)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-"))
            command = ["redis-server", "--port", str(port + number), "--bind", place.address]
            command += ["--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", folder]
            command += ["--repl-diskless-sync-delay", "0"]
            if number:
                command += ["--replicaof", here.address, str(port)]
            with place.inside():
                stack.enter_context(server(command, Room(0, Path(folder), Apart(cores, cores))))
        client = module.Redis(here.address, port)
        stack.callback(client.close)
        ready(client.ping, module.RedisError, "redis-server")
        count = len(there)

        def synced(number: int) -> bool:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.set(f"key-{number % 100}", number)
                pipeline.execute_command("WAIT", count, int(WAIT_S * 1000))
                return bool(pipeline.execute()[-1] == count)

        wait_for(lambda: client.info("replication")["connected_slaves"] == count, REPLICAS_S, "no replicas")
        wait_for(lambda: synced(0), REPLICAS_S, "the replicas do not answer")
        yield paced(synced)


@contextmanager
def five_places() -> Iterator[Sequence[Place | Loopback]]:
    """This thread in the first."""
    if reason := missing():
        print(f"over loopback: {reason}")
        yield [Loopback() for _ in range(1 + max(PEERS))]
        return
    print("over veth, between five network namespaces on one switch")
    with network("abcde") as places, places[0].inside():
        yield places


def cachee(peers: int) -> str:
    return f"cachee: set, wait_synced; {peers} peer{'s' * (peers > 1)}"


def redis_name(peers: int) -> str:
    return f"Redis: SET, WAIT; {peers} replica{'s' * (peers > 1)}"


@contextmanager
def subjects() -> Iterator[tuple[dict[str, Trips], list[Waiting]]]:
    cores = frozenset(os.sched_getaffinity(0))
    with ExitStack() as stack:
        places = stack.enter_context(five_places())
        found: dict[str, Trips] = {}
        waiting = []
        for peers in PEERS:
            joined = mesh(f"synced{peers}", peers, "16MiB", Apart(cores, cores), places=places[: 1 + peers])
            waiting.append(Waiting(stack.enter_context(joined)))
            found[cachee(peers)] = waiting[-1].trips
        found[AT_ONCE] = waiting[-1].at_once
        for peers in PEERS:
            rival = redis(places[0], places[1 : 1 + peers], REDIS_PORT + 10 * peers)
            try:
                found[redis_name(peers)] = stack.enter_context(rival)
            except Absent as why:
                print(f"{redis_name(peers)} is left out: {why}")
        for name, ping in {
            LOOPS: stack.enter_context(two_loops(places[0], places[1])),
            RAW: stack.enter_context(partner(places[1])),
        }.items():
            found[name] = lambda count, pause_s, ping=ping: [2 * ns for ns in ping.trips(count, pause_s)]
        yield found, waiting


Turns = dict[str, list[list[int]]]


def milliseconds(samples: Sequence[int], percent: float) -> float:
    return percentile(samples, percent) / 1e6


def of_all(turns: list[list[int]]) -> list[int]:
    return [ns for turn in turns for ns in turn]


def times(turns: Turns, name: str, other: str) -> float:
    """The median of the ratios of medians within each repeat."""
    return ratio(*([statistics.median(turn) for turn in turns[each]] for each in (name, other)))


def print_turns(pace: str, turns: Turns) -> None:
    rows = []
    for name, found in turns.items():
        samples = of_all(found)
        figures = [f"{milliseconds(samples, percent):.3f}" for percent in (50, 90, 99)]
        rows.append((name, *figures, f"{max(samples) / 1e6:.1f}", f"{times(turns, name, LOOPS):.2f}"))
    header = ("ms", "p50", "p90", "p99", "largest", f"p50 / {LOOPS}")
    print(table(f"There and back, {pace} ({len(of_all(turns[RAW]))} each)", header, rows), flush=True)


def judge(waiting: Sequence[Waiting]) -> list[Target]:
    asked = sum(each.asked for each in waiting)
    return [
        Target("4", f"True before all had applied it, of {asked:,}", sum(each.early for each in waiting), 0),
        Target("4", f"False within {WAIT_S:g} s", sum(each.refused for each in waiting), 0),
    ]


def as_data(by_pace: dict[str, Turns]) -> dict[str, Any]:
    return {
        pace: {
            name: {f"p{percent}": milliseconds(of_all(found), percent) for percent in (1, 10, 50, 90, 99)}
            for name, found in turns.items()
        }
        for pace, turns in by_pace.items()
    }


def draw(figure: Any, by_pace: dict[str, Turns]) -> None:
    for axis, (pace, turns) in zip(
        figure.subplots(len(by_pace), 1, sharex=True), by_pace.items(), strict=True
    ):
        for name, found in turns.items():
            if name == AT_ONCE:
                continue
            samples = sorted(of_all(found))
            share = [100 * (number + 1) / len(samples) for number in range(len(samples))]
            axis.plot([ns / 1e6 for ns in samples], share, label=name)
        axis.set(xscale="log", ylabel="% done", title=pace)
        axis.legend(fontsize=7)
    axis.set_xlabel("ms from the write on until it is known to be everywhere")


def main() -> None:
    chosen = start(__doc__ or "", repeats=7)
    counts = QUICK_COUNTS if chosen.quick else COUNTS
    by_pace: dict[str, Turns] = {}
    with subjects() as (found, waiting):
        for (pace, pause_s), count in zip(PACES.items(), counts, strict=True):
            turns = {
                name: lambda trips=trips, count=count, pause_s=pause_s: trips(count, pause_s)
                for name, trips in found.items()
            }
            by_pace[pace] = interleaved(turns, chosen.repeats)
            print_turns(pace, by_pace[pace])
        targets = judge(waiting)
    print(targets_table(targets))
    save(chosen.out, "wait_synced", {"ms": as_data(by_pace)}, targets, lambda figure: draw(figure, by_pace))


if __name__ == "__main__":
    main()
