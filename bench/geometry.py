"""How a segment's bytes are divided: what each region takes, and which regions grow with its value memory.

Two sources, neither of which this file repeats: the counts that the creator of a segment wrote into the first
bytes of its file, and core/layout.h, which says in one table how many bytes each region takes of which count,
and in which order the header's counts stand. Regions whose count the header does not tell (the sketch and the
ghost of the eviction policy) and what rounding leaves are one row, OTHERS: the file's size less all others.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

from room import LAYOUT

import cachee_shm

OTHERS = "sketch, ghost, rounding"
VALUES = "pages"
GROWING = {"bucket_count", "page_count"}  # counts that follow from the value memory
UNITS = {"KiB": 1 << 10}
HEADER_BYTES_MAX = 4096
ROW = re.compile(
    r"^ \*   (?:0|\+ [\w ]+?) {2,}(\w[\w ]*?) {2,}(\w+(?: x \w+| KiB)*)(?: {2,}|$)", re.MULTILINE
)
FIELD = re.compile(r"^    uint(32|64)_t ([\w,\s\[\]]+);", re.MULTILINE)


@dataclass(frozen=True)
class Geometry:
    """Bytes of each region in the order of the file, and the names of those that grow with value memory."""

    regions: dict[str, int]
    growing: frozenset[str]

    @property
    def memory_bytes(self) -> int:
        return sum(self.regions.values())

    @property
    def value_bytes(self) -> int:
        return self.regions[VALUES]

    @property
    def growing_bytes(self) -> int:
        """Index, page tables, policy tables: what there is more of where more entries fit."""
        return sum(self.regions[name] for name in self.growing)

    @property
    def fixed_bytes(self) -> int:
        """Header, roster, ring, fences and the like: entries, many or few, change nothing in them."""
        return self.memory_bytes - self.value_bytes - self.growing_bytes

    def bytes_of_one(self, entry_bytes: int, index_word_bytes: int = 8) -> float:
        """Of the growing tables, what one entry uses: a word of the index, what the policy has for a word,
        and the entry's share of its page's row in the page tables."""
        policy = self.regions[OTHERS] / self.regions["index"]
        rows = sum(self.regions[name] for name in self.growing - {"index", OTHERS})
        return index_word_bytes * (1 + policy) + entry_bytes * rows / self.value_bytes


def geometry_of(cache: cachee_shm.Cache) -> Geometry:
    """Of the segment that a cache with a name is attached to."""
    layout = LAYOUT.read_text(encoding="utf-8")
    with open(f"/dev/shm{cache.name}", "rb") as file:
        counts = _counts(file.read(HEADER_BYTES_MAX), layout)
    found, growing = _regions(layout, counts)
    rest = cache.stats()["memory_bytes"] - sum(found.values())
    if rest < 0 or found.get(VALUES) != cache.stats()["value_bytes"]:
        raise SystemExit(f"{LAYOUT}: its table of regions does not describe {cache.name}: {found}")
    pages = found.pop(VALUES)
    return Geometry({**found, OTHERS: rest, VALUES: pages}, frozenset({*growing, OTHERS}))


def _counts(header: bytes, layout: str) -> dict[str, int]:
    """The numbers at the beginning of struct header, by name; of an array, the first."""
    begun = layout.partition("struct header {")[2].partition("char ")[0]
    counts: dict[str, int] = {}
    at = 0
    for bits, names in FIELD.findall(begun):
        for name, _, length in (each.strip().partition("[") for each in names.split(",")):
            counts[name] = struct.unpack_from("<I" if bits == "32" else "<Q", header, at)[0]
            at += int(bits) // 8 * int(length.rstrip("]") or 1)
    return counts


def _regions(layout: str, counts: dict[str, int]) -> tuple[dict[str, int], set[str]]:
    """Bytes of each region whose counts are known, and those among them that grow."""
    found: dict[str, int] = {}
    growing: set[str] = set()
    for name, size in ROW.findall(layout):
        factors = size.replace(" x ", " ").split()
        if all(factor.isdigit() or factor in counts or factor in UNITS for factor in factors):
            found[name] = math.prod(_factor(factor, counts) for factor in factors)
            if name != VALUES and GROWING & set(factors):
                growing.add(name)
    return found, growing


def _factor(factor: str, counts: dict[str, int]) -> int:
    return int(factor) if factor.isdigit() else UNITS.get(factor) or counts[factor]
