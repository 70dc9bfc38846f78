"""What the two ends of a link have told each other of sources that are relayed: neither end's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.streams.relay_log import RelayOutbox


@dataclass
class Relayed:
    """What the two ends of a link have told each other of others."""

    ever_followed: set[str] = field(default_factory=set)
    """Sources that the peer was ever asked for: it may speak of nobody else."""
    served: set[str] = field(default_factory=set)
    """Of those that it is asked for, whom it has said that it sends."""
    lacked: set[tuple[str, str]] = field(default_factory=set)
    """(namespace, source) of which it has said that it cannot."""
    outboxes: dict[tuple[str, str], RelayOutbox] = field(default_factory=dict)
    """By (namespace, source), what the peer has been sent."""
    told_at: float = float("-inf")
    """When it was last told of those whom it asks of this host."""
