"""numpy's arrays and scalars, without pickle."""

import os
import struct
import subprocess
import sys

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable, Unserializable
from tests.cachee_shm import kept


def back(value):
    return decode(*encode(value))


def same(one, two):
    return (
        type(one) is type(two)
        and one.dtype == two.dtype
        and np.shape(one) == np.shape(two)
        and np.asarray(one).tobytes() == np.asarray(two).tobytes()
    )


def has_titles(dtype):
    fields = (dtype.base.fields or {}).values()
    return any(len(field) > 2 or has_titles(field[0]) for field in fields)


DTYPES = (
    npst.scalar_dtypes()
    | npst.unicode_string_dtypes()
    | npst.byte_string_dtypes()
    | npst.array_dtypes().filter(lambda dtype: not has_titles(dtype))
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=4))
)


@pytest.mark.fuzz
@given(ARRAYS)
def test_every_array_comes_back_and_may_be_written_to(value):
    for read in (back(value), back({"k": [(value,)]})["k"][0][0], back(kept.Frozen(1, value)).y):
        assert same(read, value)
        assert (read.flags.writeable and read.flags.owndata) or read.base.flags.owndata


@pytest.mark.fuzz
@given(npst.scalar_dtypes().flatmap(lambda dtype: npst.arrays(dtype, (1,))).map(lambda array: array[0]))
def test_every_number_comes_back(value):
    if not isinstance(value, np.generic):
        value = np.float64(1.5)
    assert same(back([value])[0], value)
    assert same(back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3).T,
        np.arange(10)[::-2],
        np.asfortranarray(np.eye(3)),
        np.array([1, 2], ">i4"),
        np.array(["2026-01-01", "NaT"], "M8[ns]"),
        np.array([5], "m8[25us]"),
        np.array([(1, [2.0, 3.0], b"x")], [("a", "<i2"), ("b", "<f8", (2,)), ("c", "S3")]),
        np.zeros((2, 0, 3), [("a", [("b", "u1")])]),
        np.array(5.0),
        np.zeros(3, np.longlong),
        np.array(["", "ü\U0001f600"]),
    ],
    ids=repr,
)
def test_arrays_of_other_orders_and_kinds_come_back(value):
    assert same(back(value), value)


@pytest.mark.parametrize(
    "kind", [np.longlong, np.ulonglong, np.longdouble, np.half, np.bool_, np.float64, np.complex64]
)
def test_a_number_keeps_its_type_though_another_type_has_the_same_size(kind):
    assert type(back(kind(1))) is kind


def test_a_number_may_be_a_key_and_in_a_set():
    read = back({np.int64(1): {np.float32(2)}})
    assert read == {1: {2.0}} and type(next(iter(read))) is np.int64


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.array([object()]), "object arrays as lists"),
        (np.array([(1, object())], [("a", "i4"), ("b", "O")]), "object arrays"),
        (np.array([1], np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [3]})), "repack_fields"),
        (np.zeros(1, [(("title", "a"), "i4")]), "titles"),
        (np.ma.array([1, 2], mask=[True, False]), "register"),
        (np.array(["a"], np.dtypes.StringDType()), "fixed-size"),
        (np.zeros(1, [("a", "i4")])[0], "item"),
        (np.str_("a"), "item"),
        (np.random.default_rng(1), "register"),
        (np.dtype("i4"), "register"),
    ],
)
def test_what_would_not_come_back_is_refused_and_told_what_to_do(value, what):
    with pytest.raises(Unserializable, match=what) as raised:
        encode([value])
    assert "nothing was stored" in str(raised.value)


def packed(described, shape, data):
    head = msgpack.packb([described, shape])
    return msgpack.packb(msgpack.ExtType(25, struct.pack("<I", len(head)) + head + data))


@pytest.mark.parametrize(
    ("described", "shape", "data"),
    [
        ("|O", [1], bytes(8)),
        ("O", [1], bytes(8)),
        ("<i4,<f8", [1], bytes(12)),
        ("i4", [1], bytes(4)),
        ("<i4", [2], bytes(4)),
        ("<i4", [1], bytes(8)),
        ("<i4", [-1], bytes(4)),
        ("<i4", [True], bytes(4)),
        ("<i4", [1 << 62, 1 << 62], b""),
        ("<i4", [0] * 65, b""),
        ("|S9999999999", [0], b""),
        ("|S99999999", [0], b""),
        ("<U99999999", [0], b""),
        ("<U1", [1], b"\xff\xff\xff\x7f"),
        ([["a", "|O", []]], [1], bytes(8)),
        ([["a", "<i4", [1 << 40]]], [0], b""),
        ([["a", "<i4", [-1]]], [1], bytes(4)),
        ([[["t", "a"], "<i4", []]], [1], bytes(4)),
        ({"names": ["a"], "formats": ["O"]}, [1], bytes(8)),
        ("numpy.core.multiarray", [1], bytes(4)),
        (5, [1], bytes(4)),
    ],
)
def test_a_head_that_no_array_has_is_undecodable(described, shape, data):
    with pytest.raises(Undecodable):
        decode(9, packed(described, shape, data))


def test_a_process_that_has_not_imported_numpy_gets_a_miss_and_does_not_import_it():
    stored = encode([np.eye(2), np.int8(1)])
    program = (
        "import sys; from cachee_shm.codec import decode; from cachee_shm.errors import Undecodable\n"
        f"try: decode(*{stored!r})\n"
        "except Undecodable: sys.exit('numpy' in sys.modules)\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=os.getcwd()).returncode == 0
