"""What decoding stored bytes may cost is bounded by their length: shared memory is input."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm._core import is_bounded
from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable
from cachee_shm.extensions import int_bytes

assert np.ndarray  # its arrays are decoded only where it is imported


# Bytes that were made to be dear: each would take seconds, or gigabytes. No time is asserted.

MIB = 1 << 20
EQUAL = (1 << 61) - 1  # multiples of it have the hash 0


def _extension(code, data):
    return msgpack.packb(msgpack.ExtType(code, data))


def _big(n):
    return _extension(8, int_bytes(n * EQUAL))


NESTED = (b"\xdc\xff\xff" * MIB)[:MIB]
DEAR = {
    "nested arrays": (9, NESTED),
    "nested arrays, plain": (11, NESTED),
    "nested arrays of a model": (10, NESTED),
    "nested maps": (9, (b"\xde\xff\xff" * MIB)[:MIB]),
    "within a tuple": (9, _extension(9, NESTED)),
    "behind an etag": (13, b"\x00\x00\x0b" + NESTED),
    "an array's head": (9, _extension(25, (60_000).to_bytes(4, "little") + NESTED[:60_000])),
    "an array's dimensions": (
        9,
        _extension(
            25, (lambda head: len(head).to_bytes(4, "little") + head)(msgpack.packb(["<i4", [2**62] * 6000]))
        ),
    ),
    "keys of one hash": (
        9,
        b"\xdf"
        + (50_000).to_bytes(4, "big")
        + b"".join(_big(n) + b"\x00" for n in range(2**70, 2**70 + 50_000)),
    ),
    "a set of one hash": (
        9,
        _extension(
            10, b"\xdd" + (50_000).to_bytes(4, "big") + b"".join(map(_big, range(2**70, 2**70 + 50_000)))
        ),
    ),
}


@pytest.mark.parametrize(("tag", "data"), DEAR.values(), ids=DEAR)
def test_bytes_that_would_cost_far_more_than_their_length_are_undecodable(tag, data):
    with pytest.raises(Undecodable):
        decode(tag, data)


@pytest.mark.parametrize(
    "value", [{n: [n] for n in range(5000)}, {(n, "x") for n in range(5000)}, [[[]] * 3000] * 3]
)
def test_a_large_valid_document_comes_back(value):
    assert decode(*encode(value)) == value


DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
)


@given(DOCUMENTS, st.integers(0, 127), st.binary(max_size=40))
def test_the_check_of_length_accepts_each_document_and_none_that_is_cut(value, code, data):
    padded = [value, msgpack.ExtType(code, data), bytes(2000)]
    packed = msgpack.packb(padded)
    assert is_bounded(packed)
    assert not is_bounded(packed[:-1])
