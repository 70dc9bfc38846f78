"""The effects that the protocol has collected, in the order in which they must be performed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.ports.effects import Effect, Level, Log, Send

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link


class Collected:
    def __init__(self) -> None:
        self._effects: list[Effect] = []

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
        while ready:
            self.send(ready.pop(0))

    def take(self) -> list[Effect]:
        """Each is returned once."""
        effects, self._effects = self._effects, []
        return effects
