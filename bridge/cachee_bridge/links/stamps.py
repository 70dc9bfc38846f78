"""Stamps of a link's two ends, and their echoes: how old a message of the peer may be.

A stamp is the sender's clock in microseconds. The peer echoes the newest stamp that it has received. So when
an echo comes back, this host knows by its own clock alone that the peer's message is no older than that
stamp. The peer's newest stamp is kept here to be echoed.

The last HEARD_MAX stamps of the peer are remembered with the times at which they came. From them a relay
computes how old its report about a source is, by the receiver's clock: the receiver's newest stamp, minus the
newest one that had come when the report was current."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import AGE_UNKNOWN
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.wire.messages import Beat, Calm

HEARD_MAX = 64
HEARD_S = 0.05
"""Stamps of the peer that are remembered, and how far apart: a relay's report seems older by up to
HEARD_S."""


class Stamps:
    """Of one link."""

    def __init__(self, now: float) -> None:
        self.opened_at = self.echoed_at = now
        """When the link was opened; when an echo last came that is newer than those before it."""
        self.newest_heard = 0
        """The newest stamp of the peer, to be echoed; 0 = none has come."""
        self.stamped_at = now
        """When the newest stamp was sent (the HELLO counts as the first)."""
        self.echoed = 0
        """The newest of this side's stamps that came back, in microseconds."""
        self._heard: deque[tuple[float, int]] = deque(maxlen=HEARD_MAX)
        """(when it came, stamp of the peer)."""

    def next(self, now: float) -> int:
        """A stamp to put into a beat that is sent now.

        Stamps do not go back, or an echo would be refused: the `now` of a tick may be a little earlier than
        that of the HELLO, or of a beat that the peer has asked for.
        """
        self.stamped_at = max(self.stamped_at, now)
        return microseconds(self.stamped_at)

    def take(self, beat: Beat | Calm, now: float) -> float | None:
        """When the stamp that `beat` echoes left this host, in seconds; None if it echoes none yet.

        FrameError for an echo of a stamp that was never sent on this link.
        """
        if beat.stamp > self.newest_heard:
            self.newest_heard = beat.stamp
            if not self._heard or now >= self._heard[-1][0] + HEARD_S:
                self._heard.append((now, beat.stamp))
        if not beat.echo:
            return None
        if not microseconds(self.opened_at) <= beat.echo <= microseconds(self.stamped_at):
            raise FrameError("a stamp came back that was never sent on this link; the link is closed")
        if beat.echo > self.echoed:
            self.echoed, self.echoed_at = beat.echo, now
        return beat.echo / 1e6

    def age_of(self, at: float) -> int:
        """How old a report is that was current at `at`, by the peer's clock, in microseconds.

        That is the newest of the peer's stamps, less the newest that had come by then. AGE_UNKNOWN: none had.
        """
        for came, stamp in reversed(self._heard):
            if came <= at:
                return self.newest_heard - stamp
        return AGE_UNKNOWN


def microseconds(now: float) -> int:
    """Rounded down: a stamp may look older than it is, never newer."""
    return int(now * 1e6)
