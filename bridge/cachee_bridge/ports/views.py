"""What the protocol core shows of peers, namespaces and discovery, for people, logs and health."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.reasons import Why


@dataclass
class Repairs:
    """How often each rung of the ladder (repair.py) was climbed for a source, since this bridge began."""

    replays: int = 0
    """Records that had not come were asked for again."""
    maps: int = 0
    """Lapped: the buckets that it had written in were evicted."""
    flushes: int = 0
    """Unknown what was missed, or too much: all that was older was evicted."""
    incarnations: int = 0
    """It came with another life of its segment."""


@dataclass(frozen=True)
class StreamView:
    """One namespace of one peer, as seen here."""

    incarnation: int
    """The peer's segment, 0 = not met."""
    cursor: int
    """How far its ring has been applied here."""
    head: int
    """The newest tail it told."""
    acked: int
    """How far it has applied my ring, as it last told."""
    lag: int
    """My tail - acked, in positions."""
    fresh_at: float
    """Everything it announced before this (on the mesh's `now` clock) has been applied here; -inf = never."""
    repairs: Repairs
    """What it took to follow it."""
    lapped: int
    """How often my ring had lost what the peer still lacked, on the link that is up."""


@dataclass(frozen=True)
class PeerView:
    """One peer or address, for logs and health."""

    name: str
    """"" while nobody has answered at this address."""
    address: str
    """Where it is dialled, "" = it dials us."""
    state: str
    """Of a peer: "up" (linked), "relayed" (not linked, but `through` relays its records, and they are fresh)
    or "down". Of an address: "self" (it leads to this host), "connecting" or "waiting" (to dial again)."""
    since: float = float("-inf")
    """When it came to be up or down (the bridge's start, if it was never up since), on the mesh's clock; -inf
    for an address."""
    inbound: bool = False
    through: str = ""
    """Who relays what it announces, "" = it comes directly."""
    held: int = 0
    """How often it has not been read for a while, being over its budget, on the link that is up."""
    namespaces: dict[str, StreamView] = field(default_factory=dict)


@dataclass(frozen=True)
class NamespaceView:
    """One namespace of this host."""

    namespace: str
    until: float
    """Until when readers may serve without the isolation policy; -inf = not yet."""
    policy: str
    silent: list[str]
    """Whose word is too old, and addresses where nobody has answered yet."""
    removing: list[str]
    """Who is being removed."""
    removed_at: float
    """When that ends; inf = nobody is."""
    why: list[Why] = field(default_factory=list)
    """While it is isolated: what holds that up, and what would end it."""


@dataclass(frozen=True)
class DiscoveryView:
    """How discovery fares."""

    what: str
    named: int
    """Addresses in its last answer."""
    answered_at: float
    """-inf = never."""
    failure: str
    """Why there was no answer since; "" = there was none to fail."""
