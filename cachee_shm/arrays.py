"""numpy's scalars and arrays, without pickle: the dtype, the shape, the bytes.

numpy is never imported here: where it is not imported, there is no value of its types, and a stored one is a
miss. An array comes back writable, in C order. dtypes that hold Python objects are refused.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from typing import Any

import msgpack

from cachee_shm._core import is_bounded
from cachee_shm.errors import Unserializable
from cachee_shm.extensions import Extension
from cachee_shm.mistakes import is_its_own

__all__ = ["ARRAY", "NUMBER", "extension_of"]

HEAD = struct.Struct("<I")  # bytes of the head: msgpack of dtype and shape
PLAIN_KINDS = "biufcmMSUV"  # bool, integers, floats, complex, times, fixed-size bytes and text, records
ITEM_BYTES_MAX = 1 << 20
DIMENSIONS_MAX = 64
HEAD_BYTES_MAX = 1 << 16  # some thousand fields: numpy takes milliseconds to make a dtype of them
CODE_POINT_MAX = 0x10FFFF


def extension_of(kind: type) -> Extension | None:
    """How values of a type of numpy's are stored; None for any other type."""
    numpy = sys.modules.get("numpy")
    array, scalar = (getattr(numpy, name, None) for name in ("ndarray", "generic"))
    if array is None or scalar is None:
        return None
    return ARRAY if kind is array else NUMBER if issubclass(kind, scalar) else None


def _description(dtype: Any) -> object:
    """What ``_dtype_from`` makes an equal dtype of."""
    if dtype.hasobject or dtype.kind not in PLAIN_KINDS or dtype.itemsize > ITEM_BYTES_MAX:
        raise Unserializable(
            f"a numpy value of dtype {dtype}; nothing was stored: store numbers, times, or fixed-size bytes "
            "and text (object arrays as lists)"
        )
    described = dtype.str if dtype.names is None else [_field(*each) for each in dtype.descr]
    if not _is_made_by(described, dtype):
        raise Unserializable(
            f"a numpy value of dtype {dtype}, whose fields overlap, have titles or leave gaps; nothing was "
            "stored: store a packed copy (numpy.lib.recfunctions.repack_fields)"
        )
    return described


def _is_made_by(described: object, dtype: Any) -> bool:
    try:
        return bool(_dtype_from(described) == dtype)
    except (TypeError, ValueError) as error:
        if not is_its_own(error, _dtype_from, described):
            raise
        return False


def _field(name: Any, kind: Any, shape: tuple[int, ...] = ()) -> list[object]:
    return [name, kind if isinstance(kind, str) else [_field(*each) for each in kind], list(shape)]


def _dtype_from(described: Any) -> Any:
    """Of input too: from the dtypes' own short names, never from a text that names fields or objects."""
    numpy = sys.modules["numpy"]
    if type(described) is not str:
        dtype = numpy.dtype(
            [(_text(name), _dtype_from(kind), tuple(map(_size, shape))) for name, kind, shape in described]
        )
    elif SHORT_NAME.fullmatch(described):
        dtype = numpy.dtype(described)
    else:
        raise ValueError("no dtype")
    if dtype.hasobject or not dtype.itemsize <= ITEM_BYTES_MAX:
        raise ValueError("a dtype that is not stored")
    return dtype


SHORT_NAME = re.compile(rf"[<>|=][{PLAIN_KINDS}][0-9]+(\[[0-9A-Za-zμ]+\])?|[qQgG]")
"""The last are C types that have the size of another."""


def _text(name: Any) -> str:
    if type(name) is not str:
        raise TypeError("a field without a name")
    return name


def _size(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("no size")
    return number


def _array_bytes(value: Any) -> bytes:
    head = msgpack.packb([_description(value.dtype), list(value.shape)])
    if len(head) > HEAD_BYTES_MAX:
        raise Unserializable("a numpy array of too many fields; nothing was stored: store its columns")
    return b"".join((HEAD.pack(len(head)), head, value.tobytes()))


def _array_from(data: bytes) -> object:
    at = HEAD.size + HEAD.unpack_from(data)[0]
    head = data[HEAD.size : at]
    if len(head) > HEAD_BYTES_MAX or not is_bounded(head):
        raise ValueError("no head of an array")
    described, shape = msgpack.unpackb(head)
    if len(shape) > DIMENSIONS_MAX:  # before they are multiplied
        raise ValueError("too many dimensions")
    dtype, sizes = _dtype_from(described), tuple(map(_size, shape))
    count = math.prod(sizes)
    if at + count * dtype.itemsize != len(data):
        raise ValueError("a shape of another size")
    return _items(data, dtype, count, at).reshape(sizes)


def _items(data: bytes, dtype: Any, count: int, at: int) -> Any:
    numpy = sys.modules["numpy"]
    if not count or not dtype.itemsize:
        return numpy.zeros(count, dtype)
    items = numpy.frombuffer(data, dtype, count, at).copy()
    if dtype.kind == "U" and items.view(dtype.byteorder + "u4").max() > CODE_POINT_MAX:
        raise ValueError("text that is no Unicode")
    return items


def _number_bytes(value: Any) -> bytes:
    dtype, numpy = value.dtype, sys.modules["numpy"]
    described = dtype.str if numpy.dtype(dtype.str).type is type(value) else dtype.char
    if dtype.kind in "SUV" or numpy.dtype(described).type is not type(value):
        raise Unserializable(
            f"a numpy scalar of type {type(value).__name__}; nothing was stored: "
            "store its .item(), or an array"
        )
    return b"".join((bytes((len(described),)), described.encode(), value.tobytes()))


def _number_from(data: bytes) -> object:
    at = 1 + data[0]
    dtype = _dtype_from(data[1:at].decode())
    if dtype.kind in "SUV" or at + dtype.itemsize != len(data):
        raise ValueError("a number of another size")
    return _items(data, dtype, 1, at)[0]


NUMBER = Extension(24, _number_bytes, _number_from)
ARRAY = Extension(25, _array_bytes, _array_from)
