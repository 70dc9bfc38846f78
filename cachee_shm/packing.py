"""Values of any depth as msgpack, with the extension types of ``extensions.py`` and its neighbours.

A value is lowered once to what msgpack itself has types for, and then packed. So each container is read once,
and what is checked is what is stored. What comes back equals what went in and is of the same type, at every
depth, or ``pack`` refuses. Equal sets are equal bytes whatever the process's hash seed, since hosts compare
values by the digest of them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack

from cachee_shm import arrays, classes, registry
from cachee_shm._core import is_bounded
from cachee_shm.errors import Unserializable
from cachee_shm.extensions import EXTENSIONS, SETS, TEXT, Extension, dict_from, textual

__all__ = ["DEPTH_MAX", "HOOKS", "model_from", "pack", "pack_model", "unpack"]

# Deeper values exist by mistake (a cycle). Each level may cost a C frame of msgpack twice; 64 fit every
# thread's stack.
DEPTH_MAX = 64
NATIVE = frozenset({str, bytes, float, bool, type(None)})
INT_MIN, INT_END = -(1 << 63), 1 << 64  # of msgpack
REGISTERED = 18
PAIRS_FROM = 1 << 14  # bytes: keys of equal hashes that fit into fewer cost milliseconds
TOO_DEEP = f"a value nested over {DEPTH_MAX} deep, or within itself; nothing was stored"


def pack(value: object) -> bytes:
    """``Unserializable`` unless everything in ``value`` comes back as it is."""
    return msgpack.packb(_lowered(value, DEPTH_MAX))  # type: ignore[no-any-return]


def pack_model(value: object) -> bytes:
    """A pydantic model that is a whole value: without the extension type around it."""
    return _packed(classes.MODEL, classes.MODEL.lower(value), DEPTH_MAX)


def unpack(data: bytes) -> Any:
    """What ``pack`` was given. Raises anything for other bytes."""
    return _unpacked(data, 0)


def model_from(data: bytes) -> object:
    """What ``pack_model`` was given."""
    return classes.MODEL.restore(_list_from(data, 0))


# Down


def _lowered(value: Any, depth: int) -> Any:
    """The same in msgpack's own types, at most ``depth`` containers deep."""
    kind = type(value)
    if kind in NATIVE or (kind is int and INT_MIN <= value < INT_END):
        return value
    if kind is list:
        return _items(value, depth)
    if kind is dict:
        return _mapping(value, depth)
    extension = _extension_of(kind)
    if extension is None:
        raise Unserializable(
            f"a value of type {kind.__module__}.{kind.__qualname__}, which would not come back as it is; "
            "nothing was stored: store a built-in type, a dataclass, an attrs class, a pydantic model or an "
            "enum member, or give the type a codec by cachee_shm.register"
        )
    state = extension.lower(value)
    return msgpack.ExtType(extension.code, state if extension.is_leaf else _packed(extension, state, depth))


def _items(values: Any, depth: int) -> list[Any]:
    if depth == 0:
        raise Unserializable(TOO_DEEP)
    return [_lowered(each, depth - 1) for each in values]


def _mapping(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    if depth == 0:
        raise Unserializable(TOO_DEEP)
    lowered = {_key(key, depth - 1): _lowered(each, depth - 1) for key, each in value.items()}
    if len(lowered) != len(value):
        raise Unserializable("a dict of two keys that are stored as the same bytes; nothing was stored")
    return lowered


def _key(key: Any, depth: int) -> Any:
    return key if type(key) is str else _lowered(key, depth)


def _packed(extension: Extension, state: list[Any], depth: int) -> bytes:
    items = _items(state, depth)
    if extension.code not in SETS:
        return msgpack.packb(items)  # type: ignore[no-any-return]
    # The order of a set depends on the process's hash seed.
    packed = sorted(map(msgpack.packb, items))
    return msgpack.Packer().pack_array_header(len(packed)) + b"".join(packed)  # type: ignore[no-any-return]


def _extension_of(kind: type) -> Extension | None:
    known = EXTENSIONS.get(kind)
    if known is not None:
        return known
    if registry.of(kind) is not None:
        return OWN
    if kind is collections.defaultdict:
        return classes.FACTORY_DICT
    return arrays.extension_of(kind) or classes.extension_of(kind) or textual(kind)


# Types with a codec of the user's


def _own_state(value: Any) -> list[object]:
    codec = registry.of(type(value))
    if codec is None:  # registered no more, meanwhile
        raise Unserializable("a value whose codec was replaced; nothing was stored")
    return [codec.name, codec.encode(value)]


def _own_from(state: list[Any]) -> object:
    name, encoded = state
    codec = registry.called(name)
    value = codec.decode(encoded)
    if type(value) is not codec.kind:
        raise TypeError(f"the codec {name!r} made a {type(value).__name__} of it")
    return value


OWN = Extension(REGISTERED, _own_state, _own_from, is_leaf=False)


# Up


def _unpacked(data: bytes, depth: int) -> Any:
    if not is_bounded(data):
        raise ValueError("cut off, or more items than bytes")
    pairs = dict_from if len(data) >= PAIRS_FROM else None
    return msgpack.unpackb(data, ext_hook=HOOKS[depth], strict_map_key=False, object_pairs_hook=pairs)


def _list_from(data: bytes, depth: int) -> list[Any]:
    unpacked = _unpacked(data, depth)
    if type(unpacked) is not list:
        raise TypeError("no list")
    return unpacked


def _from_extension(depth: int, code: int, data: bytes) -> object:
    extension = BY_CODE[code]
    return extension.restore(data if extension.is_leaf else _list_from(data, depth + 1))


HOOKS: list[Callable[[int, bytes], object]] = [
    partial(_from_extension, depth) for depth in range(DEPTH_MAX + 1)
]
BY_CODE: dict[int, Extension] = {
    each.code: each
    for each in (*EXTENSIONS.values(), *classes.OF_CLASSES, OWN, TEXT, arrays.NUMBER, arrays.ARRAY)
}
registry.TAKEN |= {*EXTENSIONS, collections.defaultdict}
