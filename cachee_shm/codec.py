"""Values as bytes, with a type tag that says how they are encoded.

    tag   type                      bytes
    0     bytes                     themselves
    1     str, ASCII alone          themselves
    2     str                       UTF-8
    3     int of 64 bits            8, little-endian, signed
    4     float                     8, little-endian, IEEE 754
    5-7   False, True, None         none
    8     int, any                  little-endian, signed, as many as needed
    9     whatever ``packing.py``   msgpack, with extension types
          takes
    10    pydantic model            msgpack: [class, its shape's digest, fields, fields set, extra, private]
    11    plain dicts and lists     msgpack, no extension types, keys of str (``_core.is_plain``)
    12    anything                  pickled; only where the namespace allows it
    13    a value and its etag      the length of the etag's UTF-8 (2), it, the value's own tag (1), its bytes
    14    a compressed value        its own tag (1), its size (4), a zstd frame

The core stores and reads 0 to 7 itself; they are listed here so that one place defines them all.

A decoded value is equal to the encoded one and of the same type, at every depth; otherwise ``encode`` refuses
the value. Each namespace has a ``Codec``, made when it is attached. It decides what may be unpickled and
compressed, also for a tag within another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgpack

from cachee_shm._core import is_bounded, is_plain
from cachee_shm.classes import is_model
from cachee_shm.compression import Compression
from cachee_shm.errors import Undecodable, Unserializable
from cachee_shm.extensions import int_bytes, int_from
from cachee_shm.mistakes import MISTAKES, is_its_own
from cachee_shm.packing import model_from, pack, pack_model, unpack

__all__ = ["Codec", "Encoded", "Labelled", "decode", "encode", "etag_of", "relabelled"]

BYTES, ASCII, UTF8, INT64, FLOAT, FALSE, TRUE, NONE, INT, MSGPACK, MODEL, PLAIN, PICKLE, LABELLED, ZSTD = (
    range(15)
)
PICKLE_PROTOCOL = 5  # known to every Python from 3.8 on, because hosts may have different versions
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
LABEL = struct.Struct("<H")  # bytes of an etag

Pair = tuple[int, bytes]
Decoders = tuple[Callable[[bytes], object], ...]


def encode(value: object) -> Pair:
    """``value`` as a type tag and bytes; ``Unserializable`` for what would not come back as it is."""
    try:
        return _encoded(value)
    except (Unserializable, *MISTAKES) as error:
        if isinstance(error, Unserializable) or not is_its_own(error, _encoded, value):
            raise
        raise Unserializable(f"a value that has no encoding ({error}); nothing was stored") from error


def decode(tag: int, data: bytes) -> object:
    """What ``encode`` made ``tag`` and ``data`` from; ``Undecodable`` for any other bytes."""
    return STRICT.decode(tag, data)


class Encoded(NamedTuple):
    """A value that is encoded already: what ``encode`` returned, or what was read from a segment."""

    tag: int
    data: bytes


class Labelled(NamedTuple):
    """A value that is stored with an etag."""

    etag: str
    value: object


class Codec:
    """How one namespace encodes values, and which bytes it decodes."""

    def __init__(
        self,
        namespace: str = "",
        unpickles: bool = False,
        compress_bytes: int | None = None,
        warn: Callable[..., None] = print,
    ) -> None:
        """``unpickles``: then any process that may write the segment may run code here. ``compress_bytes``:
        from what size on values are compressed; None compresses none. ``warn``: is told what is missing."""
        self._pickles = unpickles
        self._compression = Compression(namespace, compress_bytes, warn)
        self.encode: Callable[[object], Pair] = encode
        if unpickles or compress_bytes is not None:
            self.encode = self._encode
        plain = [DECODERS[tag] for tag in range(PICKLE + 1)]
        if unpickles:
            plain[PICKLE] = _unpickled
        within = [*plain]  # the core checks PLAIN itself, where it is the outermost
        within[PLAIN] = _plain_within
        restored = partial(self._compression.restored, within)
        within_label: Decoders = (*within, _nested, restored)
        self.decoders: Decoders = (
            *plain,
            partial(_value_behind_label, within_label),
            restored,
        )
        """By tag, for the core. Whatever a decoder raises, the read is a counted miss."""

    def decode(self, tag: int, data: bytes) -> object:
        """The value that ``encode`` made ``tag`` and ``data`` from; ``Undecodable`` for any other bytes."""
        try:
            return self._decoder(tag)(data)
        except Exception as error:  # the bytes are input: every error has the same result
            if 0 <= tag < len(self.decoders) and not is_its_own(error, self._decoder(tag), data):
                raise
            raise Undecodable(f"{len(data)} bytes of type {tag} do not decode: {error}") from error

    def _decoder(self, tag: int) -> Callable[[bytes], object]:
        return _plain_within if tag == PLAIN else self.decoders[tag]

    def _encode(self, value: object) -> Pair:
        if type(value) is Encoded:
            return value.tag, value.data
        if type(value) is Labelled:
            return _labelled(value, self._encode)
        tag, data = self._whole(value)
        compressed = self._compression.compressed(tag, data)
        return (tag, data) if compressed is None else (ZSTD, compressed)

    def _whole(self, value: object) -> Pair:
        try:
            return encode(value)
        except Unserializable as refusal:
            if not self._pickles:
                raise
            return PICKLE, _pickled(value, refusal)


# Pickle


def _pickled(value: object, refusal: Unserializable) -> bytes:
    """Pickle a value that has no other encoding."""
    import pickle

    dumps = partial(pickle.dumps, protocol=PICKLE_PROTOCOL)
    try:
        return dumps(value)
    except (pickle.PicklingError, *MISTAKES) as error:
        if not is_its_own(error, dumps, value):
            raise
        raise Unserializable(f"{refusal}; nor can it be pickled ({error})") from error


def _unpickled(data: bytes) -> object:
    import pickle

    return pickle.loads(data)


def _refused(data: bytes) -> object:
    raise ValueError("pickled, which this namespace does not read (`pickle = true` is not set for it)")


# Values with an etag


def etag_of(tag: int, data: bytes) -> str | None:
    """The etag that a value was stored with. ``Undecodable`` for bytes that ``encode`` did not make."""
    try:
        return _label(data)[0] if tag == LABELLED else None
    except Exception as error:  # the bytes are input
        if not is_its_own(error, _label, data):
            raise
        raise Undecodable(f"{len(data)} bytes of type {tag} do not decode: {error}") from error


def relabelled(encoded: Encoded, etag: str | None) -> Encoded:
    """The same value with this etag; None: without one."""
    tag, data = encoded
    if tag == LABELLED:
        at = _label(data)[1]
        tag, data = data[at], data[at + 1 :]
    return Encoded(tag, data) if etag is None else Encoded(*_with_label(etag, tag, data))


def _labelled(value: Labelled, encode: Callable[[object], Pair]) -> Pair:
    return _with_label(value.etag, *encode(value.value))


def _with_label(etag: str, tag: int, data: bytes) -> Pair:
    name = etag.encode()
    return LABELLED, LABEL.pack(len(name)) + name + bytes((tag,)) + data


def _label(data: bytes) -> tuple[str, int]:
    """An etag, and where the value behind it begins."""
    end = LABEL.size + LABEL.unpack_from(data)[0]
    if end >= len(data):
        raise ValueError("cut off")
    return data[LABEL.size : end].decode(), end


def _value_behind_label(decoders: Decoders, data: bytes) -> object:
    at = _label(data)[1]
    return decoders[data[at]](data[at + 1 :])


def _plain_within(data: bytes) -> object:
    if not is_bounded(data):
        raise ValueError("cut off, or more items than bytes")
    return DECODERS[PLAIN](data)


def _nested(data: bytes) -> object:
    raise ValueError("an etag within another")


def _encoded(value: object) -> Pair:
    whole = OUTERMOST.get(type(value))
    if whole is not None:
        return whole(value)
    if is_plain(value):
        return PLAIN, msgpack.packb(value)
    return (MODEL, pack_model(value)) if is_model(type(value)) else (MSGPACK, pack(value))


# Scalars: a tag of their own


def _encode_str(value: Any) -> Pair:
    return ASCII if value.isascii() else UTF8, value.encode()


def _encode_int(value: Any) -> Pair:
    if INT64_MIN <= value <= INT64_MAX:
        return INT64, value.to_bytes(8, "little", signed=True)
    return INT, int_bytes(value)


OUTERMOST: dict[type, Callable[[Any], Pair]] = {
    bytes: lambda value: (BYTES, value),
    str: _encode_str,
    int: _encode_int,
    float: lambda value: (FLOAT, struct.pack("<d", value)),
    bool: lambda value: (TRUE if value else FALSE, b""),
    type(None): lambda value: (NONE, b""),
    Encoded: lambda value: (value.tag, value.data),
    Labelled: lambda value: _labelled(value, encode),
}
"""Types with their own tag; the last two never occur within another value."""


def _int64_from(data: bytes) -> int:
    return struct.unpack("<q", data)[0]  # type: ignore[no-any-return]


def _float_from(data: bytes) -> float:
    return struct.unpack("<d", data)[0]  # type: ignore[no-any-return]


def _constant(value: object) -> Callable[[bytes], object]:
    def decoded(data: bytes) -> object:
        if data:
            raise ValueError("bytes where there are none")
        return value

    return decoded


def _plain_decoder() -> Callable[[bytes], object]:
    """msgspec's where it is installed: half the instructions of msgpack's, for the same bytes.

    Either is the decoder itself: one more call would cost a fifth of decoding a small dict.
    """
    try:
        from msgspec.msgpack import Decoder
    except ImportError:
        return msgpack.unpackb  # type: ignore[no-any-return]
    return Decoder().decode


DECODERS: dict[int, Callable[[bytes], object]] = {
    BYTES: bytes,
    ASCII: lambda data: data.decode("ascii"),
    UTF8: lambda data: data.decode(),
    INT64: _int64_from,
    FLOAT: _float_from,
    FALSE: _constant(False),
    TRUE: _constant(True),
    NONE: _constant(None),
    INT: int_from,
    MSGPACK: unpack,
    MODEL: model_from,
    PLAIN: _plain_decoder(),
    PICKLE: _refused,
}
"""For values with their own tag. The other tags are in the namespace's ``Codec``."""
STRICT = Codec()
