"""The namespaces of this host, each with its sources, and what is known of a source across all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.sources.members import Members
from cachee_bridge.sources.register import Register
from cachee_bridge.streams.stream import Packer

if TYPE_CHECKING:
    from cachee_bridge.links.ledger import Ledger
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.ports.store import Store

OWN_CERTIFICATE = "(this host's own certificate does not allow it)"
"""Stands for a peer's name; no real name has brackets."""


class Namespaces:
    def __init__(self, name: str, settings: Settings, say: Say) -> None:
        self._name, self._settings, self._say = name, settings, say
        self.members: dict[str, Members] = {}
        """By namespace, its sources."""
        self.packers: dict[str, Packer] = {}
        """By namespace, the reader of its ring, which all links share."""
        self.register = Register()
        self.touched: set[str] = set()
        """Namespaces in which something was received or changed since isolation.py last examined them."""
        self.moved: set[str] = set()
        """Namespaces whose rings may have grown by what was applied, since the pump last read them."""
        self._entered_at = float("-inf")
        """When the newest namespace was entered."""

    def enter(self, namespace: str, store: Store, now: float) -> None:
        """A namespace of this host, or a new life of one."""
        lost_after_s, pace_s = self._settings.lost_after_s, 2 * self._settings.heartbeat_s
        if namespace in self.members:
            self.members[namespace].dissolve()
        self.members[namespace] = Members(namespace, store, lost_after_s, pace_s, now, self.register)
        self._entered_at = now
        self.touched.add(namespace)
        self.packers[namespace] = Packer(store, namespace, self._name)
        if not self.is_allowed_here(namespace):
            self.members[namespace].refuse(OWN_CERTIFICATE, Reason.OWN_CERTIFICATE)
            text = "is not in this host's own certificate: no peer is told or heard, so it stays isolated"
            self._say("warning", f"namespace {namespace} {text}", namespace=namespace)

    def is_allowed_here(self, namespace: str) -> bool:
        """False if this host's own certificate excludes `namespace`."""
        return self._settings.namespaces is None or namespace in self._settings.namespaces

    def touch(self, namespace: str) -> None:
        """Something of a peer is applied in `namespace`, or is about to be."""
        self.touched.add(namespace)
        self.moved.add(namespace)

    def take_moved(self) -> set[str]:
        """Namespaces whose rings may have grown since the last call."""
        moved, self.moved = self.moved, set()
        return moved

    # A source across all namespaces

    def is_missed(self, name: str) -> bool:
        """Whether `name` is a member of any namespace."""
        return name in self.register.members

    def missed(self) -> set[str]:
        """Names of all members."""
        return set(self.register.members)

    def waited_for(self) -> set[str]:
        """Names of all members, and of peers that cannot be followed: their silence isolates."""
        return (self.register.members.keys() | self.register.refused.keys()) - {OWN_CERTIFICATE}

    def heard_at(self, name: str) -> float:
        """When `name` was last fresh in any namespace; the start, if it was not since."""
        return max(self._entered_at, self.register.word(name).heard_at)

    def is_fresh(self, name: str, since: float) -> bool:
        """Whether `name` is a member, and was fresh after `since` in all namespaces where it is one; the
        start counts for those in which nothing came. Only those that no fresh word covers are examined."""
        if name not in self.register.members:
            return False
        word = self.register.word(name)
        names = word.apart if word.fresh_at > since else self.register.members[name]
        return all(self.members[namespace].heard_at(name) > since for namespace in names)

    def may_relay(self, link: Link) -> bool:
        """Whether the peer's certificate covers every namespace of this host."""
        allows_all = link.handshake.limits is None
        return allows_all or all(link.allows(namespace) for namespace in self.members)

    def uncover(self, name: str) -> None:
        """A link to `name` has ended, or another one has come up, on which other namespaces may be shared."""
        for namespace in sorted(self.register.word(name).covered):
            self.members[namespace].cover(name, False)
            self.touched.add(namespace)

    def ledger_of(self, link: Link) -> Ledger:
        """The link's ledger, with all that has changed of the peer's rings here."""
        word = self.register.word(link.name)
        if word.stirred:
            link.ledger.change(word.stirred)
            word.stirred = set()
        return link.ledger
