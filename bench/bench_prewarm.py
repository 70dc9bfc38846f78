"""Loading ahead: cold reads avoided, loads wasted, load of the origin (targets W1 to W3).

The product itself is replayed: one host's reads, and writes of other hosts that arrive as the bridge's
records do; the clock is injected, a read is a millisecond. Equal values, memory so that C entries fit
(room.py). The origin answers at once, unless --lag says otherwise.

  never     nothing is loaded ahead
  always    whatever was here is loaded at once: says which reads are cold and could be avoided
  cachee    prewarm_weight 3, prewarm_budget .05
  sim       the simulator by which the policy was found, with its own cache (prewarm_oracle.py)

  avoided   cold reads that found the value / cold reads
  waste     loads ahead that nobody read / loads ahead; what is still unread at the end is left out
  load      all loads of the origin / those of "never"
  over      by how much 1.05 x "never" was exceeded at any time, in entries of the cache

Six traces (--traces; traces.py says where they come from), six mixes of writes (writes.py), three rates.
Without --traces one that is drawn from a fixed seed is replayed. --only picks rows by the beginning of their
names, such as "oltp mixed". --reads replays so many of each trace, which has no target of its own.
"""

from __future__ import annotations

import argparse
import statistics
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from measuring import Target, save, start, table, targets_table
from prewarm_oracle import RATES, Found, figures
from room import KEY_BYTES, Room, capacity_for, config_of
from traces import traces
from writes import MIXES, Mixture, Operations, day_and_night, numbered

import cachee_shm
from cachee_shm.orders import Orders

READS, SKIPPED = 1_000_000, 1_000_000
CAPACITIES = {"orm-busy": 7634, "w106": 10000, "oltp": 5000, "loop": 1100, "cpio": 10000, "zipf": 10000}
FILES = {  # the names that traces.py gives
    "orm-busy": "cache2k-orm-busy",
    "w106": "w106",
    "oltp": "arc-oltp",
    "loop": "lirs-loop",
    "cpio": "cloudPhysicsIO",
}
LATE_BEGINNERS = ("orm-busy", "w106")  # the simulator replays them from their millionth read on
PAGES_MIN = 256
ROUNDS = 3
WEIGHT, BUDGET = 3.0, 0.05
ALWAYS_WEIGHT = 1000.0
QUICK_READS = 20_000
NOBODY_ASKED = (1 << 64) - 2
EVERY = 1000  # operations between two looks at the load
SEEN_ALWAYS = 5  # times C loads of "never": what is less has no promise of its load
AVOIDED = {0.01: 0.85, 0.05: 0.76, 0.2: 0.54}
WASTE = {0.01: 0.38, 0.05: 0.33, 0.2: 0.31}
LOAD_MAX, OVER_MAX, OFF_MAX, OFF_MAX_CPIO = 1.05, 0.2, 0.05, 0.10


@dataclass
class Replayed:
    """What one replay has counted."""

    misses: int = 0
    ahead: int = 0
    useful: int = 0
    wasted: int = 0
    cold: int = 0
    avoided: int = 0
    entries: int = 0


@dataclass(frozen=True)
class Row:
    """One trace, mix and rate."""

    trace: str
    mix: str
    rate: float
    capacity: int
    never: Replayed
    always: Replayed
    ours: Replayed
    over: float
    sim: Found | None

    @property
    def name(self) -> str:
        return f"{self.trace} {self.mix} {100 * self.rate:g} %"

    @property
    def avoided(self) -> float:
        return self.ours.avoided / max(1, self.ours.cold)

    @property
    def waste(self) -> float:
        return self.ours.wasted / max(1, self.ours.useful + self.ours.wasted)

    @property
    def load(self) -> float:
        return self._load_of(self.ours)

    def _load_of(self, replayed: Replayed) -> float:
        known = replayed.useful + replayed.wasted
        return (replayed.misses + known) / max(1, self.never.misses)

    @property
    def off(self) -> float:
        """By how much avoided is below the simulator's, or waste above, beyond what the row may be off."""
        if self.sim is None:
            return 0.0
        allowed = OFF_MAX_CPIO if self.trace == "cpio" else OFF_MAX
        return max(self.sim.avoided - self.avoided, self.waste - self.sim.waste) - allowed

    @property
    def cells(self) -> tuple[str, ...]:
        always = self.always.wasted / max(1, self.always.useful + self.always.wasted)
        sim = (f"{self.sim.avoided:.3f}", f"{self.sim.waste:.3f}") if self.sim else ("-", "-")
        return (
            self.name,
            f"{self.avoided:.3f}",
            f"{self.waste:.3f}",
            f"{self.load:.3f}",
            f"{self.over:.3f}",
            *sim,
            f"{always:.3f}",
            f"{self._load_of(self.always):.3f}",
            f"{self.ours.cold}",
            f"{100 * self.ours.entries / self.capacity:.0f} %",
        )

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self) | {"avoided": self.avoided, "waste": self.waste, "load": self.load}


class Replay:
    """One host, whose origin counts."""

    def __init__(self, room: Room, operations: Operations, weight: float, budget: float, lag_ms: int) -> None:
        knobs = {"prewarm_weight": weight, "prewarm_budget": budget, "near_cache": "0"}
        config = config_of(room.memory, "bench", prewarm=True, **knobs)
        self._cache = cachee_shm.attach("bench", config=config, private=True)
        self._operations, self._lag_ms = operations, lag_ms
        self._value = b"v" * room.value_bytes
        self._keys = [number.to_bytes(KEY_BYTES, "little") for number in range(max(operations.keys) + 1)]
        self._peer = self._cache.source_open("peer")
        self._orders = Orders(self._cache)
        self._kept = self._cache._judge(None, 0, None, (), False, False, 0.0, 0, 0.0)
        self.loads: list[int] = []  # of the origin, after each EVERY operations
        self.counted = Replayed()

    def run(self, loads_ahead: bool, cold: bytes | None) -> bytes:
        """Returns which reads were cold and hit. ``cold``: which reads are, where that is known."""
        found = self._run(loads_ahead, cold)
        self._note_loads()
        self.counted.entries = len(self._cache)
        self._cache.close()
        return found

    def _run(self, loads_ahead: bool, cold: bytes | None) -> bytes:
        cache, counted = self._cache, self.counted
        records = [b"\x01" + struct.pack("<Q", cache._hash(key)) for key in self._keys]
        get, freeze, apply, token, fill = cache.get, cache._freeze, cache.apply, cache._token, cache._fill
        keys, value, peer, take, load_due = (
            self._keys,
            self._value,
            self._peer,
            self._orders.take,
            self._load_due,
        )
        written, hits = set[int](), bytearray(len(self._operations.keys))
        last = -1
        each = zip(self._operations.keys, self._operations.times, self._operations.writes, strict=True)
        for at, (number, now, is_write) in enumerate(each):
            if now != last:
                freeze(now)
                last = now
                if loads_ahead:
                    load_due(now)
            if is_write:
                if cold is None and keys[number] in cache:  # to ask is a read, so it is not asked otherwise
                    written.add(number)
                apply(peer, records[number])
                if loads_ahead:
                    take(now)
                    load_due(now)
            else:
                missing = get(keys[number]) is None
                if number in written:
                    written.discard(number)
                    hits[at] = not missing
                if cold is not None and cold[at]:
                    counted.cold += 1
                    counted.avoided += not missing
                if missing:
                    counted.misses += 1
                    position, began = token()
                    fill(keys[number], value, position, began, None, 0, (), False)
            if at % EVERY == 0:
                self._note_loads()
        return bytes(hits)

    def _load_due(self, now: int) -> None:
        for _, key in self._orders.due(now - self._lag_ms):
            self.counted.ahead += 1
            self._cache._load(key, self._loaded, (), self._kept, 0, 0, False, NOBODY_ASKED)

    def _loaded(self) -> bytes:
        return self._value

    def _note_loads(self) -> None:
        _, self.counted.useful, self.counted.wasted = self._cache.warm_stats() or (0, 0, 0)
        self.loads.append(self.counted.misses + self.counted.useful + self.counted.wasted)


def measure(trace: str, mix: str, rate: float, chosen: argparse.Namespace) -> Row:
    """Three replays of one row."""
    reads, steps = reads_of(trace, chosen.traces, chosen.reads)
    capacity = CAPACITIES[trace]
    room, operations = room_for(capacity), Mixture(reads, capacity, mix, rate, steps).draw()
    always = Replay(room, operations, ALWAYS_WEIGHT, 0.0, 0)
    cold = always.run(True, None)
    never, ours = (Replay(room, operations, WEIGHT, BUDGET, chosen.lag) for _ in range(2))
    never.run(False, cold)
    ours.run(True, cold)
    over = max(a - LOAD_MAX * b for a, b in zip(ours.loads, never.loads, strict=True)) / capacity
    sim = figures().get((trace, mix, rate)) if chosen.reads == READS and not chosen.lag else None
    return Row(trace, mix, rate, capacity, never.counted, always.counted, ours.counted, over, sim)


@cache
def reads_of(trace: str, folder: Path | None, most: int) -> tuple[array[int], Sequence[int]]:
    """Its keys by number, and its time steps where they are not 1."""
    if trace == "zipf":
        keys, steps = day_and_night(most)
        return numbered(keys), steps
    for each in traces(folder) if folder else ():
        if each.name == FILES[trace]:
            begins = SKIPPED if trace in LATE_BEGINNERS and len(each.requests) > SKIPPED + most else 0
            return numbered(each.requests[begins : begins + most]), ()
    raise SystemExit(f"{folder} has no {FILES[trace]}")


@cache
def room_for(capacity: int) -> Room:
    """The least in which so many entries are all found again: some pages are always open, or kept free."""
    for percent in range(100, 130, 2):
        room = capacity_for(capacity * percent // 100, PAGES_MIN, prewarm=True)
        if _holds(room, capacity):
            return room
    raise SystemExit(f"no segment holds {capacity} entries")


def _holds(room: Room, entries: int) -> bool:
    keys = [number.to_bytes(KEY_BYTES, "little") for number in range(entries)]
    config = config_of(room.memory, "bench", prewarm=True, near_cache="0")
    with cachee_shm.attach("bench", config=config, private=True) as cache:
        for _ in range(ROUNDS):
            for key in keys:
                if cache.get(key) is None:
                    cache.set(key, b"v" * room.value_bytes)
        return all(key in cache for key in keys)


def rows_of(chosen: argparse.Namespace) -> Iterator[Row]:
    names = list(CAPACITIES) if chosen.traces else ["zipf"]
    for trace in names:
        for mix in ("mixed",) if chosen.quick else MIXES:
            for rate in (0.05,) if chosen.quick else chosen.rates:
                if not chosen.only or any(f"{trace} {mix}".startswith(only) for only in chosen.only):
                    row = measure(trace, mix, rate, chosen)
                    print("  ".join(row.cells), flush=True)
                    yield row


def targets(rows: Sequence[Row]) -> Iterator[Target]:
    judged = [row for row in rows if row.never.misses >= SEEN_ALWAYS * row.capacity]
    most_load = max((row.load for row in judged), default=None)
    yield Target("W1", "load of the origin, of any row", most_load, LOAD_MAX)
    yield Target("W1", "over, of any row", max((row.over for row in rows), default=None), OVER_MAX, " C")
    for rate in RATES:
        at = [row for row in rows if row.rate == rate and row.sim]
        avoided = statistics.mean(row.avoided for row in at) if len(at) == 36 else None
        waste = statistics.mean(row.waste for row in at) if len(at) == 36 else None
        yield Target(
            "W2", f"avoided, mean of 36 rows at {100 * rate:g} %", avoided, AVOIDED[rate], is_floor=True
        )
        yield Target("W2", f"waste, mean of 36 rows at {100 * rate:g} %", waste, WASTE[rate])
    beyond = [row for row in rows if row.sim]
    off = sum(row.off > 0 for row in beyond) if beyond else None
    yield Target("W3", "rows that are further off the simulator's than allowed", off, 0)


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Cold reads avoided against loads wasted, a point a row; the simulator's beside ours."""
    axes = figure.subplots()
    for rate, colour in zip(RATES, ("tab:green", "tab:blue", "tab:red"), strict=True):
        at = [row for row in rows if row.rate == rate]
        name = f"{100 * rate:g} % writes"
        axes.scatter([row.waste for row in at], [row.avoided for row in at], color=colour, label=name)
        sims = [row.sim for row in at if row.sim]
        axes.scatter([sim.waste for sim in sims], [sim.avoided for sim in sims], color=colour, marker="x")
    axes.set_xlabel("loads ahead that nobody read, as a share of them (x: the simulator)")
    axes.set_ylabel("cold reads avoided")
    axes.legend()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traces", type=Path, metavar="DIR", help="published traces; without, one is drawn")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, metavar="SHARE", help="of writes")
    parser.add_argument("--only", nargs="+", metavar="ROW", help='such as "oltp" or "zipf mixed"')
    parser.add_argument(
        "--reads", type=int, default=READS, metavar="N", help=f"of each trace (default {READS:,})"
    )
    parser.add_argument("--lag", type=int, default=0, metavar="MS", help="what a load ahead takes")


def main() -> None:
    chosen = start(__doc__ or "", 1, options)
    if chosen.quick:
        chosen.reads = QUICK_READS
    rows = list(rows_of(chosen))
    header = (
        "",
        "avoided",
        "waste",
        "load",
        "over",
        "sim avoided",
        "sim waste",
        "always waste",
        "load",
        "cold",
        "full",
    )
    print(table("Loading ahead", header, [row.cells for row in rows]))
    judged = list(targets(rows))
    print(targets_table(judged))
    save(
        chosen.out,
        "prewarm",
        {"rows": [row.record for row in rows]},
        judged,
        lambda figure: draw(figure, rows),
    )


if __name__ == "__main__":
    main()
