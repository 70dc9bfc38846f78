"""What the protocol core shows of peers, namespaces and discovery, for people, logs and health."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.ports.reasons import Why


@dataclass
class Repairs:
    """How often each repair (repair.py) was needed for a source, since this bridge began."""

    replays: int = 0
    """Records that had not come were asked for again."""
    maps: int = 0
    """Lapped: the buckets that it had written in were evicted."""
    flushes: int = 0
    """The missed records were unknown, or too many: everything older was evicted."""
    incarnations: int = 0
    """The source came with a new segment."""

    def copy(self) -> Repairs:
        return Repairs(self.replays, self.maps, self.flushes, self.incarnations)


@dataclass(frozen=True)
class StreamView:
    """One namespace of one peer, as seen here."""

    incarnation: int
    """The peer's segment, 0 = not met."""
    cursor: int
    """How far its ring has been applied here."""
    head: int
    """The newest tail that the peer announced."""
    acked: int
    """How far the peer has applied this host's ring, as it last acknowledged."""
    lag: int
    """This host's tail - acked, in positions."""
    fresh_at: float
    """Everything it announced before this (on the mesh's `now` clock) has been applied here; -inf = never."""
    repairs: Repairs
    """The repairs that were needed to follow it."""
    lapped: int
    """How often, on this link, this host's ring no longer had records that the peer lacked."""


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
    """The relay of its records, "" = they come directly."""
    held: int = 0
    """How often, on this link, it was not read for a while because it was over its budget."""
    namespaces: dict[str, StreamView] = field(default_factory=dict)
    heard_at: float = float("-inf")
    """When anything came from it: on its link, or, while it has none, through a relay; the start, if nothing
    came since; -inf for an address."""
    failure: str = ""
    """Of a peer that is not linked: why the last dial failed."""
    wire: int = 0
    """The version that the link speaks; 0 without a link."""
    region: str = ""
    """As given on the last link; "" = none, or it was never linked."""


@dataclass(frozen=True)
class Refusal:
    """A peer, or unknown clients, whose links were closed because of an error of theirs."""

    who: str
    """A peer and where it is, or the address from which the last stranger came."""
    reason: str
    times: int
    at: float
    """When that was last, on the clock of whoever counts."""


@dataclass(frozen=True)
class NamespaceView:
    """One namespace of this host."""

    namespace: str
    until: float
    """Until when readers may serve without the isolation policy; -inf = not yet."""
    policy: str
    silent: list[str]
    """Sources that are not fresh, and addresses where no host has answered yet."""
    removing: list[str]
    """Members that are being removed."""
    removed_at: float
    """When that ends; inf = none is."""
    why: list[Why] = field(default_factory=list)
    """While it is isolated: what holds that up, and what would end it."""


@dataclass(frozen=True)
class DiscoveryView:
    """The state of discovery."""

    what: str
    named: int
    """Addresses in its last answer."""
    answered_at: float
    """-inf = never."""
    failure: str
    """Why there was no answer since then; "" = no query has failed."""
