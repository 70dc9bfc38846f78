"""The frames that a relay keeps of a source, and what it has sent of them to each follower.

    frames as they were applied here     | 1..40 | 41..41 | 42..90 | ......
                                            start ^ (dropped before)      ^ end

The positions are the source's: a follower can tell a relayed frame from the source's own only by the link.
The log is contiguous. Where this host itself has jumped (a map of buckets, a flush), the log begins anew
after the jump. A follower that lacks earlier records must ask the source.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from cachee_bridge.streams.buckets import is_piece
from cachee_bridge.wire.frames import frames_of
from cachee_bridge.wire.messages import PAYLOADS_ALL, Frame

LOG_BYTES = 1 << 20
"""Of one source: enough for a socket that is slow for a moment. All logs together have LOGS_BYTES, in equal
parts."""
LOGS_BYTES = 8 << 20
FRAME_COST = 128
"""Bytes that an entry takes beside its payload."""


def may_be_relayed(payload: bytes) -> bool:
    """False for maps and ALL: they stand for records that this host has missed, and a follower may have
    missed fewer."""
    return not is_piece(payload) and payload not in PAYLOADS_ALL


Undecoded = tuple[bytes, bool, int, int]
"""Frames that follow each other without a gap, as they came: the bytes, whether each has a seal, how many,
and the last position. Most are dropped before a follower asks for them."""


def _cost(came: Undecoded) -> int:
    return FRAME_COST * came[2] + len(came[0])


class Log:
    def __init__(self, incarnation: int, cursor: int) -> None:
        """`cursor`: how far the source has been applied here."""
        self.incarnation, self.start, self.end = incarnation, cursor, cursor
        self.number = 0
        """The number of the oldest frame; the next one has one more."""
        self._frames: deque[Frame] = deque()
        self._undecoded: deque[Undecoded] = deque()
        """What follows `_frames`."""
        self._bytes = 0

    def begin(self, incarnation: int, cursor: int) -> None:
        """Begin again after a gap. Nothing is sent across the gap to any follower, because even a follower
        that was up to date has now missed records."""
        self.number += len(self._frames) + sum(came[2] for came in self._undecoded) + 1
        self._frames.clear()
        self._undecoded.clear()
        self._bytes = 0
        self.incarnation, self.start, self.end = incarnation, cursor, cursor

    def add(self, frame: Frame, bytes_max: int) -> None:
        """It has just been applied, and the cursor is its last."""
        self._decode()
        gap = frame.incarnation != self.incarnation or frame.first > self.end + 1
        if gap or not may_be_relayed(frame.payload):
            self.begin(frame.incarnation, frame.last)
            return
        self._frames.append(frame)
        self._bytes += FRAME_COST + len(frame.payload)
        self.end = frame.last
        self._drop(bytes_max)

    def add_undecoded(self, incarnation: int, cursor: int, came: Undecoded, bytes_max: int) -> None:
        """They have just been applied, from `cursor` on to their last. Each may be relayed."""
        if incarnation != self.incarnation or cursor > self.end:
            self.begin(incarnation, came[3])
            return
        self._undecoded.append(came)
        self._bytes += _cost(came)
        self.end = came[3]
        if _cost(came) > bytes_max:  # a part of it may have room
            self._decode()
        if self._bytes > bytes_max:
            self._drop(bytes_max)

    def _drop(self, bytes_max: int) -> None:
        """The oldest, but for what came last. What was not decoded goes as it came, all at once."""
        while self._bytes > bytes_max and len(self._frames) + len(self._undecoded) > 1:
            if self._frames:
                frame = self._frames.popleft()
                self.number += 1
                self._bytes -= FRAME_COST + len(frame.payload)
                self.start = frame.last
            else:
                came = self._undecoded.popleft()
                self.number += came[2]
                self._bytes -= _cost(came)
                self.start = came[3]

    def _decode(self) -> None:
        """Decode the frames: a follower asks for them, or a decoded frame follows."""
        while self._undecoded:
            came = self._undecoded.popleft()
            self._bytes -= _cost(came)
            for frame in frames_of(*came[:2]):
                self._frames.append(frame)
                self._bytes += FRAME_COST + len(frame.payload)

    def frame(self, number: int) -> Frame | None:
        """None: the frame has not come yet."""
        self._decode()
        at = number - self.number
        return self._frames[at] if at < len(self._frames) else None

    def after(self, cursor: int) -> int:
        """The number of the first frame that reaches beyond `cursor`."""
        self._decode()
        at = len(self._frames)
        while at and self._frames[at - 1].last > cursor:
            at -= 1
        return self.number + at

    def bytes_after(self, cursor: int) -> int:
        """The bytes of all frames after `cursor`."""
        frames = islice(self._frames, self.after(cursor) - self.number, None)
        return sum(FRAME_COST + len(frame.payload) for frame in frames)


class RelayOutbox:
    """What one link has been sent of a source's log. It sends nothing before the peer asks."""

    def __init__(self, namespace: str, source: str, log: Log) -> None:
        self._namespace, self._source, self._log = namespace, source, log
        self._incarnation = 0
        self._cursor = self._scanned = 0
        """The range between the two evicts nothing, and has not been sent."""
        self._number = -1

    def ask(self, incarnation: int, first: int) -> None:
        """The peer wants all records from `first` on of that incarnation of the source."""
        log = self._log
        self._incarnation = incarnation
        self._cursor = self._scanned = first - 1
        self._number = log.after(first - 1) if incarnation == log.incarnation and first > log.start else -1

    @property
    def serves(self) -> bool:
        """Whether the peer is sent all that it asked for."""
        return self._incarnation == self._log.incarnation and self._number >= self._log.number

    def next(self) -> Frame | None:
        """The next frame with something in it, or None."""
        while self.serves and (frame := self._log.frame(self._number)) is not None:
            self._number += 1
            first, self._scanned = min(frame.first, self._cursor + 1), max(self._scanned, frame.last)
            if frame.payload:
                self._cursor = self._scanned
                return self._range(first, frame.payload)
        return None

    def empty(self) -> Frame | None:
        """A frame for the range in which nothing was the source's own."""
        if not self.serves or self._scanned <= self._cursor:
            return None
        first, self._cursor = self._cursor + 1, self._scanned
        return self._range(first, b"")

    def _range(self, first: int, payload: bytes) -> Frame:
        return Frame(self._namespace, self._source, self._incarnation, first, self._scanned, payload)
