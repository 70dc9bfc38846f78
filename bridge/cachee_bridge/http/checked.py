"""What the checker has seen, and what it took to follow peers, for /metrics.

Counters never fall while the bridge runs: what was repaired of a peer that is forgotten stays counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add, attrgetter, lt
from typing import TYPE_CHECKING

from cachee_bridge.checker.nines import BOUNDS_S, WINDOWS_S, Seen
from cachee_bridge.http.exposition import Exposition, Histogram

if TYPE_CHECKING:
    from cachee_bridge.ports.views import PeerView

KINDS = ("replays", "maps", "flushes", "incarnations")
"""Of ports/views.py Repairs."""
NONE = (0,) * len(KINDS)
_counts = attrgetter(*KINDS)


def tell_nines(told: Exposition, seen: Mapping[str, Seen], peers_max: int, others: str) -> None:
    """Canaries by peer, the peers beyond `peers_max` summed as `others`."""
    names = sorted(seen)
    rows = {name: [seen[name]] for name in names[:peers_max]}
    if names[peers_max:]:
        rows[others] = [seen[name] for name in names[peers_max:]]
    told.begin("cachee_canary_total", "counter", "Checked writes of which the peer was to be asked.")
    for name, group in rows.items():
        told.add(sum(each.canaries for each in group), peer=name)
    told.begin(
        "cachee_canary_visible_total", "counter", "Of these, those that the peer had evicted within seconds."
    )
    for name, group in rows.items():
        for window in WINDOWS_S:
            told.add(sum(each.visible[window] for each in group), peer=name, within=f"{window:g}")
    told.begin(
        "cachee_propagation_seconds",
        "histogram",
        "From a checked write to the answer that the peer has evicted, by this host's clock: an upper bound.",
    )
    for name, group in rows.items():
        told.add_histogram(_together(group), peer=name)


def _together(group: Iterable[Seen]) -> Histogram:
    histograms = [each.propagation for each in group]
    counts = [sum(each) for each in zip(*(one.counts for one in histograms), strict=True)]
    return Histogram(BOUNDS_S, counts, sum(one.sum_s for one in histograms))


class RepairsTold:
    """cachee_repairs_total, summed over peers and namespaces."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, ...]] = {}
        self._before = NONE
        """Of streams that are not there any more, or that began anew."""

    def tell(self, told: Exposition, peers: Iterable[PeerView]) -> None:
        now: dict[tuple[str, str], tuple[int, ...]] = {
            (peer.name, namespace): _counts(stream.repairs)
            for peer in peers
            for namespace, stream in peer.namespaces.items()
        }
        for key, last in self._last.items():
            found = now.get(key, NONE)
            if found != last and any(map(lt, found, last)):
                self._before = tuple(map(add, self._before, last))
        self._last = now
        told.begin(
            "cachee_repairs_total",
            "counter",
            "What it took to follow peers: records asked for again, maps of buckets, flushes, new segments.",
        )
        for kind, counts in zip(KINDS, zip(self._before, *now.values(), strict=True), strict=True):
            told.add(sum(counts), kind=kind)
