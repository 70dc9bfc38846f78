"""The stream of one source in one namespace: Outbox at the source (one per link), Inbox at the receiver.

    source's ring    1 . . . . . . . cursor | . . . . scanned | . . . pump_cursor . . . tail
                     sent on this link      | nothing of ours | healed at home  | not yet to be sent

A frame covers first..last of the source's ring; its payload is the source's own announcements among them.
There is no queue: what has not been sent is in the ring. Most links have been sent the same, so one call of
the segment heals what was written, packs it, and frames it for all of them (Packer.heal); an Outbox reads the
ring itself for a link that lacks more, or has no room. When the ring has lost it, the segment still knows
in which buckets we wrote, and a map of them stands for it (buckets.py); if nothing was ours, none is sent.
Such ranges cost no frame of their own: they ride in the next one, or are sent with a beat.

The receiver owns the cursor. It asks (REPLAY) and the source streams from there. What follows from a frame:

    incarnation lower      drop                     last <= cursor         drop
    incarnation higher     adopt (repair.py)        first > cursor + 1     gap: ask
    a map is being applied                          drop, and ask when that is done
    else: apply (fences, then evictions), then keep the cursor; of a map, when all its pieces are here

A crash between the two applies a range twice; never half of it counts. A frame that overlaps the cursor is
applied whole: coalesced records cannot be told apart, and evicting twice is safe.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from cachee_bridge.ports.views import Repairs
from cachee_bridge.streams.buckets import (
    BUCKETS,
    Arriving,
    MapApplication,
    Taken,
    is_piece,
    pieces_of,
    read_piece,
)
from cachee_bridge.streams.freshness import Freshness, Word
from cachee_bridge.streams.repair import Asker
from cachee_bridge.wire.frames import head_of
from cachee_bridge.wire.messages import PAYLOAD_ALL, Frame
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

PACK_RECORDS = 4096
"""Ring positions in one frame: 70 KB if each is a KEY_SET, and 30 us of C."""
PACK_BYTES = 128 * 1024
STUCK_BEATS = 4
"""So many beats from beyond the cursor without progress: lost. Fewer, and a slow link is asked twice."""


class Healed(NamedTuple):
    """What one call has healed, and the frame of it that all links are sent that are at `after`."""

    cursor: int
    """Healed before: it began behind this."""
    healed: int
    after: int
    """Between this and `cursor` is nothing of ours."""
    to: int
    """The frame speaks of what was healed up to here; of nothing, if it is `cursor`."""
    frame: bytes
    """An encoded FRAME of after+1..to; b"": nothing of ours is in that range."""


class Packer:
    """Reads one ring for many links: those that are at the same cursor share one pack.

    What was packed stays right: a position's record and its digest never change.
    """

    def __init__(self, store: Store, namespace: str, source: str) -> None:
        self._store = store
        self._names = namespace, source
        self._head = (-1, b"")
        """The incarnation, and the head of its frames."""
        self.sent = self._blank_to = 0
        """sent+1.._blank_to is healed, and holds nothing of ours. No link has been sent more than `sent`."""
        self._key = (-1, -1)
        self._packed: tuple[int, bytes] | None = None
        self._piece_key = (-1, -1, -1)
        self._piece = b""
        self._frame: Frame | None = None

    def __call__(self, cursor: int, max_records: int, max_bytes: int) -> tuple[int, bytes] | None:
        key = (cursor, max_records)
        if key != self._key:
            self._packed = self._store.pack(cursor, max_records, max_bytes)
            self._key = key
        return self._packed

    def heal(self, max_records: int) -> Healed:
        """Heals at home what this host wrote after the last healed position, and frames it for the links that
        have been sent all before it."""
        cursor, incarnation = self._store.pump_cursor, self._store.incarnation
        if self._head[0] != incarnation:
            self._head = incarnation, head_of(*self._names, incarnation)
        after = self.sent if self._blank_to == cursor else cursor
        healed, to, frame = self._store.heal(cursor, max_records, after, self._head[1])
        if frame:
            self.sent = self._blank_to = to
        elif self._blank_to == cursor:
            self._blank_to = to
        return Healed(cursor, healed, after, to, frame)

    def was_sent(self, last: int) -> None:
        """Some link has been sent all up to `last`."""
        if last > self.sent:
            self.sent, self._blank_to = last, max(last, self._blank_to)

    def frame(self, namespace: str, source: str, first: int, last: int, payload: bytes) -> Frame:
        """The same object for each link that is to be sent the same, so that it is encoded once."""
        frame = Frame(namespace, source, self._store.incarnation, first, last, payload)
        if self._frame != frame:
            self._frame = frame
        return self._frame

    def piece(self, cursor: int, last: int, number: int) -> bytes:
        """The payload that stands for part of cursor+1..last, which are written: a piece read later is as
        good."""
        key = (cursor, last, number)
        if key != self._piece_key:
            self._piece = read_piece(self._store, cursor, number)
            self._piece_key = key
        return self._piece


class Outbox:
    """What one link has been sent of this host's ring. Comes to life when the peer asks."""

    def __init__(self, namespace: str, source: str, store: Store, packer: Packer) -> None:
        self._namespace, self._source, self._store, self._packer = namespace, source, store, packer
        self.asked = False
        self.cursor = 0
        self.scanned = 0
        """cursor..scanned holds nothing of ours, and has not been sent."""
        self.reached = 0
        """The highest cursor so far: what lies below it is sent once more."""
        self.looked = 0
        """The highest position that was looked at before the peer last asked."""
        self.carried = 0
        """The end of the newest range with anything in it: the peer is expected to say that it has it."""
        self.lapped = 0
        """How often the ring had lost what this link still needed."""
        self._mapped = 0
        """While the pieces of a map are sent: the end of its range, else 0."""
        self._pieces = 0
        """Of it that were sent."""

    @property
    def again(self) -> bool:
        """Whether the next frame has been sent before."""
        return self.cursor < self.reached

    def ask(self, first: int) -> None:
        """The peer wants first.. and what follows, whatever it has been sent before."""
        self.asked = True
        self.reached = max(self.reached, self.cursor, self._mapped)
        self.looked = max(self.looked, self.scanned)
        self.cursor = self.scanned = first - 1
        self._mapped = 0

    def rest(self) -> None:
        """The peer follows this host through a relay from now on."""
        self.asked, self._mapped = False, 0

    def takes(self, healed: Healed) -> bool:
        """Whether its frame is what this link is to be sent next, for the first time. If so, it counts as
        sent."""
        fits = self.asked and self.cursor == healed.after and not self._mapped
        if not fits or healed.after < max(self.reached, self.looked):
            return False
        self.cursor = self.scanned = self.carried = healed.to
        return True

    def next(self) -> Frame | None:
        """The next frame with something in it, or None. Never beyond what has been healed at home."""
        if self._mapped:
            return self._next_piece()
        healed = self._store.pump_cursor
        while self.asked and self.scanned < healed:
            packed = self._packer(self.scanned, min(PACK_RECORDS, healed - self.scanned), PACK_BYTES)
            last, payload = packed if packed is not None else (healed, self._lost())
            if last <= self.scanned:
                return None
            if payload == bytes((BUCKETS,)):
                self._mapped, self._pieces = last, 0
                return self._next_piece()
            if payload:
                return self._frame(last, payload)
            self.scanned = last
        return None

    def _lost(self) -> bytes:
        self.lapped += 1
        return self._store.missed(self.scanned)

    def _next_piece(self) -> Frame:
        """The cursor moves with the last of them."""
        self._pieces += 1
        payload = self._packer.piece(self.scanned, self._mapped, self._pieces)
        frame = self._range(self._mapped, payload)
        if self._pieces == pieces_of(self._store.map_bytes):
            self.cursor = self.scanned = self.carried = self._mapped
            self._mapped = 0
        return frame

    def empty(self) -> Frame | None:
        """A frame for the range in which nothing was ours, so that the peer's cursor can reach the head."""
        waits = self.asked and self.scanned > self.cursor and not self._mapped
        return self._frame(self.scanned, b"") if waits else None

    def _frame(self, last: int, payload: bytes) -> Frame:
        frame = self._range(last, payload)
        self.cursor = self.scanned = last
        if payload:
            self.carried = last
        self._packer.was_sent(last)
        return frame

    def _range(self, last: int, payload: bytes) -> Frame:
        return self._packer.frame(self._namespace, self._source, self.cursor + 1, last, payload)


class Verdict(Enum):
    APPLIED = auto()
    KEPT = auto()
    """A piece of a map; others must follow."""
    MAP = auto()
    """The last piece: its first fences are raised, `apply_map` goes on."""
    WAITS = auto()
    """Not taken while a map is being applied; to be asked for after it."""
    OLD_INCARNATION = auto()
    NEW_INCARNATION = auto()
    DUPLICATE = auto()
    GAP = auto()


class Inbox:
    """How far one source has been applied here, and how fresh it is."""

    def __init__(
        self,
        store: Store,
        index: int,
        incarnation: int,
        cursor: int,
        pace_s: float,
        word: Word | None = None,
        namespace: str = "",
    ) -> None:
        """`pace_s`: the least time between two requests for the same replay. `word`: of the source."""
        self._word = word if word is not None else Word()
        self._namespace = namespace
        self._store = store
        self.index = index
        self.incarnation = incarnation
        self.cursor = cursor
        self.head = cursor
        """The newest tail that the source has told."""
        self.final: int | None = None
        """The head with which it said that it leaves."""
        self.freshness = Freshness(self._word)
        self.asker = Asker(pace_s)
        self.repairs = Repairs()
        self.applying: MapApplication | None = None
        """A map that is being applied: the cursor has not moved yet."""
        self.held_back = False
        """Something was dropped meanwhile."""
        self._arriving = Arriving()
        self._moved = False
        """Since the last beat."""
        self._beats_behind = 0

    def verdict_of(self, frame: Frame) -> Verdict:
        """What to do with `frame`, before anything has been done."""
        if frame.incarnation != self.incarnation:
            higher = frame.incarnation > self.incarnation
            return Verdict.NEW_INCARNATION if higher else Verdict.OLD_INCARNATION
        if frame.last <= self.cursor:
            return Verdict.DUPLICATE
        if self.applying is not None:
            return Verdict.WAITS
        return Verdict.GAP if frame.first > self.cursor + 1 else Verdict.APPLIED

    def receive(self, frame: Frame) -> Verdict:
        """Apply if that is the verdict. FrameError if the payload is malformed: nothing has
        changed."""
        verdict = self.verdict_of(frame)
        self.held_back |= verdict is Verdict.WAITS
        if verdict is not Verdict.APPLIED:
            return verdict
        try:
            if is_piece(frame.payload):
                return self._collect(frame)
            if frame.payload:
                self._store.apply(self.index, frame.payload)
        except ValueError as error:
            raise FrameError(f"a payload that does not parse: {error}; the link is closed") from None
        self.repairs.flushes += frame.payload == PAYLOAD_ALL
        self._keep(frame.last)
        return verdict

    def take(
        self, head: bytes, data: bytearray, sealed: bool, frames_max: int
    ) -> tuple[int, int, int, int] | None:
        """Apply the ordinary frames with which `data` begins (`head`: how those of this stream do), without
        looking at each: see Store.receive. None: the first is none, so `receive` has to look at it."""
        if self.applying is not None or self.final is not None:
            return None
        taken = self._store.receive(self.index, self.incarnation, self.cursor, head, data, sealed, frames_max)
        if taken is not None:
            self._came(taken[1])
        return taken

    def _collect(self, frame: Frame) -> Verdict:
        taken = self._arriving.take(frame.first, frame.last, frame.payload)
        if taken is Taken.WHOLE:
            whole = bytes(self._arriving.map)
            self._arriving.drop()
            self.applying = MapApplication(self._store, self.index, frame.last, whole)
            self.held_back = False
            return Verdict.MAP
        if taken is Taken.MORE:
            self._moved = True
            self.asker.forget()
        return Verdict.GAP if taken is Taken.TORN else Verdict.KEPT

    def apply_map(self) -> MapApplication | None:
        """Some more of the map that is being applied; the map itself, once it is all applied and kept."""
        applying = self.applying
        if applying is None or not applying.go_on():
            return None
        self.applying = None
        self.repairs.maps += 1
        self._keep(applying.last)
        return applying

    def begin(self, incarnation: int, cursor: int, flush: bool) -> None:
        """Follow `incarnation` from `cursor` on; `flush` first evicts all that is older than now."""
        if flush:
            self._store.apply(self.index, PAYLOAD_ALL)
            self.repairs.flushes += 1
        self.repairs.incarnations += self.incarnation not in (0, incarnation)
        self.incarnation = incarnation
        self.applying = None
        self._arriving.drop()
        self.final = None
        self.head = cursor
        self.freshness.restarted()
        self.asker.forget()
        self._keep(cursor)

    def linked(self) -> None:
        """A new link: what was asked on the one before, or half told, does not count."""
        self.asker.forget()
        self._arriving.drop()

    def head_heard(self, head: int, stamp: float | None) -> bool:
        """The source's tail was `head` after `stamp` had been sent to it (None: no stamp came back yet).

        Returns whether it looks as if records got lost: behind for some beats, and no nearer.
        """
        waits = self.cursor < min(self.head, head) and not self._moved and self.applying is None
        self._beats_behind = self._beats_behind + 1 if waits else 0
        self._moved = False
        self.head = max(self.head, head)
        if self.final is not None and head > self.final:
            self.final = None
        if stamp is not None and head >= self.cursor:  # else it is older than what another link has brought
            self.freshness.head_heard(stamp, head, self.cursor)
        return self._beats_behind >= STUCK_BEATS

    def departed(self) -> bool:
        """Whether it has left and everything it said has been applied."""
        return self.final is not None and self.cursor >= self.final

    def _keep(self, cursor: int) -> None:
        self._store.source_store(self.index, self.incarnation, cursor)
        self._came(cursor)

    def _came(self, cursor: int) -> None:
        """The segment has the cursor."""
        self._word.stirred.add(self._namespace)
        self._moved = True
        self.cursor = cursor
        self.head = max(self.head, cursor)
        self.freshness.applied(cursor)
