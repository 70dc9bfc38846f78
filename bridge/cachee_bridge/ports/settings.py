"""What the host's configuration says to the protocol core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachee_bridge.wire.frames import VERSION

if TYPE_CHECKING:
    from cachee_bridge.wire.identity import Limits


@dataclass(frozen=True)
class Settings:
    """What the host's configuration says to the mesh."""

    address: str = ""
    """Where peers can dial this host: "host:port"; ":port" = where they see it come from; "" = nowhere."""
    newest_wire: int = VERSION
    """The newest wire that peers are offered (versions.py)."""
    region: str = ""
    """Hosts of one region are near each other; between regions each source is sent once."""
    secrets: tuple[bytes, ...] = ()
    """Shared secret; while it is changed, two, either of which is accepted. () = none is asked for."""
    namespaces: Limits = None
    """What this host's own certificate lets it speak of, None = every namespace."""
    peer_budget: float = 16 << 20
    """Bytes a second that one peer may send, with what they cost beside (budget.py)."""
    fanout: int = 32
    """A host with at most so many peers in its region sends to each of them. With more, it sends to some, and
    these relay to the others (fanout.py)."""
    heartbeat_s: float = 0.1
    lost_after_s: float = 2.0
    forget_after_s: float | None = None
    """A member that was silent for so long is removed; None = never by time."""
    backoff_first_s: float = 0.1
    """Full jitter: the n-th wait is uniform in 0..min(backoff_max_s, backoff_first_s * 2**n)."""
    backoff_max_s: float = 5.0
