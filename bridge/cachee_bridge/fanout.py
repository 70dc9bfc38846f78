"""Who is sent this host's own announcements: every linked peer, directly.

Up to `fanout` peers that is the best there is: one hop, no relay that can fail. Beyond it a source would
spend its time writing to sockets; two hops over circulant offsets will take its place there. Until then
beyond is still correct, only costly, and is said aloud.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Link = TypeVar("Link")


class Fanout:
    def __init__(self, fanout: int) -> None:
        self._fanout = fanout
        self._said = False

    def targets(self, up: Iterable[Link]) -> list[Link]:
        """The links on which to send, of those that are up."""
        return list(up)

    def warning(self, peers: int) -> str | None:
        """What to say about `peers` linked peers; each crossing of the limit is said once."""
        beyond = peers > self._fanout
        said, self._said = self._said, beyond
        if beyond and not said:
            return f"{peers} peers, and fanout is {self._fanout}: every write still goes to each directly"
        return None
