"""The stream of one source in one namespace: Outbox at the source (one per link), Inbox at the receiver.

    source's ring    1 . . . . . . . cursor | . . . . scanned | . . . pump_cursor . . . tail
                     sent on this link      | nothing of ours | healed at home  | not yet to be sent

A frame covers first..last of the source's ring; its payload is the source's own announcements among them.
There is no queue: records that have not been sent are in the ring. Most links have been sent the same
records, so one call of the segment heals the new records, packs them, and makes one frame for all these links
(Packer.heal). For a link that lacks more, or has no room, its Outbox reads the ring itself. If the ring no
longer has the records, the segment still knows in which buckets this host wrote, and a map of them is sent
instead (buckets.py). A range without own records is covered by the next frame or beat.

The receiver owns the cursor. It asks (REPLAY) and the source streams from there. A frame is handled so:

    incarnation lower      drop                     last <= cursor         drop
    incarnation higher     adopt (repair.py)        first > cursor + 1     gap: ask
    a map is being applied                          drop, and ask when that is done
    else: apply (fences, then evictions), then keep the cursor; of a map, when all its pieces are here

After a crash between the two, the range is applied again. A frame that overlaps the cursor is applied as a
whole: its records are coalesced, and evicting twice is safe.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from cachee_bridge.ports.views import Repairs
from cachee_bridge.streams.buckets import Arriving, MapApplication, Taken, is_piece, pieces_of, read_piece
from cachee_bridge.streams.freshness import Freshness, Word
from cachee_bridge.streams.repair import Asker
from cachee_bridge.wire.frames import head_of
from cachee_bridge.wire.messages import PAYLOAD_ALL, PAYLOAD_ALL_KNOWN, PAYLOADS_ALL, Frame
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.ports.store import Store

PACK_RECORDS = 4096
"""Ring positions in one frame: 70 KB if each is a KEY_SET, and 30 us of C."""
PACK_BYTES = 128 * 1024
STUCK_BEATS = 4
"""After this many beats with a head beyond the cursor and no progress, records count as lost. With a lower
number, a slow link would be asked twice."""


class Healed(NamedTuple):
    """What one call has healed, and the frame of it for all links that are at `after`."""

    cursor: int
    """The position up to which the ring was healed before this call."""
    healed: int
    after: int
    """Between this and `cursor` there are no records of this host."""
    to: int
    """The frame covers what was healed up to here; nothing, if it equals `cursor`."""
    frame: bytes
    """An encoded FRAME of after+1..to; b"": the range has no records of this host."""


class Packer:
    """Reads one ring for many links: those that are at the same cursor share one pack.

    A pack stays valid, because a position's record and its digest never change.
    """

    def __init__(self, store: Store, namespace: str, source: str) -> None:
        self._store = store
        self._names = namespace, source
        self._head = (-1, b"")
        """The incarnation, and the head of its frames."""
        self.sent = self._blank_to = store.pump_cursor
        """sent+1.._blank_to is healed, and has no records of this host. No link has been sent more than
        `sent`."""
        self._carried = store.pump_cursor
        """_carried+1.._blank_to has no records of this host. An empty range that one link was sent raises
        `sent`, but not this: the other links are sent it by their next beats only."""
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
        """Heals what this host wrote after the last healed position, and makes a frame for the links that
        have been sent everything before it."""
        cursor, incarnation = self._store.pump_cursor, self._store.incarnation
        if self._head[0] != incarnation:
            self._head = incarnation, head_of(*self._names, incarnation)
        after = self.sent if self._blank_to == cursor else cursor
        healed, to, frame = self._store.heal(cursor, max_records, after, self._head[1])
        if frame:
            self.sent = self._blank_to = self._carried = to
        elif self._blank_to == cursor:
            self._blank_to = to
        return Healed(cursor, healed, after, to, frame)

    def announced(self) -> int:
        """No announcement of this host is beyond this; the tail, while it is not known better."""
        tail = self._store.tail
        return self._carried if self._blank_to >= tail else tail

    def was_sent(self, first: int, last: int, carries: bool) -> None:
        """Some link has been sent all up to `last`. `carries`: first..last has records of this host."""
        if last > self.sent:
            if carries or first > self._blank_to + 1:
                self._carried = last
            self.sent, self._blank_to = last, max(last, self._blank_to)

    def frame(self, namespace: str, source: str, first: int, last: int, payload: bytes) -> Frame:
        """The same object for each link that is to be sent the same, so that it is encoded once."""
        frame = Frame(namespace, source, self._store.incarnation, first, last, payload)
        if self._frame != frame:
            self._frame = frame
        return self._frame

    def piece(self, cursor: int, last: int, number: int) -> bytes:
        """One piece of the map for cursor+1..last. It does not matter when a piece is read: later ones only
        list more."""
        key = (cursor, last, number)
        if key != self._piece_key:
            self._piece = read_piece(self._store, cursor, number)
            self._piece_key = key
        return self._piece


class Outbox:
    """What one link has been sent of this host's ring. It sends nothing before the peer asks."""

    def __init__(self, namespace: str, source: str, store: Store, packer: Packer) -> None:
        self._namespace, self._source, self._store, self._packer = namespace, source, store, packer
        self.asked = False
        self.cursor = 0
        self.scanned = 0
        """cursor..scanned has no records of this host, and has not been sent."""
        self.reached = 0
        """The highest cursor so far: anything below it is sent again."""
        self.looked = 0
        """The highest position that was looked at before the peer last asked."""
        self.carried = 0
        """The end of the newest non-empty range: the peer is expected to acknowledge it."""
        self.lapped = 0
        """How often the ring no longer had the records that this link needed."""
        self._mapped = 0
        """While the pieces of a map are sent: the end of its range, else 0."""
        self._pieces = 0
        """Of it that were sent."""

    @property
    def again(self) -> bool:
        """Whether the next frame has been sent before."""
        return self.cursor < self.reached

    def ask(self, first: int) -> None:
        """The peer wants all records from `first` on, even if they were sent before."""
        self.asked = True
        self.reached = max(self.reached, self.cursor, self._mapped)
        self.looked = max(self.looked, self.scanned)
        self.cursor = self.scanned = first - 1
        self._mapped = 0

    def rest(self) -> None:
        """The peer follows this host through a relay from now on."""
        self.asked, self._mapped = False, 0

    def takes(self, healed: Healed) -> bool:
        """Whether the frame of `healed` is the next one for this link, and is sent for the first time. If so,
        it counts as sent."""
        after = healed.after
        fits = self.asked and self.cursor == after and not self._mapped
        if not fits or after < self.reached or after < self.looked:
            return False
        self.cursor = self.scanned = self.carried = healed.to
        return True

    def next(self) -> Frame | None:
        """The next non-empty frame, or None. Never beyond the healed position."""
        if self._mapped:
            return self._next_piece()
        healed = self._store.pump_cursor
        while self.asked and self.scanned < healed:
            packed = self._packer(self.scanned, min(PACK_RECORDS, healed - self.scanned), PACK_BYTES)
            last, payload = packed if packed is not None else (healed, self._lost())
            if last <= self.scanned:
                return None
            if is_piece(payload):
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
        """A frame for a range without records of this host, so that the peer's cursor can reach the head."""
        waits = self.asked and self.scanned > self.cursor and not self._mapped
        return self._frame(self.scanned, b"") if waits else None

    def _frame(self, last: int, payload: bytes) -> Frame:
        frame = self._range(last, payload)
        self.cursor = self.scanned = last
        if payload:
            self.carried = last
        self._packer.was_sent(frame.first, last, bool(payload))
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
    """Dropped while a map is being applied; to be asked for after that."""
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
        self.cursor = self.carried = cursor
        """What the source announced does not reach beyond this; it may be a little more."""
        self.head = cursor
        """The newest tail that the source has announced."""
        self.final: int | None = None
        """The source's final head, if it has said that it leaves."""
        self.freshness = Freshness(self._word)
        self.asker = Asker(pace_s)
        self.repairs = Repairs()
        self.applying: MapApplication | None = None
        """A map that is being applied: the cursor has not moved yet."""
        self.held_back = False
        """Whether a frame was dropped while the map was being applied."""
        self._arriving = Arriving()
        self._moved = False
        """Whether the cursor has moved since the last beat."""
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
        self.repairs.flushes += frame.payload in PAYLOADS_ALL
        self._keep(frame.last, bool(frame.payload))
        return verdict

    def take(
        self, head: bytes, data: bytearray, sealed: bool, frames_max: int
    ) -> tuple[int, int, int, int] | None:
        """Apply the ordinary frames at the beginning of `data` in C: see Store.receive. `head`: the bytes
        with which frames of this stream begin. None: the first message is not an ordinary frame, so `receive`
        must handle it."""
        if self.applying is not None or self.final is not None:
            return None
        taken = self._store.receive(self.index, self.incarnation, self.cursor, head, data, sealed, frames_max)
        if taken is not None:
            self._came(taken[1], taken[3] > 0)
        return taken

    def _collect(self, frame: Frame) -> Verdict:
        taken = self._arriving.take(frame.first, frame.last, frame.payload)
        if taken is Taken.WHOLE:
            whole, known = bytes(self._arriving.map), self._arriving.known
            self._arriving.drop()
            self.applying = MapApplication(self._store, self.index, frame.last, whole, known)
            self.held_back = False
            return Verdict.MAP
        if taken is Taken.MORE:
            self._moved = True
            self.asker.forget()
        return Verdict.GAP if taken is Taken.TORN else Verdict.KEPT

    def apply_map(self) -> MapApplication | None:
        """Apply some more of the map. Returns the map when all of it is applied and the cursor is stored."""
        applying = self.applying
        if applying is None or not applying.go_on():
            return None
        self.applying = None
        self.repairs.maps += 1
        self._keep(applying.last)
        return applying

    def begin(self, incarnation: int, cursor: int, flush: bool, known: bool = False) -> None:
        """Follow `incarnation` from `cursor` on; `flush` first evicts everything older than now. `known`: no
        write of the source up to there has an unknown outcome."""
        if flush:
            self._store.apply(self.index, PAYLOAD_ALL_KNOWN if known else PAYLOAD_ALL)
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
        """A new link: requests and incomplete maps of the old one do not count."""
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
        if stamp is not None and head >= self.cursor:  # otherwise it is older than news from another link
            self.freshness.head_heard(stamp, head, self.cursor)
        return self._beats_behind >= STUCK_BEATS

    def departed(self) -> bool:
        """Whether the source has left and everything that it announced is applied."""
        return self.final is not None and self.cursor >= self.final

    def _keep(self, cursor: int, carries: bool = True) -> None:
        self._store.source_store(self.index, self.incarnation, cursor)
        self._came(cursor, carries)

    def _came(self, cursor: int, carries: bool) -> None:
        """The segment has the cursor."""
        self._word.stirred.add(self._namespace)
        self._moved = True
        self.cursor = cursor
        self.carried = cursor if carries else self.carried
        self.head = max(self.head, cursor)
        self.freshness.applied(cursor)
