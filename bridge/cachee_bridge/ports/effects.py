"""The actions that the protocol core asks for. The core collects effects, and the shell performs them.

    for effect in mesh.effects(): ...

The order of effects is the order in which they must be performed: a Close that follows a Send of the same
link comes after its bytes (the shell flushes, for a bounded time, then closes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cachee_bridge.wire.messages import Answer, Fetched

Level = Literal["debug", "info", "warning", "error"]
Say = Callable[..., None]
"""say(level, text, **fields): a line for people."""


@dataclass(frozen=True)
class Connect:
    """Dial `address` ("host:port"). Answered by link_opened or connect_failed, with the same address."""

    address: str


@dataclass(frozen=True)
class Discover:
    """Ask the DNS for peers. Answered by discovered or discovery_failed."""


class Send(NamedTuple):  # the one effect of which there are thousands a second
    """Write `data` (whole frames) to `link`, after everything sent before."""

    link: int
    data: bytes


class SendEach(NamedTuple):
    """Write `data[i]` (whole frames) to `links[i]`: the same as a Send for each, in this order."""

    links: list[int]
    data: list[bytes]


@dataclass(frozen=True)
class Close:
    """Close `link`. The mesh has already forgotten it: no link_closed() is expected, and one is ignored."""

    link: int
    reason: str
    unproven: bool = False
    """The other end connected and has not proven its name. There may be thousands of such unknown clients."""


@dataclass(frozen=True)
class Proven:
    """The other end of `link` has proven its name, and the link is up: limits for unknown clients no longer
    apply."""

    link: int


@dataclass(frozen=True)
class Pause:
    """Read no more of `link`, so that the peer's own kernel keeps what it sends, until Resume."""

    link: int


@dataclass(frozen=True)
class Resume:
    """Read `link` again."""

    link: int


@dataclass(frozen=True)
class Log:
    """One line for people. `fields` are its parts for machines (peer, namespace, ...)."""

    level: Level
    text: str
    fields: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class ServeUntil:
    """Until when readers of `namespaces` may serve without the isolation policy (on the mesh's `now` clock).

    Never lower than an earlier one of the same Mesh: isolation comes by not being extended. The shell writes
    it to the segment at once, in the thread that applies.
    """

    namespaces: tuple[str, ...]
    until: float


@dataclass(frozen=True)
class GoOn:
    """Call `go_on` soon, after other waiting events: long work is done in parts."""


@dataclass(frozen=True)
class TickSoon:
    """Tick at the next heartbeat: what the last tick returned is too late by now."""


@dataclass(frozen=True)
class Answered:
    """The result of a question (protocol/questions.py), exactly one for each."""

    number: int
    peer: str
    answer: Answer | None
    failure: str
    """Why there is no answer; "" = there is one."""
    asked_at: float
    at: float
    """When it came, or was given up."""

    @property
    def took_s(self) -> float:
        return self.at - self.asked_at


FILLED, LOADED, FAILED = "filled", "load", "failed"
"""What came of a worker's question for a value: the value; this host is the one to load it; a `Failure`."""


class Failure(Enum):
    """Why a worker's question brought no value: `reason` of cachee_peer_fills_total."""

    NOTHING = "nothing"
    """The peer has no value that it may give, or the named host is this one."""
    LATE = "late"
    """No answer came in time."""
    BUSY = "busy"
    """As many questions wait already as may."""
    UNLINKED = "unlinked"
    """There is no link to the peer, or the link has ended."""
    UNSHARED = "unshared"
    """`peer_fill` is off here, the peer speaks an older wire, or has not the namespace."""
    UNREADY = "unready"
    """This host is applying a map of buckets, or follows too many sources to name them all."""
    UNFIT = "unfit"
    """The value is pickled, or too large."""
    OLD = "old"
    """The value may be older than the last words of a host that has gone."""


@dataclass(frozen=True)
class Brought:
    """What came of a question for a value (protocol/fetches.py). One for each."""

    number: int
    peer: str
    fetched: Fetched | None
    failure: Failure | None
    """Why there is no answer, or no usable one; None = there is one."""
    asked_at: float = 0.0
    is_lost: bool = False
    """There is no link to it, or no more: another host may be asked."""


Effect = (
    Connect
    | Discover
    | Send
    | SendEach
    | Close
    | Proven
    | Pause
    | Resume
    | Log
    | ServeUntil
    | GoOn
    | TickSoon
    | Answered
    | Brought
)
