"""Pauses the reading of a peer that is over its budget (budget.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.wire.budget import MESSAGE_BYTES, ROW_BYTES
from cachee_bridge.wire.messages import rows_of

if TYPE_CHECKING:
    from cachee_bridge.wire.budget import Budget
    from cachee_bridge.wire.messages import Message


class Throttle:
    """Of one link."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        """The peer's budget. Once the peer's name is proven, its earlier budget replaces this one."""
        self.held_since: float | None = None
        """Since when the peer is not read, None while it is read."""
        self.times_held = 0
        self.released_at = float("-inf")
        """When it was last read again."""
        self.is_paused = False
        """Whether the carrier has been asked not to read the socket."""

    def charge(self, message: Message, now: float) -> bool:
        """Counts what `message` costs beside its bytes; whether the peer is over its budget now."""
        self.budget.owe(MESSAGE_BYTES + ROW_BYTES * rows_of(message))
        return self.budget.spent(now)

    def charge_frames(self, frames: int, now: float) -> bool:
        """As `charge` for `frames` frames, one after another."""
        self.budget.owe(MESSAGE_BYTES)
        is_spent = self.budget.spent(now)
        if frames > 1:
            self.budget.owe(MESSAGE_BYTES * (frames - 1))
            is_spent = self.budget.spent(now)
        return is_spent

    def hold(self, now: float) -> None:
        """The peer is not read from now on."""
        self.times_held += 1
        self.held_since = now

    def release(self, now: float) -> bool:
        """Whether a peer that was held may be read again."""
        if self.held_since is None or self.budget.spent(now):
            return False
        self.held_since, self.released_at = None, now
        return True
