"""Free ports of loopback, for `cachee demo` and for tests that start bridges and servers."""

from __future__ import annotations

import collections
import errno
import random
import socket

PORTS = range(10_000, 32_768)
"""Below those that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`)."""
HELD = 64
_marks: collections.deque[socket.socket] = collections.deque(maxlen=HELD)


def free_ports(count: int) -> list[int]:
    """`count` different ports of 127.0.0.1 on which nobody listens now.

    Until somebody listens there, no other process is given them: an abstract Unix socket marks each port.
    A mark ends with this process, or when HELD newer ones have been set. Raises OSError if fewer are free.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        mark = _mark(port)
        if mark is not None:
            _marks.append(mark)
            found.append(port)
    raise OSError(errno.EADDRINUSE, f"only {len(found)} of {count} ports of 127.0.0.1 are free in {PORTS}")


def _mark(port: int) -> socket.socket | None:
    """A mark on a port that was free; None if somebody has it."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0cachee-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        mark.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return mark
