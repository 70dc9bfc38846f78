"""Every input becomes one call of the mesh, and the mesh's effects are performed at once.

What the mesh or an effect raises is a mistake of ours, not of a peer (bad bytes close their link without an
exception), or the machine has run out of something. It costs the link that it is about, with a traceback in
the log, and never the effects that follow it. What no link is about is tried again when it is next due. The
loss of a segment, to nobody or to another bridge, ends the shell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from cachee_bridge.ports.effects import (
    Close,
    Connect,
    Discover,
    Effect,
    Pause,
    Proven,
    Resume,
    Send,
    SendEach,
)
from cachee_bridge.system.clock import clock
from cachee_bridge.system.logs import Mistakes
from cachee_shm.errors import BridgeRunning, SegmentRetired

if TYPE_CHECKING:
    from cachee_bridge.carriers.transport import Network
    from cachee_bridge.protocol.mesh import Mesh
    from cachee_bridge.shell.performer import Performer


class Inputs:
    """Of one mesh."""

    def __init__(
        self,
        mesh: Mesh,
        network: Network,
        performer: Performer,
        on_broken: Callable[[BaseException], None],
    ) -> None:
        """`on_broken(error)`: a segment is lost."""
        self._mesh, self._network, self._performer = mesh, network, performer
        self._on_broken = on_broken
        self._mistakes = Mistakes()

    def take(self, link: int, call: Callable[..., Any], *arguments: Any) -> Any:
        """One call of the mesh, and its effects. `link`: the link whose input it was, 0 = none. None if the
        call raised."""
        answer = None
        try:
            answer = call(*arguments)
        except Exception as error:
            self.spoilt(f"link {link} is closed" if link else _name_of(call), error)
            if link:
                self._give_up(link)
        try:
            self.perform()
        except Exception as error:  # the mesh itself cannot be told of what went wrong
            self.spoilt("effects", error)
        return answer

    def perform(self) -> None:
        """Perform every effect in order, until there is none: a socket that took everything may free the next
        frame."""
        while effects := self._mesh.effects():
            drained: list[int] = []
            for effect in effects:
                try:
                    if type(effect) is SendEach:
                        drained += self._send_each(effect)
                    elif type(effect) is Send:
                        if self._network.send(effect.link, effect.data):
                            drained.append(effect.link)
                    else:
                        self._performer.perform(effect)
                except Exception as error:
                    self._not_performed(effect, error)
            if drained:
                self._mesh.writable(drained, clock())

    def _send_each(self, effect: SendEach) -> Collection[int]:
        """The links that have drained."""
        rests = self._network.send_each(effect.links, effect.data)
        if not rests:
            return effect.links
        drained = dict.fromkeys(effect.links)
        for link, rest in rests:
            try:
                if not self._network.send(link, rest):
                    del drained[link]
            except Exception as error:
                del drained[link]
                self._not_performed(Send(link, rest), error)
        return drained

    def spoilt(self, what: str, error: Exception) -> None:
        """`what` was not done."""
        if isinstance(error, (SegmentRetired, BridgeRunning)):
            self._on_broken(error)
        else:
            self._mistakes.tell(what, error)

    def _not_performed(self, effect: Effect, error: Exception) -> None:
        """One failed effect is logged; the effects after it are performed."""
        now = clock()
        self.spoilt(f"effect {type(effect).__name__}", error)
        if isinstance(effect, Connect):
            self._mesh.connect_failed(effect.address, str(error) or repr(error), now)
        elif isinstance(effect, Discover):
            self._mesh.discovery_failed(str(error) or repr(error), now)
        elif isinstance(effect, Close | Pause | Proven | Resume | Send):
            self._give_up(effect.link)
        elif isinstance(effect, SendEach):  # how much of it was sent is not known
            for link in effect.links:
                self._give_up(link)

    def _give_up(self, link: int) -> None:
        self._network.abort(link)
        try:
            self._mesh.link_closed(link, "a mistake in the bridge", clock())
        except Exception as error:
            self.spoilt("closing a link", error)


def _name_of(call: Callable[..., Any]) -> str:
    return getattr(call, "__qualname__", repr(call))
