"""What the protocol core wants done. Effects are collected by the core and performed by the shell.

    for effect in mesh.effects(): ...

The order of effects is the order in which they must be performed: a Close that follows a Send of the same
link comes after its bytes (the shell flushes, for a bounded time, then closes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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


@dataclass(frozen=True)
class Close:
    """Close `link`. The mesh has already forgotten it: no link_closed() is expected, and one is ignored."""

    link: int
    reason: str
    unproven: bool = False
    """The other end came in and has not proven who it is: a stranger, of whom there may be thousands."""


@dataclass(frozen=True)
class Proven:
    """The other end of `link` is who it says, and the link is up: it is no stranger any more."""

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
    """Call `go_on` soon, after what has been waiting meanwhile: work that takes long is done in parts."""


Effect = Connect | Discover | Send | Close | Proven | Pause | Resume | Log | ServeUntil | GoOn
