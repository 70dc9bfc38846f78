"""Performs the mesh's effects, one by one: each is done or begun at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cachee_bridge.ports.effects import (
    Answered,
    Brought,
    Close,
    Connect,
    Discover,
    Effect,
    GoOn,
    Log,
    Pause,
    Proven,
    Resume,
    ServeUntil,
    TickSoon,
)
from cachee_bridge.shell import lines
from cachee_bridge.system.clock import clock
from cachee_shm.config import split_address

if TYPE_CHECKING:
    from cachee_bridge.carriers.transport import Network
    from cachee_bridge.protocol.mesh import Mesh

FOR_EVER_MS = 1 << 63


class Isolated(Protocol):
    """What isolation needs of a segment."""

    def set_serve_until(self, ms: int, /) -> None:
        """Beyond `ms` of the segment's clock, readers refuse by the isolation policy."""


class Performer:
    """Of one mesh."""

    def __init__(
        self,
        mesh: Mesh,
        network: Network,
        segments: Mapping[str, Isolated],
        go_on_soon: Callable[[], object],
        tick_soon: Callable[[], object],
        discover: Callable[[], object],
        refused: Callable[[str, str], None],
        answered: Callable[[Answered], None],
        brought: Callable[[Brought], None],
    ) -> None:
        """`go_on_soon()`: mesh.go_on is to be called in the next turn of the loop. `tick_soon()`: the mesh
        is to tick at the next heartbeat. `discover()`: addresses are asked for. `refused(stranger, reason)`:
        an inbound link is closed that had proven nothing. `answered(effect)`: something came of a
        question. `brought(effect)`: of one for a value."""
        self._mesh, self._network, self._segments, self._refused = mesh, network, segments, refused
        self.by_type: dict[type, Callable[[Any], object]] = {
            Connect: self._connect,
            Discover: lambda effect: discover(),
            Close: self._close,
            Proven: lambda effect: network.proven(effect.link),
            Pause: lambda effect: network.pause(effect.link),
            Resume: lambda effect: network.resume(effect.link),
            Log: self._log,
            ServeUntil: self._serve_until,
            GoOn: lambda effect: go_on_soon(),
            TickSoon: lambda effect: tick_soon(),
            Answered: answered,
            Brought: brought,
        }

    def perform(self, effect: Effect) -> None:
        """What it raises has not been done."""
        self.by_type[type(effect)](effect)

    def _connect(self, effect: Connect) -> None:
        try:
            host, port = split_address(effect.address)
        except ValueError as error:  # peers tell addresses, too
            self._mesh.connect_failed(effect.address, str(error), clock())
        else:
            self._network.connect(effect.address, host, port)

    def _close(self, effect: Close) -> None:
        stranger = self._network.stranger(effect.link)
        if stranger and effect.reason and effect.unproven:
            self._refused(stranger, effect.reason)
        elif stranger and effect.reason:
            lines.write("info", f"closed inbound link {effect.link} from {stranger}: {effect.reason}")
        self._network.close(effect.link)

    def _log(self, effect: Log) -> None:
        lines.write(effect.level, effect.text, **effect.fields)

    def _serve_until(self, effect: ServeUntil) -> None:
        ms = FOR_EVER_MS if math.isinf(effect.until) else int(effect.until * 1000)
        for namespace in effect.namespaces:
            self._segments[namespace].set_serve_until(ms)
