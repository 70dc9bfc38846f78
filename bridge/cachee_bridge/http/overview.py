"""GET /api/mesh: all that the dashboard shows, as JSON. Keys are in it by their hashes alone.

what `cachee peers` is told (daemon/snapshot.py), and beside it
"at", "region"     seconds since 1970 by this host's clock; this host's region
"stats"            by namespace, the counters of its segment
"hottest"          by namespace, [{"hash", "count"}] (hottest.py)
"checker"          what of this host's writes is visible where, and how soon (checker/)
"propagation"      [[bound in s, answers of peers within it]], the last bound null
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cachee_bridge.http.hottest import Hottest, Ring
from cachee_bridge.http.messages import Request, Response

if TYPE_CHECKING:
    from cachee_bridge.http.admin import Ask
    from cachee_bridge.http.routes import Routes

FRESH_S = 0.2
"""However many pages ask, the answer is made at most once in so long."""


class Segment(Ring, Protocol):
    """What is asked of one."""

    def stats(self) -> dict[str, int]: ...


class Overview:
    """Of one host. `look` is called each second."""

    def __init__(
        self,
        ask: Ask,
        held: Mapping[str, Segment],
        clock: Callable[[], float],
        region: str = "",
        spread: Callable[[], list[tuple[float | None, int]]] = list,
    ) -> None:
        self._ask, self._held, self._clock = ask, held, clock
        self._region, self._spread = region, spread
        self._hottest: dict[str, Hottest] = {}
        self._made_at, self._answer = -math.inf, Response.json({})

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "/api/mesh", self.handle)

    def look(self) -> None:
        now = self._clock()
        for namespace, held in self._held.items():
            if namespace in self._hottest:
                self._hottest[namespace].look(held, now)
            else:
                self._hottest[namespace] = Hottest(held.tail, now)

    def handle(self, request: Request) -> Response:
        now = self._clock()
        if not self._made_at <= now < self._made_at + FRESH_S:
            self._made_at, self._answer = now, Response.json(self.all())
        return self._answer

    def all(self) -> dict[str, Any]:
        """As it is now."""
        told = self._ask({"do": "peers"})
        assert isinstance(told, dict)
        return {
            **told,
            "at": round(time.time(), 3),
            "region": self._region,
            "stats": {namespace: held.stats() for namespace, held in sorted(self._held.items())},
            "hottest": {namespace: each.shown() for namespace, each in sorted(self._hottest.items())},
            "checker": self._ask({"do": "checker"}),
            "propagation": self._spread(),
        }
