"""Loading ahead and peer fill, for /metrics: what spares the origin loads, or costs it some.

How much of the budget is left is not a counter of the segment. It is in the price that the segment asks for a
load ahead, which rises as the budget falls (core/prewarm.h). The price is told with any key of which
pre-warming knows something, and the newest records of the ring name such keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cachee_bridge.http.hottest import RECORD, RECORDS_MAX
from cachee_bridge.ports.effects import FAILED, FILLED, LOADED, Failure

if TYPE_CHECKING:
    from cachee_bridge.http.exposition import Exposition


OUTCOMES = ((FILLED, ""), (LOADED, ""), *((FAILED, failure.value) for failure in Failure))
"""All are told from the first question on: a rate needs the 0 before the first of a kind."""


class Spec(Protocol):
    """What is asked of a namespace's configuration."""

    @property
    def prewarm_weight(self) -> float: ...

    @property
    def prewarm_budget(self) -> float: ...


class Warmed(Protocol):
    """What is asked of a segment."""

    @property
    def spec(self) -> Spec: ...

    @property
    def tail(self) -> int: ...

    def read_ring(self, cursor: int, records_max: int, /) -> tuple[int, bytes] | None: ...

    def warm_explain(self, hash: int, /) -> dict[str, Any] | None: ...

    def warm_stats(self) -> tuple[int, int, int] | None: ...


class WarmedTold:
    """Of namespaces with `prewarm = true`."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        """Of each namespace the hash of a key of which something was known at the last scrape."""

    def tell(self, told: Exposition, held: Mapping[str, Warmed]) -> None:
        """`held` in the order of the names."""
        counts = {name: each for name, segment in held.items() if (each := segment.warm_stats()) is not None}
        if not counts:
            return
        told.begin(
            "cachee_prewarm_loads_total", "counter", "Keys that were loaded before they were asked for."
        )
        for namespace, (loads, _, _) in counts.items():
            told.add(loads, namespace=namespace)
        told.begin(
            "cachee_prewarm_outcomes_total",
            "counter",
            "Of these, those that were read, and those that were not.",
        )
        for namespace, (_, avoided, wasted) in counts.items():
            told.add(avoided, namespace=namespace, result="avoided")
            told.add(wasted, namespace=namespace, result="wasted")
        told.begin(
            "cachee_prewarm_budget_spent_loads",
            "gauge",
            "Loads ahead that have cost budget and not brought it back: nobody has read the value.",
        )
        for namespace, (loads, avoided, _) in counts.items():
            told.add(loads - avoided, namespace=namespace)
        told.begin(
            "cachee_prewarm_budget_left_ratio",
            "gauge",
            "Share of the budget of loads ahead that is left, once a cached key was written elsewhere.",
        )
        for namespace in counts:
            left = self._left(namespace, held[namespace])
            if left is not None:
                told.add(left, namespace=namespace)

    def _left(self, namespace: str, segment: Warmed) -> float | None:
        """From 0 to 1; None: no budget bounds it, or no key is known."""
        if not segment.spec.prewarm_budget:
            return None
        seen = self._seen(namespace, segment)
        most = 1 - 1 / (1 + segment.spec.prewarm_weight)
        return None if seen is None else round((1 - float(seen["price"])) / most, 6)

    def _seen(self, namespace: str, segment: Warmed) -> dict[str, Any] | None:
        known = self._known.get(namespace)
        seen = segment.warm_explain(known) if known is not None else None
        if seen is not None:
            return seen
        tail = segment.tail
        read = segment.read_ring(max(0, tail - RECORDS_MAX), RECORDS_MAX)
        for _, hashed, _, _, _, _ in RECORD.iter_unpack(read[1] if read is not None else b""):
            if (seen := segment.warm_explain(hashed)) is not None:
                self._known[namespace] = hashed
                return seen
        return None


def tell_peer_fills(told: Exposition, fills: Mapping[tuple[str, str, str], int]) -> None:
    """Of namespaces with `peer_fill = true` in which a worker has asked."""
    if not fills:
        return
    told.begin(
        "cachee_peer_fills_total",
        "counter",
        "Loads that asked other hosts for the value, by outcome; of failed ones, the reason.",
    )
    for namespace in sorted({name for name, _, _ in fills}):
        for result, reason in OUTCOMES:
            told.add(
                fills.get((namespace, result, reason), 0), namespace=namespace, result=result, reason=reason
            )
