"""Keys made of arguments: what they look like, and that no two calls share one."""

import collections
import datetime as dt
import decimal
import enum
import importlib.machinery
import sys
import types
import uuid
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm.errors import InvalidKey
from cachee_shm.keys import Template, call_text, module_name, shortened

NUMBER = uuid.UUID("3f2504e0-4f89-11d3-9a0c-0305e82c3301")


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    def __str__(self):
        return "something else"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2
    EXECUTE = 4


class Bits(enum.IntFlag):
    ONE = 1


Point = collections.namedtuple("Point", "x y")
Size = collections.namedtuple("Size", "x y")


class LastOnly(dict):
    """As Django's QueryDict: each key has a list, of which values() gives the last item."""

    def values(self):
        return [each[-1] for each in super().values()]


class Nameless(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(hours=1)


class User:
    def __init__(self, uid):
        self.id = uid


def key(template, **arguments):
    return Template(template, arguments).filled(arguments)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (-7, "-7"),
        ("anna", "anna"),
        ("Änne", "Änne"),
        ("a b:c%", "a b:c%"),
        ("7", "'7"),
        ("", "'"),
        ("-1", "'-1"),
        ("None", "'None"),
        (str(NUMBER), f"'{NUMBER}"),
        (NUMBER, str(NUMBER)),
        (None, "None"),
        (True, "True"),
        (1.0, "1.0"),
        (float("nan"), "nan"),
        (b"\x01a", "=bytes:0161"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (decimal.Decimal("1.50"), "=Decimal:1.50"),
        (Color.RED, f"={__name__}.Color.RED"),
        (Level.LOW, f"={__name__}.Level.LOW"),
        (Text("7"), "'7"),
        ([1, "a,b", (2,)], "[1,a%2Cb,(2)]"),
        ({"b": 1, "a": None}, "{a=None,b=1}"),
        ({3, 1, 2}, "<1,2,3>"),
    ],
)
def test_an_argument_becomes_text_that_tells_its_type(value, text):
    assert key("k:{value}", value=value) == f"k:{text}"


def test_attributes_and_items_are_reached():
    assert key("{user.id}:{row[id]}:{page}", user=User(7), row={"id": "x"}, page=2) == "7:x:2"


def test_what_would_end_an_argument_too_early_is_escaped():
    assert key("{a}:{b}", a="x:y", b="z:") == "x%3Ay:z:"
    assert key("{a}:{b}", a="x%3Ay", b="z") == "x%253Ay:z"
    assert key("{a}-{b}!", a=-1, b="w!") == "%2D1-w%21!"


def test_a_literal_brace_is_doubled():
    assert key("{{{a}}}", a=1) == "{1}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{c}", "not a parameter of the function. It has: a, b"),
        ("{a}{b}", "without anything between them"),
        ("{}", "names no parameter"),
        ("{0}", "names no parameter"),
        ("{a:>3}", "has a format"),
        ("{a!r}", "has a format"),
        ("{a", "'{a' is no template: .*'}'"),
        ("}", "'}' is no template: .*Write a brace that is text twice"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template, why):
    with pytest.raises(ValueError, match=why):
        Template(template, ["a", "b"])


@pytest.mark.parametrize("value", [object(), User(1), [User(1)], lambda: 1])
def test_an_object_without_a_text_of_its_own_is_refused(value):
    with pytest.raises(InvalidKey, match=r"Name what identifies it \(\{user\.id\}\)"):
        key("{a}", a=value)


def test_a_value_within_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(InvalidKey, match="nested over 16 deep"):
        key("{a}", a=loop)


def test_a_long_key_ends_in_a_digest_and_no_other_key_is_as_long():
    whole = "k" * 256
    assert shortened(whole) == whole
    long = shortened(whole + "x")
    assert len(long) > 256 and long != shortened(whole + "y")
    assert shortened(long) != long
    for text in ("é" * 200, "\U0001f600" * 100, "x" + "é" * 200, "\udc80" * 300):
        assert 256 < len(shortened(text).encode()) <= 1024


def test_a_call_without_a_template_names_each_argument():
    assert call_text("m.f", {"uid": 7, "page": "a)b"}) == "m.f(uid=7,page=a%29b)"


# Different arguments never make one key.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(
        ["1", "1.0", "None", "nan", "'", "%", "[1]", "(1)", "=x", "a,b", "{a=1}", "<>", str(NUMBER)]
    ),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.sampled_from([Color.RED, Level.LOW, int, str]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.frozensets(SCALARS, max_size=3),
    ),
    max_leaves=6,
)


def tagged(value):
    """What must be the same where the keys are: the value, and its type, at every depth."""
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(map(tagged, value))
    if isinstance(value, dict):
        return "dict", frozenset((tagged(key), tagged(each)) for key, each in value.items())
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(map(tagged, value))
    if isinstance(value, float):
        return "float", repr(value)
    if isinstance(value, decimal.Decimal):
        return "Decimal", str(value)
    if isinstance(value, (dt.datetime, dt.time)):
        return type(value).__name__, value.isoformat(), value.fold
    return type(value).__name__, value


def hostile(value):
    """Another value whose text is like this one's."""
    text = key("{a}", a=value)
    return st.sampled_from([text, text[:1], text[1:], f"'{text}", [text], (text,), [value], (value,)])


PAIRS = st.one_of(
    st.tuples(VALUES, VALUES), VALUES.flatmap(lambda value: st.tuples(st.just(value), hostile(value)))
)


@pytest.mark.fuzz
@given(PAIRS)
def test_two_values_make_two_texts(pair):
    one, other = pair
    same = tagged(one) == tagged(other)
    assert (key("{a}", a=one) == key("{a}", a=other)) == same


@pytest.mark.fuzz
@given(PAIRS, PAIRS, st.sampled_from(["{a}:{b}", "{a}%{b}", "{a}a{b}", "{a}'{b}", "x{a}3A{b}y", "{a},{b}"]))
def test_two_pairs_of_arguments_make_two_keys(first, second, template):
    one, other = {"a": first[0], "b": second[0]}, {"a": first[1], "b": second[1]}
    same = tagged(list(one.values())) == tagged(list(other.values()))
    assert (key(template, **one) == key(template, **other)) == same
    assert (call_text("f", one) == call_text("f", other)) == same


@pytest.mark.fuzz
@given(st.text(), st.text(), st.sampled_from([":", "%", "'", "a", "é"]))
def test_two_arguments_never_run_into_each_other(text, rest, separator):
    """Both have the same letters in the same order."""
    template = f"{{a}}{separator}{{b}}"
    whole = f"x{text}{separator}{rest}"
    cuts = [at for at in range(len(whole)) if whole.startswith(separator, at)]
    keys = [key(template, a=whole[:at], b="x" + whole[at + len(separator) :]) for at in cuts]
    assert len(set(keys)) == len(keys)


NOON = dt.datetime(2026, 1, 2, 12)
PARIS, BERLIN = zoneinfo.ZoneInfo("Europe/Paris"), zoneinfo.ZoneInfo("Europe/Berlin")
HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    "values",
    [
        (Rights.READ | Rights.WRITE, Rights.READ | Rights.EXECUTE, Rights.READ, Rights(0), 3),
        (Bits(8), Bits(12), Bits(9), Bits.ONE),
        tuple(
            NOON.replace(tzinfo=zone)
            for zone in (PARIS, BERLIN, dt.timezone(HOUR), dt.timezone(HOUR, "CET"), None)
        ),
        tuple(dt.time(12, tzinfo=zone) for zone in (PARIS, BERLIN, dt.timezone.utc, None)),
        (Point(1, 2), Size(1, 2), (1, 2), [1, 2]),
        (
            collections.OrderedDict(a=1, b=2),
            collections.OrderedDict(b=2, a=1),
            collections.Counter(a=1, b=2),
            {"a": 1, "b": 2},
        ),
        ({1}, frozenset({1}), {frozenset({1})}),
        (LastOnly(a=[1, 2]), LastOnly(a=[2]), LastOnly(a=[1])),
        (10**5000, 10**5000 + 1, -(10**5000), float("inf")),
    ],
)
def test_values_that_look_alike_are_told_apart(values):
    assert len({key("{value}", value=value) for value in values}) == len(values)
    assert len({call_text("f", {"value": value}) for value in values}) == len(values)


def test_a_time_of_a_plain_offset_is_as_isoformat_writes_it():
    assert key("{at}", at=NOON.replace(tzinfo=dt.timezone.utc)) == "2026-01-02T12:00:00+00:00"
    with pytest.raises(InvalidKey, match="zone"):
        key("{at}", at=NOON.replace(tzinfo=Nameless()))


def test_equal_sets_and_dicts_make_one_key_whatever_their_order():
    assert key("{a}", a={"x": 1, "y": 2}) == key("{a}", a={"y": 2, "x": 1})
    assert key("{a}", a=collections.Counter("xy")) == key("{a}", a=collections.Counter("yx"))


def test_a_percent_sign_behind_a_field_ends_it():
    template = "{a}%2525{b}"
    assert key(template, a="x", b="y%2525z") != key(template, a="x%y", b="z")


def test_a_sequence_that_is_no_index_is_refused_as_a_key():
    class Many:
        def __index__(self):
            raise TypeError("only integer scalar arrays can be converted to a scalar index")

    with pytest.raises(InvalidKey, match="has no text of its own"):
        key("{a}", a=Many())


@pytest.mark.parametrize("name", ["__main__", "__mp_main__"])
def test_a_script_has_the_name_that_it_is_imported_by(monkeypatch, name):
    script = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, script)
    assert module_name(name) == "__main__"
    script.__file__ = "/srv/shop/worker.py"
    assert module_name(name) == "worker"
    script.__spec__ = importlib.machinery.ModuleSpec("shop.worker", None)
    assert module_name(name) == "shop.worker"
    assert module_name("json") == "json"
