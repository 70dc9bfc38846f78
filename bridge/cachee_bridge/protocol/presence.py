"""When each peer came up or was lost, and which life of its bridge came last."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link


class Presence:
    def __init__(self) -> None:
        self.started_at = 0.0
        self._since: dict[str, float] = {}
        """By name, when a link to the peer came up, or the last one ended."""
        self._came: dict[str, tuple[int, float]] = {}
        """By name, which life of the peer's bridge was up last, and since when."""

    def came_up(self, link: Link, now: float) -> None:
        self._since[link.name] = now
        self._came[link.name] = (link.instance, now)

    def parted(self, link: Link, now: float) -> None:
        """The last link to the peer has ended."""
        self._since[link.name] = now

    def since(self, name: str) -> float:
        """When `name` came to be up or down; the start, if it was never up."""
        return self._since.get(name, self.started_at)

    def is_outdated(self, link: Link) -> bool:
        """Whether another life of the peer's bridge came up after this link was opened. A host that lost
        power may be heard once more, after it was met in its next life: what it said then is out of date. If
        it lives, it dials again."""
        instance, since = self._came.get(link.name, (link.instance, 0.0))
        return instance != link.instance and link.stamps.opened_at < since

    def keep(self, names: set[str]) -> None:
        """Forget all other peers."""
        self._since = {name: at for name, at in self._since.items() if name in names}
        self._came = {name: came for name, came in self._came.items() if name in names}
