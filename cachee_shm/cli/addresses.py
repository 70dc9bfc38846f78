"""Which IP addresses are this machine's own."""

from __future__ import annotations

import socket


def is_own(family: int, ip: str) -> bool:
    """Whether a socket can be bound to the address: an interface has it, or it is a loopback address."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((ip, 0))
    except OSError:
        return False
    return True
