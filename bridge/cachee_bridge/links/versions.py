"""Wire versions: how both ends of a link agree on one, and how a newer message is encoded in the older wire.

    HELLO.version    the oldest wire that the sender speaks
    HELLO.nonce      | 24 random bytes | "cachee", 0 | newest u8 |     newest: the newest wire that it speaks
                     or 32 random bytes: a bridge of wire 2, which speaks no newer one

Both ends speak the lower one of the two newest wires. If that is below the oldest of either end, the link is
closed with a line that names the wires of both.

A bridge of wire 2 closes a link whose HELLO says any other version, and accepts any nonce. So the offer is
put into the nonce, and no second dial is needed. The proofs of a secret and the keys of the seals are
computed over both HELLOs, whole (auth.py); with certificates, TLS protects the HELLOs. An attacker on the
network who removes the offer, so that both ends would fall back to the older wire, makes the proof fail.

What wire 2 lacks:

    message of wire 3       sent in wire 2
    FRAME with KEY_UNKNOWN  FRAME with KEY: an unconditional eviction, without the reason
    FRAME with ALL_KNOWN,   FRAME with ALL, a map of kind 6: writes of unknown outcome may be among what it
    or a map of kind 9      stands for
    DOUBT                   nothing
    CALM                    BEAT with a row for each namespace (session.py sees to it)
    QUESTION, ANSWER        nothing: a host of wire 2 cannot be asked (questions.py)
    FETCH, FETCHED          nothing: nor is it asked for a value (fetches.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.streams.buckets import BUCKETS, is_piece
from cachee_bridge.wire.frames import SINCE, VERSION, VERSION_MIN, encode, unspoken
from cachee_bridge.wire.messages import MAGIC, NONCE_BYTES, Frame, Hello, Message
from cachee_shm.errors import FrameError

if TYPE_CHECKING:
    from cachee_bridge.ports.settings import Settings

OFFER = b"cachee\0"
RANDOM_BYTES = NONCE_BYTES - len(OFFER) - 1
"""192 bits, so no nonce is used twice. A nonce of wire 2 ends like an offer by chance once in 2^56 links."""
RECORD_BYTES = {1: 9, 2: 17, 3: 9, 4: 1, 5: 1, 7: 9, 8: 1}
"""By kind of record: core/relay.h."""
LOWERED_TO = {7: 1, 8: 5}
"""By kind of record, its substitute in wire 2."""


def greeting(settings: Settings, name: str, instance: int, random: bytes) -> Hello:
    """The HELLO of this side. `random`: RANDOM_BYTES of randomness, for this link alone."""
    mode = "secret" if settings.secrets else "none"
    nonce = random + OFFER + bytes((settings.newest_wire,))
    return Hello(MAGIC, VERSION_MIN, name, instance, nonce, mode, settings.address, settings.region)


def newest_of(hello: Hello) -> int:
    """The newest wire that the sender of `hello` speaks."""
    offers = hello.nonce[RANDOM_BYTES:-1] == OFFER
    return hello.nonce[-1] if offers else hello.version


def agreed(mine: Hello, theirs: Hello) -> int:
    """The wire that both ends speak. FrameError when there is none."""
    newest = newest_of(theirs)
    if newest < theirs.version:
        raise FrameError(f"a HELLO that offers protocol {theirs.version} to {newest}; the link is closed")
    version = min(newest_of(mine), newest)
    if version < max(mine.version, theirs.version):
        raise unspoken(theirs.version, newest)
    return version


def lowered(message: Message, version: int) -> Message | None:
    """`message` as it is sent in the wire `version`; None if that wire has no message for it."""
    if SINCE[type(message)] > version:
        return None
    if version < 3 and isinstance(message, Frame):
        return _lowered_frame(message)
    return message


def _lowered_frame(frame: Frame) -> Frame:
    """With the records that wire 2 has. A segment packed or accepted the payload, or it is a piece of a
    map."""
    payload = bytearray(frame.payload)
    if is_piece(frame.payload):
        payload[0] = BUCKETS
        return frame._replace(payload=bytes(payload))
    at = 0
    while at < len(payload):
        kind = payload[at]
        payload[at] = LOWERED_TO.get(kind, kind)
        at += RECORD_BYTES.get(kind, len(payload))
    return frame if payload == frame.payload else frame._replace(payload=bytes(payload))


class Encoder:
    """Encodes messages in one wire. It remembers the last message: one object that several links are sent is
    encoded once."""

    def __init__(self, version: int = VERSION) -> None:
        self._version = version
        self._message: Message | None = None
        self._encoded = b""

    def __call__(self, message: Message) -> bytes:
        """b"": this wire has no message for it."""
        if self._message is not message:
            said = lowered(message, self._version) if self._version < VERSION else message
            self._encoded = encode(said) if said is not None else b""
            self._message = message
        return self._encoded
