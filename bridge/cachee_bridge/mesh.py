"""All links of one host. Input: bytes, records, now. Output: effects. (Signatures final; the body follows.)

The shell, in full:

    mesh = Mesh(name, stores, settings, random.SystemRandom())
    mesh.start(now); mesh.add_peers(addresses, now); perform(mesh.effects())
    socket opened        mesh.link_opened(link, address or None, now, remote_host)
    dial failed          mesh.connect_failed(address, reason, now)
    bytes came           mesh.received(link, data, now)
    socket drained       mesh.writable(link, now)
    socket closed        mesh.link_closed(link, reason, now)
    ring healed further  mesh.ring_moved(namespace, now)
    deadline passed      deadline = mesh.tick(now)
    after each of these  perform(mesh.effects())
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from cachee_bridge.effects import Effect
from cachee_bridge.ports import PeerView, Settings, Store, StreamView

__all__ = ["Mesh", "PeerView", "Settings", "Store", "StreamView"]


class Mesh:
    """The protocol core. Not thread-safe; every time is `now`: seconds of this host's CLOCK_MONOTONIC."""

    def __init__(self, name: str, stores: Mapping[str, Store], settings: Settings, rng: random.Random) -> None:
        """`rng` makes nonces too: pass random.SystemRandom() outside of tests."""

    def start(self, now: float) -> None:
        """Once, before anything else. Cursors come from the stores."""

    def add_peers(self, addresses: Iterable[str], now: float) -> None:
        """Configured addresses ("host:port"). Each isolates this host until somebody has answered there."""

    def add_namespace(self, namespace: str, store: Store, now: float) -> None:
        """A namespace made after the start; peers are told at once."""

    def link_opened(self, link: int, address: str | None, now: float, remote_host: str = "") -> None:
        """A socket is connected. `link` is a number never used before; `address` is None for an inbound one;
        `remote_host` is the IP address of the other end (IPv6 without brackets)."""

    def connect_failed(self, address: str, reason: str, now: float) -> None:
        """A Connect came to nothing."""

    def received(self, link: int, data: bytes, now: float) -> None:
        """Bytes from `link`, in order. Bad bytes close that link only."""

    def writable(self, link: int, now: float) -> None:
        """Everything sent on `link` has left the process's buffers, or they have fallen to their low mark.
        To be called after each Send that did, else the link comes to rest after `ALLOWANCE_BYTES`."""

    def link_closed(self, link: int, reason: str, now: float) -> None:
        """The other end closed, or an error."""

    def ring_moved(self, namespace: str, now: float) -> None:
        """The pump has healed up to a new `pump_cursor`: send."""

    def tick(self, now: float) -> float:
        """Beats, time-outs, reconnects. Returns when to be called next (also harmless at any other time)."""
        return now

    def leave(self, now: float) -> None:
        """Leave for good (not a restart): only with no worker attached and the ring healed to its tail."""

    def left(self) -> bool:
        """True when every linked peer has applied everything. Bound the wait; then close."""
        return False

    def effects(self) -> list[Effect]:
        """What to do now, in order; each is returned once."""
        return []

    def peers(self) -> list[PeerView]:
        """For logs and health."""
        return []
