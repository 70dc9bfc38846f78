"""The source table, and what workers are told of peers. See module_sources.c, peers.c."""

from __future__ import annotations

from dataclasses import dataclass

from cachee_shm.errors import SegmentError
from tests.stand_in.entries import Entries
from tests.stand_in.ring import Shape

FREE, MEMBER, FORGOTTEN = 0, 1, 2
NOBODY = 0
NAME_BYTES_MAX = 63


@dataclass
class Source:
    name: str = ""
    used: int = FREE
    incarnation: int = 0
    cursor: int = 0
    acked: int | None = None
    fresh_ms: int = 0
    reachable: bool = False
    until: int = 0
    """The tail when the slot was given up."""


class Sources(Entries):
    def __init__(self, shape: Shape, incarnation: int) -> None:
        super().__init__(shape)
        self.incarnation = incarnation
        self.slots = [Source() for _ in range(shape.source_slots)]
        self.vouched_until_ms = 0
        self.wanted = 0
        """Up to where some worker waits for the peers."""
        self.left = False

    def _rows(self, use: int) -> list[tuple[int, str, int, int]]:
        rows = ((number, slot.name, slot.incarnation, slot.cursor) for number, slot in self._used(use))
        return list(rows)

    def _used(self, use: int) -> list[tuple[int, Source]]:
        return [(number, slot) for number, slot in enumerate(self.slots) if slot.used == use]

    def sources(self) -> list[tuple[int, str, int, int]]:
        return self._rows(MEMBER)

    def forgotten(self) -> list[tuple[int, str, int, int]]:
        return self._rows(FORGOTTEN)

    def source_open(self, name: str) -> int:
        if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
            raise ValueError(f"a source's name has 1 to {NAME_BYTES_MAX} bytes")
        index = self._slot_for(name)
        slot = self.slots[index]
        if slot.used == FREE or slot.name != name:
            if slot.used == FORGOTTEN:
                self.slots[NOBODY].used = FORGOTTEN
            self.slots[index] = slot = Source(name, until=slot.until)
        slot.used = MEMBER
        return index

    def _slot_for(self, name: str) -> int:
        """Its own, else what has been free for longest, else a forgotten source's."""
        slots = list(enumerate(self.slots))[1:]
        known = [number for number, slot in slots if slot.used and slot.name == name]
        free = [(slot.until, number) for number, slot in slots if slot.used == FREE]
        forgotten = [number for number, slot in slots if slot.used == FORGOTTEN]
        if not (known or free or forgotten):
            raise SegmentError(f"the table is full: no room for {name}")
        return known[0] if known else min(free)[1] if free else forgotten[0]

    def _at(self, index: int) -> Source:
        if not 1 <= index < len(self.slots):
            raise ValueError(f"no source {index}")
        return self.slots[index]

    def source_cursor(self, index: int) -> tuple[int, int]:
        slot = self._at(index)
        return slot.incarnation, slot.cursor

    def source_store(self, index: int, incarnation: int, cursor: int) -> None:
        slot = self._at(index)
        slot.incarnation, slot.cursor = incarnation, cursor

    def source_forget(self, index: int) -> None:
        slot = self._at(index)
        slot.until, slot.used = self.tail, FREE

    def source_set_aside(self, index: int) -> None:
        (self._at(index) if index else self.slots[NOBODY]).used = FORGOTTEN

    def source_acked(self, index: int, position: int) -> None:
        """Nobody has applied what was never written."""
        slot = self._at(index)
        if position <= self.tail:
            slot.acked = position

    def source_tell(self, index: int, reachable: bool, fresh_ms: int) -> None:
        slot = self._at(index)
        slot.reachable, slot.fresh_ms = reachable, fresh_ms

    def _peers(self) -> list[tuple[str, bool, int | None, int]]:
        """As workers see them."""
        return [(slot.name, slot.reachable, slot.acked, slot.fresh_ms) for _, slot in self._used(MEMBER)]

    def raise_incarnation(self, incarnation: int) -> None:
        if incarnation <= self.incarnation:
            raise ValueError(f"incarnation {incarnation} is not above the segment's; nothing changed")
        for slot in self.slots:
            slot.acked = None
        self.incarnation = incarnation

    def bridge_vouch(self, until_ms: int) -> None:
        self.vouched_until_ms = until_ms

    def bridge_leave(self, left: bool) -> None:
        self.left = left

    def _left(self) -> bool:
        return self.left

    def sync_asked(self) -> int:
        return self.wanted if self.wanted <= self.tail else 0

    def set_serve_until(self, ms: int) -> None:
        self.serve_until = ms
