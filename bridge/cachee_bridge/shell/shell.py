"""The shell around the mesh: every input becomes one call of it, and its effects are performed at once.

    socket, ring, clock, DNS  ->  mesh.received, mesh.ring_moved, mesh.tick, ...  ->  perform(mesh.effects())

All of it in the callback in which the input came: between the doorbell and the peers' sockets there is no
other turn of the event loop. inputs.py says what an exception costs, performer.py how each effect is
performed, ticks.py when the mesh's time passes, question.py how discovery is asked, inquiries.py how peers
are asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cachee_bridge.carriers.transport import Network, host_of
from cachee_bridge.checker.around import Watched
from cachee_bridge.protocol.mesh import Mesh, Settings, Store
from cachee_bridge.shell import lines
from cachee_bridge.shell.checking import Checking
from cachee_bridge.shell.fetching import Fetching
from cachee_bridge.shell.inputs import Inputs
from cachee_bridge.shell.inquiries import Inquiries
from cachee_bridge.shell.performer import Isolated, Performer
from cachee_bridge.shell.pump import Pump, Ring
from cachee_bridge.shell.question import Question
from cachee_bridge.shell.strangers import Strangers
from cachee_bridge.shell.ticks import Ticks
from cachee_bridge.system.clock import clock

if TYPE_CHECKING:
    from cachee_bridge.carriers.tls import Contexts
    from cachee_bridge.ports.views import Refusal
    from cachee_bridge.shell.doorbell import Doorbell
    from cachee_bridge.shell.question import Resolver
    from cachee_bridge.wire.identity import Identity

LEAVE_LOOK_S = 0.01


class Segment(Store, Ring, Isolated, Watched, Protocol):
    """What the shell needs of cachee_shm._core.Segment: the mesh's part, the pump's, isolation's, and the
    checker's."""


class Shell:
    """One mesh on one event loop. Its methods without a docstring are Network's Handler."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        segments: Mapping[str, Segment],
        settings: Settings,
        bell: Doorbell | None,
        on_broken: Callable[[BaseException], None],
        tls: Contexts | None = None,
        boot: int = 0,
    ) -> None:
        """`on_broken(error)`: this shell cannot go on; on SegmentRetired a new one must be made. `boot`: u32,
        of the host's shared memory (system/boot.py)."""
        self._loop = loop
        self._segments: dict[str, Segment] = dict(segments)
        self.mesh = Mesh(name, self._segments, settings, random.SystemRandom(), boot)
        self.network = Network(loop, self)
        self.network.tls = tls
        self._question: Question | None = None
        self.performer = Performer(
            self.mesh,
            self.network,
            self._segments,
            go_on_soon=lambda: loop.call_soon(self._go_on),
            tick_soon=lambda: self._ticks.soon(),
            discover=self._discover,
            refused=self.refused,
            answered=lambda effect: self.inquiries.answered(effect),
            brought=lambda effect: self.fetching.brought(effect),
        )
        self.inputs = Inputs(self.mesh, self.network, self.performer, on_broken)
        self.inquiries = Inquiries(loop, self.mesh, self.inputs)
        self.pump = Pump(loop, bell, self._ring_moved, lines.log.warning, self.inputs.spoilt)
        self.fetching = Fetching(loop, name, self.mesh, self.inputs, self.pump)
        self.checking = Checking(
            loop,
            name,
            self._segments,
            settings.check_every_s,
            settings.lost_after_s,
            self.mesh,
            self.inputs,
            self.inquiries,
            self.pump,
        )
        self._strangers = Strangers()
        self._ticks = Ticks(
            loop, settings.heartbeat_s, self.mesh, self.pump, self.inputs, self._sum_up, on_broken
        )

    async def start(
        self, host: str, port: int, peers: Iterable[str], resolver: Resolver | None = None
    ) -> list[int]:
        """Listens, dials and relays; the ports it listens on. OSError when it cannot listen: nothing runs."""
        self.mesh.start(clock(), self._ticks.wall_ahead_s)
        self.mesh.set_peers(peers, clock())
        if resolver is not None:
            self._question = Question(self._loop, resolver, self.mesh, self.inputs)
            self.mesh.discover(resolver.what, clock())
        ports = await self.network.listen(host, port)
        for namespace, segment in self._segments.items():
            self.pump.add(namespace, segment)
        self.pump.start()
        self._ticks.tick()
        self.checking.start()
        return ports

    def set_peers(self, addresses: Iterable[str]) -> None:
        """All addresses that the configuration names now."""
        self.mesh.set_peers(addresses, clock())
        self.inputs.perform()

    def add_namespace(self, namespace: str, segment: Segment) -> None:
        """Add a namespace that was made after the start."""
        self._segments[namespace] = segment
        self.mesh.add_namespace(namespace, segment, clock())
        self.pump.add(namespace, segment)
        self.inputs.perform()

    def segment(self, namespace: str) -> Segment | None:
        """The one that is served; None where none is."""
        return self._segments.get(namespace)

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """Namespaces whose segments exist here but cannot be opened."""
        self.mesh.tell_unserved(namespaces)
        self.inputs.perform()

    def renew(self, secrets: Sequence[bytes], tls: Contexts | None) -> None:
        """Use these credentials for new links; existing links stay up."""
        self.mesh.renew(secrets)
        self.network.tls = tls

    async def leave(self, timeout_s: float, at_once: Callable[[], bool] = lambda: False) -> bool:
        """Leaves the mesh for good. True when every linked peer has applied everything. `at_once`: do not
        wait any longer."""
        self.pump.look()
        self.mesh.leave(clock())
        self.inputs.perform()
        end = clock() + timeout_s
        while not (self.mesh.left() or at_once()) and clock() < end:
            await asyncio.sleep(LEAVE_LOOK_S)
        return self.mesh.left()

    def stop(self) -> None:
        """Closes everything. Peers are told that the link ends, not that this host leaves."""
        self._ticks.stop()
        self.checking.stop()
        self.fetching.stop()
        if self._question is not None:
            self._question.stop()
        self.inputs.take(0, self.mesh.stop, clock())
        self.network.stop()
        self.inputs.take(0, self.pump.stop)

    def opened(self, link: int, address: str | None, remote_host: str, identity: Identity | None) -> None:
        self.inputs.take(link, self.mesh.link_opened, link, address, clock(), remote_host, identity)

    def refused(self, stranger: str, reason: str) -> None:
        for line in self._strangers.turned_away(host_of(stranger), stranger, reason, clock()):
            lines.write("warning", line)

    def refusals(self) -> list[Refusal]:
        """Unknown clients and peers whose links were closed because of an error of theirs."""
        return [*self._strangers.recent(clock()), *self.mesh.views.refusals()]

    def leads_here(self, address: str) -> None:
        self.inputs.take(0, self.mesh.found_self, address, clock())

    def connect_failed(self, address: str, reason: str, dialled: Collection[str] = ()) -> None:
        self.inputs.take(0, self.mesh.connect_failed, address, reason, clock(), dialled)

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        self.inputs.take(link, self.mesh.received, link, data, clock(), wire_bytes)
        # What was applied is in our ring too: left there, it would look like a write that rang no bell.
        if moved := self.mesh.moved():
            self.inputs.take(0, self.pump.look, moved)
        self.fetching.look()

    def writable(self, link: int) -> None:
        self.inputs.take(link, self.mesh.writable, (link,), clock())

    def closed(self, link: int, reason: str) -> None:
        self.inputs.take(link, self.mesh.link_closed, link, reason, clock())
        self.fetching.look()

    def _ring_moved(self, namespace: str) -> int:
        """The healed position; 0 if an exception prevented it."""
        return self.inputs.take(0, self.mesh.ring_moved, namespace, clock()) or 0

    def _sum_up(self, now: float) -> None:
        for line in self._strangers.due(now):
            lines.write("warning", line)

    def _discover(self) -> None:
        assert self._question is not None
        self._question.ask()

    def _go_on(self) -> None:
        self.inputs.take(0, self.mesh.go_on, clock())
        self.inputs.take(0, self.pump.look, self.mesh.moved())
