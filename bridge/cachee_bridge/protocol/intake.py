"""Received messages, one by one: each is charged to its sender's budget, and no link is handled for long at a
time.

a slice    at most SLICE_COST of one link's messages, then the other links have their turn. The rest of the
           link's bytes waits in its decoder. The link is not read meanwhile (Pause); `go_on` gives it the
           next slice
over       a peer that is over its budget is not read until it is within its budget again. What it has sent
           waits in its decoder (at most one read of the socket), then in the kernels
answers    a peer that asks for cursors (SYNC) is answered at the end of the slice, once, and is charged
           for the answer's rows. A beat is answered there as well, by the end that was dialled
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cachee_bridge.links.link import Link
from cachee_bridge.ports.effects import Pause, Resume
from cachee_bridge.streams.buckets import is_piece
from cachee_bridge.streams.stream import PACK_BYTES
from cachee_bridge.wire.budget import MESSAGE_BYTES, ROW_BYTES
from cachee_bridge.wire.messages import Frame, Message
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.protocol.beats import Beats
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.receiving import Receiving

SLICE_COST = 64 * 1024
"""In bytes of a budget, of which 16 MiB a second are two thirds of a core: about 3 ms. It is two usual
frames, or 64 messages without anything in them."""
HELD_SAID_S = 60.0
"""Between two log lines that say that one link is over its budget."""

OnMessage = Callable[[Link, Message, float], None]
Guarded = Callable[..., None]
"""guarded(link, now, call, *arguments): a BridgeError of the call closes the link."""


class Intake:
    """The intake of all links of one host."""

    def __init__(
        self,
        beats: Beats,
        receiving: Receiving,
        on_message: OnMessage,
        guarded: Guarded,
        effects: Collected,
    ) -> None:
        self._beats, self._receiving, self._on_message = beats, receiving, on_message
        self._guarded, self._effects = guarded, effects
        self._waiting: dict[Link, None] = {}
        """For their next slice, the next in turn first. Closed links are dropped when their turn comes."""

    @property
    def waits(self) -> bool:
        """Whether `go_on` has something to do."""
        while self._waiting and (link := next(iter(self._waiting))).is_closed:
            del self._waiting[link]
        return bool(self._waiting)

    def receive(self, link: Link, data: bytes, now: float, wire_bytes: int = 0) -> None:
        """Bytes have come on `link`; `wire_bytes`: how many the peer sent for them."""
        link.heard_at = now
        link.throttle.budget.owe(max(len(data), wire_bytes))
        if link.throttle.held_since is not None or link in self._waiting:
            link.decoder.keep(data)  # under way when it was paused
        else:
            self._hear(link, data, now)

    def go_on(self, now: float) -> None:
        """The next slice of what waits."""
        if self.waits:
            link = next(iter(self._waiting))
            del self._waiting[link]
            self._hear(link, b"", now)

    def read_on(self, links: Iterable[Link], now: float) -> None:
        """Resume reading the links whose peers are within their budgets again."""
        for link in [known for known in links if known.throttle.release(now)]:
            if not link.is_closed:  # by a message of another of these links
                self._hear(link, b"", now)

    def _hear(self, link: Link, data: bytes, now: float) -> None:
        """Handle one slice. If nothing is left of the link's bytes, the link is read again."""
        self._guarded(link, now, self._slice, link, data, now)
        if link.syncs and not link.is_closed:
            self._guarded(link, now, self._answer, link, now)
        if link.owes_beat and not link.is_closed:
            self._guarded(link, now, self._beats.answer_beat, link, now)
        if link.is_closed:
            return
        over = link.throttle.held_since is not None
        if not over and link.decoder.kept and link.decoder.has_message:
            self._waiting[link] = None
        if link.throttle.is_paused != (over or link in self._waiting):
            link.throttle.is_paused = not link.throttle.is_paused
            self._effects.add(Pause(link.number) if link.throttle.is_paused else Resume(link.number))

    def _slice(self, link: Link, data: bytes, now: float) -> None:
        ends_at = link.throttle.budget.owed + SLICE_COST
        link.decoder.keep(data)
        while link.decoder.kept:
            frames = self._take_frames(link, ends_at, now) if link.up and link.decoder.may_be_frame else 0
            if frames:
                is_over = link.throttle.charge_frames(frames, now)
            else:
                message = link.decoder.take()
                if message is None:
                    return
                _check_length(message)
                self._on_message(link, message, now)
                if link.is_closed:
                    return
                is_over = link.throttle.charge(message, now)
            if is_over:
                self._hold(link, now)
                return
            if link.throttle.budget.owed >= ends_at:
                return

    def _take_frames(self, link: Link, ends_at: float, now: float) -> int:
        """Apply ordinary frames in C, as many as would be handled one by one until the slice or the budget
        ends."""
        budget = link.throttle.budget
        frames_max = math.ceil((ends_at - budget.owed) / MESSAGE_BYTES)
        return self._receiving.take_frames(link, budget.lasts(MESSAGE_BYTES, frames_max, now))

    def _answer(self, link: Link, now: float) -> None:
        asked, link.syncs = link.syncs, {}
        rows = self._beats.answer(link, asked, now)
        link.throttle.budget.owe(ROW_BYTES * rows)

    def _hold(self, link: Link, now: float) -> None:
        if now >= link.complain_at:
            link.complain_at = now + HELD_SAID_S
            budget = f"{link.throttle.budget.bytes_per_s / 2**20:g} MiB a second"
            self._effects.say(
                "warning", f"{link} is over its peer_budget ({budget}): read more slowly", peer=link.name
            )
        link.throttle.hold(now)


def _check_length(message: Message) -> None:
    """FrameError for too many keys: they are applied at once, at most 5 ms of them. Maps come in pieces and
    are applied in parts."""
    if isinstance(message, Frame) and len(message.payload) > PACK_BYTES and not is_piece(message.payload):
        raise FrameError(
            f"a Frame with {len(message.payload)} bytes of keys; {PACK_BYTES} are taken; the link is closed"
        )
