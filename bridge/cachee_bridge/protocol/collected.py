"""The effects that the protocol has collected, in the order in which they must be performed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.links.link import put_each
from cachee_bridge.ports.effects import Effect, Level, Log, Send, SendEach, TickSoon

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link


class Collected:
    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._is_put_off = self._is_stirred = False

    def stir(self) -> None:
        """Something has happened that may have to be seen to at the next heartbeat."""
        self._is_stirred = True

    def put_off(self, calm: bool) -> None:
        """The next tick comes later than a heartbeat from now, if `calm`, until something stirs."""
        self._is_put_off, self._is_stirred = calm, False

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def say(self, level: Level, text: str, **fields: str | int | float) -> None:
        """A line for people."""
        self._effects.append(Log(level, text, fields))

    def send(self, link: Link) -> None:
        """All that the link has encoded and not handed out."""
        for data in link.sent():
            self._effects.append(Send(link.number, data))

    def flush(self, ready: list[Link]) -> None:
        """The same of each link in `ready`, which is empty afterwards."""
        if ready:
            effects = self._effects
            for link in ready:
                number = link.number
                for data in link.sent():
                    effects.append(Send(number, data))
            ready.clear()

    def send_each(self, links: list[Link], message: bytes) -> None:
        """One encoded message to links at which nothing waits to be handed out."""
        data = put_each(links, message)
        self._effects.append(SendEach([link.number for link in links], data))

    def take(self) -> list[Effect]:
        """Each is returned once."""
        if self._is_put_off and self._is_stirred:
            self._is_put_off = False
            self._effects.append(TickSoon())
        effects, self._effects = self._effects, []
        return effects
