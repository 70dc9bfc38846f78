"""Removal of hosts that no longer belong to the mesh, but have not left.

    a host is removed      if it is a member, or a peer that cannot be followed, and has been silent and not
                           linked for lost_after, and one of these holds:
      by discovery         it can be at no address that is configured or named: each leads to another host,
                           which is linked, or to this host
      by the operator      it was named to `forget`
      by forget_after      it has been silent for that long
    an address is removed  if no host has ever answered there: by the same three

What a removal does to a namespace is in removal.py. A host that is linked is never removed, whatever DNS or
an operator says: it would be met again at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from cachee_bridge.membership.discovery import Discovery
from cachee_bridge.ports.views import DiscoveryView
from cachee_shm.errors import NotForgotten

if TYPE_CHECKING:
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.namespaces import Namespaces

Known = Callable[[str], bool]
"""Whether a host, by its name, is linked now, or (`met`) has been linked since the start."""
When = Callable[[str], float]
"""When the last link to a host ended."""


LOOK_S = 0.25


class Belonging:
    def __init__(self, book: AddressBook, namespaces: Namespaces, settings: Settings, say: Say) -> None:
        self._book, self._namespaces, self._settings, self._say = book, namespaces, settings, say
        self._to_forget: set[str] = set()
        """Hosts that the operator named to `forget`, and that are still waited for."""
        self._next_look = float("-inf")
        self.discovery: Discovery | None = None

    def configured(self, addresses: Iterable[str], met: Known, now: float) -> None:
        """All addresses of the configuration. An address that is no longer named is removed if no host has
        ever answered there. A host that has answered stays a peer."""
        before = set(self._book.awaited.unanswered(met))
        for address in self._book.configure(addresses, now):
            if address in before:
                self._expect_no_more(address, "the configuration does not name it any more", now)

    # Discovery

    def discover(self, what: str, rng: random.Random, now: float) -> None:
        """Ask `what` for peers. Until its first answer this host is isolated."""
        self.discovery = Discovery(what, rng, now)

    def discovered(self, addresses: Collection[str], ttl_s: float, met: Known, now: float) -> None:
        """Discovery has answered. An address that it no longer names is removed if no host has ever answered
        there."""
        assert self.discovery is not None
        discovery, failures = self.discovery, self.discovery.failures
        if not discovery.answered(len(addresses), ttl_s, now):
            reason = f"the answer has no addresses, and an earlier one had {discovery.named}"
            self.failed(reason, now)
            return
        self._next_look = now
        if failures or discovery.answers == 1:
            self._say("info", f"{discovery.what} names {len(addresses)} addresses")
        before = set(self._book.awaited.unanswered(met))
        for address in self._book.discovered(addresses, now):
            if address in before:
                self._expect_no_more(address, "discovery does not name it any more", now)

    def failed(self, reason: str, now: float) -> None:
        """No answer: known hosts stay known."""
        assert self.discovery is not None
        if self.discovery.failed(reason, now) == 1:
            text = f"no answer from {self.discovery.what}: {reason}; known hosts stay; it is asked again"
            self._say("warning", text)

    def unanswered(self, met: Known) -> list[str]:
        """Addresses (or discovery) that isolate this host although all met hosts are heard."""
        asked = self.discovery
        silent = [asked.what] if asked is not None and not asked.answers else []
        return silent + self._book.awaited.unanswered(met)

    def lost(self, now: float) -> None:
        """A link has gone."""
        if self.discovery is not None:
            self.discovery.hurry(now)

    def discovery_view(self) -> DiscoveryView | None:
        """For people."""
        asked = self.discovery
        if asked is None:
            return None
        return DiscoveryView(asked.what, asked.named, asked.answered_at, asked.failure)

    # The operator

    def forget(self, who: str, is_up: Known, met: Known, now: float) -> str:
        """Remove a peer (by name) or an address at which no host answered. Returns what will happen, in
        words.

        NotForgotten, with the reason, when nothing will.
        """
        if who in self._book.awaited.unanswered(met):
            self._book.give_up(who)
            self._expect_no_more(who, "the operator says so", now)
            return f"nobody is waited for at {who} any more"
        if is_up(who):
            raise NotForgotten(f"{who} is linked; nothing was changed; stop its bridge first")
        if who not in self._namespaces.waited_for():
            raise NotForgotten(f"no peer {who} is waited for; nothing was changed; see `cachee peers`")
        self._to_forget.add(who)
        self._next_look = now
        return f"{who} is removed as soon as it has been silent for lost_after"

    # At every tick

    def look(self, is_up: Known, parted_at: When, now: float) -> None:
        """Begin and end removals. Everything is examined each LOOK_S, or at once when there is news."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        self._to_forget = {name for name in self._to_forget if not is_up(name)}
        for name in sorted(name for name in self._namespaces.waited_for() if not is_up(name)):
            silent_s = now - max(parted_at(name), self._namespaces.heard_at(name))
            if silent_s > self._settings.lost_after_s:
                self._remove_if_due(name, silent_s, is_up, now)
        self._give_up_silent_addresses(now)
        for namespace in sorted(self._namespaces.register.removing):
            for name in sorted(self._namespaces.members[namespace].removed(now)):
                self._namespaces.touched.add(namespace)
                self._say("info", f"namespace {namespace} has forgotten {name}", peer=name)
        self._to_forget = self._to_forget and self._to_forget & self._namespaces.waited_for()

    def _remove_if_due(self, name: str, silent_s: float, is_up: Known, now: float) -> None:
        asked, patience_s = self.discovery, self._settings.forget_after_s
        if name in self._to_forget:
            self._remove(name, "the operator says so", now)
        elif asked is not None and asked.settled and not self._book.awaited.expects(name, is_up):
            self._remove(name, "discovery does not name it any more", now)
        elif patience_s is not None and silent_s > patience_s:
            self._remove(name, "forget_after has passed", now)

    def _remove(self, name: str, reason: str, now: float) -> None:
        begun = [members.remove(name, now) for members in self._namespaces.members.values()]
        if any(begun):
            self._namespaces.touched.update(self._namespaces.members)
            self._book.left(name)
            self._report_removal(name, reason)

    def _expect_no_more(self, address: str, reason: str, now: float) -> None:
        begun = [members.expect_no_more(address, now) for members in self._namespaces.members.values()]
        if any(begun):
            self._namespaces.touched.update(self._namespaces.members)
            self._report_removal(address, reason)

    def _give_up_silent_addresses(self, now: float) -> None:
        patience_s = self._settings.forget_after_s
        for address in self._book.awaited.nameless() if patience_s is not None else ():
            if self._book.table.unanswered_since(address) + (patience_s or 0.0) < now:
                self._book.give_up(address)
                self._expect_no_more(address, "forget_after has passed", now)

    def _report_removal(self, who: str, reason: str) -> None:
        text = f"{who} is no longer a member: {reason}; values from before stay capped, then are evicted"
        self._say("warning", text, peer=who)
