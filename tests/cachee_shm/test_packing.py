"""Values of every type at every depth; and bytes that nobody has packed."""

import collections
import contextlib
import dataclasses
import ipaddress
import pathlib
import random
import subprocess
import sys

import attrs
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachee_shm
from cachee_shm import registry
from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable, Unserializable
from tests.cachee_shm import kept
from tests.cachee_shm.test_codec import HASHABLE, Colour

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ALL_KEYS = (
    HASHABLE
    | TEXT.map(kept.Text)
    | TEXT.map(kept.Bare)
    | st.integers().map(kept.Number)
    | st.floats().map(kept.Floating)
    | st.binary(max_size=5).map(kept.Raw)
    | st.builds(kept.Point, st.floats(), st.integers())
    | st.builds(kept.Frozen, st.integers(), TEXT)
    | st.builds(kept.Slotted, st.integers(), TEXT)
    | TEXT.map(kept.Plate)
    | st.builds(kept.Money, st.integers(), TEXT)
    | st.ip_addresses()
    | st.ip_addresses().map(ipaddress.ip_interface)
    | TEXT.map(pathlib.PurePosixPath)
    | st.integers(-128, 127).map(np.int8)
    | st.floats(width=32).map(np.float32)
)
KEYS = st.deferred(lambda: ALL_KEYS)  # whose repr is short
ARRAYS = st.lists(st.integers(-9, 9), max_size=4).map(lambda each: np.array(each, "<i8"))
VALUES = st.recursive(
    KEYS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(lambda each: collections.deque(each, 3))
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(collections.OrderedDict)
        | st.dictionaries(KEYS, inner, max_size=3).map(lambda each: collections.defaultdict(kept.Car, each))
        | st.dictionaries(KEYS, st.integers(), max_size=3).map(collections.Counter)
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
        | st.builds(kept.Pair, inner, inner)
        | st.builds(kept.Named, inner, inner)
        | st.builds(kept.Person, TEXT, st.integers(), inner)
        | st.builds(kept.Employee, TEXT, boss=inner)
        | st.builds(kept.Slotted, st.integers(), inner)
        | st.builds(kept.Box[int], inner)
        | st.builds(kept.Car, st.integers(0, 9), inner)
        | st.builds(kept.Model, x=inner)
    ),
    max_leaves=12,
)


@pytest.fixture(autouse=True, scope="module")
def money():
    cachee_shm.register(
        kept.Money, "money", lambda m: (m.cents, m.currency), lambda parts: kept.Money(*parts)
    )
    yield
    registry.BY_NAME.clear(), registry.BY_TYPE.clear()


def told(value):
    """Types and contents at every depth; what has no order is sorted."""
    kind = type(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return kind, str(value.dtype), np.shape(value), value.tobytes()
    if isinstance(value, dict):
        pairs = [(told(key), told(each)) for key, each in value.items()]
        ordered = pairs if kind in (dict, collections.OrderedDict) else sorted(pairs, key=repr)
        return kind, getattr(value, "default_factory", None), ordered
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(told, value), key=repr)
    if isinstance(value, (list, tuple, collections.deque)):
        return (
            kind,
            list(map(told, value)),
            getattr(value, "maxlen", None),
            told(getattr(value, "__dict__", {})),
        )
    if kind is kept.Bare:
        return kind, str.__str__(value)
    if isinstance(value, (kept.Number, kept.Raw)):
        base = kind.__mro__[1]
        return kind, base.__repr__(value)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return (
            kind,
            [told(getattr(value, name, None)) for name in names],
            sorted({*getattr(value, "__dict__", ())} - {"__orig_class__"}),
        )
    if attrs.has(kind):
        return kind, [told(getattr(value, field.name)) for field in attrs.fields(kind)]
    if isinstance(value, (kept.Model, kept.Money)):
        return kind, {name: told(each) for name, each in vars(value).items()}
    return kind, repr(value), getattr(value, "fold", None)


@pytest.mark.fuzz
@given(VALUES)
def test_every_value_comes_back_equal_and_of_the_same_type_at_every_depth(value):
    assert told(decode(*encode(value))) == told(value)


@pytest.mark.fuzz
@given(VALUES, st.randoms(use_true_random=False))
def test_damaged_bytes_run_nothing_import_nothing_and_are_undecodable_or_some_value(
    value, rng: random.Random
):
    tag, data = encode(value)
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if damaged:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    kept.run.clear()
    before = set(sys.modules)
    with contextlib.suppress(Undecodable):
        decode(rng.choice([tag, 9, 10, 11, 13, 14]), bytes(damaged[: rng.randint(0, len(damaged))]))
    assert kept.run == []
    ours = ("tzdata", "zstandard")  # what decoding itself imports, where it is first needed
    assert {name for name in set(sys.modules) - before if not name.startswith(ours)} == set()


@pytest.mark.fuzz
@given(
    st.integers(0, 40),
    st.binary(max_size=60) | st.lists(st.none() | st.text() | st.binary()).map(msgpack.packb),
)
def test_any_bytes_of_any_extension_are_some_value_or_undecodable(code, data):
    with contextlib.suppress(Undecodable):
        decode(9, msgpack.packb(msgpack.ExtType(code, data)))


def test_a_value_is_read_once_so_what_is_checked_is_what_is_stored():
    asked = []
    cachee_shm.register(kept.Plain, "plain", lambda p: asked.append(1) or p.x, kept.Plain)
    assert decode(*encode([(kept.Plain(1),)])) == [(kept.Plain(1),)]
    assert len(asked) == 1


def test_two_keys_that_would_be_one_are_refused():
    class Odd:
        def __init__(self, x):
            self.x = x

    cachee_shm.register(Odd, "odd", lambda o: 1, Odd)
    with pytest.raises(Unserializable, match=r"two keys.*nothing was stored"):
        encode({Odd(1): 1, Odd(2): 2})


def test_the_same_is_encoded_to_the_same_bytes_in_every_process():
    program = (
        "import sys; from cachee_shm.codec import encode; from tests.cachee_shm import kept\n"
        "value = [{kept.Frozen(1, w) for w in 'abcdefgh'}, kept.Text('x'), {kept.Point(1), 2, 'c'}]\n"
        "sys.stdout.buffer.write(encode(value)[1])"
    )
    seeds = [{"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)} for seed in ("0", "1", "77")]
    outputs = {
        subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout
        for env in seeds
    }
    assert len(outputs) == 1


def test_an_enum_is_a_key_beside_its_value():
    value = {Colour.RED: 1, "blue": 2, (Colour.BLUE,): 3}
    assert decode(*encode(value)) == value
