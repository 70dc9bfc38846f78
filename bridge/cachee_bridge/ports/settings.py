"""What the host's configuration says to the protocol core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """The shared secret; two while it is being changed, and either is accepted. () = none is required."""
    namespaces: Limits = None
    """The namespaces that this host's own certificate allows, None = every one."""
    peer_budget: float = 16 << 20
    """Bytes a second that one peer may send, with the charges of budget.py."""
    fanout: int = 32
    """A host with at most this many peers in its region sends to each of them. With more, it sends to some,
    and these relay to the others (fanout.py)."""
    heartbeat_s: float = 0.1
    lost_after_s: float = 2.0
    forget_after_s: float | None = None
    """A member that was silent for so long is removed; None = never by time."""
    peer_fill: Mapping[str, int] = field(default_factory=dict)
    """By namespace with peer fill, how many bytes a value may have that is given."""
    check_every_s: float = 0.0
    """Between two rounds of the checker, which writes canaries; 0: there are none."""
    backoff_first_s: float = 0.1
    """Full jitter: the n-th wait is uniform in 0..min(backoff_max_s, backoff_first_s * 2**n)."""
    backoff_max_s: float = 5.0
