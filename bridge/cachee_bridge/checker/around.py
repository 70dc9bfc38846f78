"""What the checker asks of its surroundings: the segments of this host, its peers, and lines for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cachee_bridge.ports.effects import Answered, Level
    from cachee_bridge.protocol.questions import Peer
    from cachee_bridge.wire.messages import Asked


class Watched(Protocol):
    """The segment of one namespace."""

    @property
    def tail(self) -> int:
        """The last position of the ring."""
        ...

    @property
    def incarnation(self) -> int:
        """Of this segment."""
        ...

    def canary_hash(self, number: int, /) -> int:
        """A hash that no key has."""
        ...

    def canary_set(self, hash: int, value: bytes, /) -> bool:
        """Writes a canary of this host, and announces it."""
        ...

    def arm(self, hash: int, seconds: float, /) -> bool:
        """Notes in the journal whatever happens to a key."""
        ...

    def read_ring(self, cursor: int, records_max: int, /) -> tuple[int, bytes] | None:
        """(cursor, records) after `cursor`, 24 bytes each; None: they are overwritten."""
        ...


class Around(Protocol):
    """All of it."""

    def namespaces(self) -> list[str]:
        """Those that this host serves."""
        ...

    def segment(self, namespace: str) -> Watched | None:
        """None: it is not served any more."""
        ...

    def peers(self, namespace: str, now: float) -> list[Peer]:
        """Linked ones, and members that are lost."""
        ...

    def send(self, namespace: str) -> None:
        """What was written in its ring goes to the peers, before any question that follows."""
        ...

    def ask(
        self,
        peer: str,
        what: int,
        namespace: str,
        rows: Sequence[Asked],
        told: Callable[[Answered], None],
    ) -> None:
        """A question (protocol/questions.py); `told` is called once."""
        ...

    def arm(self, namespace: str, hash: int) -> None:
        """This host and its peers journal from now on whatever happens to a key, reads too."""
        ...

    def say(self, level: Level, text: str, **fields: str | int | float) -> None:
        """A line for people."""
        ...
