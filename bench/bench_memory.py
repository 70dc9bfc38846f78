"""What the memory of a segment goes to: tables, metadata of each entry, live bytes (targets S8 and S9).

1. The segment: what share of `memory` is value memory, what the tables that grow with it take (index, page
   and policy tables), and what the others take (roster, ring, fences, ...): the fixed overhead. From the
   counts that the segment itself tells (geometry.py).

2. Memory of an entry, beyond its key of 8 bytes and its value. A segment of 32 MiB is written three times
   over by one process, with values of one size; its live entries are those that can be read back then.
     all memory      all memory that the store was granted, less live keys and values, divided by the live
                     entries: all tables, and what pages lose. Target S8, and the one column that is the same
                     for every rival
     "told" is Cachee with `entry_size = "1KiB"`; without it, tables are made for entries of 128 B
     less the fixed  the same without the tables that do not grow with entries
     tables in full  what stands with an entry in its page, padding included, and all the tables that grow, at
                     their full size, divided by the live entries
     tables in use   the same, but of the tables only what one entry uses: a word of the index, the policy's
                     share for one word, its share of its page's row
   memcached: memory is its limit and its hash table; "in full" is its chunk and the hash table's share, "in
   use" its item and one pointer. warp_cache: slots of one size, told the least that takes the entry.

3. Live bytes: keys and values that can be read back, over all memory that the store was granted, after its
   value memory was written three times over by one process, or by four at once: values of one size; the same
   with a fifth of the sets overwriting a key that is still there; a log-uniform mixture of 64 B to 1 MiB, or
   to what the segment takes at most. "with headers" counts the whole of each live entry. memcached, where
   shown, has one client. Beside them: what the segment's file takes of the machine, over `memory`; and sets
   that were not stored, for want of room, or lost: taken for older than another write.

Figures are medians of the turns (--repeats); for what must never happen, the worst turn.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mesh
from filling import MIB, Held, Load, fill_cachee
from filling_rivals import fill_memcached, fill_warp_cache
from geometry import OTHERS, Geometry, geometry_of
from measuring import Apart, Target, save, start, table, targets_table
from rivals import Absent
from room import KEY_BYTES, entry_bytes, layout_numbers

from cachee_shm.errors import NoSpace

US, MEMCACHED, WARP = "cachee", "memcached", "warp_cache"
POINTER_BYTES = 8
EQUAL = [Load(f"{size} B", size, size) for size in (64, 100, 1024)]
TOLD = Load("1024 B, told", 1024, 1024, entry_size="1KiB")
LOADS = [
    *EQUAL[1:],
    TOLD,
    *(replace(each, name=f"{each.name}, 20 % overwrites", overwrites=0.2) for each in (*EQUAL[1:], TOLD)),
    Load("64 B to 1 MiB", 64, MIB),
]
ENTRY_MAX = {"100 B": 64, TOLD.name: 110}  # bytes beyond key and value, of all memory
FIXED_MAX = 12
LIVE_MIN, LIVE_OVERWRITTEN_MIN = 85, 75
JUDGED_FROM = 64 * MIB  # smaller segments are shown


@dataclass(frozen=True)
class Size:
    """How large the segments are, in MiB; what is written into them, and by how many processes."""

    shown: Sequence[int]
    metadata: int
    live: Sequence[int]
    loads: Sequence[Load]
    writers: Sequence[int]


FULL = Size((2, 32, 256, 1024), 32, (8, 64), LOADS, (1, 4))
QUICK = Size((2, 32), 2, (2,), LOADS[-2:], (2,))


@dataclass(frozen=True)
class Metadata:
    """Of one entry of a store, in bytes; the last two where the store tells what they are made of."""

    subject: str
    load: str
    entries: int
    all_memory: float
    less_fixed: float
    in_full: float
    in_use: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        figures = (self.all_memory, self.less_fixed, self.in_full, self.in_use)
        return (
            f"{self.load}, {self.subject}",
            f"{self.entries:,}",
            *("-" if figure is None else f"{figure:.1f}" for figure in figures),
        )


@dataclass(frozen=True)
class Cell:
    """What a store held of one load, in each turn."""

    subject: str
    load: Load
    memory: int
    writers: int
    turns: list[Held]

    @property
    def live(self) -> float:
        return 100 * statistics.median(held.live for held in self.turns)

    @property
    def live_with_headers(self) -> float:
        return 100 * statistics.median(held.live_with_headers for held in self.turns)

    @property
    def file(self) -> float:
        return max(held.file / held.memory for held in self.turns)

    def total(self, what: str) -> int:
        return sum(int(getattr(held, what)) for held in self.turns)

    @property
    def cells(self) -> tuple[str, ...]:
        many = f"{self.writers} writer{'s' * (self.writers > 1)}"
        ours = self.subject == US
        return (
            f"{self.memory // MIB} MiB, {many}, {self.load.name}{'' if ours else f', {self.subject}'}",
            f"{statistics.median(held.entries for held in self.turns):,.0f}",
            f"{self.live:.1f} %",
            f"{self.live_with_headers:.1f} %",
            f"{self.file:.3f}" if ours else "-",
            f"{self.total('sets'):,}",
            f"{self.total('no_room')}" if ours else f"{self.total('failed')}",
            f"{self.total('failed') - self.total('no_room')}" if ours else "-",
        )


# 1. the segment


def geometries(size: Size) -> dict[int, Geometry]:
    """By MiB; those for which there is no room are left out."""
    found = {}
    for memory in size.shown:
        try:
            with mesh.local("memory", f"{memory}MiB") as cache:
                found[memory] = geometry_of(cache)
        except NoSpace as error:
            print(f"{memory} MiB is left out: {error}")
    return found


def segments_table(found: dict[int, Geometry]) -> str:
    rows = []
    for memory, geometry in found.items():
        shares = (geometry.fixed_bytes, geometry.growing_bytes, geometry.value_bytes)
        grow = [geometry.regions["index"], geometry.regions[OTHERS]]
        bytes_of = [*shares, *grow, geometry.growing_bytes - sum(grow)]
        rows.append(
            (f"{memory} MiB", *(f"{100 * share / geometry.memory_bytes:.1f} %" for share in bytes_of))
        )
    header = ("memory", "fixed", "growing", "values", "index", OTHERS, "page tables")
    return table("A segment: the last three are the growing ones", header, rows)


# 2. metadata of an entry


def metadata_of(load: Load, held: Held, geometry: Geometry, page_bytes: int) -> Metadata:
    """Cachee's."""
    bare, entries = KEY_BYTES + load.most, held.entries
    stands = entry_bytes(load.most, page_bytes, layout_numbers())
    return Metadata(
        US,
        load.name,
        entries,
        geometry.memory_bytes / entries - bare,
        (geometry.memory_bytes - geometry.fixed_bytes) / entries - bare,
        stands - bare + geometry.growing_bytes / entries,
        stands - bare + geometry.bytes_of_one(stands),
    )


def metadata_of_memcached(load: Load, held: Held) -> Metadata:
    bare, entries, hash_table = KEY_BYTES + load.most, held.entries, held.memory - held.room
    return Metadata(
        MEMCACHED,
        load.name,
        entries,
        held.memory / entries - bare,
        held.memory / entries - bare,
        (held.with_headers + hash_table) / entries - bare,
        held.items / entries - bare + POINTER_BYTES,
    )


def metadata_of_warp_cache(load: Load, held: Held) -> Metadata:
    each = held.memory / held.entries - KEY_BYTES - load.most
    return Metadata(WARP, load.name, held.entries, each, each, each, None)


def all_metadata(size: Size, memcached: Callable[[Load, int], Held]) -> list[Metadata]:
    """Of every load of one size, by every store that is installed."""
    memory = size.metadata * MIB
    found = []
    for load in (*EQUAL, TOLD):
        with mesh.local("memory", f"{size.metadata}MiB", **load.options) as cache:
            geometry, page_bytes = geometry_of(cache), cache.stats()["page_bytes"]
        found.append(metadata_of(load, fill_cachee(load, memory, 1), geometry, page_bytes))
        if load is TOLD:
            continue  # the rivals are beside the same entries above
        for subject, fill, judge in (
            (MEMCACHED, memcached, metadata_of_memcached),
            (WARP, fill_warp_cache, metadata_of_warp_cache),
        ):
            try:
                found.append(judge(load, fill(load, memory)))
            except Absent as reason:
                print(f"{subject} is left out: {reason}")
    return found


def metadata_table(found: Sequence[Metadata], size: Size) -> str:
    header = ("bytes beyond key and value", "live", "all memory", "less the fixed", "in full", "in use")
    return table(f"Memory of an entry, {size.metadata} MiB", header, [each.cells for each in found])


# 3. live bytes


def all_cells(size: Size, repeats: int, memcached: Callable[[Load, int], Held]) -> list[Cell]:
    """Every load at every size by one writer and by several; memcached beside the smallest, one client."""
    found = []
    for memory in (each * MIB for each in size.live):
        for load in size.loads:
            for writers in size.writers:
                turns = [fill_cachee(load, memory, writers, turn) for turn in range(repeats)]
                found.append(Cell(US, load, memory, writers, turns))
            if memory == size.live[0] * MIB and not load.entry_size:
                found += beside(load, memory, memcached)
    return found


def beside(load: Load, memory: int, memcached: Callable[[Load, int], Held]) -> list[Cell]:
    try:
        return [Cell(MEMCACHED, load, memory, 1, [memcached(load, memory)])]
    except Absent:
        return []  # said already


def live_table(found: Sequence[Cell], repeats: int) -> str:
    header = (
        "",
        "live",
        "key + value",
        "with headers",
        "file",
        "sets",
        "no room",
        "lost",
    )
    return table(f"Live bytes over all memory, {repeats} turns", header, [cell.cells for cell in found])


# targets


def judge(segments: dict[int, Geometry], metadata: Sequence[Metadata], cells: Sequence[Cell]) -> list[Target]:
    ours = [cell for cell in cells if cell.subject == US]
    large = [cell for cell in ours if cell.memory >= JUDGED_FROM] or ours
    return [*judge_overhead(segments, metadata), *judge_live(large), *judge_bounds(ours)]


def judge_overhead(segments: dict[int, Geometry], metadata: Sequence[Metadata]) -> list[Target]:
    ours = [each for each in metadata if each.subject == US]
    fixed = {memory: 100 * each.fixed_bytes / each.memory_bytes for memory, each in segments.items()}
    return [
        *(
            Target("S8", f"an entry of {each.load}", each.all_memory, ENTRY_MAX[each.load], " B")
            for each in ours
            if each.load in ENTRY_MAX
        ),
        *(Target("S8", f"fixed overhead, {memory} MiB", fixed[memory], FIXED_MAX, " %") for memory in fixed),
    ]


def judge_live(ours: Sequence[Cell]) -> list[Target]:
    """The worst of sizes and writers, for each load."""
    found = []
    told = {(load.most, load.overwrites) for load in (cell.load for cell in ours) if load.entry_size}
    for load in dict.fromkeys(cell.load for cell in ours):
        if not load.entry_size and (load.most, load.overwrites) in told:
            continue  # shown; the row that is told the size is the one to judge
        limit = LIVE_OVERWRITTEN_MIN if load.overwrites else LIVE_MIN
        cells = [cell for cell in ours if cell.load == load]
        least = min(cell.live for cell in cells)
        found.append(Target("S9", f"live key + value, {load.name}", least, limit, " %", is_floor=True))
    return found


def judge_bounds(ours: Sequence[Cell]) -> list[Target]:
    no_room, failed, sets = (sum(cell.total(what) for cell in ours) for what in ("no_room", "failed", "sets"))
    return [
        Target("S9", "the file / memory", max(cell.file for cell in ours), 1),
        Target("S9", "sets that found no room", no_room, 0),
        Target("S9", "sets that were lost, of a million", 1e6 * (failed - no_room) / sets, 0),
    ]


# the plot


def draw(
    segments: dict[int, Geometry], metadata: Sequence[Metadata], cells: Sequence[Cell]
) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        figure.set_size_inches(13, 6)
        first, second, third = figure.subplots(1, 3)
        draw_segments(first, segments)
        draw_metadata(second, metadata)
        draw_live(third, cells)

    return on


def draw_segments(axis: Any, segments: dict[int, Geometry]) -> None:
    names = [f"{memory} MiB" for memory in segments]
    below = [0.0] * len(names)
    for label in ("value", "growing", "fixed"):
        shares = [100 * getattr(g, f"{label}_bytes") / g.memory_bytes for g in segments.values()]
        axis.bar(names, shares, bottom=below, label=label)
        below = [a + b for a, b in zip(below, shares, strict=True)]
    axis.set_title("% of a segment's memory", fontsize=9)
    axis.legend(fontsize=8, loc="lower right")


def draw_metadata(axis: Any, metadata: Sequence[Metadata]) -> None:
    names = [f"{each.load}\n{each.subject}" for each in reversed(metadata)]
    axis.barh(names, [each.all_memory for each in reversed(metadata)], color="0.85", label="all memory")
    axis.barh(names, [each.in_full for each in reversed(metadata)], height=0.5, label="tables in full")
    for limit in ENTRY_MAX.values():
        axis.axvline(limit, color="black", linewidth=0.8)
    axis.set_title("bytes of an entry beyond key and value", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=8)


def draw_live(axis: Any, cells: Sequence[Cell]) -> None:
    names = [cell.cells[0] for cell in reversed(cells)]
    with_headers = [cell.live_with_headers for cell in reversed(cells)]
    axis.barh(names, with_headers, color="0.85", label="with headers")
    axis.barh(names, [cell.live for cell in reversed(cells)], height=0.5, label="key + value")
    axis.axvline(LIVE_MIN, color="black", linewidth=0.8)
    axis.axvline(LIVE_OVERWRITTEN_MIN, color="black", linewidth=0.8, linestyle=":")
    axis.set_title("live, % of all memory", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=8, loc="lower left")


def main() -> None:
    chosen = start(__doc__, repeats=3)
    size = QUICK if chosen.quick else FULL
    cores = frozenset(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-") as folder:

        def memcached(load: Load, memory: int) -> Held:
            return fill_memcached(load, memory, Path(folder), Apart(cores, cores))

        shown = geometries(size)
        print(segments_table(shown))
        entries = all_metadata(size, memcached)
        print(metadata_table(entries, size), flush=True)
        cells = all_cells(size, chosen.repeats, memcached)
    print(live_table(cells, chosen.repeats))
    targets = judge(shown, entries, cells)
    print(targets_table(targets))
    save(chosen.out, "memory", as_data(shown, entries, cells), targets, draw(shown, entries, cells))


def as_data(
    segments: dict[int, Geometry], metadata: Sequence[Metadata], cells: Sequence[Cell]
) -> dict[str, Any]:
    return {
        "segments": {f"{memory} MiB": geometry.regions for memory, geometry in segments.items()},
        "metadata": [asdict(each) for each in metadata],
        "live": [asdict(cell) for cell in cells],
    }


if __name__ == "__main__":
    main()
