"""A bridge of this process's own, which says of its peers whatever a test wants."""

from __future__ import annotations

from typing import Any

import cachee_shm
from cachee_shm.attaching import spec_for
from cachee_shm.segment import Segment


def with_bridge(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "bridge": {"listen": "127.0.0.1:7946"}}


class Bridge:
    """Its attachment holds the bridge's lock, as long as it is open."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.segment = Segment(spec_for("shop", with_bridge(config), False))
        assert self.segment.bridge_acquire()
        self.vouch()

    def vouch(self, ms: int = 60_000) -> None:
        self.segment.bridge_vouch(self.segment.now_ms() + ms)

    def tell(self, name: str, acked: int | None, reachable: bool = True, fresh_ms: int = 1) -> int:
        index = self.segment.source_open(name)
        if acked is not None:
            self.segment.source_acked(index, acked)
        self.segment.source_tell(index, reachable, fresh_ms)
        return index

    def close(self) -> None:
        self.segment.close()


def attach(config: dict[str, Any]) -> cachee_shm.Cache:
    return cachee_shm.attach(config=with_bridge(config))
