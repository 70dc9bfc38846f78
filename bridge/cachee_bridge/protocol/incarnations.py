"""This host's own incarnations: a higher one is drawn where a peer knows more of a ring than it holds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.offers import Offers
    from cachee_bridge.protocol.sending import Sending
    from cachee_bridge.sources.members import Members

INCARNATION_BITS = 32
"""Of chance in an incarnation that is drawn above one that a peer knows: two lives must not draw the same."""
INCARNATION_MAX = 2**64 - 2 ** (INCARNATION_BITS + 1)
"""From here on none is drawn that is higher."""
COMPLAINTS_S = 60.0
RAISE_S = 1.0
"""Between two raises of one namespace: each has its peers evict all that is older."""


class Incarnations:
    def __init__(
        self,
        namespaces: Namespaces,
        links: LinkTable,
        sending: Sending,
        offers: Offers,
        rng: random.Random,
        say: Say,
    ) -> None:
        self._namespaces, self._links, self._sending, self._offers = namespaces, links, sending, offers
        self._rng, self._say = rng, say
        self._raised_at: dict[str, float] = {}
        """By namespace, when its incarnation was last raised."""

    def outdone(self, link: Link, members: Members, incarnation: int, cursor: int, now: float) -> bool:
        """Whether the peer has applied more of this host's ring than the ring holds: an earlier life of the
        ring was born under a clock that was ahead, or the segment is an old copy. The ring goes on under a
        higher incarnation, which its peers meet as a new one."""
        store, namespace = members.store, members.namespace
        known = store.incarnation
        if incarnation < known or (incarnation == known and cursor <= store.tail):
            return False
        if incarnation >= INCARNATION_MAX:
            if now >= link.complain_at:
                link.complain_at = now + COMPLAINTS_S
                text = f"{link.name} claims incarnation {incarnation} of namespace {namespace}: none is "
                self._say("error", f"{text}higher; see who makes it up", peer=link.name, namespace=namespace)
            return True
        if now < self._raised_at.get(namespace, float("-inf")) + RAISE_S:
            return True
        self._raised_at[namespace] = now
        store.raise_incarnation(incarnation + 1 + self._rng.getrandbits(INCARNATION_BITS))
        text = f"{link.name} has applied namespace {namespace} of this host, incarnation {incarnation}, up "
        text += f"to {cursor}; here it was incarnation {known} up to {store.tail}: was the clock set back? "
        self._say("warning", f"{text}It goes on as {store.incarnation}", peer=link.name, namespace=namespace)
        for other in self._links.told():
            if namespace in other.shared:
                other.acked.pop(namespace, None)
                other.ledger.change((namespace,))
                self._sending.begin(other, members)
        self._offers.announce(namespace)
        return True
