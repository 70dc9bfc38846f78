"""Values as bytes: a type tag and what it says the bytes are.

    tag   type                      bytes
    0     bytes                     themselves
    1     str, ASCII alone          themselves
    2     str                       UTF-8
    3     int of 64 bits            8, little-endian, signed
    4     float                     8, little-endian, IEEE 754
    5-7   False, True, None         none
    8     int, any                  little-endian, signed, as many as needed
    9     whatever msgpack takes    msgpack, with the extension types of ``EXTENSIONS``
    10    pydantic model            msgpack: [class, its shape's digest, fields, fields set, extra, private]
    11    plain dicts and lists     msgpack, no extension types, keys of str (``_core.is_plain``)
    12    (kept for pickle)
    13    a value and its etag      the length of the etag's UTF-8 (2), it, the value's own tag (1), its bytes

The core stores and reads 0 to 7 itself; they are here so that one place defines them all.

What comes back equals what went in and is of the same type, at every depth, or ``encode`` refuses: a
subclass of ``str`` or ``float`` (an IntEnum is an enum, a numpy scalar is refused) is never flattened, a
tuple stays a tuple. Equal sets are equal bytes whatever the process's hash seed, since hosts compare values
by the digest of them.

A model or an enum is stored by its class's name and found again only among the modules that the reader has
imported: a value never makes a process import anything. A model is restored as pickle would restore it,
without running its validators a second time on what they made; a digest of the class (``shape``) refuses what
another release stored, if the class has changed. Of a model, the values of cached properties are not stored.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import struct
import sys
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import msgpack

from cachee_shm._core import is_plain
from cachee_shm.errors import Undecodable, Unserializable
from cachee_shm.shape import shape_digest

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["HOOKS_BY_TAG", "Encoded", "Labelled", "decode", "encode", "etag_of"]

BYTES, ASCII, UTF8, INT64, FLOAT, FALSE, TRUE, NONE, INT, MSGPACK, MODEL, PLAIN, PICKLE, LABELLED = range(14)

# Deeper values exist by mistake (a cycle). Each level may cost a C frame of msgpack twice; 64 fit every
# thread's stack.
DEPTH_MAX = 64
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

DATE = struct.Struct("<HBB")
TIME = struct.Struct("<BBBIB")  # hour, minute, second, microsecond, fold
OFFSET = struct.Struct("<q")  # microseconds east of Greenwich
LABEL = struct.Struct("<H")  # bytes of an etag
DELTA = struct.Struct("<iii")  # days, seconds, microseconds
COMPLEX = struct.Struct("<dd")
MICROSECOND = dt.timedelta(microseconds=1)


def encode(value: object) -> tuple[int, bytes]:
    """``value`` as a type tag and bytes; ``Unserializable`` for what would not come back as it is."""
    try:
        return _encoded(value)
    except (Unserializable, *MISTAKES) as error:
        if isinstance(error, Unserializable) or not _is_its_own(error, _encoded, value):
            raise
        raise Unserializable(f"a value that has no encoding ({error}); nothing was stored") from error


MISTAKES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an object raises that lies about itself, or that another thread changes. Not every Exception: a signal
handler's may come here too, and is the caller's."""


class Encoded(NamedTuple):
    """A value that is encoded already: what ``encode`` returned, or what was read from a segment."""

    tag: int
    data: bytes


class Labelled(NamedTuple):
    """A value that is stored with an etag."""

    etag: str
    value: object


def etag_of(tag: int, data: bytes) -> str | None:
    """The etag that a value was stored with. ``Undecodable`` for bytes that ``encode`` did not make."""
    try:
        return _label(data)[0] if tag == LABELLED else None
    except Exception as error:  # the bytes are input
        if not _is_its_own(error, _label, data):
            raise
        raise Undecodable(f"{len(data)} bytes of type {tag} do not decode: {error}") from error


def _labelled(value: Labelled) -> tuple[int, bytes]:
    tag, data = encode(value.value)
    etag = value.etag.encode()
    return LABELLED, LABEL.pack(len(etag)) + etag + bytes((tag,)) + data


def _label(data: bytes) -> tuple[str, int]:
    """An etag, and where the value behind it begins."""
    end = LABEL.size + LABEL.unpack_from(data)[0]
    if end >= len(data):
        raise ValueError("cut off")
    return data[LABEL.size : end].decode(), end


def _value_behind_label(data: bytes) -> object:
    at = _label(data)[1]
    return DECODERS[data[at]](data[at + 1 :])


def _is_its_own(error: Exception, work: Callable[[Any], object], argument: object) -> bool:
    """Whether ``work(argument)``, which raised ``error``, raises it of itself: then it does so again.

    What a signal handler raised in it (a soft time limit) does not come again, and is the caller's.
    """
    try:
        work(argument)
    except type(error):
        return True
    return False


def _encoded(value: object) -> tuple[int, bytes]:
    whole = OUTERMOST.get(type(value))
    if whole is not None:
        return whole(value)
    if is_plain(value):
        return PLAIN, msgpack.packb(value)
    if type(value) not in LEAVES:
        _check(value, DEPTH_MAX)
    return (MODEL, _model_bytes(value)) if _is_model(value) else (MSGPACK, _pack(value))


def decode(tag: int, data: bytes) -> object:
    """The value that ``encode`` made ``tag`` and ``data`` from; ``Undecodable`` for any other bytes."""
    try:
        return DECODERS[tag](data)
    except Exception as error:  # the bytes are input: whatever they break is the same answer
        if tag in DECODERS and not _is_its_own(error, DECODERS[tag], data):
            raise
        raise Undecodable(f"{len(data)} bytes of type {tag} do not decode: {error}") from error


# Scalars: a tag of their own


def _encode_str(value: Any) -> tuple[int, bytes]:
    return ASCII if value.isascii() else UTF8, value.encode()


def _encode_int(value: Any) -> tuple[int, bytes]:
    if INT64_MIN <= value <= INT64_MAX:
        return INT64, value.to_bytes(8, "little", signed=True)
    return INT, _int_bytes(value)


SCALARS: dict[type, Callable[[Any], tuple[int, bytes]]] = {
    bytes: lambda value: (BYTES, value),
    str: _encode_str,
    int: _encode_int,
    float: lambda value: (FLOAT, struct.pack("<d", value)),
    bool: lambda value: (TRUE if value else FALSE, b""),
    type(None): lambda value: (NONE, b""),
}
OUTERMOST: dict[type, Callable[[Any], tuple[int, bytes]]] = {
    **SCALARS,
    Encoded: lambda value: (value.tag, value.data),
    Labelled: _labelled,
}
"""What is encoded by itself; the last two are never within another value."""


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _int_from(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


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


def _nothing(data: bytes) -> object:
    raise ValueError("pickled, which this namespace does not read")


# What may be stored: exact types, to a bounded depth


def _check(value: object, depth: int) -> None:
    """``Unserializable`` unless everything in the container ``value`` comes back as it is."""
    if depth == 0:
        raise Unserializable(f"a value nested over {DEPTH_MAX} deep, or within itself; nothing was stored")
    for child in _children(value, type(value)):
        if type(child) not in LEAVES:
            _check(child, depth - 1)


def _children(value: Any, kind: type) -> Iterable[object]:
    if kind is dict:
        return chain(value, value.values())
    if kind in SEQUENCES:
        return value  # type: ignore[no-any-return]
    if issubclass(kind, enum.Enum) and kind.__members__.get(value._name_) is value:
        return (_class_name(kind),)
    if _is_model(value):
        return (_class_name(kind), *_model_state(value))
    raise Unserializable(
        f"a value of type {kind.__module__}.{kind.__qualname__}, which would not come back as it is; "
        "nothing was stored: store a built-in type, a pydantic model or an enum member"
    )


# msgpack and its extension types


def _pack(value: object) -> bytes:
    return msgpack.packb(value, default=_extension, strict_types=True)  # type: ignore[no-any-return]


def _unpack(data: bytes, depth: int = 0) -> Any:
    return msgpack.unpackb(data, ext_hook=HOOKS[depth], strict_map_key=False)


def _extension(value: Any) -> msgpack.ExtType:
    """What msgpack has no type for; called by it, and only for what ``_check`` has let through."""
    known = EXTENSIONS.get(type(value))
    if known is not None:
        return msgpack.ExtType(known[0], known[1](value))
    if issubclass(type(value), enum.Enum):
        return msgpack.ExtType(EXT_ENUM, _pack([_class_name(type(value)), value._name_]))
    return msgpack.ExtType(EXT_MODEL, _model_bytes(value))


def _from_extension(depth: int, code: int, data: bytes) -> object:
    return UNPACKERS[code](data, depth + 1)


HOOKS = [partial(_from_extension, depth) for depth in range(DEPTH_MAX + 1)]


def _set_bytes(value: Iterable[object]) -> bytes:
    """Sorted by what the elements are packed to: the order of a set depends on the process's hash seed."""
    packed = sorted(map(_pack, value))
    return msgpack.Packer().pack_array_header(len(packed)) + b"".join(packed)  # type: ignore[no-any-return]


def _zone_bytes(zone: Any) -> bytes:
    if zone is None:
        return b""
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return b"o" + OFFSET.pack(offset // MICROSECOND) + b"".join(b"=" + text.encode() for text in name)
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo and zone.key:
        return b"z" + bytes(zone.key, "utf-8")
    raise ValueError(f"a time zone of type {type(zone).__qualname__}, neither datetime.timezone nor ZoneInfo")


def _zone_from(data: bytes) -> dt.tzinfo | None:
    kind, rest = data[:1], data[1:]
    if not kind:
        return None
    if kind == b"z":
        from zoneinfo import ZoneInfo

        return ZoneInfo(rest.decode())
    offset = dt.timedelta(microseconds=OFFSET.unpack(rest[:8])[0])
    if kind != b"o":
        raise ValueError("an unknown kind of time zone")
    if not rest[8:]:
        return dt.timezone(offset)
    return dt.timezone(offset, rest[9:].decode())


def _date_bytes(value: dt.date) -> bytes:
    return DATE.pack(value.year, value.month, value.day)


def _date_from(data: bytes, depth: int) -> dt.date:
    return dt.date(*DATE.unpack(data))


def _time_bytes(value: dt.time | dt.datetime) -> bytes:
    clock = TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return clock + _zone_bytes(value.tzinfo)


def _time_from(data: bytes, depth: int) -> dt.time:
    hour, minute, second, microsecond, fold = TIME.unpack(data[: TIME.size])
    return dt.time(hour, minute, second, microsecond, _zone_from(data[TIME.size :]), fold=fold)


def _datetime_bytes(value: dt.datetime) -> bytes:
    return _date_bytes(value) + _time_bytes(value)


def _datetime_from(data: bytes, depth: int) -> dt.datetime:
    return dt.datetime.combine(_date_from(data[: DATE.size], depth), _time_from(data[DATE.size :], depth))


def _delta_bytes(value: dt.timedelta) -> bytes:
    return DELTA.pack(value.days, value.seconds, value.microseconds)


def _complex_bytes(value: complex) -> bytes:
    return COMPLEX.pack(value.real, value.imag)


EXT_ENUM, EXT_MODEL = 12, 13

# type: (extension code, to bytes, from bytes and the depth they are at)
EXTENSIONS: dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes, int], object]]] = {
    dt.datetime: (1, _datetime_bytes, _datetime_from),
    dt.date: (2, _date_bytes, _date_from),
    dt.time: (3, _time_bytes, _time_from),
    dt.timedelta: (4, _delta_bytes, lambda data, depth: dt.timedelta(*DELTA.unpack(data))),
    decimal.Decimal: (
        5,
        lambda value: str(value).encode(),
        lambda data, depth: decimal.Decimal(data.decode()),
    ),
    uuid.UUID: (6, lambda value: value.bytes, lambda data, depth: uuid.UUID(bytes=data)),
    complex: (7, _complex_bytes, lambda data, depth: complex(*COMPLEX.unpack(data))),
    int: (8, _int_bytes, lambda data, depth: _int_from(data)),  # beyond msgpack's 64 bits
    tuple: (9, lambda value: _pack(list(value)), lambda data, depth: tuple(_list_from(data, depth))),
    set: (10, _set_bytes, lambda data, depth: set(_list_from(data, depth))),
    frozenset: (11, _set_bytes, lambda data, depth: frozenset(_list_from(data, depth))),
}
SEQUENCES = frozenset({list, tuple, set, frozenset})
LEAVES = frozenset(EXTENSIONS) - SEQUENCES | frozenset(SCALARS)


def _list_from(data: bytes, depth: int) -> list[Any]:
    unpacked = _unpack(data, depth)
    if type(unpacked) is not list:
        raise TypeError("no list")
    return unpacked


# Classes by name, and models


def _class_name(kind: type) -> str:
    """``module:qualname``; ``Unserializable`` when the class cannot be found again by it."""
    name = f"{kind.__module__}:{_qualname(kind)}"
    try:
        found = _class_called(name)
    except LookupError:
        found = None
    if found is not kind:
        raise Unserializable(f"a value of class {name}, which is not found by that name; nothing was stored")
    return name


def _qualname(kind: Any) -> str:
    """Of a generic model with arguments: pydantic keeps no outer class in the name."""
    origin = getattr(kind, "__pydantic_generic_metadata__", {}).get("origin")
    if origin is None:
        return str(kind.__qualname__)
    return f"{origin.__qualname__}[{kind.__name__.partition('[')[2]}"


def _subclasses(kind: type) -> list[type]:
    return type.__subclasses__(kind)


def _class_called(name: str) -> Any:
    """Among what is imported; ``LookupError`` when it is not, or the name is another thing's."""
    module, _, qualname = name.partition(":")
    plain, bracket, _ = qualname.partition("[")
    found: Any = sys.modules[module]
    for part in plain.split("."):
        found = vars(found)[part]
    if not isinstance(found, type) or (found.__module__, found.__qualname__) != (module, plain):
        raise LookupError(f"{name} is no class of that name")
    if bracket:
        found = next((kind for kind in _subclasses(found) if _qualname(kind) == qualname), None)
        if found is None:
            raise LookupError(f"{name} has not been used here with these arguments")
    return found


def _enum_from(data: bytes, depth: int) -> object:
    name, member = _list_from(data, depth)
    kind = _class_called(name)
    if not issubclass(kind, enum.Enum):
        raise TypeError(f"{name} is no enum")
    return kind.__members__[member]


def _is_model(value: object) -> TypeGuard[BaseModel]:
    """Whether it is a pydantic model, without importing pydantic: where it is not imported, there is none.

    By its type: a mock or a proxy says that it is of another class.
    """
    main = sys.modules.get("pydantic.main")
    return main is not None and main.BaseModel in type(value).__mro__


MODEL_STATE = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def _model_state(value: BaseModel) -> list[object]:
    """What pickle would keep of a model, as ``MODEL_STATE`` orders it; a root model has but the first two.

    Of ``__dict__``, the fields alone: a cached property is there too once it was used, and is computed anew.
    """
    try:
        state = value.__getstate__()
    except Exception as error:  # the class may have one of its own
        if not _is_its_own(error, type(value).__getstate__, value):
            raise
        raise Unserializable(
            f"a value of class {_class_name(type(value))}, whose state cannot be had ({error!r}); "
            "nothing was stored"
        ) from error
    if not state.keys() <= set(MODEL_STATE):
        raise Unserializable(
            f"a value of class {_class_name(type(value))}, which has a __getstate__ of its own; "
            "nothing was stored"
        )
    fields = type(value).model_fields
    state["__dict__"] = {name: each for name, each in state["__dict__"].items() if name in fields}
    return [state.get(part) for part in MODEL_STATE]


def _model_bytes(value: BaseModel) -> bytes:
    kind = type(value)
    return _pack([_class_name(kind), shape_digest(kind), *_model_state(value)])


def _model_from(data: bytes, depth: int) -> object:
    name, digest, *state = _list_from(data, depth)
    kind = _class_called(name)
    if not issubclass(kind, sys.modules["pydantic.main"].BaseModel):
        raise TypeError(f"{name} is no pydantic model")
    if digest != shape_digest(kind):
        raise ValueError(f"{name} was another class when this was stored")
    model = kind.__new__(kind)
    model.__setstate__(dict(zip(MODEL_STATE, state, strict=True)))
    return model


UNPACKERS: dict[int, Callable[[bytes, int], object]] = {
    **{code: unpack for code, _, unpack in EXTENSIONS.values()},
    EXT_ENUM: _enum_from,
    EXT_MODEL: _model_from,
}
DECODERS: dict[int, Callable[[bytes], object]] = {
    BYTES: bytes,
    ASCII: lambda data: data.decode("ascii"),
    UTF8: lambda data: data.decode(),
    INT64: _int64_from,
    FLOAT: _float_from,
    FALSE: _constant(False),
    TRUE: _constant(True),
    NONE: _constant(None),
    INT: _int_from,
    MSGPACK: partial(msgpack.unpackb, ext_hook=HOOKS[0], strict_map_key=False),
    MODEL: lambda data: _model_from(data, 0),
    PLAIN: msgpack.unpackb,  # itself: parsing keyword arguments costs a fifth of decoding a small dict
    PICKLE: _nothing,
    LABELLED: _value_behind_label,
}
# For the core: what turns the bytes of each tag into the value. Whatever one raises, the bytes do not decode.
HOOKS_BY_TAG = tuple(DECODERS[tag] for tag in range(LABELLED + 1))
