"""Two looks at the counters of a namespace, and the rates between them: for `cachee stat` and `cachee top`.

A look is attached for some milliseconds only. If a command stayed attached, the bridge would count it as a
worker, and would wait for it when it is told to stop.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cachee_shm.attaching import host_of, spec_for
from cachee_shm.cli.existing import NoSegment, existing, looked_into
from cachee_shm.cli.processes import Attached, attached
from cachee_shm.cli.terminal import ago
from cachee_shm.errors import ConfigError, SegmentError

if TYPE_CHECKING:
    from cachee_shm.health import Health

READS = ("hits", "misses")
WRITES = ("sets", "deletes")


class Look(NamedTuple):
    """One namespace at one time."""

    namespace: str
    segment: str
    at: float
    """Of the monotonic clock, in seconds."""
    numbers: dict[str, int]
    health: Health
    people: list[Attached]
    """The other attached processes."""

    @property
    def used_bytes(self) -> int:
        """Of the memory for values."""
        return max(0, self.numbers["value_bytes"] - self.health.free_bytes)

    @property
    def state(self) -> str:
        """In one word: "ok", "isolated", "broken", or the state of the bridge ("down", "hung", "left")."""
        health = self.health
        if health.error:
            return "broken"
        if health.bridge in ("down", "hung", "left"):
            return health.bridge
        return "isolated" if health.isolated else "ok"


class Between(NamedTuple):
    """What happened from one look to the next."""

    before: Look
    after: Look

    def per_second(self, *names: str) -> float:
        """The growth of these counters together, per second. A counter that has fallen, because the segment
        was replaced in between, counts as 0."""
        seconds = self.after.at - self.before.at
        counted = sum(max(0, self.after.numbers[name] - self.before.numbers[name]) for name in names)
        return counted / seconds if seconds > 0 else 0.0


def look(namespace: str | None, config: str | None) -> Look:
    """Raises ``NoSegment``, and what attaching raises."""
    with looked_into(spec_for(namespace, config, False)) as cache:
        people = list(attached(cache))
        people.remove(next(each for each in reversed(people) if each.pid == str(os.getpid())))  # this look
        now = time.monotonic()
        return Look(cache.namespace, cache.name, now, cache.stats(), cache.health(), people)


def look_at_all(config: str | None) -> dict[str, Look]:
    """All namespaces of this host that can be looked into."""
    looks = {}
    for namespace in existing(host_of(config)):
        try:
            looks[namespace] = look(namespace, config)
        except (NoSegment, ConfigError, SegmentError):
            continue  # removed meanwhile, not configured, or not this user's: `cachee doctor` says which
    return looks


def bridge_line(health: Health) -> str:
    """One line on the bridge and the peers, as this namespace's segment has them."""
    if health.bridge == "none":
        return "none is configured: this host alone"
    since = ago(health.bridge_s)
    isolated = "isolated" if health.isolated else "not isolated"
    line = f"{health.bridge}{f' for {since}' if since else ''}; {isolated}"
    if not health.peers:
        return f"{line}; no peer yet"
    away = health.unreachable
    peers = f"{len(health.peers)} peer{'s' if len(health.peers) > 1 else ''}"
    return f"{line}; {peers}, {'all reachable' if not away else 'unreachable: ' + ', '.join(away)}"
