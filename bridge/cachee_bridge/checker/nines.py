"""Counts canaries that were seen in time, by peer, and how long that took by the writer's clock.

A canary counts as visible within a window if the peer's answer, that it holds no older one, came back within
the window. So both are upper bounds: each includes the way back. `1 - visible / canaries` is what was late.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WINDOWS_S = (0.001, 0.01, 0.1, 1.0, 60.0)
BOUNDS_S = (
    *(50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 10e-3, 20e-3, 50e-3),
    *(100e-3, 200e-3, 500e-3, 1.0, 2.0, 5.0, 60.0),
)
PEERS_MAX = 4096
"""Peers that are remembered: as many as a segment knows sources."""


@dataclass
class Histogram:
    """A histogram of times."""

    bounds_s: tuple[float, ...] = BOUNDS_S
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """One more than bounds: what was above the last. Not cumulative."""
    sum_s: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds
        self.count += 1


@dataclass
class Seen:
    """Canaries for one peer, and how many of them it has been seen to evict in time. Counts never fall."""

    region: str = ""
    canaries: int = 0
    """Written for it, and either seen or a second old."""
    visible: dict[float, int] = field(default_factory=lambda: dict.fromkeys(WINDOWS_S, 0))
    error: str = ""
    """Why it is not asked."""
    propagation: Histogram = field(default_factory=Histogram)
    """Of answers to the question that followed the write at once."""


class Nines:
    """Of all peers."""

    def __init__(self) -> None:
        self.peers: dict[str, Seen] = {}

    def of(self, peer: str) -> Seen:
        """Its counts. Of too many peers, the one that was met first is forgotten."""
        if peer not in self.peers:
            if len(self.peers) >= PEERS_MAX:
                del self.peers[next(iter(self.peers))]
            self.peers[peer] = Seen()
        return self.peers[peer]

    def seen(self, peer: str, after_s: float, at_first: bool) -> None:
        """`peer` was seen to have evicted what a canary replaced, so long after the write. `at_first`: it
        said so to the first question."""
        counts = self.of(peer)
        for window in WINDOWS_S:
            if after_s <= window:
                counts.visible[window] += 1
        if at_first:
            counts.propagation.add(after_s)

    def spread(self) -> list[tuple[float | None, int]]:
        """Of all peers together: how many answers came within which bound and no lower one; None: later."""
        sums = [
            sum(each) for each in zip(*(seen.propagation.counts for seen in self.peers.values()), strict=True)
        ]
        return list(zip((*BOUNDS_S, None), sums, strict=False))

    def view(self, young: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Ready for JSON: by peer, and by region. `young`: by peer, how old the canaries are that it was not
        seen to have evicted and that are asked for again: pending, in each window that is longer."""
        regions: dict[str, Seen] = {}
        ages: dict[str, list[float]] = {}
        for name, seen in self.peers.items():
            total = regions.setdefault(seen.region, Seen())
            ages.setdefault(seen.region, []).extend(young.get(name, ()))
            total.canaries += seen.canaries
            for window, count in seen.visible.items():
                total.visible[window] += count
        return {
            "peers": {
                name: {"region": seen.region, "error": seen.error, **_counts(seen, young.get(name, ()))}
                for name, seen in sorted(self.peers.items())
            },
            "regions": {region: _counts(seen, ages[region]) for region, seen in sorted(regions.items())},
        }


def _counts(seen: Seen, young: Sequence[float]) -> Mapping[str, object]:
    visible = {f"{window:g}": count for window, count in seen.visible.items()}
    pending = {f"{window:g}": sum(age <= window for age in young) for window in WINDOWS_S}
    return {"canaries": seen.canaries, "visible": visible, "pending": pending}
