"""Types of the standard library come back as they were."""

import collections
import decimal
import ipaddress
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable, Unserializable


def back(value):
    return decode(*encode(value))


VALUES = {
    "an ordered dict": collections.OrderedDict([("b", 1), ("a", (2,))]),
    "a counter": collections.Counter("hello"),
    "a counter below zero": collections.Counter({"a": -1, (1, 2): 5}),
    "a deque": collections.deque([1, [2], "c"]),
    "a deque with a length": collections.deque([1, 2], maxlen=2),
    "a deque of length 0": collections.deque(maxlen=0),
    "a path": pathlib.Path("/srv/ü/file name"),
    "a path that is no UTF-8": pathlib.Path("/srv/\udcff"),
    "a relative path": pathlib.PurePosixPath("a/../b"),
    "a path of Windows": pathlib.PureWindowsPath(r"C:\x\y"),
    "an address": ipaddress.ip_address("10.0.0.1"),
    "an address of version 6": ipaddress.ip_address("fe80::1%eth0"),
    "a network": ipaddress.ip_network("10.0.0.0/8"),
    "a network of version 6": ipaddress.ip_network("2001:db8::/32"),
    "an interface": ipaddress.ip_interface("10.1.2.3/8"),
    "an interface of version 6": ipaddress.ip_interface("2001:db8::5/32"),
}


@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: (v,), lambda v: {"k": [v]}], ids=["", "tuple", "deep"]
)
@pytest.mark.parametrize("name", VALUES)
def test_it_comes_back_equal_and_of_the_same_type(name, wrap):
    value = VALUES[name]
    read = back(wrap(value))
    assert read == wrap(value)
    assert repr(read) == repr(wrap(value))


def test_an_ordered_dict_keeps_its_order():
    one, other = (collections.OrderedDict(items) for items in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert back(one) == one != back(other)


@pytest.mark.parametrize(
    "kind", [collections.OrderedDict, collections.Counter, collections.deque, dict, list, set]
)
def test_a_subclass_of_a_container_is_refused_and_told_what_to_do(kind):
    made = type("Own", (kind,), {"__module__": __name__})()
    with pytest.raises(Unserializable, match=r"cachee_shm\.register"):
        encode(made)


@pytest.mark.fuzz
@given(st.ip_addresses() | st.ip_addresses(v=4).map(lambda a: ipaddress.ip_network(f"{a}/20", strict=False)))
def test_addresses_come_back(value):
    assert back([value]) == [value]


ITEMS = st.integers() | st.text("ab") | st.decimals(allow_nan=False) | st.tuples(st.integers())


@pytest.mark.fuzz
@given(
    st.lists(ITEMS).map(collections.deque)
    | st.dictionaries(ITEMS, ITEMS).map(collections.OrderedDict)
    | st.dictionaries(ITEMS, st.integers()).map(collections.Counter)
    | st.dictionaries(ITEMS, ITEMS).map(lambda d: collections.defaultdict(decimal.Decimal, d))
)
def test_containers_come_back(value):
    read = back([value])[0]
    assert type(read) is type(value) and repr(read) == repr(value)


def test_a_reader_that_uses_no_addresses_nor_paths_can_read_them():
    stored = encode([ipaddress.ip_address("::1"), pathlib.PurePosixPath("a")])
    program = (
        f"import sys; from cachee_shm.codec import decode\nprint([str(each) for each in decode(*{stored!r})])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['::1', 'a']\n"


def test_the_codec_imports_neither_addresses_nor_paths():
    program = (
        "import sys; before = set(sys.modules); from cachee_shm.codec import encode; encode([(1,)])\n"
        "new = set(sys.modules) - before; sys.exit(bool(new & {'ipaddress', 'pathlib', 'numpy', 'zstandard', "
        "'dataclasses', 'attr', 'pydantic', 'pickle'}))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-S", "-c", program], env={"PYTHONPATH": ":".join(sys.path)}
        ).returncode
        == 0
    )


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x00", b"\x00x", b"\x01\xff\xff", b"\x00" + b"1" * 5000])
def test_a_text_that_is_none_of_these_is_undecodable(data):
    import msgpack

    with pytest.raises(Undecodable):
        decode(9, msgpack.packb(msgpack.ExtType(23, data)))
