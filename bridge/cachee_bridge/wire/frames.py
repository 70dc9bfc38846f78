"""How messages become bytes, and bytes messages. What each message holds: messages.py.

    0               4      5
    +---------------+------+-------------------------------+- - - - - - -+
    | length u32 LE | type | body: one msgpack array       |  seal, 16   |   length counts type and body
    +---------------+------+-------------------------------+- - - - - - -+

The seal (seal.py) is there from the first message after AUTH on; without a secret there is none.

Hosts may speak different wires during an upgrade. versions.py says how two ends agree on one, and how a
message of the newer wire is said in the older one. Each type of message has the wire that it came with; an
end that agreed on an older wire refuses it.

Every field is checked here: type, range, size, and the rows of every list. What does not fit raises
FrameError and the link closes; nothing of that message has been acted upon.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
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
    HOPS_MAX,
    LEFT,
    MAGIC,
    NONCE_BYTES,
    REASON_CHARACTERS,
    ROWS_MAX,
    SENT,
    Auth,
    Beat,
    Calm,
    Cursor,
    FinalHead,
    Follow,
    Frame,
    Head,
    Hello,
    Leave,
    Message,
    NamespaceState,
    PeerAddress,
    Peers,
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
"""A whole message. 16 times a usual payload; what a peer can make this host hold is this, per link."""
HANDSHAKE_BYTES_MAX = 4096
"""Until the other side has proven itself: HELLO and AUTH need less than 500."""
PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - 1024
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
    )
}  # fmt: skip
"""By number: the message, the wire that it came with, and the check of its body."""
NUMBERS: dict[type[Message], int] = {shape: number for number, (shape, _, _) in BODIES.items()}
SINCE: dict[type[Message], int] = {shape: since for shape, since, _ in BODIES.values()}
_pack = msgpack.Packer(use_bin_type=True).pack  # one for all: each has a buffer of 256 KiB


def encode(message: Message) -> bytes:
    """The whole message as bytes. A message that this module would refuse is a mistake of ours:
    ValueError."""
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
    """Before its other fields: a HELLO of another wire may have others."""
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


class Decoder:
    """Bytes in as they come, messages out. Holds at most one unfinished message of `bytes_max` bytes, and
    what came with the last one that was taken."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        """May be raised between two messages: it is looked at for each."""
        self.version = VERSION
        """The wire that both ends agreed on, from the next message on."""
        self.seal: Seal | None = None
        """By which each message is checked, from the next one on."""
        self._buffer = bytearray()

    @property
    def has_message(self) -> bool:
        """Whether a whole message is kept, or what cannot be the beginning of one."""
        try:
            return self._next() is not None
        except (FrameError, AuthError):
            return True

    def keep(self, data: bytes) -> None:
        """For the next take() or feed()."""
        self._buffer += data

    def take(self) -> Message | None:
        """The next message, None if it has not all come. FrameError and AuthError end the link."""
        whole = self._next()
        if whole is None:
            return None
        end, number = whole
        try:
            return decode(number, self._body(end), self.version)
        finally:
            del self._buffer[:end]

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes, one by one. What is not taken is kept."""
        self.keep(data)
        while (message := self.take()) is not None:
            yield message

    def _next(self) -> tuple[int, int] | None:
        """(end, type) of the next message, its seal included; None when it is not whole yet."""
        if len(self._buffer) < PREFIX.size:
            return None
        length, number = PREFIX.unpack_from(self._buffer)
        if not 1 <= length <= self.bytes_max:
            raise self._unreadable(length)
        end = PREFIX.size - 1 + length + (SEAL_BYTES if self.seal is not None else 0)
        return (end, number) if end <= len(self._buffer) else None

    def _body(self, end: int) -> bytearray:
        if self.seal is not None:
            end -= SEAL_BYTES
            self.seal.check(self._buffer[:end], bytes(self._buffer[end : end + SEAL_BYTES]))
        return self._buffer[PREFIX.size : end]

    def _unreadable(self, length: int) -> FrameError | AuthError:
        if self.bytes_max == HANDSHAKE_BYTES_MAX and self._buffer[:2] in TLS_RECORDS:
            return AuthError(
                "the other end speaks TLS, and this host does not; the link is closed; give both hosts a "
                "[bridge.tls], or neither"
            )
        return FrameError(
            f"a message of {length} bytes; {self.bytes_max} are accepted now; the link is closed"
        )
