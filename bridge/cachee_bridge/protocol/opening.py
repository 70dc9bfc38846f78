"""Links begin: sockets that are connected become links, which say HELLO."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachee_bridge.links.link import Link
from cachee_bridge.links.versions import RANDOM_BYTES, greeting
from cachee_bridge.ports.effects import Close
from cachee_bridge.wire import auth
from cachee_bridge.wire.budget import Budget

if TYPE_CHECKING:
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.farewell import Farewell
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.wire.identity import Identity

HANDSHAKES_MAX = 64
"""Inbound links that have not proven themselves: what strangers can make this host hold is 64 * 4 KiB."""


class Opening:
    def __init__(
        self,
        name: str,
        instance: int,
        settings: Settings,
        rng: random.Random,
        links: LinkTable,
        ends: LinkEnds,
        farewell: Farewell,
        effects: Collected,
    ) -> None:
        """`instance`: which life of this host's bridge this is."""
        self._name, self._instance, self._settings, self._rng = name, instance, settings, rng
        self._links, self._ends, self._farewell, self._effects = links, ends, farewell, effects
        self._secrets = settings.secrets

    def renew(self, secrets: Sequence[bytes]) -> None:
        """For links that begin from now on. AuthError for an unusable secret: nothing changes."""
        auth.check_secrets(secrets)
        self._secrets = tuple(secrets)

    def open(
        self, number: int, address: str | None, remote_host: str, identity: Identity | None, now: float
    ) -> None:
        """A socket is connected."""
        if address is None and self._farewell.begun:
            self._effects.add(Close(number, "leaving"))
            return
        if address is None:
            self._make_room(now)
        hello = greeting(self._settings, self._name, self._instance, self._rng.randbytes(RANDOM_BYTES))
        budget, ready = Budget(self._settings.peer_budget, now), self._links.ready
        link = Link(number, address, remote_host, hello, self._secrets, ready, now, budget, identity)
        self._links.add(link)

    def _make_room(self, now: float) -> None:
        """Of the inbound links that have proven nothing the oldest is closed: to keep others out, strangers
        must come faster than those prove themselves."""
        strangers = self._links.strangers()
        if len(strangers) >= HANDSHAKES_MAX:
            self._ends.close(
                strangers[0], "closed to make room for newer links; it has proven nothing", now, "debug"
            )
