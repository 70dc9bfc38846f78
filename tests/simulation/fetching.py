"""Peer fill: a reader that misses asks another host before it asks the origin.

The real Fetches (protocol/fetches.py) of both hosts, over the simulated network. What is given is stored
under the reader's own token. So I1 and I2 hold of it as of what was loaded.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import GIVEN

if TYPE_CHECKING:
    from cachee_bridge.wire.messages import Fetched
    from tests.simulation.host import Bridge, Host
    from tests.simulation.watched import Watched

BYTES_MAX = 100
PATIENCE_S = 0.3
LOOK_S = 0.01


def key_of(hashed: int) -> bytes:
    return hashed.to_bytes(8, "little")


def given_to(
    rng: random.Random, host: Host, segment: Watched, key: int
) -> Generator[float, None, Fetched | None]:
    """What some linked host gives of the key, in steps."""
    bridge = host.bridge
    if bridge is None or not bridge.alive:
        return None
    peers = sorted(bridge.mesh._links.up)
    if not peers:
        return None
    asked: list[int] = []
    peer = rng.choice(peers)
    bridge.pump()
    bridge._do(lambda: asked.append(_ask(bridge, peer, segment.namespace, key)))
    waited = 0.0
    while waited < 2 * PATIENCE_S:
        if asked and asked[0] in bridge.brought:
            fetched = bridge.brought.pop(asked[0])
            return fetched if fetched is not None and fetched.outcome == GIVEN else None
        yield LOOK_S
        waited += LOOK_S
    return None


def _ask(bridge: Bridge, peer: str, namespace: str, key: int) -> int:
    return bridge.mesh.fetches.ask(peer, namespace, key_of(key), bridge.now, PATIENCE_S)


def stored(segment: Watched, key: int, fetched: Fetched, token: int, started_ms: int, ttl_ms: int) -> bool:
    """As core/module_flights.c has a fill that was given: as old as it is there, and no longer than it lives
    there."""
    if fetched.left_ms:
        ttl_ms = min(ttl_ms or fetched.left_ms, fetched.left_ms)
    token, started_ms = token_of(segment, token), started_ms - age_of(fetched)
    return segment.fill(key, int(fetched.value), token, started_ms, ttl_ms, tags=fetched.tags)


def token_of(segment: Watched, token: int) -> int:
    """A rule of its own, so that it can be broken."""
    return token


def age_of(fetched: Fetched) -> int:
    """Another one."""
    return fetched.age_ms
