"""The shell around the mesh: every input becomes one call of it, and its effects are performed at once.

    socket, ring, clock, DNS  ->  mesh.received, mesh.ring_moved, mesh.tick, ...  ->  perform(mesh.effects())

All of it in the callback in which the input came: between the doorbell and the peers' sockets there is no
other turn of the event loop.

What the mesh or an effect raises is a mistake of ours, not of a peer (bad bytes close their link without an
exception), or the machine has run out of something. It costs the link that it is about, with a traceback in
the log, and never the effects that follow it. What no link is about is tried again when it is next due. A
tick that is mistaken TICKS_MISTAKEN_MAX times in a row stops the shell, since all that matters is in the
segments and a fresh start resumes from there. So does the loss of the segments, to nobody or to another
bridge.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cachee_bridge.carriers.transport import Network, host_of
from cachee_bridge.ports.effects import (
    Close,
    Connect,
    Discover,
    Effect,
    GoOn,
    Log,
    Pause,
    Proven,
    Resume,
    Send,
    ServeUntil,
)
from cachee_bridge.protocol.mesh import Mesh, Settings, Store
from cachee_bridge.shell.pump import Pump, Ring
from cachee_bridge.shell.strangers import Strangers
from cachee_bridge.system.clock import clock
from cachee_bridge.system.logs import Mistakes
from cachee_shm.config import split_address
from cachee_shm.errors import BridgeRunning, SegmentRetired

if TYPE_CHECKING:
    from cachee_bridge.carriers.tls import Contexts
    from cachee_bridge.shell.doorbell import Doorbell
    from cachee_bridge.wire.identity import Identity

TICK_S_MIN = 0.001  # uvloop's timers count milliseconds; less would spin
GRID_S_MAX = 0.1
LEAVE_LOOK_S = 0.01
FOR_EVER_MS = 1 << 63
LINE_CHARACTERS_MAX = 1000
TICKS_MISTAKEN_MAX = 20
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log = logging.getLogger("cachee_bridge")


class Answer(Protocol):
    """Who is named, and for how long."""

    @property
    def addresses(self) -> Collection[str]: ...
    @property
    def ttl_s(self) -> float: ...


class Resolver(Protocol):
    """Who asks the DNS: resolver.py, which is imported where the configuration asks for it."""

    what: str

    async def ask(self) -> Answer:
        """Raises what says why there is no answer."""


class Segment(Store, Ring, Protocol):
    """What the shell needs of cachee_shm._core.Segment: the mesh's part, the pump's part, and isolation's."""

    def set_serve_until(self, ms: int, /) -> None:
        """Beyond `ms` of the segment's clock, readers refuse by the isolation policy."""


class Grid:
    """When to tick: at the wall clock's multiples of the heartbeat, so that all hosts beat at one moment.

    A bridge woken for one beat spends most of that on waking up; eight beats that come together cost little
    more than one. Clocks that differ cost that saving and nothing else. A slow heartbeat is divided, since
    what else is due (a dial) shall not wait for it.
    """

    def __init__(self, heartbeat_s: float, wall_s: float) -> None:
        """`wall_s`: what the wall clock is ahead of CLOCK_MONOTONIC. A later step of it goes unnoticed."""
        self._period_s = heartbeat_s / math.ceil(heartbeat_s / GRID_S_MAX)
        self._wall_s = wall_s
        self._deadline = 0.0

    def next(self, deadline: float) -> float:
        """The first tick at or after `deadline`."""
        self._deadline = deadline
        return self._at(math.ceil((deadline + self._wall_s) / self._period_s - 1e-4))

    def settle(self, now: float) -> float:
        """The tick that `now` is for: without this, each would be as late as all before it together."""
        tick = max(self._at(math.floor((now + self._wall_s) / self._period_s)), self._deadline)
        return tick if 0 <= now - tick < self._period_s / 8 else now

    def _at(self, number: int) -> float:
        return number * self._period_s - self._wall_s


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
    ) -> None:
        """`on_broken(error)`: this shell cannot go on; SegmentRetired says that it is to be made anew."""
        self._loop = loop
        self._segments: dict[str, Segment] = dict(segments)
        self._settings = settings
        self._on_broken = on_broken
        self._timer: asyncio.TimerHandle | None = None
        self._grid = Grid(settings.heartbeat_s, time.time() - clock())
        self.mesh = Mesh(name, self._segments, settings, random.SystemRandom())
        self.network = Network(loop, self)
        self.network.tls = tls
        self.pump = Pump(loop, bell, self._ring_moved, log.warning, self._spoilt)
        self._mistakes = Mistakes()
        self._strangers = Strangers()
        self._ticks_mistaken = 0
        self._resolver: Resolver | None = None
        self._question: asyncio.Task[None] | None = None
        self._performers: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Connect: self._connect,
            Discover: self._discover,
            Close: self._close,
            Proven: lambda effect: self.network.proven(effect.link),
            Pause: lambda effect: self.network.pause(effect.link),
            Resume: lambda effect: self.network.resume(effect.link),
            Log: self._log,
            ServeUntil: self._serve_until,
            GoOn: self._go_on_soon,
        }

    async def start(
        self, host: str, port: int, peers: Iterable[str], resolver: Resolver | None = None
    ) -> list[int]:
        """Listens, dials and relays; the ports it listens on. OSError when it cannot listen: nothing runs."""
        self.mesh.start(clock())
        self.mesh.add_peers(peers, clock())
        if resolver is not None:
            self._resolver = resolver
            self.mesh.discover(resolver.what, clock())
        ports = await self.network.listen(host, port)
        for namespace, segment in self._segments.items():
            self.pump.add(namespace, segment)
        self.pump.start()
        self._tick()
        return ports

    def add_namespace(self, namespace: str, segment: Segment) -> None:
        """One that was made after the start."""
        self._segments[namespace] = segment
        self.mesh.add_namespace(namespace, segment, clock())
        self.pump.add(namespace, segment)
        self.perform()

    def tell_unserved(self, namespaces: frozenset[str]) -> None:
        """Whose segments this host has, and its bridge cannot open."""
        self.mesh.tell_unserved(namespaces)
        self.perform()

    def renew(self, secrets: Sequence[bytes], tls: Contexts | None) -> None:
        """What links prove themselves with that begin from now on; those that are up stay."""
        self.mesh.renew(secrets)
        self.network.tls = tls

    async def leave(self, timeout_s: float, at_once: Callable[[], bool] = lambda: False) -> bool:
        """Says farewell for good. True when every linked peer has applied all. `at_once`: wait no longer."""
        self.pump.look()
        self.mesh.leave(clock())
        self.perform()
        end = clock() + timeout_s
        while not (self.mesh.left() or at_once()) and clock() < end:
            await asyncio.sleep(LEAVE_LOOK_S)
        return self.mesh.left()

    def stop(self) -> None:
        """Closes everything. Peers are told that the link ends, not that this host leaves."""
        if self._timer is not None:
            self._timer.cancel()
        if self._question is not None:
            self._question.cancel()
        self._input(0, self.mesh.stop, clock())
        self.network.stop()
        self._input(0, self.pump.stop)

    def perform(self) -> None:
        """Every effect in order, until there is none: a socket that took all may set free the next frame."""
        while effects := self.mesh.effects():
            for effect in effects:
                try:
                    self._performers[type(effect)](effect)
                except Exception as error:
                    self._not_performed(effect, error)

    def _not_performed(self, effect: Effect, error: Exception) -> None:
        """It costs what it was for; the effects after it are performed."""
        now = clock()
        self._spoilt(f"effect {type(effect).__name__}", error)
        if isinstance(effect, Connect):
            self.mesh.connect_failed(effect.address, str(error) or repr(error), now)
        elif isinstance(effect, Discover):
            self.mesh.discovery_failed(str(error) or repr(error), now)
        elif isinstance(effect, Close | Pause | Proven | Resume | Send):
            self._give_up(effect.link)

    def _give_up(self, link: int) -> None:
        self.network.abort(link)
        try:
            self.mesh.link_closed(link, "a mistake in the bridge", clock())
        except Exception as error:
            self._spoilt("closing a link", error)

    def opened(self, link: int, address: str | None, remote_host: str, identity: Identity | None) -> None:
        self._input(link, self.mesh.link_opened, link, address, clock(), remote_host, identity)

    def refused(self, stranger: str, reason: str) -> None:
        for line in self._strangers.turned_away(host_of(stranger), stranger, reason, clock()):
            log.warning("%s", _printable(line))

    def leads_here(self, address: str) -> None:
        self._input(0, self.mesh.found_self, address, clock())

    def connect_failed(self, address: str, reason: str, dialled: Collection[str] = ()) -> None:
        self._input(0, self.mesh.connect_failed, address, reason, clock(), dialled)

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        self._input(link, self.mesh.received, link, data, clock(), wire_bytes)
        # What was applied is in our ring too: left there, it would look like a write that rang no bell.
        self._input(0, self.pump.look, self.mesh.moved())

    def writable(self, link: int) -> None:
        self._input(link, self.mesh.writable, link, clock())

    def closed(self, link: int, reason: str) -> None:
        self._input(link, self.mesh.link_closed, link, reason, clock())

    def _ring_moved(self, namespace: str) -> None:
        self._input(0, self.mesh.ring_moved, namespace, clock())

    def _tick(self) -> None:
        self._input(0, self.pump.check)
        now = self._grid.settle(clock())
        deadline = self._input(0, self._mesh_tick, now)
        for line in self._strangers.due(now):
            log.warning("%s", _printable(line))
        wait = self._grid.next(now if deadline is None else deadline) - clock()
        self._timer = self._loop.call_later(max(wait, TICK_S_MIN), self._tick)

    def _mesh_tick(self, now: float) -> float:
        """Isolation ends by ticks alone: with one that fails for good, this host would stay isolated."""
        try:
            deadline = self.mesh.tick(now)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            self._ticks_mistaken += 1
            if self._ticks_mistaken >= TICKS_MISTAKEN_MAX:
                self._on_broken(error)
            raise
        self._ticks_mistaken = 0
        return deadline

    def _input(self, link: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """One call and what the mesh wants done after it. `link`: whose input it was, 0 = nobody's. None when
        the call raised."""
        answer = None
        try:
            answer = call(*arguments)
        except Exception as error:
            self._spoilt(f"link {link} is closed" if link else _name_of(call), error)
            if link:
                self._give_up(link)
        try:
            self.perform()
        except Exception as error:  # the mesh itself cannot be told of what went wrong
            self._spoilt("effects", error)
        return answer

    def _spoilt(self, what: str, error: Exception) -> None:
        """`what` was not done."""
        if isinstance(error, (SegmentRetired, BridgeRunning)):
            self._on_broken(error)
        else:
            self._mistakes.tell(what, error)

    def _go_on_soon(self, effect: GoOn) -> None:
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._input(0, self.mesh.go_on, clock())
        self._input(0, self.pump.look, self.mesh.moved())

    def _send(self, effect: Send) -> None:
        if self.network.send(effect.link, effect.data):
            self.mesh.writable(effect.link, clock())

    def _connect(self, effect: Connect) -> None:
        try:
            host, port = split_address(effect.address)
        except ValueError as error:  # peers tell addresses, too
            self.mesh.connect_failed(effect.address, str(error), clock())
        else:
            self.network.connect(effect.address, host, port)

    def _discover(self, effect: Discover) -> None:
        self._question = self._loop.create_task(self._ask())

    async def _ask(self) -> None:
        assert self._resolver is not None
        try:
            answer = await self._resolver.ask()
        except Exception as error:  # also what a server's bytes may do to a library
            self._input(0, self.mesh.discovery_failed, str(error) or repr(error), clock())
        else:
            self._input(0, self.mesh.discovered, answer.addresses, answer.ttl_s, clock())

    def _close(self, effect: Close) -> None:
        stranger = self.network.stranger(effect.link)
        if stranger and effect.reason and effect.unproven:
            self.refused(stranger, effect.reason)
        elif stranger and effect.reason:
            text = f"closed inbound link {effect.link} from {stranger}: {effect.reason}"
            log.info("%s", _printable(text))
        self.network.close(effect.link)

    def _log(self, effect: Log) -> None:
        if not log.isEnabledFor(LEVELS[effect.level]):
            return
        fields = "".join(f" {name}={value}" for name, value in effect.fields.items())
        log.log(LEVELS[effect.level], "%s", _printable(effect.text + fields))

    def _serve_until(self, effect: ServeUntil) -> None:
        ms = FOR_EVER_MS if math.isinf(effect.until) else int(effect.until * 1000)
        for namespace in effect.namespaces:
            self._segments[namespace].set_serve_until(ms)


def _name_of(call: Callable[..., Any]) -> str:
    return getattr(call, "__qualname__", repr(call))


def _printable(text: str) -> str:
    """One line, whatever a peer put into its name."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line[:LINE_CHARACTERS_MAX]
