"""Connections that came in, and whose other end has not proven yet who it is.

There are at most HANDSHAKES_MAX of them, and fewer if the process would have too few descriptors left for
itself. Then the oldest connection of the address with the most of them is closed, so a stranger pushes out
its own. Each connection has passed the gate before (gate.py).
"""

from __future__ import annotations

import resource
from collections import Counter
from typing import TYPE_CHECKING

from cachee_bridge.carriers.gate import network_of

if TYPE_CHECKING:
    import socket

    from cachee_bridge.carriers.connection import Connection

HANDSHAKES_MAX = 64  # of strangers, some 100 KB each; then one gives way
DESCRIPTORS_KEPT = 64  # for dials, name servers, segments; a quarter of them where there are few


class Unproven:
    """Of one network, the oldest first."""

    def __init__(self) -> None:
        self._connections: dict[Connection, None] = {}
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._descriptor_max = descriptors - min(DESCRIPTORS_KEPT, descriptors // 4)

    def __contains__(self, connection: object) -> bool:
        return connection in self._connections

    def __len__(self) -> int:
        return len(self._connections)

    def make_room(self, sock: socket.socket) -> bool:
        """Whether a connection over `sock` may be added; another one may have been pushed out for it."""
        is_scarce = sock.fileno() >= self._descriptor_max
        if is_scarce or len(self._connections) >= HANDSHAKES_MAX:
            self._push_out()
        return not is_scarce or bool(self._connections)

    def add(self, connection: Connection) -> None:
        """It has come in."""
        self._connections[connection] = None

    def drop(self, connection: Connection) -> bool:
        """It has proven who it is, or has ended. Whether it was among these."""
        known = connection in self._connections
        self._connections.pop(connection, None)
        return known

    def close(self) -> None:
        """All of them."""
        for connection in list(self._connections):
            connection.close()

    def _push_out(self) -> None:
        """The oldest of the address with the most of them."""
        counts = Counter(network_of(known.remote_host) for known in self._connections)
        for connection in self._connections:
            if counts[network_of(connection.remote_host)] == max(counts.values()):
                connection.push_out()
                return
