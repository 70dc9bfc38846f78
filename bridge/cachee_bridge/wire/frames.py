"""The wire.

    0               4      5
    +---------------+------+-------------------------------+- - - - - - -+
    | length u32 LE | type | body: one msgpack array       |  seal, 16   |   length counts type and body
    +---------------+------+-------------------------------+- - - - - - -+

The seal (seal.py) is there from the first message after AUTH on; without a secret there is none.

    type      body, in this order                                        sent
    1 HELLO   magic, version, name, instance, nonce, mode, address,      first, by both sides
              region                                                     (version and nonce: versions.py)
    2 AUTH    [mac, ...]                                                 dialler first, then acceptor
    3 STATE   [[namespace, incarnation, tail, fingerprint], ...]         once proven (the last has fewer than
                                                                         ROWS_MAX rows), and for what is new
              fingerprint UNSERVED: the segment exists there, and its    (from wire 3 on; an older one
              bridge cannot open it (incarnation 1), or does so no       refuses the namespace for its
              more (0)                                                   hash key)
    4 BEAT    stamp, echo, [[namespace, source, incarnation, head, age_us, kind], ...],
                           [[namespace, source, incarnation, cursor, holder], ...]
    5 FRAME   namespace, source, incarnation, first, last, payload       ring records first..last
    6 REPLAY  namespace, source, incarnation, first                      send from first on
    7 SYNC    source, hops                                               send me a beat now
    8 PEERS   [[name, address], ...]                                     who is up here
    9 LEAVE   reason, [[namespace, incarnation, head], ...]              last word; with heads: for good
   10 FOLLOW  [source, ...]                                              of whom to send me the records
   11 CALM    stamp, echo, heads and cursors as in BEAT, of what changed from wire 3 on, where nothing else
              since the last; sum of the other heads, sum of the other    is to be said (ledger.py)
              cursors

Hosts may speak different wires during an upgrade. versions.py says how two ends agree on one, and how a
message of the newer wire is said in the older one. Each type of message has the wire that it came with; an
end that agreed on an older wire refuses it.

stamp and echo are microseconds of the clock of whoever made the stamp; 0 = none. A beat's heads speak of the
sender itself, with age 0, and of sources that it relays: its word about them was current when it had the
receiver's stamp echo - age. Its cursors say how far `holder` has applied a source: the sender itself, or one
that it relays that source to. On a link that comes up each follows the other; FOLLOW, from then on, is the
whole list.

A payload is records as the segment packs and checks them (it applies all or nothing): KEY hash, KEY_SET hash
digest, TAG hash, CLEAR, ALL; from wire 3 on KEY_UNKNOWN hash (a write whose outcome is unknown); or, to a
lapped peer, a piece of a map of buckets (6, see buckets.py). The wire only bounds its size.

Every field is checked here: type, range, size, and the rows of every list. What does not fit raises
FrameError and the link closes; nothing of that message has been acted upon.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import msgpack

from cachee_bridge.wire.seal import SEAL_BYTES, Seal
from cachee_shm.errors import AuthError, FrameError

MAGIC = "cachee"
VERSION = 3
"""The newest wire that this bridge speaks."""
VERSION_MIN = 2
"""The oldest. A release speaks its own wire and the one before it."""
NONCE_BYTES = 32
PAYLOAD_ALL = b"\x05"

FRAME_BYTES_MAX = 1 << 20
"""A whole message. 16 times a usual payload; what a peer can make this host hold is this, per link."""
HANDSHAKE_BYTES_MAX = 4096
"""Until the other side has proven itself: HELLO and AUTH need less than 500."""
PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - 1024
ROWS_MAX = 1024
"""Namespaces or peers in one message."""

UNSERVED, EXISTS, GONE = 0, 1, 0
"""A fingerprint that no segment has, and the incarnations of such a row."""
HOPS_MAX = 3
"""Of a SYNC: to a gateway, to a relay, to who hears of it there. Hosts may follow each other in a circle."""
AGE_UNKNOWN = 2**64 - 1
SENT, OFFERED, LACKED, LEFT = range(4)
"""Of a head: the receiver is sent that source, as far as it has asked; it may ask; it cannot have it from
here; and it has left, with this as its final head."""
KNOWN_MAX = 256
REASON_CHARACTERS = 200
PREFIX = struct.Struct("<IB")
TLS_RECORDS = (b"\x16\x03", b"\x15\x03")
"""How a TLS handshake or alert begins; as a length it is beyond HANDSHAKE_BYTES_MAX."""

NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
ADDRESS = re.compile(
    r"(\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]|[A-Za-z0-9._-]{0,253}):([0-9]{1,5})"
)


class Hello(NamedTuple):
    magic: str
    version: int
    """The oldest wire that the sender speaks."""
    name: str
    instance: int
    """u64, one life of a bridge."""
    nonce: bytes
    """Random bytes, then the newest wire that the sender speaks: versions.py."""
    mode: str
    """"none" | "secret"."""
    address: str
    """Where the sender can be dialled: "host:port", ":port" (at the address it is seen from) or ""."""
    region: str
    """"" where the configuration names none."""


class Auth(NamedTuple):
    macs: tuple[bytes, ...]
    """One for each secret that the sender holds."""


class NamespaceState(NamedTuple):
    namespace: str
    incarnation: int
    tail: int
    fingerprint: int


class State(NamedTuple):
    namespaces: tuple[NamespaceState, ...]


class Head(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    head: int
    age_us: int
    """By the receiver's clock; AGE_UNKNOWN: no stamp of the receiver is as old as the word."""
    kind: int
    """SENT, OFFERED, LACKED or LEFT."""


class Cursor(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    cursor: int
    holder: str


class Beat(NamedTuple):
    stamp: int
    echo: int
    heads: tuple[Head, ...]
    cursors: tuple[Cursor, ...]


class Calm(NamedTuple):
    stamp: int
    echo: int
    heads: tuple[Head, ...]
    cursors: tuple[Cursor, ...]
    heads_sum: int
    cursors_sum: int
    """Of the namespaces that both ends share and no row is about: ledger.py."""


class Frame(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    first: int
    last: int
    payload: bytes


class Replay(NamedTuple):
    namespace: str
    source: str
    incarnation: int
    first: int


class Sync(NamedTuple):
    source: str = ""
    """Whose ring it is about, "" = the sender's."""
    hops: int = 0
    """How often it was passed on."""


class PeerAddress(NamedTuple):
    name: str
    address: str


class Peers(NamedTuple):
    peers: tuple[PeerAddress, ...]


class Follow(NamedTuple):
    sources: tuple[str, ...]


class FinalHead(NamedTuple):
    namespace: str
    incarnation: int
    head: int


class Leave(NamedTuple):
    reason: str
    heads: tuple[FinalHead, ...]


Message = Hello | Auth | State | Beat | Frame | Replay | Sync | Peers | Leave | Follow | Calm
Check = Callable[[Any], Any]


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise FrameError(f"not an integer of {low}..{high}")
        return value

    return check


def _bytes(low: int, high: int) -> Check:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or not low <= len(value) <= high:
            raise FrameError(f"not {low}..{high} bytes")
        return value

    return check


def _text(chars_max: int) -> Check:
    """Printable only: it goes to logs, also when its sender has proven nothing."""

    def check(value: Any) -> str:
        if type(value) is not str or len(value) > chars_max or not value.isprintable():
            raise FrameError(f"not a printable text of up to {chars_max} characters")
        return value

    return check


def _matching(pattern: re.Pattern[str], what: str) -> Check:
    known: set[str] = set()
    """Some that did match: each beat names the same ones."""

    def check(value: Any) -> str:
        if type(value) is not str or (value not in known and pattern.fullmatch(value) is None):
            raise FrameError(f"not {what}")
        if len(known) < KNOWN_MAX:
            known.add(value)
        return value

    return check


def _one_of(*accepted: Any) -> Check:
    def check(value: Any) -> Any:
        if value not in accepted or type(value) is not type(accepted[0]):
            raise FrameError(f"not one of {accepted}")
        return value

    return check


def _address(may_lack_host: bool) -> Check:
    def check(value: Any) -> str:
        match = ADDRESS.fullmatch(value) if type(value) is str else None
        if may_lack_host and value == "":
            return ""
        if match is None or not 1 <= int(match[2]) <= 65535 or not (match[1] or may_lack_host):
            raise FrameError("not an address")
        return str(value)

    return check


def _list(item: Check, low: int = 0, high: int = ROWS_MAX) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not low <= len(value) <= high:
            raise FrameError(f"not a list of {low}..{high}")
        return tuple([item(row) for row in value])

    return check


def _row(shape: Callable[..., Any], *fields: Check) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not list or len(value) != len(fields):
            raise FrameError(f"not {len(fields)} fields")
        return shape(*[field(item) for field, item in zip(fields, value, strict=True)])

    return check


_u64 = _integer(0, 2**64 - 1)
_position = _integer(0, 2**63 - 1)
_record = _integer(1, 2**63 - 1)
_namespace = _matching(NAMESPACE, "a namespace")
_name = _matching(HOST_NAME, "a host's name")
_source = _matching(re.compile(f"(?:{HOST_NAME.pattern})?"), "a host's name, or nothing")
_heads = _list(_row(Head, _namespace, _name, _u64, _position, _u64, _integer(SENT, LEFT)))
_cursors = _list(_row(Cursor, _namespace, _name, _u64, _position, _name))

BODIES: dict[int, tuple[type[Message], int, Check]] = {
    number: (shape, since, _row(shape, *fields))
    for number, shape, since, fields in (
        (1, Hello, 2, (_one_of(MAGIC), _integer(1, 65535), _name, _u64, _bytes(NONCE_BYTES, NONCE_BYTES),
                       _one_of("none", "secret"), _address(may_lack_host=True), _text(63))),
        (2, Auth, 2, (_list(_bytes(32, 32), 1, 2),)),
        (3, State, 2, (_list(_row(NamespaceState, _namespace, _u64, _position, _u64)),)),
        (4, Beat, 2, (_u64, _u64, _heads, _cursors)),
        (5, Frame, 2, (_namespace, _name, _u64, _record, _record, _bytes(0, PAYLOAD_BYTES_MAX))),
        (6, Replay, 2, (_namespace, _name, _u64, _record)),
        (7, Sync, 2, (_source, _integer(0, HOPS_MAX))),
        (8, Peers, 2, (_list(_row(PeerAddress, _name, _address(may_lack_host=False))),)),
        (9, Leave, 2, (_text(REASON_CHARACTERS), _list(_row(FinalHead, _namespace, _u64, _position)))),
        (10, Follow, 2, (_list(_name),)),
        (11, Calm, 3, (_u64, _u64, _heads, _cursors, _u64, _u64)),
    )
}  # fmt: skip
"""By number: the message, the wire that it came with, and the check of its body."""
NUMBERS: dict[type[Message], int] = {shape: number for number, (shape, _, _) in BODIES.items()}
SINCE: dict[type[Message], int] = {shape: since for shape, since, _ in BODIES.values()}
_pack = msgpack.Packer(use_bin_type=True).pack  # one for all: each has a buffer of 256 KiB


def printable(reason: str) -> str:
    """As LEAVE takes it."""
    return "".join(c if c.isprintable() else "?" for c in reason)[:REASON_CHARACTERS]


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


def namespaces_of(message: Message) -> list[str]:
    """Every namespace that it speaks of."""
    if isinstance(message, Frame | Replay):
        return [message.namespace]
    if isinstance(message, Beat | Calm):
        return [head.namespace for head in message.heads] + [row.namespace for row in message.cursors]
    if isinstance(message, State):
        return [row.namespace for row in message.namespaces]
    if isinstance(message, Leave):
        return [row.namespace for row in message.heads]
    return []


def rows_of(message: Message) -> int:
    """How many rows its lists have."""
    return sum(len(field) for field in message if type(field) is tuple)


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
            return self._next(0) is not None
        except (FrameError, AuthError):
            return True

    def keep(self, data: bytes) -> None:
        """For the next feed()."""
        self._buffer += data

    def feed(self, data: bytes) -> Generator[Message, None, None]:
        """The messages that `data` completes, lazily. Exhaust or close it before feeding again: what was not
        taken is kept. FrameError and AuthError end the link."""
        self.keep(data)
        done = 0
        try:
            while (whole := self._next(done)) is not None:
                end, number = whole
                start, done = done, end
                yield decode(number, self._body(start, end), self.version)
        finally:
            del self._buffer[:done]

    def _next(self, at: int) -> tuple[int, int] | None:
        """(end, type) of the message at `at`, its seal included; None when it is not whole yet."""
        if len(self._buffer) - at < PREFIX.size:
            return None
        length, number = PREFIX.unpack_from(self._buffer, at)
        if not 1 <= length <= self.bytes_max:
            raise self._unreadable(at, length)
        end = at + PREFIX.size - 1 + length + (SEAL_BYTES if self.seal is not None else 0)
        return (end, number) if end <= len(self._buffer) else None

    def _body(self, start: int, end: int) -> bytes:
        if self.seal is not None:
            end -= SEAL_BYTES
            self.seal.check(self._buffer[start:end], bytes(self._buffer[end : end + SEAL_BYTES]))
        return bytes(self._buffer[start + PREFIX.size : end])

    def _unreadable(self, at: int, length: int) -> FrameError | AuthError:
        if self.bytes_max == HANDSHAKE_BYTES_MAX and self._buffer[at : at + 2] in TLS_RECORDS:
            return AuthError(
                "the other end speaks TLS, and this host does not; the link is closed; give both hosts a "
                "[bridge.tls], or neither"
            )
        return FrameError(
            f"a message of {length} bytes; {self.bytes_max} are accepted now; the link is closed"
        )
