"""By which names a request may call this host (the Host header).

A page of another site can have its own name lead to this host's address, and then read what is here as if it
were its own (DNS rebinding). Its requests still carry its own name. So accepted are: an IP address, which no
site has for a name; localhost; the name in the listener's address; this host's name; and the names of its
certificate.
"""

from __future__ import annotations

from collections.abc import Iterable

from cachee_bridge.carriers.names import is_address

LOCAL = ("localhost",)


class OwnNames:
    """Of one listener."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in (*LOCAL, *names) if name)

    def __call__(self, host: str) -> bool:
        """Whether the value of a Host header names this host."""
        name, port = _split(host.strip())
        if port and not port.isdecimal():
            return False
        return is_address(name) or name.lower().rstrip(".") in self._names


def any_name(host: str) -> bool:
    """Where nothing is secret and the network may reach the listener: whatever its clients call it."""
    return True


def _split(host: str) -> tuple[str, str]:
    """("", "") is no name."""
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        good = closed and (rest == "" or rest.startswith(":"))
        return (name, rest[1:]) if good else ("", "")
    name, _, port = host.partition(":")
    return name, port
