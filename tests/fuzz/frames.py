"""Bytes into the wire's decoder, sealed and not.

Nothing but FrameError and AuthError comes out of it; it never holds more than one unfinished message; however
the bytes are cut, the same messages come; each has fields of its types, within bounds, and says the same when
it is said again. Where there are seals, nothing comes from the first on that does not fit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from cachee_bridge.links.versions import lowered
from cachee_bridge.wire.frames import (
    FRAME_BYTES_MAX,
    HANDSHAKE_BYTES_MAX,
    PREFIX,
    VERSION_MIN,
    Decoder,
    encode,
)
from cachee_bridge.wire.messages import ROWS_MAX, Message
from cachee_bridge.wire.seal import SEAL_BYTES, Seal
from cachee_shm.errors import AuthError, FrameError
from tests.fuzz.script import Script

KEY = b"k" * 32
MESSAGES_MAX = 8
PIECES_MAX = 50


def one_input(data: bytes) -> int:
    """How many messages of those made of `data` were looked at."""
    script = Script(data)
    bytes_max = script.one_of(HANDSHAKE_BYTES_MAX, FRAME_BYTES_MAX)
    sealed = script.below(2) == 1
    stream, honest = _stream(script, Seal(KEY) if sealed else None)
    size = max(1 + script.below(64), len(stream) // PIECES_MAX)
    came = _fed(bytes_max, sealed, [stream])
    assert came == _fed(bytes_max, sealed, [stream[at : at + size] for at in range(0, len(stream), size)])
    assert not sealed or len(came[0]) <= honest
    for message in came[0]:
        _check(message, type(message))
        assert list(Decoder(FRAME_BYTES_MAX).feed(encode(message))) == [message]
        _check_older(message)
    return len(came[0]) + (came[1] is not None)


def _stream(script: Script, seal: Seal | None) -> tuple[bytes, int]:
    """The bytes, and how many messages of them bear their seal until one does not."""
    parts: list[bytes] = []
    honest, broken = 0, False
    while not script.over and len(parts) < MESSAGES_MAX:
        part = script.raw(script.below(64)) if script.seldom(8) else script.message()
        if seal is not None:
            broken |= script.seldom(8)
            part += bytes(SEAL_BYTES) if broken else seal.of(part)
        honest += not broken
        parts.append(part)
    return b"".join(parts), honest


def _check_older(message: Message) -> None:
    """What wire 2 says of it is a message of wire 2, and says the same when it is said again."""
    older = lowered(message, VERSION_MIN)
    if older is None:
        return
    decoder = Decoder(FRAME_BYTES_MAX)
    decoder.version = VERSION_MIN
    assert list(decoder.feed(encode(older))) == [older] == [lowered(older, VERSION_MIN)]


def _fed(bytes_max: int, sealed: bool, pieces: list[bytes]) -> tuple[list[Message], type[Exception] | None]:
    """What came, and what ended it."""
    decoder, came = Decoder(bytes_max), []
    decoder.seal = Seal(KEY) if sealed else None
    try:
        for piece in pieces:
            came += decoder.feed(piece)
            assert len(decoder.kept) < bytes_max + PREFIX.size + SEAL_BYTES
    except (FrameError, AuthError) as error:
        return came, type(error)
    return came, None


hints = cache(get_type_hints)


def _check(value: Any, kind: Any) -> None:
    """That `value` is what the message's own declaration says, to the last row."""
    if get_origin(kind) is tuple:
        assert type(value) is tuple and len(value) <= ROWS_MAX
        for row in value:
            _check(row, get_args(kind)[0])
        return
    assert type(value) is kind
    if isinstance(value, tuple):
        for field, of in zip(value, hints(kind).values(), strict=True):
            _check(field, of)
    elif isinstance(value, int):
        assert 0 <= value < 2**64
    else:
        assert len(value) < FRAME_BYTES_MAX if isinstance(value, bytes) else len(value) <= 320
