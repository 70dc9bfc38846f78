"""When a link is beaten on: soon where something is open on it, seldom where nothing is.

    since the heartbeat before         at this heartbeat
    a payload was sent or came         no beat: the next frame shows a gap sooner than a beat could
    nothing, and something is open     a beat: the peer has not said yet that it has all it was sent, so the
                                       last of it may be lost; or it was not told how far it is applied here
    nothing, and all is told           no beat, until the calm pace is due

A beat on a calm link keeps the word fresh and nothing more. The end that was dialled beats a heartbeat after
the other, not with it, so that a stamp is back before the next one leaves. What moved a ring without being of
its own host need not be confirmed by anybody: its range goes out with a calm beat as well.
"""

from __future__ import annotations

CALM_HEARTBEATS = 3
CALM_PART = 5
"""Of lost_after, at the most. A stamp leaves, and comes back with a later beat: so the word of a peer that is
well is never older than two fifths of lost_after (a quarter, by default), and what is left is for a network
that stutters and a bridge that is restarted."""


def calm_heartbeats(heartbeat_s: float, lost_after_s: float) -> int:
    """From one beat to the next on a link where nothing is open."""
    return max(1, min(CALM_HEARTBEATS, int(lost_after_s / CALM_PART / heartbeat_s + 1e-9)))


class BeatSchedule:
    """Of one link. Times are seconds; half a heartbeat is allowed for ticks that come early."""

    def __init__(self) -> None:
        self._is_still = False
        self._told = False
        """The newest beat said how far all is applied that has come."""
        self._next_at = float("-inf")

    def sent(self) -> None:
        """A payload leaves."""
        self._is_still = False

    def came(self) -> None:
        """A payload has come, or the cursor has moved as by one."""
        self._is_still = self._told = False

    def beaten(self, now: float, calm_s: float | None, heartbeat_s: float) -> None:
        """A beat leaves, whatever it was sent for. None: it spoke of what had moved alone."""
        self._told = True
        if calm_s is not None:
            self._next_at = now + calm_s - heartbeat_s / 2

    def is_calm(self, now: float) -> bool:
        """Whether the calm pace is due: everything is to be told."""
        return now >= self._next_at

    def answer(self, now: float, heartbeat_s: float) -> None:
        """A beat has come to the end that was dialled."""
        self._next_at = min(self._next_at, now + heartbeat_s / 2)

    def due(self, now: float, confirmed: bool) -> bool:
        """To be asked once at each heartbeat. `confirmed`: the peer has said that it has all it was sent."""
        was_still, self._is_still = self._is_still, True
        return now >= self._next_at or (was_still and not (self._told and confirmed))
