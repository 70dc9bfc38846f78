"""The path by which each source is followed, and the hosts that this host has to be linked to.

    up to `fanout` peers             every source is followed directly
    more peers                       each source through the relay that fanout.py names, of the hosts that can
                                     be reached
    a source that is out of reach    through the other hosts in turn, until one of them has its records

A path changes without a gap: the new relay is asked first, and the old path is dropped only when the new
relay has reported that it sends. A source is distrusted, and followed directly, when its relay fails: the
relay's log does not reach back far enough, its reports grow old, its link is lost, or it reports a life of
the source or a namespace that is not known here. The direct path is dropped only when a relay has reported
that it sends.

Each life of a bridge meets each host directly, once. A link through which neither end follows a source is
closed after a while by the end that dialled it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cachee_bridge.routing.fanout import Fanout

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.session import Session

REVIEW_S = 0.3
PATIENCE = 0.75
"""As a part of lost_after: a source that has not been fresh for this long is asked for at other hosts."""
DETOUR_S = 1.0
"""How long one host is asked for a late source before the next host is asked."""
DISTRUST_S = 5.0
"""How long a source is followed directly before a relay is tried again."""
BEATS_MIN = 8
"""In lost_after. A relay's report is some beats old. With fewer beats, every source is followed directly."""
LINGER_S = 5.0
"""How long a link is kept that neither end needs; counted anew whenever another member falls silent."""


class Paths:
    def __init__(
        self, name: str, settings: Settings, session: Session, links: LinkTable, book: AddressBook, say: Say
    ) -> None:
        self._namespaces, self._following = session.namespaces, session.following
        self._relaying, self._links, self._book, self._say = session.relaying, links, book, say
        self._lost_after_s = settings.lost_after_s
        self._relays = settings.lost_after_s >= BEATS_MIN * settings.heartbeat_s
        self._fanout = Fanout(name, settings.region, settings.fanout)
        self.regions: dict[str, str] = {}
        """By name, for members and linked hosts, if they were linked in this life of the bridge."""
        self._parted: dict[str, float] = {}
        """By name, when the last link to a host ended that carried a source."""
        self._unneeded: dict[int, float] = {}
        """Links through which nothing is followed, and since when."""
        self._next = 0.0
        self.wanted: set[str] | None = None
        """The hosts that this host should be linked to; None = all."""
        self._late: set[str] = set()
        """Members that have not been fresh within PATIENCE."""
        self._troubled_at = float("-inf")
        """When another member became late."""
        self.relayed: dict[str, str] = {}
        """By name, members that are fresh without a link, and the relay of each."""

    def linked(self, link: Link) -> None:
        """A link is up."""
        self.regions[link.name] = link.region
        self._parted.pop(link.name, None)
        self._next = 0.0

    def unlinked(self, link: Link, now: float) -> None:
        """The last link to its host has ended."""
        self._namespaces.uncover(link.name)
        if self._carries(link):
            self._parted[link.name] = now
        self._next = 0.0

    def wants(self, name: str) -> bool:
        """Whether a link to `name` is needed, for what it announces or relays."""
        return self.wanted is None or name in self.wanted

    def spares(self, name: str) -> bool:
        """Whether `name` is followed through a relay, and fresh, so that no link to it is needed."""
        return name in self.relayed and not self.wants(name)

    def reaches(self, name: str) -> bool:
        """Whether `name` is linked, or fresh through a relay."""
        return name in self._links.up or name in self.relayed

    def reached(self) -> list[str]:
        """All hosts that are linked, or fresh through a relay."""
        return sorted(self.relayed.keys() | self._links.up.keys())

    def ordered(self) -> list[Link]:
        """The links that are up, those to relays of this host first: their followers wait for them."""
        up = self._links.up.values()
        if self.wanted is None:
            return list(up)
        return sorted(up, key=lambda link: not self._fanout.relays(link.name))

    def review(self, now: float) -> list[Link]:
        """Called at every tick: move sources to better paths. Returns the links to close, because neither end
        needs them."""
        if now < self._next or not self._relays:
            return []
        self._next = now + REVIEW_S
        before = self.relayed, self.wanted
        unneeded = self._reviewed(now)
        if (self.relayed, self.wanted) != before:
            self._book.reach_changed()
        return unneeded

    def _reviewed(self, now: float) -> list[Link]:
        self._take_news()
        up, members = self._links.up, self._namespaces.missed()
        names = members | up.keys()
        self._relaying.keep(names)
        self._parted = {name: at for name, at in self._parted.items() if now < at + DISTRUST_S}
        self.relayed = {name: way for name in sorted(members - up.keys()) if (way := self._way(name, now))}
        reachable = self.relayed.keys() - self._parted.keys() | up.keys()
        self.regions = {name: region for name, region in self.regions.items() if name in names}
        self._fanout.settle({name: self.regions.get(name, "") for name in reachable})
        before, self._late = self._late, {name for name in members if self._is_late(name, now)}
        if not self._late <= before:
            self._troubled_at = now
        quiet = not (self._late or self.relayed) and self.wanted is None
        if quiet and self._fanout.direct and all_direct(up):
            return []
        self.wanted = set()
        for source in sorted(names):
            self._choose(source, source in members, now)
        for link in up.values():
            for source in sorted(link.follows - names):
                self._following.unfollow(link, source)
        if self._fanout.direct and all_direct(up):
            self.wanted = None
        return self._surplus(now)

    def _take_news(self) -> None:
        """What relays have reported since the last review."""
        following = self._following
        while following.last_resorts:
            name, namespace = following.last_resorts.pop()
            text = f"{name}, namespace {namespace}: no peer that can be reached has its missing records; "
            text += "evicted all"
            self._say("warning", text, peer=name)
        while following.left:
            name = following.left.pop()
            if name not in self._links.up and not self._namespaces.is_missed(name):
                self._book.left(name)

    def _way(self, name: str, now: float) -> str:
        """The relay through which `name` is fresh; "" if there is none."""
        through = self._following.through(name)
        fresh = self._namespaces.is_fresh(name, now - self._lost_after_s)
        return through[0].name if through and fresh else ""

    def _choose(self, source: str, member: bool, now: float) -> None:
        following, feeder, up = self._following, source, self._links.up
        if member and not self._is_distrusted(source, now):
            feeder = self._fanout.feeder(source)
            if feeder in up and not self._namespaces.may_relay(up[feeder]):
                feeder = source
        assert self.wanted is not None
        self.wanted.add(feeder)
        late = source in self._late
        ways = [up[feeder]] if feeder in up else []
        ways += self._detour(source, now) if late else []
        for link in ways:
            if source not in link.follows:
                following.follow(link, source)
        if ways and (late or feeder == source or source in ways[0].relayed.served):
            for other in following.through(source):
                if other not in ways and not (late and source in other.relayed.served):
                    following.unfollow(other, source)

    def _detour(self, source: str, now: float) -> list[Link]:
        """One of the hosts that may have records of `source`, in turn."""
        up = self._links.up
        others = [up[name] for name in sorted(up) if name != source and self._namespaces.may_relay(up[name])]
        turn = zlib.crc32(source.encode()) + int(now / DETOUR_S)
        return [others[turn % len(others)]] if others else []

    def _is_late(self, source: str, now: float) -> bool:
        return not self._namespaces.is_fresh(source, now - PATIENCE * self._lost_after_s)

    def _is_distrusted(self, source: str, now: float) -> bool:
        """Whether `source` is asked directly. Also if it is late, because its relay should have sent more by
        now."""
        distrusted = self._following.distrusted
        if now >= distrusted.get(source, float("-inf")) + DISTRUST_S:
            if source not in self._late:
                distrusted.pop(source, None)
                return False
            distrusted[source] = now
        return True

    def _carries(self, link: Link) -> bool:
        """Whether either end follows a source through it. A request for a source that is late does not
        count."""
        return not (link.follows | link.followed) <= self._late

    def _surplus(self, now: float) -> list[Link]:
        idle = [
            link
            for link in self._links.up.values()
            if link.dialled and not (self._carries(link) or self.wants(link.name) or link.leaving)
        ]
        self._unneeded = {link.number: self._unneeded.get(link.number, now) for link in idle}
        return [link for link in idle if max(self._unneeded[link.number], self._troubled_at) + LINGER_S < now]


def all_direct(up: Mapping[str, Link]) -> bool:
    return all(link.follows == {name} for name, link in up.items())
