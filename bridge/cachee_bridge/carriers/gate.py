"""Limits incoming connections before any work is done for them.

    all together   ACCEPTS_PER_S connections are taken from the kernel, after a burst of ACCEPTS_BURST
    to be heard    HEARD_PER_S of them go on to a handshake, after a burst of HEARD_BURST
    one address    ADDRESS_PER_S of those, after a burst of HEARD_BURST

A connection that is not heard is closed at once. A connection whose other end proves who it is gives back
what it took: only those who prove nothing use the burst up, and a mesh that reconnects all at once is heard
as a whole. Whoever is turned away by the limit of others still has this host's own dials.
"""

from __future__ import annotations

import ipaddress

ACCEPTS_PER_S, ACCEPTS_BURST = 1000.0, 512
"""Taking and closing one costs 20 to 30 microseconds: 3 % of a core."""
HEARD_PER_S, HEARD_BURST = 50.0, 512
"""A TLS handshake costs 1 to 2 ms: 10 % of a core. The burst is a mesh of 500 hosts."""
ADDRESS_PER_S = 20.0
ADDRESSES_MAX = 1024
"""Addresses that are counted one by one. Beyond that, the one that came longest ago is forgotten."""
IPV6_PREFIX_BITS = 64
"""A sender with one address of an IPv6 network has all of them."""


class Bucket:
    """A token bucket."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._full = per_s, burst
        self._left, self._at = burst, now

    def wait_s(self, now: float) -> float:
        """Until there is a token; 0 if there is one."""
        self._left = min(self._full, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = max(self._at, now)
        return 0.0 if self._left >= 1 else (1 - self._left) / self._per_s

    def take(self) -> None:
        self._left -= 1

    def give_back(self) -> None:
        self._left = min(self._full, self._left + 1)


class Gate:
    """Of one bridge. `now` is in seconds, of one clock."""

    def __init__(self, now: float) -> None:
        self._accepts = Bucket(ACCEPTS_PER_S, ACCEPTS_BURST, now)
        self._heard = Bucket(HEARD_PER_S, HEARD_BURST, now)
        self._proofs = Bucket(HEARD_PER_S, HEARD_BURST, now)
        self._addresses: dict[str, Bucket] = {}

    def accepts_in_s(self, now: float) -> float:
        """How long to take no connection from the kernel: 0 = take one now, which counts as taken."""
        wait_s = self._accepts.wait_s(now)
        if not wait_s:
            self._accepts.take()
        return wait_s

    def hears(self, host: str, now: float) -> str:
        """Why a connection from `host` is to be closed at once; "" if it is to be heard."""
        address = self._address(host, now)
        if address.wait_s(now):
            return f"more than {ADDRESS_PER_S:g} links a second from one address that prove nothing"
        if self._heard.wait_s(now):
            return f"more than {HEARD_PER_S:g} links a second that prove nothing"
        address.take()
        self._heard.take()
        return ""

    def proven(self, host: str, now: float) -> None:
        """A connection from `host` that was heard has proven who it is. A peer that connects without end gets
        nothing back."""
        if self._proofs.wait_s(now):
            return
        self._proofs.take()
        self._heard.give_back()
        if (address := self._addresses.get(network_of(host))) is not None:
            address.give_back()

    def _address(self, host: str, now: float) -> Bucket:
        network = network_of(host)
        address = self._addresses.pop(network, None) or Bucket(ADDRESS_PER_S, HEARD_BURST, now)
        self._addresses[network] = address  # the last is who came last
        if len(self._addresses) > ADDRESSES_MAX:
            del self._addresses[next(iter(self._addresses))]
        return address


def network_of(host: str) -> str:
    """What counts as one address."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(int(address) >> (128 - IPV6_PREFIX_BITS))
