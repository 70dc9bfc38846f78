"""Which host sends a source's records to which other host.

Up to `fanout` peers in a region: directly, one hop and no relay that can fail. Beyond that a source would
spend its time writing to sockets, so there are two hops over circulant offsets, with k near the root of the
number of hosts, all in the order of their names:

    place of the source  x        sends to  x + 1 .. x + k - 1  and to its relays  x + k, x + 2k, ...
    a relay              x + jk   sends to  x + jk + 1 .. x + jk + k - 1

Every host is a source, and a relay of others, with links to some 4 * sqrt(n) of them: 62 of 500. There is no
state to agree on: the receiver asks a host to send. Where two hosts do not see the same mesh, that costs one
link too many, or a moment.

Between regions each source crosses once: to one gateway of each region (of the first two by name, one for
every other source), which is the source of that region's own fan-out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from functools import lru_cache

GATEWAYS = 2
"""Of a region. Each carries half of what comes in."""


class Fanout:
    """One host's view, over those that it can reach."""

    def __init__(self, name: str, region: str, fanout: int) -> None:
        self._name, self._region, self._fanout = name, region, fanout
        self._regions: dict[str, str] = {}
        self._names: list[str] = []
        """Of the own region, this host among them, in order."""
        self._places: dict[str, int] = {}
        self.settle({})

    def settle(self, regions: Mapping[str, str]) -> None:
        """The hosts beside this one, by name, with the region of each."""
        self._regions = {**regions, self._name: self._region}
        self._names = sorted(name for name, region in self._regions.items() if region == self._region)
        self._places = {name: place for place, name in enumerate(self._names)}

    @property
    def direct(self) -> bool:
        """Whether every source is followed directly."""
        return len(self._names) == len(self._regions) and len(self._names) - 1 <= self._fanout

    def feeder(self, source: str) -> str:
        """The host to ask for records of `source`: itself, a relay or a gateway."""
        root = source
        if self._regions.get(source, self._region) != self._region:
            gateways = self._names[:GATEWAYS]
            root = gateways[zlib.crc32(source.encode()) % len(gateways)]
            if root == self._name:
                return source
        if root not in self._places:
            return source
        count = len(self._names)
        if count - 1 <= self._fanout:
            return root
        step = step_of(count)
        away = (self._places[self._name] - self._places[root]) % count
        if away < step or away % step == 0:
            return root
        return self._names[(self._places[root] + away // step * step) % count]

    def relays(self, name: str) -> bool:
        """Whether `name` relays this host's records: then it is sent them first."""
        if self._regions.get(name, self._region) != self._region:
            return True
        count = len(self._names)
        if count - 1 <= self._fanout or name not in self._places:
            return False
        return (self._places[name] - self._places[self._name]) % count % step_of(count) == 0


@lru_cache(maxsize=64)
def step_of(count: int) -> int:
    """The k with which `count` hosts need the fewest links."""
    root = math.isqrt(
        count
    )  # some 4 roots are always enough: k - 1 links each way, or count / k, would be more
    near = range(max(2, root // 4), max(3, min(count, 2 * root + 3)))
    return min(near, key=lambda step: (links_of(count, step), step))


def links_of(count: int, step: int) -> int:
    """How many hosts each of `count` is linked to: those that it is sent by, and those that it sends to."""
    ahead = {*range(1, min(step, count)), *range(step, count, step)}
    return len(ahead | {count - offset for offset in ahead})
