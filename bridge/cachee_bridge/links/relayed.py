"""Relayed sources on one link: sources other than the two ends, which one end passes on to the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.streams.relay_log import RelayOutbox


@dataclass
class Relayed:
    """Of one link."""

    ever_followed: set[str] = field(default_factory=set)
    """Sources that this host has ever asked the peer for. A report about another source is a FrameError."""
    served: set[str] = field(default_factory=set)
    """Sources that the peer reports as sent to this host."""
    lacked: set[tuple[str, str]] = field(default_factory=set)
    """(namespace, source) that the peer reports as not available."""
    outboxes: dict[tuple[str, str], RelayOutbox] = field(default_factory=dict)
    """By (namespace, source), what the peer has been sent."""
    told_at: float = float("-inf")
    """When the peer was last told the heads of the sources that it follows here."""
