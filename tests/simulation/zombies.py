"""A segment as one bridge holds it: what is refused to a bridge whose place another has taken.

The kernel keeps a bridge's lock while its process lives, so one that only hangs keeps others out. Here the
lock is lost, as when a process is stored away and brought back elsewhere: it goes on where it was, with the
cursors that it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachee_shm.errors import BridgeRunning

if TYPE_CHECKING:
    from tests.simulation.watched import Watched

REFUSED = frozenset(
    (
        *("heal", "apply", "fence_map", "evict_map", "draw_line", "evict_before"),
        *("source_open", "source_store", "source_forget", "source_set_aside"),
        *(
            "raise_incarnation",
            "source_acked",
            "source_tell",
            "bridge_vouch",
            "bridge_leave",
            "set_serve_until",
            "bridge_sleep",
        ),
    )
)
"""What the bridge alone writes; tests/cachee_shm/test_zombies.py holds the real segment to the same list."""


class Held:
    """A mesh's store."""

    def __init__(self, segment: Watched) -> None:
        segment.bridge_generation += 1
        self._segment, self._generation = segment, segment.bridge_generation

    def __getattr__(self, name: str) -> Any:
        if name in REFUSED:
            self.check()
        return getattr(self._segment, name)

    @property
    def is_ousted(self) -> bool:
        return self._generation != self._segment.bridge_generation

    def check(self) -> None:
        """Before each verb."""
        if self.is_ousted:
            raise BridgeRunning(f"another bridge serves namespace {self._segment.namespace}")
