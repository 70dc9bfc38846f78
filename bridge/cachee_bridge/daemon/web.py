"""The bridge's HTTP listeners, if configured, for one life of the shell.

Nothing of it is imported otherwise: h11 and what stands on it cost a bridge a MiB.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cachee_bridge.system.clock import clock

if TYPE_CHECKING:
    from cachee_bridge.carriers.tls import Contexts
    from cachee_bridge.daemon.segments import Segments
    from cachee_bridge.http.admin import Ask
    from cachee_bridge.http.health import Health
    from cachee_bridge.http.listeners import Listeners
    from cachee_bridge.http.overview import Overview
    from cachee_bridge.shell.shell import Shell
    from cachee_bridge.system.logs import Mistakes
    from cachee_shm.config import Config


class Web:
    """Both listeners, or none."""

    def __init__(self) -> None:
        self._listeners: Listeners | None = None
        self._health: Health | None = None
        self._overview: Overview | None = None
        self._cared_at = clock()

    def begin(
        self,
        config: Config,
        shell: Shell,
        segments: Segments,
        tls: Contexts | None,
        mistakes: Mistakes,
        answer: Ask,
    ) -> None:
        """Listens as configured; an address that cannot be had is tried again by `look`. `answer`: what the
        operator's socket says (requests.py)."""
        bridge = config.bridge
        if bridge is None or (bridge.metrics is None and bridge.admin is None):
            return
        from cachee_bridge.http.health import Health
        from cachee_bridge.http.listeners import Listeners
        from cachee_bridge.http.metrics import Metrics

        views = shell.mesh.views
        listeners = Listeners(asyncio.get_running_loop(), config, tls, mistakes)
        self._health = Health(views.unmet, lambda: self._cared_at, clock)
        seen, fills = shell.checking.checker.nines.peers, shell.fetching.results
        metrics = Metrics(config.host.name, views, segments.held, clock, seen, fills)
        listeners.metrics.add("GET", "/metrics", metrics.handle)
        listeners.metrics.add("GET", "/healthz", self._health.live)
        listeners.metrics.add("GET", "/readyz", self._health.ready)
        self._overview = _add_admin(listeners, config, shell, segments, answer)
        self._listeners = listeners
        self.look()

    def look(self) -> None:
        """The once-a-second work has been done."""
        self._cared_at = clock()
        if self._listeners is not None:
            self._listeners.look()
        if self._overview is not None:
            self._overview.look()

    def stopping(self) -> None:
        """The bridge was told to stop: it is no longer ready, but answers until `close`."""
        if self._health is not None:
            self._health.stopping = True

    def renew(self, tls: Contexts | None) -> None:
        """The certificate was read again."""
        if self._listeners is not None:
            self._listeners.renew(tls)

    def close(self) -> None:
        if self._listeners is not None:
            self._listeners.close()


def _add_admin(
    listeners: Listeners, config: Config, shell: Shell, segments: Segments, answer: Ask
) -> Overview:
    """The dashboard, what it asks for, and what may be done from outside."""
    from cachee_bridge.http.admin import Admin
    from cachee_bridge.http.overview import Overview
    from cachee_bridge.http.page import Page

    nines = shell.checking.checker.nines
    overview = Overview(answer, segments.held, clock, config.host.region or "", nines.spread)
    overview.add_to(listeners.admin)
    Page().add_to(listeners.admin)
    Admin(segments.held, listeners.tokens, shell.pump.look, answer).add_to(listeners.admin)
    return overview
