"""Types of Python and its standard library that msgpack has no type for.

    code  type                          stored as
    1-4   datetime, date, time,         fixed-size structs, then the time zone
          timedelta
    5     Decimal                       its text
    6     UUID                          16 bytes
    7     complex                       two doubles
    8     int beyond 64 bits            little-endian, signed, as many bytes as needed
    9     tuple                         its items
    10-11 set, frozenset                its items, sorted by what they are packed to
    12-17 values of classes             see ``classes.py``
    18    values of registered types    see ``registry.py``
    19    defaultdict                   the name of its factory, a dict
    20-21 OrderedDict, Counter          a dict
    22    deque                         its ``maxlen``, its items
    23    IP address, path              the number of its class in ``TEXTUAL``, its text
    24-25 numpy scalar, numpy array     see ``arrays.py``

Each is an ``Extension``: either bytes (a leaf), or a list of further values, which ``packing.py`` packs.
Types are compared exactly: a subclass is another type.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import importlib
import struct
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "EXTENSIONS",
    "SETS",
    "TEXT",
    "Extension",
    "dict_from",
    "factory_called",
    "factory_name",
    "int_bytes",
    "int_from",
    "textual",
]

DATE = struct.Struct("<HBB")
TIME = struct.Struct("<BBBIB")  # hour, minute, second, microsecond, fold
OFFSET = struct.Struct("<q")  # microseconds east of Greenwich
DELTA = struct.Struct("<iii")  # days, seconds, microseconds
COMPLEX = struct.Struct("<dd")
MICROSECOND = dt.timedelta(microseconds=1)


class Extension(NamedTuple):
    """How the values of a type are stored, and restored."""

    code: int
    lower: Callable[[Any], Any]
    """To bytes, or to a list of values that are stored themselves."""
    restore: Callable[[Any], object]
    """From what ``lower`` returned."""
    is_leaf: bool = True


def int_bytes(value: int) -> bytes:
    """``value`` in as few bytes as it needs."""
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def int_from(data: bytes) -> int:
    """What ``int_bytes`` was given."""
    return int.from_bytes(data, "little", signed=True)


# Dates and times


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


def _date_from(data: bytes) -> dt.date:
    return dt.date(*DATE.unpack(data))


def _time_bytes(value: dt.time | dt.datetime) -> bytes:
    clock = TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return clock + _zone_bytes(value.tzinfo)


def _time_from(data: bytes) -> dt.time:
    hour, minute, second, microsecond, fold = TIME.unpack(data[: TIME.size])
    return dt.time(hour, minute, second, microsecond, _zone_from(data[TIME.size :]), fold=fold)


def _datetime_bytes(value: dt.datetime) -> bytes:
    return _date_bytes(value) + _time_bytes(value)


def _datetime_from(data: bytes) -> dt.datetime:
    return dt.datetime.combine(_date_from(data[: DATE.size]), _time_from(data[DATE.size :]))


def _delta_bytes(value: dt.timedelta) -> bytes:
    return DELTA.pack(value.days, value.seconds, value.microseconds)


# Containers


EQUAL_HASHES_MAX = 1000
"""A bound on equal hashes in a set or large dict, because each such item is compared with all others. Only
crafted bytes exceed it (numbers with equal hashes; hashes of text differ from process to process)."""


def _hashes_differ(values: list[Any]) -> list[Any]:
    if len(values) > EQUAL_HASHES_MAX and len(values) - len(set(map(hash, values))) > EQUAL_HASHES_MAX:
        raise ValueError(f"more than {EQUAL_HASHES_MAX} values of equal hashes in a set or dict")
    return values


def dict_from(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict of these pairs; ``ValueError`` if making it would cost far more than its length."""
    _hashes_differ([key for key, _ in pairs])
    return dict(pairs)


def _set_from(items: list[Any]) -> set[Any]:
    return set(_hashes_differ(items))


def _frozenset_from(items: list[Any]) -> frozenset[Any]:
    return frozenset(_hashes_differ(items))


FACTORIES = (
    *(bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple),
    *(collections.Counter, collections.OrderedDict, collections.deque, decimal.Decimal),
)
FACTORY_NAMES: dict[Any, str] = {kind: kind.__name__ for kind in FACTORIES}
FACTORIES_CALLED = {name: kind for kind, name in FACTORY_NAMES.items()}


def factory_name(factory: Any) -> str | None:
    """The name of a built-in type that a defaultdict may have as its factory."""
    return FACTORY_NAMES.get(factory) if isinstance(factory, type) else None


def factory_called(name: str) -> type | None:
    """The type of this name; None for no such."""
    return FACTORIES_CALLED.get(name)


def _dict_from(state: list[Any]) -> dict[Any, Any]:
    (whole,) = state
    if type(whole) is not dict:
        raise TypeError("no dict")
    return whole


def _counter_from(state: list[Any]) -> collections.Counter[Any]:
    made: collections.Counter[Any] = collections.Counter()
    dict.update(made, _dict_from(state))
    return made


def _deque_from(state: list[Any]) -> collections.deque[Any]:
    length, *items = state
    return collections.deque(items, length)


# Addresses and paths: by their text


TEXTUAL = (
    *(
        (("ipaddress", f"IPv{version}{each}"))
        for version in (4, 6)
        for each in ("Address", "Network", "Interface")
    ),
    *(("pathlib", name) for name in ("PosixPath", "PurePosixPath", "PureWindowsPath")),
)
"""By their numbers, so never reorder them. Their modules are imported with the first value."""


def textual(kind: type) -> Extension | None:
    """How values of a class in ``TEXTUAL`` are stored; None for any other class."""
    return TEXT if _number(kind) is not None else None


def _number(kind: type) -> int | None:
    for number, (module, name) in enumerate(TEXTUAL):
        imported = sys.modules.get(module)
        if imported is not None and vars(imported).get(name) is kind:
            return number
    return None


def _text_bytes(value: object) -> bytes:
    number = _number(type(value))
    if number is None:
        raise LookupError("its module was replaced")
    return bytes((number,)) + str(value).encode(*PATH_CODING)


def _text_from(data: bytes) -> object:
    module, name = TEXTUAL[data[0]]
    return getattr(importlib.import_module(module), name)(data[1:].decode(*PATH_CODING))


PATH_CODING = ("utf-8", "surrogateescape")  # a path need not be UTF-8
TUPLE, SET, FROZENSET = 9, 10, 11
SETS = frozenset({SET, FROZENSET})
TEXT = Extension(23, _text_bytes, _text_from)

EXTENSIONS: dict[type, Extension] = {
    dt.datetime: Extension(1, _datetime_bytes, _datetime_from),
    dt.date: Extension(2, _date_bytes, _date_from),
    dt.time: Extension(3, _time_bytes, _time_from),
    dt.timedelta: Extension(4, _delta_bytes, lambda data: dt.timedelta(*DELTA.unpack(data))),
    decimal.Decimal: Extension(
        5, lambda value: str(value).encode(), lambda data: decimal.Decimal(data.decode())
    ),
    uuid.UUID: Extension(6, lambda value: value.bytes, lambda data: uuid.UUID(bytes=data)),
    complex: Extension(
        7, lambda value: COMPLEX.pack(value.real, value.imag), lambda data: complex(*COMPLEX.unpack(data))
    ),
    int: Extension(8, int_bytes, int_from),
    tuple: Extension(TUPLE, list, tuple, is_leaf=False),
    set: Extension(SET, list, _set_from, is_leaf=False),
    frozenset: Extension(FROZENSET, list, _frozenset_from, is_leaf=False),
    collections.OrderedDict: Extension(
        20,
        lambda value: [dict(value)],
        lambda state: collections.OrderedDict(_dict_from(state)),
        is_leaf=False,
    ),
    collections.Counter: Extension(21, lambda value: [dict(value)], _counter_from, is_leaf=False),
    collections.deque: Extension(22, lambda value: [value.maxlen, *value], _deque_from, is_leaf=False),
}
"""By exact type: types that are stored without a class name."""
