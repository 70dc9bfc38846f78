"""Stand-ins for cases in which the real object cannot be made to do what a test needs."""

from __future__ import annotations


class FakeRing:
    """A ring that counts, with the bell's arming as the segment does it."""

    def __init__(self) -> None:
        self.tail = 0
        self.pump_cursor = 0
        self.armed = False
        self.heal_limit = 1 << 30
        self.asked = 0

    def sync_asked(self) -> int:
        return self.asked

    def gather(self) -> None:
        pass

    def heal(self, max_records: int) -> int:
        """As the mesh does that is told."""
        self.pump_cursor = min(self.tail, self.pump_cursor + min(max_records, self.heal_limit))
        return self.pump_cursor

    def bridge_sleep(self, sleeping: bool, /) -> bool:
        self.armed = sleeping and self.tail == self.pump_cursor
        return self.armed or not sleeping
