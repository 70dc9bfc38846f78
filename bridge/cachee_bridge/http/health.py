"""/healthz and /readyz: what a service manager or a load balancer asks.

/healthz    200 while the bridge does its work of every second; else 503: it should be started anew
/readyz     200 from when every host that was known at the start has been met, until the bridge is told to
            stop; else 503 with the reason
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.http.messages import Response

if TYPE_CHECKING:
    from cachee_bridge.http.messages import Request

CARE_LATE_S = 10.0
"""The work of every second is this late: something holds it up."""
SHOWN_MAX = 8


class Health:
    """Of one life of the shell."""

    def __init__(
        self, unmet: Callable[[], list[str]], cared_at: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        """`cared_at()`: when the work of every second was done last, by `clock`."""
        self._unmet, self._cared_at, self._clock = unmet, cared_at, clock
        self.stopping = False
        """The bridge was told to stop; it serves on while workers are attached."""

    def live(self, request: Request) -> Response:
        late_s = self._clock() - self._cared_at()
        if late_s > CARE_LATE_S:
            return Response(
                503, f"the bridge has not looked after its segments for {late_s:.0f} s\n".encode()
            )
        return Response(200, b"ok\n")

    def ready(self, request: Request) -> Response:
        if self.stopping:
            return Response(503, b"stopping\n")
        unmet = self._unmet()
        if unmet:
            more = f" and {len(unmet) - SHOWN_MAX} more" if len(unmet) > SHOWN_MAX else ""
            text = f"not met since the start: {', '.join(unmet[:SHOWN_MAX])}{more}\n"
            return Response(503, text.encode(errors="replace"))
        return Response(200, b"ready\n")
