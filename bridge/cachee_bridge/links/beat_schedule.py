"""When a beat is due on a link: soon while something is unconfirmed on it, seldom while nothing is.

    since the heartbeat before         at this heartbeat
    a payload was sent or came         no beat: the next frame shows a gap sooner than a beat could
    nothing, and something is open     a beat: the peer has not acknowledged all that it was sent, so the last
                                       frame may be lost; or it has not been sent this host's newest cursor
    nothing, and nothing is open       no beat, until the calm one is due

A calm beat keeps both ends fresh and does nothing more. The end that dialled sends it, and the end that was
dialled answers at once. So a stamp is back before the next one leaves, and a host is woken once for all its
links: calm beats are sent when the time of day is a multiple of their period, by all hosts at one moment.
Records that were applied from peers advance the ring but are not announced, so no peer acknowledges them:
their range is sent with a calm beat.
"""

from __future__ import annotations

CALM_HEARTBEATS = 3
CALM_PART = 5
"""Calm beats are at most this part of lost_after apart. The stamp of the end that was dialled comes back with
the next beat, so a healthy peer counts as heard two fifths of lost_after ago at worst (three tenths by
default). The rest of lost_after is left for a network that stutters and for the restart of a bridge."""


def calm_heartbeats(heartbeat_s: float, lost_after_s: float) -> int:
    """From one beat to the next on a link where nothing is open."""
    return max(1, min(CALM_HEARTBEATS, int(lost_after_s / CALM_PART / heartbeat_s + 1e-9)))


class BeatSchedule:
    """Of one link. Times are seconds; half a heartbeat is allowed for ticks that come early."""

    def __init__(self) -> None:
        self._is_still = False
        self._told = False
        """Whether the newest beat carried the cursors of everything that has come."""
        self._beaten_at = self._next_at = float("-inf")

    def sent(self) -> None:
        """A payload is sent."""
        self._is_still = False

    def came(self) -> None:
        """A payload has come, or the cursor has moved as if one had come."""
        self._is_still = self._told = False

    def beaten(self, now: float, next_at: float | None) -> None:
        """A beat is sent, for whatever reason. `next_at`: when the next calm one is due; None if this one has
        rows only of what had moved."""
        self._told, self._beaten_at = True, now
        if next_at is not None:
            self._next_at = next_at

    def is_calm(self, now: float) -> bool:
        """Whether a calm beat is due, which covers every shared namespace."""
        return now >= self._next_at

    def answers(self, now: float, heartbeat_s: float) -> bool:
        """A beat has come to the end that was dialled. Whether it is answered at once: soon after a beat of
        this end it is answered at the next heartbeat, however fast beats come."""
        if now >= self._beaten_at + heartbeat_s / 2:
            return True
        self._next_at = min(self._next_at, now + heartbeat_s / 2)
        return False

    def is_quiet(self, confirmed: bool) -> bool:
        """Whether nothing is due before the next calm beat, unless more is sent or comes."""
        return self._is_still and self._told and confirmed

    def due(self, now: float, confirmed: bool) -> bool:
        """Whether a beat is due; to be called once at each heartbeat. `confirmed`: the peer has acknowledged
        all that it was sent."""
        was_still, self._is_still = self._is_still, True
        return now >= self._next_at or (was_still and not (self._told and confirmed))
