"""Which addresses lead to this host itself. One may be out of reach from inside (behind a NAT, or a name that
the hosts file maps to 127.0.1.1), so it must be known without an answer.

    the port is listened on, and
      the address is, or all are and it is an interface's              it leads here
      it is a loopback address, and this host listens beyond those     it leads here if nobody answers

A name may have this host's address beside those of others (one name for all hosts of a service). The other
addresses alone are dialled then: this host would answer first, and the name would count as its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable

import psutil

from cachee_bridge.carriers.names import is_loopback

EVERYWHERE = frozenset(("0.0.0.0", "::"))


def interfaces() -> set[str]:
    """Every IP address of this machine, as it is now."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = (address for addresses in psutil.net_if_addrs().values() for address in addresses)
    return {address.address.partition("%")[0] for address in found if address.family in families}


class Own:
    """What one bridge listens on."""

    def __init__(self, interfaces: Callable[[], Collection[str]] = interfaces) -> None:
        self._interfaces = interfaces
        self._listens: set[tuple[str, int]] = set()

    def listens(self, places: Iterable[tuple[str, int]]) -> None:
        """(IP address, port) of each listening socket."""
        self._listens.update(places)

    def others(self, found: Iterable[str], port: int) -> list[str]:
        """The addresses of `found` at which, with `port`, this bridge does not listen. OSError: the machine
        does not tell its interfaces now."""
        hosts = self._hosts(port)
        if hosts & EVERYWHERE:
            hosts.update(self._interfaces())
        return [address for address in found if address.partition("%")[0] not in hosts]

    def if_nobody_answers(self, found: Collection[str], port: int) -> bool:
        """Whether only this host can be meant: addresses that loop back, reachable from no other host."""
        hosts = self._hosts(port)
        return bool(hosts and found) and all(map(is_loopback, found)) and not any(map(is_loopback, hosts))

    def _hosts(self, port: int) -> set[str]:
        return {host for host, listened in self._listens if listened == port}
