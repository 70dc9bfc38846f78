"""Encoding and decoding of messages. What each message holds: messages.py.

    0               4      5
    +---------------+------+-------------------------------+- - - - - - -+
    | length u32 LE | type | body: one msgpack array       |  seal, 16   |   length counts type and body
    +---------------+------+-------------------------------+- - - - - - -+

The seal (seal.py) is there from the first message after AUTH on; without a secret there is none.

Hosts may speak different wires during an upgrade. versions.py says how two ends agree on one, and how a
message of the newer wire is said in the older one. Each type of message was introduced with a wire version;
on a link with an older version it is refused.

Every field is checked here: type, range, size, and the rows of every list. A malformed message raises
FrameError and the link closes; nothing of that message has been applied.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgpack

from cachee_bridge.wire.fields import (
    HOST_NAME,
    NAMESPACE,
    Check,
    address,
    integer,
    list_of,
    matching,
    octets,
    one_of,
    row,
    text,
)
from cachee_bridge.wire.messages import (
    ABSENT,
    ASKED_MAX,
    CANARY_BYTES_MAX,
    ELSEWHERE,
    GIVEN_BYTES_MAX,
    HOLDS,
    HOPS_MAX,
    JOURNAL,
    JOURNAL_ROWS_MAX,
    KEY_BYTES_MAX,
    LEFT,
    MAGIC,
    NONCE_BYTES,
    NOTHING,
    REASON_CHARACTERS,
    REFUSED,
    ROWS_MAX,
    SENT,
    TAGS_MAX,
    WORD_CHARACTERS,
    Answer,
    Applied,
    Asked,
    Auth,
    Beat,
    Calm,
    Cursor,
    Doubt,
    Fetch,
    Fetched,
    FinalHead,
    Follow,
    Frame,
    Head,
    Hello,
    Holding,
    JournalRow,
    Leave,
    Message,
    NamespaceState,
    PeerAddress,
    Peers,
    Question,
    Replay,
    State,
    Sync,
)
from cachee_bridge.wire.seal import SEAL_BYTES, Seal
from cachee_shm.errors import AuthError, FrameError

VERSION = 3
"""The newest wire that this bridge speaks."""
VERSION_MIN = 2
"""The oldest. A release speaks its own wire and the one before it."""

FRAME_BYTES_MAX = 1 << 20
"""Of a whole message, 16 times a usual payload. A peer can make this host hold this much per link."""
HANDSHAKE_BYTES_MAX = 4096
"""Until the other side has proven its name: HELLO and AUTH need less than 500."""
PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - 1024
PATIENCE_MS_MAX = 60_000
PREFIX = struct.Struct("<IB")
TLS_RECORDS = (b"\x16\x03", b"\x15\x03")
"""How a TLS handshake or alert begins; as a length it is beyond HANDSHAKE_BYTES_MAX."""


def _rows(row_check: Check) -> Check:
    return list_of(row_check, 0, ROWS_MAX)


_u64 = integer(0, 2**64 - 1)
_position = integer(0, 2**63 - 1)
_record = integer(1, 2**63 - 1)
_namespace = matching(NAMESPACE, "a namespace")
_name = matching(HOST_NAME, "a host's name")
_source = matching(re.compile(f"(?:{HOST_NAME.pattern})?"), "a host's name, or nothing")
_heads = _rows(row(Head, _namespace, _name, _u64, _position, _u64, integer(SENT, LEFT)))
_cursors = _rows(row(Cursor, _namespace, _name, _u64, _position, _name))
_asked = row(Asked, _u64, _u64, octets(0, CANARY_BYTES_MAX))
_holding = row(
    Holding, _u64, integer(ABSENT, REFUSED), _u64, _position, _u64, _u64, octets(0, CANARY_BYTES_MAX)
)
_word = text(WORD_CHARACTERS)
_journal = row(
    JournalRow, _u64, _u64, _word, _word, _source, _u64, _position, integer(0, 2**32 - 1), _word, _word,
    text(REASON_CHARACTERS), _u64, integer(0, 2**16 - 1),
)  # fmt: skip

BODIES: dict[int, tuple[type[Message], int, Check]] = {
    number: (shape, since, row(shape, *fields))
    for number, shape, since, fields in (
        (1, Hello, 2, (one_of(MAGIC), integer(1, 65535), _name, _u64, octets(NONCE_BYTES, NONCE_BYTES),
                       one_of("none", "secret"), address(may_lack_host=True), text(63))),
        (2, Auth, 2, (list_of(octets(32, 32), 1, 2),)),
        (3, State, 2, (_rows(row(NamespaceState, _namespace, _u64, _position, _u64)),)),
        (4, Beat, 2, (_u64, _u64, _heads, _cursors)),
        (5, Frame, 2, (_namespace, _name, _u64, _record, _record, octets(0, PAYLOAD_BYTES_MAX))),
        (6, Replay, 2, (_namespace, _name, _u64, _record)),
        (7, Sync, 2, (_source, integer(0, HOPS_MAX))),
        (8, Peers, 2, (_rows(row(PeerAddress, _name, address(may_lack_host=False))),)),
        (9, Leave, 2, (text(REASON_CHARACTERS), _rows(row(FinalHead, _namespace, _u64, _position)))),
        (10, Follow, 2, (_rows(_name),)),
        (11, Calm, 3, (_u64, _u64, _heads, _cursors, _u64, _u64)),
        (12, Question, 3, (_u64, integer(HOLDS, JOURNAL), _namespace, list_of(_asked, 0, ASKED_MAX))),
        (13, Answer, 3, (_u64, _namespace, text(REASON_CHARACTERS), _u64, _position, _position,
                         list_of(_holding, 0, ASKED_MAX), list_of(_journal, 0, JOURNAL_ROWS_MAX))),
        (14, Doubt, 3, (_rows(_namespace),)),
        (15, Fetch, 3, (_u64, _namespace, octets(0, KEY_BYTES_MAX), integer(0, PATIENCE_MS_MAX),
                        _rows(row(Applied, _name, _u64, _position)))),
        (16, Fetched, 3, (_u64, _namespace, octets(0, KEY_BYTES_MAX), integer(NOTHING, ELSEWHERE), _source,
                          integer(0, 255), _u64, _u64, list_of(_u64, 0, TAGS_MAX),
                          octets(0, GIVEN_BYTES_MAX))),
    )
}  # fmt: skip
"""By number: the message, the wire version that introduced it, and the check of its body."""
NUMBERS: dict[type[Message], int] = {shape: number for number, (shape, _, _) in BODIES.items()}
SINCE: dict[type[Message], int] = {shape: since for shape, since, _ in BODIES.values()}
FRAME_NUMBER = NUMBERS[Frame]
FRAME_TYPE = bytes((FRAME_NUMBER,))
FRAME_ARRAY = 0x90 | len(Frame._fields)
"""The first byte of its body."""
FRAME_BYTES_MIN = 8
"""Of a frame, so that the length of its namespace is there."""
HEADS_MAX = 8192
_pack = msgpack.Packer(use_bin_type=True).pack  # one for all: each has a buffer of 256 KiB


def encode(message: Message) -> bytes:
    """The whole message as bytes. ValueError for a message that this module would refuse: that is a bug of
    this bridge."""
    body: bytes = _pack(message)
    if len(body) >= FRAME_BYTES_MAX:
        raise ValueError(f"{type(message).__name__} of {len(body)} bytes; the wire takes {FRAME_BYTES_MAX}")
    return PREFIX.pack(len(body) + 1, NUMBERS[type(message)]) + body


def unspoken(oldest: int, newest: int) -> FrameError:
    """The other end speaks the wires `oldest` to `newest`, and this bridge none of them."""
    theirs = f"{oldest}" if oldest == newest else f"{oldest} to {newest}"
    late = "the other host" if newest < VERSION_MIN else "this host"
    return FrameError(
        f"protocol {theirs} there; this bridge speaks {VERSION_MIN} to {VERSION}; the link is closed; "
        f"upgrade {late}, one release at a time"
    )


def _check_version(fields: Any) -> None:
    """Checked before its other fields, because a HELLO of another wire may have others."""
    greets = type(fields) is list and len(fields) > 1 and fields[0] == MAGIC and type(fields[1]) is int
    if greets and not VERSION_MIN <= fields[1] <= VERSION:
        raise unspoken(fields[1], fields[1])


def decode(number: int, body: bytes | bytearray | memoryview, version: int = VERSION) -> Message:
    """One message of the wire `version` from its type and body, or FrameError."""
    if number not in BODIES or BODIES[number][1] > version:
        raise FrameError(f"a message of unknown type {number} in protocol {version}; the link is closed")
    shape, _, check = BODIES[number]
    try:
        fields = msgpack.unpackb(body, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise FrameError(f"a malformed {shape.__name__}: {error}; the link is closed") from None
    if shape is Hello:
        _check_version(fields)
    try:
        message: Message = check(fields)
    except (FrameError, ValueError, TypeError, OverflowError) as error:
        raise FrameError(f"a malformed {shape.__name__}: {error}; the link is closed") from None
    if isinstance(message, Frame) and message.last < message.first:
        raise FrameError(f"a malformed Frame: {message.first}..{message.last}; the link is closed")
    return message


@lru_cache(HEADS_MAX)
def head_of(namespace: str, source: str, incarnation: int) -> bytes:
    """The beginning of the body of each frame of one stream: the array's first byte, and the fields that do
    not change."""
    fields: bytes = _pack((namespace, source, incarnation))
    return bytes((FRAME_ARRAY,)) + fields[1:]


def frames_of(data: bytes, sealed: bool) -> list[Frame]:
    """The frames in `data`, which holds whole ones and nothing else. They were checked before."""
    frames, at, seal_bytes = [], 0, SEAL_BYTES if sealed else 0
    while at < len(data):
        length, number = PREFIX.unpack_from(data, at)
        frame = decode(number, data[at + PREFIX.size : at + PREFIX.size - 1 + length])
        assert isinstance(frame, Frame)
        frames.append(frame)
        at += PREFIX.size - 1 + length + seal_bytes
    return frames


class Decoder:
    """Takes bytes as they come, and returns messages. It holds at most one unfinished message of `bytes_max`
    bytes, and what came with the last one that was taken."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        """May be raised between two messages: it is looked at for each."""
        self.version = VERSION
        """The wire that both ends agreed on, from the next message on."""
        self.seal: Seal | None = None
        """By which each message is checked, from the next one on."""
        self.kept = bytearray()
        """Bytes that have come and were not taken: for others to read, not to change."""
        self._checked = self._checked_bytes = 0
        """Messages at the front whose seals are known to fit, and their bytes."""

    @property
    def has_message(self) -> bool:
        """Whether a whole message is kept, or bytes that cannot begin one."""
        try:
            return self._whole(0) is not None
        except (FrameError, AuthError):
            return True

    def keep(self, data: bytes) -> None:
        """For the next take() or feed()."""
        self.kept += data

    def take(self) -> Message | None:
        """The next message, None if it has not all come. FrameError and AuthError end the link."""
        if (whole := self._whole(0)) is None:
            return None
        end, number = whole
        message = bytes(self.kept[:end])
        was_checked = self._checked > 0
        self.took(end, 1)
        if self.seal is not None:
            if not was_checked:
                self.seal.check(message[:-SEAL_BYTES], message[-SEAL_BYTES:])
            message = message[:-SEAL_BYTES]
        return decode(number, message[PREFIX.size :], self.version)

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes, one by one. What is not taken is kept."""
        self.keep(data)
        while (message := self.take()) is not None:
            yield message

    # Frames that are taken without being decoded

    @property
    def may_be_frame(self) -> bool:
        """Whether the message that comes next has a frame's type, as far as it has come. Nothing is
        checked."""
        return self.kept[4:5] == FRAME_TYPE

    def frame_namespace(self) -> str:
        """The namespace of the message that comes next, if that looks like a frame, else "". Nothing is
        checked."""
        kept = self.kept
        if len(kept) < FRAME_BYTES_MIN or kept[4] != FRAME_NUMBER or kept[5] != FRAME_ARRAY:
            return ""
        code = kept[6]
        if 0xA0 <= code <= 0xBF:
            return kept[7 : 7 + (code & 0x1F)].decode("latin-1")
        return kept[8 : 8 + kept[7]].decode("latin-1") if code == 0xD9 else ""

    def sealed_frames(self, frames_max: int) -> int:
        """How many of the next messages may be taken without take(), as far as seals are concerned: whole
        frames whose seals fit. Where nothing is sealed, `frames_max`."""
        if self.seal is None:
            return frames_max
        while self._checked < frames_max and (end := self._sealed_frame(self._checked_bytes)):
            self._checked += 1
            self._checked_bytes = end
        return min(frames_max, self._checked)

    def took(self, taken: int, messages: int) -> bytes:
        """The next `messages`, of `taken` bytes, were taken; these bytes."""
        data = bytes(self.kept[:taken])
        del self.kept[:taken]
        if self._checked:
            self._checked -= messages
            self._checked_bytes -= taken
        return data

    def _sealed_frame(self, at: int) -> int:
        """Where the frame at `at` ends, if its seal fits; else 0, and take() says what is wrong with it."""
        assert self.seal is not None
        try:
            whole = self._whole(at)
            if whole is None or whole[1] != FRAME_NUMBER:
                return 0
            sealed_at = whole[0] - SEAL_BYTES
            self.seal.check(self.kept[at:sealed_at], self.kept[sealed_at : whole[0]])
        except (FrameError, AuthError):
            return 0
        return whole[0]

    def _whole(self, at: int) -> tuple[int, int] | None:
        """(end, type) of the message at `at`, its seal included; None when it is not whole yet."""
        if len(self.kept) - at < PREFIX.size:
            return None
        length, number = PREFIX.unpack_from(self.kept, at)
        if not 1 <= length <= self.bytes_max:
            raise self._unreadable(at, length)
        end = at + PREFIX.size - 1 + length + (SEAL_BYTES if self.seal is not None else 0)
        return (end, number) if end <= len(self.kept) else None

    def _unreadable(self, at: int, length: int) -> FrameError | AuthError:
        if self.bytes_max == HANDSHAKE_BYTES_MAX and self.kept[at : at + 2] in TLS_RECORDS:
            return AuthError(
                "the other end speaks TLS, and this host does not; the link is closed; give both hosts a "
                "[bridge.tls], or neither"
            )
        return FrameError(
            f"a message of {length} bytes; {self.bytes_max} are accepted now; the link is closed"
        )
