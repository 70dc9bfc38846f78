"""What comes back is what went in, or it is refused on the way in; other bytes are Undecodable."""

import collections
import contextlib
import datetime as dt
import decimal
import enum
import math
import os
import random
import subprocess
import sys
import uuid
import zoneinfo
from typing import Annotated
from unittest import mock

import msgpack
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, RootModel

import cachee_shm
from cachee_shm import codec
from cachee_shm.arrays import ARRAY, NUMBER
from cachee_shm.classes import OF_CLASSES
from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable, Unserializable
from cachee_shm.extensions import EXTENSIONS, TEXT
from cachee_shm.packing import BY_CODE, DEPTH_MAX, OWN
from tests.cachee_shm import kept


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Street(BaseModel):
    name: str
    colour: Colour = Colour.RED


class User(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: int
    email: str = Field(alias="mail", default="")
    home: Street | None = None
    price: Annotated[decimal.Decimal, AfterValidator(lambda value: value * 2)] = decimal.Decimal(0)
    seen: dt.datetime | None = None
    _token: str = PrivateAttr(default="secret")


class Numbers(RootModel[list[int]]):
    pass


class Looks:
    class Like(BaseModel):
        x: int

    class Fake:
        __pydantic_complete__ = True
        given = False

        def __setstate__(self, state):
            Looks.Fake.given = True


class Outer:
    class Inner(BaseModel):
        x: int


def round_trip(value):
    return decode(*encode(value))


def same(one, two):
    """Equal, of equal types, at every depth; NaN equals NaN, and a set's or dict's order does not matter."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return len(one) == len(two) and all(map(same, one.items(), two.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, (set, frozenset)):
        return {(type(item), repr(item)) for item in one} == {(type(item), repr(item)) for item in two}
    if isinstance(one, (dt.datetime, dt.time)):
        return one.isoformat() == two.isoformat() and one.fold == two.fold and repr(one) == repr(two)
    return repr(one) == repr(two) or one == two


OFFSETS = st.timedeltas(min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)).map(dt.timezone)
ZONES = OFFSETS | st.sampled_from(
    [dt.timezone.utc, dt.timezone(dt.timedelta(hours=1), "CET"), zoneinfo.ZoneInfo("UTC")]
)
HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.datetimes(timezones=st.none() | ZONES)
    | st.dates()
    | st.times(timezones=st.none() | OFFSETS)
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers()
    | st.sampled_from([*Colour, *Level, Mode.READ])
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(HASHABLE | st.tuples(HASHABLE), max_size=4)
    ),
    max_leaves=20,
)


# There and back


@pytest.mark.fuzz
@given(VALUES)
@example(-(1 << 63))
@example((1 << 63) - 1)
@example(1 << 63)
@example([1 << 64, -(1 << 64)])
@example(-0.0)
@example(decimal.Decimal("sNaN"))
@example({1: {2: (3, {4: frozenset({5})})}})
def test_every_value_comes_back_equal_and_of_the_same_type(value):
    assert same(round_trip(value), value)


@pytest.mark.parametrize(
    ("value", "tag", "data"),
    [
        (b"\x00\xff", 0, b"\x00\xff"),
        ("abc", 1, b"abc"),
        ("", 1, b""),
        ("ü", 2, b"\xc3\xbc"),
        (-2, 3, b"\xfe" + b"\xff" * 7),
        (1.5, 4, b"\0\0\0\0\0\0\xf8\x3f"),
        (False, 5, b""),
        (True, 6, b""),
        (None, 7, b""),
        (1 << 63, 8, b"\0" * 7 + b"\x80\0"),
        ({1: 2}, 9, b"\x81\x01\x02"),
        ([1], 11, b"\x91\x01"),
        ({"a": None}, 11, b"\x81\xa1a\xc0"),
    ],
)
def test_the_bytes_of_each_tag_are_these(value, tag, data):
    assert encode(value) == (tag, data)
    assert round_trip(value) == value


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats()
    | st.binary()
    | st.text("aü"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("aü"), inner, max_size=4),
    max_leaves=20,
).filter(lambda value: isinstance(value, (dict, list)))


@pytest.mark.fuzz
@given(PLAIN)
def test_a_plain_value_is_what_msgpack_alone_gives_back(value):
    tag, data = encode(value)
    assert tag == 11
    assert same(msgpack.unpackb(data), value)
    assert same(msgspec.msgpack.decode(data), value)


def test_a_plain_value_is_read_with_msgspec_and_without(monkeypatch):
    assert type(codec._plain_decoder().__self__) is msgspec.msgpack.Decoder
    monkeypatch.setitem(sys.modules, "msgspec.msgpack", None)
    assert codec._plain_decoder() is msgpack.unpackb


@pytest.mark.parametrize(
    "value",
    [
        {b"a": 1},
        {1: 1},
        {None: 1},
        {"a": (1,)},
        {"a": {"b": [{1}]}},
        [1 << 63],
        [-(1 << 63) - 1],
        [Level.LOW],
    ],
    ids=repr,
)
def test_what_msgpack_alone_would_not_give_back_is_not_plain(value):
    assert encode(value)[0] == 9
    assert same(round_trip(value), value)


def test_nan_comes_back_as_nan():
    assert math.isnan(round_trip(math.nan))
    assert math.isnan(round_trip([math.nan])[0])


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_zone_keeps_its_name_and_a_time_its_fold(fold):
    berlin = dt.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=fold)
    back = round_trip([berlin])[0]
    assert (back, back.fold, back.tzinfo) == (berlin, fold, berlin.tzinfo)


def test_a_time_zone_by_offset_keeps_its_name():
    named = dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5), "EST"))
    assert round_trip([named])[0].tzname() == "EST"


def test_every_extension_type_has_a_code_of_its_own():
    extensions = [*EXTENSIONS.values(), *OF_CLASSES, OWN, TEXT, NUMBER, ARRAY]
    assert {each.code for each in extensions} == set(BY_CODE)
    assert len(BY_CODE) == len(extensions)


# Equal values, equal bytes


def test_equal_sets_are_equal_bytes_whatever_the_hash_seed():
    program = (
        "import sys; from cachee_shm.codec import encode\n"
        "words = {f'word-{i}' for i in range(50)}\n"
        "value = {'set': words, 'frozen': frozenset(words), 'deep': {frozenset({w, w * 2}) for w in words}}\n"
        "sys.stdout.buffer.write(encode(value)[1])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(outputs) == 1
    assert decode(9, outputs.pop())["set"] == {f"word-{i}" for i in range(50)}


# What is refused on the way in


def cyclic():
    cycle = []
    cycle.append(cycle)
    return cycle


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


class Own(BaseModel):
    def __getstate__(self):
        return {"mine": 1}


class Zone(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(0)


def local_model():
    class Local(BaseModel):
        x: int = 1

    return Local()


class Stateless(BaseModel):
    def __getstate__(self):
        raise ConnectionError("the state is elsewhere")


class Unbound:
    """As a proxy outside of a request."""

    @property
    def __class__(self):
        raise RuntimeError("there is nothing behind this proxy")


class Stranger(enum.Enum):
    A = 1

    @property
    def name(self):
        raise RuntimeError("no name")


REFUSED = {
    "a named tuple made inside of an expression": collections.namedtuple("Point", "x y")(1, 2),
    "a chain of dicts": collections.ChainMap({}),
    "a view of a dict": {}.keys(),
    "a bytearray": bytearray(b"a"),
    "a memoryview": memoryview(b"a"),
    "a composite flag": Mode.READ | Mode.WRITE,
    "an object": object(),
    "a function": print,
    "a class": int,
    "a generator": (i for i in ()),
    "a lone surrogate": "\ud800",
    "a cycle": cyclic(),
    "one level too many": nested(DEPTH_MAX + 1),
    "a time zone of its own kind": dt.time(1, tzinfo=Zone()),
    "a model with a state of its own": Own(),
    "a model made inside a function": local_model(),
    "a model with what is refused inside": User(id=1, other=object()),
    "a model whose state cannot be had": Stateless(),
    "a mock of a model": mock.Mock(spec=User),
    "a mock of an enum": mock.Mock(spec=Mode),
    "a proxy of nothing": Unbound(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused(name):
    with pytest.raises(Unserializable, match="nothing was stored"):
        encode(REFUSED[name])


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {"k": [(v,)]}])
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_inside_a_container_too(name, wrap):
    with pytest.raises(Unserializable, match="nothing was stored"):
        encode(wrap(REFUSED[name]))


def test_an_enum_member_is_known_by_what_its_class_keeps_and_not_by_what_it_says():
    assert round_trip(Stranger.A) is Stranger.A


def test_an_exception_that_is_no_mistake_of_the_value_is_the_callers():
    class TimeLimit(Exception):
        """As Celery raises it from a signal handler."""

    def interrupt(*unused):
        raise TimeLimit

    sys.settrace(lambda frame, event, argument: interrupt() if frame.f_code.co_name == "_lowered" else None)
    try:
        with pytest.raises(TimeLimit):
            encode([object()])
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("key", [print, (print,), frozenset({print}), object()])
def test_it_is_refused_as_a_key_too(key):
    with pytest.raises(Unserializable):
        encode({key: 1})


def test_the_deepest_value_that_is_taken_comes_back():
    assert round_trip(nested(DEPTH_MAX)) == nested(DEPTH_MAX)
    deepest = ()
    for _ in range(DEPTH_MAX - 1):
        deepest = (deepest,)
    assert round_trip(deepest) == deepest


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_tells_its_own_reason_and_is_not_told_as_the_cause_of_another(name):
    with pytest.raises(Unserializable) as found:
        encode(REFUSED[name])
    assert not isinstance(found.value.__cause__, Unserializable)


def test_what_a_class_that_is_no_enum_calls_its_members_is_not_believed(monkeypatch):
    tag, data = encode([Colour.RED])
    assert decode(tag, data) == [Colour.RED]
    stranger = type("Colour", (), {"__module__": __name__, "__members__": {"RED": Colour.RED}})
    monkeypatch.setattr(sys.modules[__name__], "Colour", stranger)
    with pytest.raises(Undecodable):
        decode(tag, data)


def test_the_message_names_the_type():
    with pytest.raises(Unserializable, match=r"test_codec\.Looks"):
        encode({"a": [Looks()]})


# Models and enums, by class


def test_a_model_comes_back_equal_with_what_was_set_extra_and_private():
    user = User(id=7, mail="a@b.c", home=Street(name="x", colour=Colour.BLUE), nickname="Z")
    user._token = "other"
    back = round_trip(user)
    assert back == user
    assert (back.model_fields_set, back.nickname, back._token) == (user.model_fields_set, "Z", "other")
    assert type(back.home.colour) is Colour


def test_a_models_validators_do_not_run_again_on_what_they_made():
    assert round_trip(User(id=1, price=decimal.Decimal(5))).price == 10


@pytest.mark.parametrize("value", [Numbers([1, 2]), Outer.Inner(x=1)])
def test_root_models_and_nested_classes_come_back(value):
    assert round_trip(value) == value


def test_a_model_inside_a_container_comes_back():
    value = {"users": [User(id=1), User(id=2)], "by": {Colour.RED: Street(name="a")}}
    assert round_trip(value) == value


def test_a_reader_that_has_not_imported_the_class_gets_a_miss_and_imports_nothing():
    tag, data = encode(Street(name="x"))
    program = (
        "import sys; from cachee_shm.codec import decode; from cachee_shm.errors import Undecodable\n"
        f"try: decode({tag}, {data!r})\n"
        "except Undecodable: sys.exit('pydantic' in sys.modules or 'test_codec' in str(sys.modules))\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_model_whose_fields_have_changed_since_is_a_miss(monkeypatch):
    stored = encode(Street(name="x"))
    newer = type(
        "Street", (BaseModel,), {"__annotations__": {"name": str, "zip": str}, "__module__": __name__}
    )
    monkeypatch.setattr(sys.modules[__name__], "Street", newer)
    with pytest.raises(Undecodable, match="was another class"):
        decode(*stored)


def test_the_name_of_a_thing_that_is_no_model_does_not_decode():
    for name in (
        "os:system",
        "builtins:dict",
        f"{__name__}:Colour",
        f"{__name__}:Outer",
        "sys:modules",
        "",
        ":",
    ):
        with pytest.raises(Undecodable):
            decode(10, msgpack.packb([name, b"", {}, [], None, None]))


def test_a_class_under_another_ones_name_does_not_decode(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "Avenue", Street, raising=False)
    tag, data = encode(Street(name="x"))
    assert decode(tag, data) == Street(name="x")
    with pytest.raises(Undecodable, match="no class of that name"):
        decode(tag, data.replace(b":Street", b":Avenue"))


def test_a_model_whose_class_was_replaced_by_another_of_its_name_is_refused(monkeypatch):
    old = Street(name="x")
    newer = type("Street", (BaseModel,), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Street", newer)
    with pytest.raises(Unserializable, match="not found by that name"):
        encode(old)


def test_a_class_that_only_looks_like_a_model_is_given_no_state():
    tag, data = encode(Looks.Like(x=1))
    assert decode(tag, data) == Looks.Like(x=1)
    Looks.Fake.model_fields = Looks.Like.model_fields
    with pytest.raises(Undecodable, match="is no pydantic model"):
        decode(tag, data.replace(b":Looks.Like", b":Looks.Fake"))
    assert not Looks.Fake.given


def test_encoding_and_decoding_do_not_import_pydantic():
    program = (
        "import sys; from cachee_shm.codec import decode, encode\n"
        "decode(*encode([{1, 2}, (3,)]))\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# Pickle, where a namespace allows it

CONFIG = {
    "host": {"name": "pickled"},
    "namespaces": {"loose": {"memory": "4MiB", "pickle": True}, "strict": {"memory": "4MiB"}},
}
ONLY_PICKLED = {"an object": kept.Plain([1, {2}]), "one of its own state": kept.Reduced(1), "a function": len}


@pytest.mark.parametrize("name", ONLY_PICKLED)
def test_a_namespace_that_allows_pickle_stores_what_nothing_else_takes(name):
    value = ONLY_PICKLED[name]
    with cachee_shm.attach("loose", config=CONFIG, private=True) as cache:
        cache.set("a", {"k": [value]})
        assert cache._stored("a")[1] == 12
        assert cache.get("a") == {"k": [value]}
        cache.set("b", [kept.Point(1)])
        assert cache._stored("b")[1] == 9  # what has another encoding keeps it
        with pytest.raises(Unserializable, match="nor can it be pickled"):
            cache.set("c", lambda: 1)


def test_a_namespace_without_it_neither_stores_nor_reads_a_pickle():
    ran = []
    kept.Plain.__reduce__ = lambda self: (kept.ran, ("a pickle",))
    try:
        stored = codec.Codec("loose", unpickles=True).encode(kept.Plain())
    finally:
        del kept.Plain.__reduce__
    labelled = codec.Codec("loose", unpickles=True).encode(codec.Labelled("v1", codec.Encoded(*stored)))
    zipped = (14, codec.Codec("n", compress_bytes=64)._compression.compressed(12, stored[1] + bytes(5000)))
    kept.run.clear()
    with cachee_shm.attach("strict", config=CONFIG, private=True) as cache:
        with pytest.raises(Unserializable):
            cache.set("a", kept.Plain())
        for bad in (stored, labelled, zipped):
            assert cache.set("a", codec.Encoded(*bad))
            assert cache.get("a", "missed") == "missed"
            assert cache.get_many(["a"]) == {}
        assert cache.stats()["undecodable"] == 6
    for bad in (stored, labelled, zipped):
        with pytest.raises(Undecodable, match="does not read"):
            decode(*bad)
    assert kept.run == ran == []
    with cachee_shm.attach("loose", config=CONFIG, private=True) as cache:
        for good in (stored, labelled, zipped):
            cache.set("a", codec.Encoded(*good))
            cache.get("a")
    assert kept.run == ["a pickle"] * 3


def test_an_etag_keeps_the_rule_of_its_namespace(monkeypatch):
    def load():
        load = cachee_shm.current_load()
        if load.etag == "v1":
            return load.not_modified()
        load.etag = "v1"
        return kept.Plain(5)

    with cachee_shm.attach("loose", config=CONFIG, private=True) as cache:
        for _ in range(2):
            assert cache.get_or_load("a", load, ttl=0.01, stale=60) == kept.Plain(5)
            assert cache._stored("a")[1] == 13
            cache._freeze(cache.now_ms() + 1000)


@pytest.mark.parametrize("inner", [13, 255])
def test_an_etag_within_an_etag_is_undecodable(inner):
    data = b"\x01\0a" + bytes((inner,)) + b"\x01\0a\x00x"
    with pytest.raises(Undecodable):
        decode(13, data)
    with pytest.raises(Undecodable):
        decode(13, b"\0\0\x0d" * 5000)


# Garbage on the way out


@pytest.mark.fuzz
@given(st.integers(0, 255), st.binary(max_size=300))
@example(1, b"\xff")
@example(2, b"\xff")
@example(3, b"1234567")
@example(4, b"")
@example(5, b"x")
@example(9, b"\xc7\x00\x63")
@example(9, b"")
@example(9, b"\x91\x01\x01")
@example(9, b"\xdd\xff\xff\xff\xff")
@example(9, b"\x81\x90\x01")
@example(11, b"\xc7\x00\x63")
@example(11, b"\x81\x90\x01")
@example(12, b"cos\nsystem\n")
def test_garbage_decodes_to_some_value_or_is_undecodable(tag, data):
    with contextlib.suppress(Undecodable):
        decode(tag, data)


@pytest.mark.fuzz
@given(VALUES | st.builds(Street, name=st.text(max_size=3)), st.randoms(use_true_random=False))
def test_damaged_bytes_decode_to_some_value_or_are_undecodable(value, rng: random.Random):
    tag, data = encode(value)
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if damaged:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    with contextlib.suppress(Undecodable):
        decode(tag, bytes(damaged[: rng.randint(0, len(damaged))]))


def test_extensions_nested_without_end_are_undecodable_and_no_stack_overflow():
    data = msgpack.packb([])
    for _ in range(2000):
        data = msgpack.packb([msgpack.ExtType(9, data)])
    with pytest.raises(Undecodable):
        decode(9, data)


def test_lists_nested_without_end_are_undecodable_and_no_stack_overflow():
    with pytest.raises(Undecodable):
        decode(9, b"\x91" * 100_000 + b"\x01")


@pytest.mark.parametrize(
    ("tag", "data"),
    [
        (1, b"\xff"),
        (2, b"\xff"),
        (3, b"1234567"),
        (4, b"123456789"),
        (5, b"x"),
        (6, b"x"),
        (7, b"x"),
        (9, b""),
        (9, b"\x01\x01"),
        (9, b"\xc7\x00\x63"),
        (10, b"\x90"),
        (11, b""),
        (11, b"\x91"),
        (11, b"\xdd\xff\xff\xff\xff"),
        (11, b"\x91" * 100_000),
    ],
)
def test_bytes_that_the_tag_does_not_mean_are_undecodable(tag, data):
    with pytest.raises(Undecodable, match=f"{len(data)} bytes of type {tag}"):
        decode(tag, data)


@pytest.mark.parametrize("tag", [12, 255])
def test_an_unknown_tag_is_undecodable(tag):
    with pytest.raises(Undecodable, match=f"of type {tag}"):
        decode(tag, b"")


def test_a_uuid_comes_back():
    value = uuid.uuid4()
    assert round_trip([value]) == [value]
