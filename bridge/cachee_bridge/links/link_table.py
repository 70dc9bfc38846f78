"""All links of this host: by number, and by the name of the peer those that are up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.links.states import LinkState

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link


class LinkTable:
    def __init__(self) -> None:
        self.by_number: dict[int, Link] = {}
        """Every open link, the oldest first. Only `add` and `remove` write."""
        self.up: dict[str, Link] = {}
        """By the peer's name, the link that is up; of two to one peer, the one that came up last."""
        self.ready: list[Link] = []
        """Links with bytes to send. Each link adds itself with its first bytes."""

    def add(self, link: Link) -> None:
        self.by_number[link.number] = link

    def raise_(self, link: Link) -> None:
        """`link` is up."""
        self.up[link.name] = link

    def remove(self, link: Link) -> bool:
        """True if `link` was the one that is up to its peer."""
        del self.by_number[link.number]
        was_up = self.up.get(link.name) is link
        if was_up:
            del self.up[link.name]
        return was_up

    def told(self) -> list[Link]:
        """Links whose peer was sent the namespaces of this host, whether it has answered or not."""
        return [link for link in self.by_number.values() if link.state in (LinkState.STATE, LinkState.UP)]

    def strangers(self) -> list[Link]:
        """Inbound links whose peer has not proven its name, the oldest first."""
        return [link for link in self.by_number.values() if not (link.dialled or link.up)]

    def claimants(self, link: Link) -> list[Link]:
        """Other links that lead to the host of `link`, as far as their dialler has decided so."""
        return [other for other in self.by_number.values() if other.claims(link)]
