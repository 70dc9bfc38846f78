"""How a namespace fares on this host, for people and probes: all of it is read from the segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from cachee_shm.errors import Closed, SegmentError

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Health", "PeerHealth", "health"]

BridgeState = Literal["none", "up", "hung", "down", "left"]


class PeerHealth(NamedTuple):
    """One other host, as this host's bridge last told of it.

    ``reachable``: it was heard within ``lost_after``; ``wait_synced`` waits for it. If not, this host is
    isolated from it. ``applied``: how far it says that it has applied this host's ring; None: it has not
    said. ``lag``: the records of that ring which it has not. ``stale_s``: what it announced longer ago than
    that, in seconds, is applied here; None: nothing is known to be.
    """

    name: str
    reachable: bool
    applied: int | None
    lag: int
    stale_s: float | None


class Health(NamedTuple):
    """``ok``: the segment works; where a bridge is configured it runs, and no source is too long unheard.

    ``error``: what is wrong with the segment, "" if nothing is; where there is none at present, why.
    ``bridge``: "none" is configured, "up", "hung" (it lives and has not told of its peers for
    ``lost_after``, or not yet), "down", or "left" (it has said farewell to the peers, and none has come
    back: they hear of no write, and do not wait for any; what is written is announced first when it is
    back). ``bridge_s``: for how many seconds it has been so; None: there is none, or it has never told of
    its peers.
    ``isolated``: readers follow ``on_isolation`` now. ``peers``: every other host of the namespace that is
    known and has not left. ``tail``: the last position of this host's ring. ``free_bytes``: value memory
    that holds nothing; little, once a cache is full.
    """

    ok: bool
    error: str
    bridge: BridgeState
    bridge_s: float | None
    isolated: bool
    peers: tuple[PeerHealth, ...]
    tail: int
    free_bytes: int

    @property
    def unreachable(self) -> list[str]:
        """Names of the peers that this host is isolated from."""
        return [peer.name for peer in self.peers if not peer.reachable]


def health(segment: Segment) -> Health:
    """See ``Cache.health``."""
    try:
        return _look(segment)
    except Closed:
        raise
    except SegmentError as error:
        return _broken(segment, str(error))


def _broken(segment: Segment, error: str) -> Health:
    bridge: BridgeState = "down" if segment.spec.has_bridge else "none"
    return Health(False, error, bridge, None, segment.spec.has_bridge, (), 0, 0)


def _look(segment: Segment) -> Health:
    now, tail, free = segment.now_ms(), segment.tail, segment._free_bytes()
    if segment.detached:
        return _broken(segment, segment.detached_because)
    if not segment.spec.has_bridge:
        return Health(True, "", "none", None, False, (), tail, free)
    bridge, bridge_s = _bridge(segment, now)
    isolated = segment.serve_until < now
    peers = tuple(_peer(row, tail, now) for row in sorted(segment._peers()))
    ok = bridge == "up" and not isolated and all(peer.reachable for peer in peers)
    return Health(ok, "", bridge, bridge_s, isolated, peers, tail, free)


def _bridge(segment: Segment, now: int) -> tuple[BridgeState, float | None]:
    alive, since, told, until = segment._bridge()
    if segment._left():
        return "left", _seconds(told, now)
    if alive and until >= now:
        return "up", _seconds(since, now)
    return ("hung", _seconds(max(since, told), now)) if alive else ("down", _seconds(told, now))


def _peer(row: tuple[str, bool, int | None, int], tail: int, now: int) -> PeerHealth:
    name, reachable, applied, fresh = row
    return PeerHealth(name, reachable, applied, max(0, tail - (applied or 0)), _seconds(fresh, now))


def _seconds(since: int, now: int) -> float | None:
    return max(0, now - since) / 1000 if since else None
