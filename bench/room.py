"""How much memory makes a segment hold a given number of equal-sized values, and no more.

The yardstick is bytes: value memory = objects x the bytes that one entry takes in it, headers and padding
included, rounded down to whole pages. What the cache loses inside (pages that are open or kept free, bytes of
dropped entries) makes it hold fewer objects than its rivals, never more. Of the values that are large enough
for the pages asked for, the smallest is taken whose entries fill a page, so that it is the policy that is
compared, not how well one size happens to fit. Values above an eighth of a page are kept in pieces, and
nothing fits exactly.

An entry's size follows from core/layout.h, whose constants are read from there; the page size and what is
left for pages, from the segment itself: stats() of one that is made to see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cachee_shm

LAYOUT = Path(cachee_shm.__file__).with_name("core") / "layout.h"
MEMORY_MIN = 2 << 20  # the least that a configuration accepts
VALUE_BYTES_MIN = 96
VALUE_BYTES_MAX = 1 << 20
KEY_BYTES = 8
WORD_BYTES = 8
SPANS_PER_PAGE = 8
UNUSED_MAX = 0.005  # of a page, at its end
STEPS_MAX = 200


@dataclass(frozen=True)
class Room:
    """A segment for `objects` values of `value_bytes`, each an entry of `entry_bytes`, in `pages` pages."""

    objects: int
    memory: int
    page_bytes: int
    pages: int
    entry_bytes: int
    value_bytes: int

    @property
    def filled(self) -> float:
        """Value memory as a share of objects x entry_bytes: at most 1."""
        return self.pages * self.page_bytes / (self.objects * self.entry_bytes)


def config_of(memory: int, host: str, **options: object) -> dict[str, Any]:
    """A configuration without a bridge and without lifetimes; ``options`` are the namespace's."""
    return {"host": {"name": host}, "namespaces": {"bench": {"memory": f"{memory}B"} | options}}


def capacity_for(objects: int, pages_min: int, **options: object) -> Room:
    """The segment of at least `pages_min` pages that holds `objects` entries if it wastes nothing.

    From too little, memory is raised by what is missing: never too far, as some of it goes to the index.
    """
    memory = MEMORY_MIN
    for _ in range(STEPS_MAX):
        with cachee_shm.attach(private=True, config=config_of(memory, "room", **options)) as cache:
            stats = cache.stats()
        page, has = stats["page_bytes"], stats["value_bytes"] // stats["page_bytes"]
        if memory == MEMORY_MIN:
            pages_min = max(pages_min, has)
        value, entry = _value_for(objects, page, pages_min * page)
        pages = objects * entry // page
        if has == pages:
            return Room(objects, memory, page, pages, entry, value)
        memory += (pages - has) * page
    raise SystemExit(f"no segment has the pages for {objects} entries and none too many")


def _value_for(objects: int, page_bytes: int, memory: int) -> tuple[int, int]:
    """The smallest value, and its entry's bytes, of which `objects` take at least `memory` and fill pages."""
    layout = layout_numbers()
    for value in range(VALUE_BYTES_MIN, VALUE_BYTES_MAX, WORD_BYTES):
        entry = entry_bytes(value, page_bytes, layout)
        in_pieces = entry > page_bytes // SPANS_PER_PAGE
        if objects * entry >= memory and (in_pieces or page_bytes % entry <= page_bytes * UNUSED_MAX):
            return value, entry
    raise SystemExit(f"{objects} entries do not fill {memory} bytes with values of {VALUE_BYTES_MAX}")


def entry_bytes(value_bytes: int, page_bytes: int, layout: Mapping[str, int]) -> int:
    """Bytes of pages that a value takes: its entry and, if it is too large for one, its spans."""
    header = layout["ENTRY_HEADER_WORDS"] * WORD_BYTES
    span = page_bytes // SPANS_PER_PAGE - header
    if value_bytes <= span:
        return _padded(header + KEY_BYTES + value_bytes, layout)
    whole, rest = divmod(value_bytes, span)
    spans = whole * _padded(header + span, layout) + (_padded(header + rest, layout) if rest else 0)
    return _padded(header + KEY_BYTES + (whole + bool(rest)) * WORD_BYTES, layout) + spans


def _padded(size: int, layout: Mapping[str, int]) -> int:
    unit = layout["ENTRY_UNIT"]
    return -(-size // unit) * unit


def layout_numbers() -> dict[str, int]:
    """The constants of entries that core/layout.h names."""
    text = LAYOUT.read_text(encoding="utf-8")
    return {name: int(number) for name, number in re.findall(r"\b(ENTRY_\w+) = (\d+),", text)}
