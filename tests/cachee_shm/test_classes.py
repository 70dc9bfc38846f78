"""Objects of classes come back as they were, and no code of their class runs for it."""

import dataclasses
import functools
import gc
import subprocess
import sys
import types
import weakref
from collections import defaultdict

import django.utils.safestring
import markupsafe
import msgpack
import pydantic
import pytest

from cachee_shm import classes
from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable, Unserializable
from cachee_shm.shape import shape_digest
from tests.cachee_shm import kept


def back(value):
    return decode(*encode(value))


def person(**more):
    made = kept.Person("Ada", tags=["a", ("b",)], **more)
    made.shout  # noqa: B018  # now it is in the dict
    made.other = {1: 2}
    return made


def noted():
    made = kept.Noted("text")
    made.note = "in a slot"
    return made


def annotated():
    made = kept.Text("text")
    made.language = "en"
    return made


VALUES = {
    "a named tuple": kept.Point(1.5, 2),
    "a named tuple of collections": kept.Pair("a", {1, 2}),
    "a named tuple with a dict": kept.Named(1, 2),
    "a dataclass": kept.Frozen(1, "a"),
    "a frozen one with slots": kept.Slotted(1, (2,)),
    "a subclass that is not decorated": kept.Undecorated(3),
    "a generic one": kept.Box[int](3),
    "one of pydantic's": kept.Checked(x=3),
    "one within another": kept.Frozen(kept.Slotted(1), [kept.Point(1), kept.Level.LOW]),
    "an attrs class": kept.Car(owner=kept.Car(2)),
    "an attrs class that keeps its hash": kept.Plate("a"),
    "one without slots": kept.Wide("a"),
    "a str": kept.Text("ä"),
    "a str that says that it is another": kept.Bare("this"),
    "an int": kept.Number(7),
    "a long int": kept.Number(1 << 80),
    "a float": kept.Floating(1.5),
    "bytes": kept.Raw(b"this"),
    "django's SafeString": django.utils.safestring.mark_safe("<b>ü</b>"),
    "markupsafe's Markup": markupsafe.Markup("<b>"),
    "an enum's member": kept.Level.HIGH,
    "a model": kept.Model(x=[kept.Point(1)]),
    "a defaultdict of a built-in type": defaultdict(list, {"a": [1]}),
    "a defaultdict without a factory": defaultdict(None, {1: 2}),
    "a defaultdict of a class that is stored": defaultdict(kept.Car, {"a": kept.Car()}),
}


WITHIN = {
    "itself": (lambda value: value, lambda read: read),
    "a list": (lambda value: [value], lambda read: read[0]),
    "a dict": (lambda value: {"k": (value, value)}, lambda read: read["k"][1]),
    "a dataclass": (lambda value: kept.Frozen(1, [value]), lambda read: read.y[0]),
}


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("name", VALUES)
def test_it_comes_back_equal_and_of_the_same_type(name, within):
    value, (wrap, unwrap) = VALUES[name], WITHIN[within]
    read = unwrap(back(wrap(value)))
    assert type(read) is type(value)
    assert read == value


@pytest.mark.parametrize(
    "name", [name for name, value in VALUES.items() if not isinstance(value, (dict, kept.Car))]
)
def test_what_can_be_a_key_is_one_after_it_too(name):
    value = VALUES[name]
    try:
        hash(value)
    except TypeError:
        with pytest.raises(TypeError):
            hash(back(value))
        return
    read = back({value: 1, "other": {value}})
    assert read[value] == 1 and value in read["other"]


def test_no_code_of_the_class_runs():
    values = [
        person(),
        kept.Employee("Bob", boss=1),
        kept.Named(1, 2),
        annotated(),
        kept.Car(),
        kept.Undecorated(1),
    ]
    values += [kept.Behind(5), kept.Model(x=1), kept.Made(1)]
    stored = encode(values)
    kept.run.clear()
    read = decode(*stored)
    assert kept.run == []
    assert [type(each) for each in read] == [type(each) for each in values]
    assert read[0].initials == "A" and read[6].x == 5


def test_a_dataclass_keeps_all_that_it_holds_but_what_is_computed():
    made = person()
    read = back(made)
    assert vars(read) == {name: each for name, each in vars(made).items() if name != "shout"}
    assert read.shout == "ADA"
    assert not hasattr(read, "unset")


def test_a_slot_that_is_not_set_is_not_set_after_it():
    assert not hasattr(back(kept.Loose(1)), "late")
    made = kept.Loose(1)
    made.late = 2
    assert back(made) == made


def test_a_subclass_of_str_keeps_its_attributes_and_its_text():
    assert back(annotated()).language == "en"
    assert back(noted()).note == "in a slot"
    assert str.__str__(back(kept.Bare("this"))) == "this"
    assert bytes.__getitem__(back(kept.Raw(b"this")), slice(None)) == b"this"
    assert int.__index__(back(kept.Number(7))) == 7


def test_a_hash_that_attrs_keeps_is_of_the_reading_process():
    program = (
        "import sys; from cachee_shm.codec import encode; from tests.cachee_shm import kept\n"
        "values = [kept.Plate('a'), kept.Wide('a')]; [hash(each) for each in values]\n"
        "sys.stdout.buffer.write(encode(values)[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    plate, wide = decode(9, done.stdout)
    assert {plate, wide} == {kept.Plate("a"), kept.Wide("a")}
    assert back(kept.Car(6)).axles == 3


def test_a_defaultdict_goes_on_making_what_is_missing():
    assert back(defaultdict(list))["x"] == []
    assert back(defaultdict(kept.Car))["x"] == kept.Car()
    assert back(defaultdict(None, a=1)).default_factory is None


# What is refused on the way in


def local():
    @dataclasses.dataclass
    class Local:
        x: int = 1

    return Local()


REFUSED = {
    "a class that nobody has described": (kept.Plain(), "cachee_shm.register"),
    "a class made inside of a function": (local(), "top of a module"),
    "a __reduce__ of its own": (kept.Reduced(1), "has a __reduce__ of its own.*register"),
    "a __setstate__ of its own": (kept.Stated(1), "has a __setstate__ of its own.*register"),
    "a __del__": (kept.Dying(1), "has a __del__"),
    "an exception": (kept.Failure(1), "register"),
    "a dict": (kept.Table(1), "register"),
    "a defaultdict of a function": (defaultdict(lambda: 1), "factory may be"),
    "a defaultdict of any class": (defaultdict(kept.Plain), "factory may be"),
    "a defaultdict of a bound method": (defaultdict([].copy), "factory may be"),
}


@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: [v], lambda v: {"k": (v,)}], ids=["", "list", "deep"]
)
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused_and_told_what_to_do(name, wrap):
    value, what = REFUSED[name]
    with pytest.raises(Unserializable, match=what) as raised:
        encode(wrap(value))
    assert "nothing was stored" in str(raised.value)


def test_a_class_of_main_is_refused_and_told_where_to_move_it():
    program = (
        "import dataclasses, enum\n"
        "from pydantic import BaseModel\n"
        "from cachee_shm.codec import encode\n"
        "from cachee_shm.errors import Unserializable\n"
        "@dataclasses.dataclass\n"
        "class D: x: int = 1\n"
        "class E(enum.Enum): A = 1\n"
        "class M(BaseModel): x: int = 1\n"
        "class S(str): pass\n"
        "for value in (D(), E.A, M(), S('a'), [D()]):\n"
        "    try: encode(value)\n"
        "    except Unserializable as error: assert 'define the class in a module' in str(error), error\n"
        "    else: raise SystemExit(repr(value))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Another release, and names that are no classes


CHANGED = {
    "another field": ("x: int = 1", "x: int = 1\n    y: int = 2"),
    "another name": ("x: int = 1", "z: int = 1"),
    "another type": ("x: int = 1", "x: str = 1"),
    "another order": ("x: int = 1\n    w: int = 2", "w: int = 2\n    x: int = 1"),
    "another default": ("x: int = 1", "x: int = 2"),
}
KINDS = {
    "a dataclass": "@dataclasses.dataclass\nclass C:\n    {}\n",
    "one with slots": "@dataclasses.dataclass(slots=True)\nclass C:\n    {}\n",
    "a subclass": "@dataclasses.dataclass\nclass B:\n    {}\n"
    "@dataclasses.dataclass\nclass C(B):\n    other: int = 0\n",
    "an attrs class": "@attrs.define\nclass C:\n    {}\n",
    "a named tuple": "class C(typing.NamedTuple):\n    {}\n",
}


@pytest.fixture
def release(monkeypatch):
    def release(text):
        module = types.ModuleType("releases_of_classes")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec("import attrs, dataclasses, enum, typing\n" + text, vars(module))
        return module

    return release


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_has_changed_since_is_a_miss(release, kind, change):
    old, new = CHANGED[change]
    stored = encode(release(KINDS[kind].format(old)).C())
    again = release(KINDS[kind].format(old)).C
    assert repr(decode(*stored)) == repr(again()) and type(decode(*stored)) is again
    release(KINDS[kind].format(new))
    with pytest.raises(Undecodable, match="was another class"):
        decode(*stored)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("class C(str): pass", "class C(str): __slots__ = ()"),
        ("@dataclasses.dataclass\nclass C:\n    x: int = 1\n    def __post_init__(self): self.y = 1",) * 2,
    ],
)
def test_what_an_instance_holds_is_part_of_the_shape(release, old, new):
    new = new.replace("self.y = 1", "self.y = 2")
    stored = encode(release(old).C())
    again = release(old).C
    assert type(decode(*stored)) is again
    release(new)
    with pytest.raises(Undecodable, match="was another class"):
        decode(*stored)


def test_a_member_is_its_name_and_value_and_others_do_not_matter(release):
    stored = encode(release("class C(enum.Enum):\n    A = 1\n    B = 2").C.A)
    other = release("class C(enum.Enum):\n    A = 1\n    Z = 5")
    assert decode(*stored) is other.C.A
    release("class C(enum.Enum):\n    A = 2\n    B = 1")
    with pytest.raises(Undecodable, match="was another value"):
        decode(*stored)
    release("class C(enum.Enum):\n    B = 1")
    with pytest.raises(Undecodable):
        decode(*stored)


NAMES = (
    "os:system",
    "builtins:dict",
    "builtins:str",
    "subprocess:Popen",
    "sys:modules",
    "",
    ":",
    "a.b:c",
    7,
    None,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", [each.code for each in classes.OF_CLASSES])
def test_the_name_of_a_thing_that_is_no_such_class_does_not_decode(code, name):
    for state in (
        [name, b"", []],
        [name, b"", {}],
        [name, b"", "a", None],
        [name, {}],
        [name, b"", {}, [], None, None],
    ):
        if code == classes.FACTORY_DICT.code and state[1:] == [{}] and name is None:
            continue  # a defaultdict without a factory
        with pytest.raises(Undecodable):
            decode(9, msgpack.packb(msgpack.ExtType(code, msgpack.packb(state))))


def test_a_class_is_restored_only_as_what_it_is():
    for value, other in (
        (kept.Frozen(1), 14),
        (kept.Point(1), 15),
        (kept.Text("a"), 15),
        (kept.Level.LOW, 16),
    ):
        tag, data = encode(value)
        state = msgpack.unpackb(data).data
        with pytest.raises(Undecodable):
            decode(tag, msgpack.packb(msgpack.ExtType(other, state)))


def test_a_proxy_under_the_name_is_asked_nothing(release):
    asked = []

    class Proxy:
        @property
        def __class__(self):
            asked.append(1)
            return type

    stored = encode(release("class C(str): pass").C("a"))
    release("").C = Proxy()
    with pytest.raises(Undecodable):
        decode(*stored)
    assert asked == []


def test_what_is_known_of_a_class_does_not_keep_it():
    sys.modules["gone_module"] = module = types.ModuleType("gone_module")
    exec("import dataclasses\n@dataclasses.dataclass(slots=True)\nclass C:\n    x: int = 1", vars(module))
    assert decode(*encode(module.C())) == module.C()
    gone = weakref.ref(module.C)
    del sys.modules["gone_module"], module
    gc.collect()
    assert gone() is None


def test_a_class_without_its_module_is_a_miss_and_nothing_is_imported():
    stored = encode([kept.Frozen(1), kept.Text("a"), kept.Car()])
    program = (
        "import sys; from cachee_shm.codec import decode; from cachee_shm.errors import Undecodable\n"
        "before = set(sys.modules)\n"
        f"try: decode(*{stored!r})\n"
        "except Undecodable: sys.exit(set(sys.modules) != before)\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_every_cached_property_is_known_by_its_class():
    from django.utils.functional import cached_property

    assert classes._is_cached_property(functools.cached_property(len))
    assert classes._is_cached_property(cached_property(len))
    assert not classes._is_cached_property(property(len))


def test_what_pydantic_itself_defines_is_no_part_of_a_models_identity(monkeypatch):
    """Else each release of pydantic would make all stored models misses."""

    def made():
        return type("Probe", (pydantic.BaseModel,), {"__module__": __name__, "__annotations__": {"a": int}})

    before = shape_digest(made())
    monkeypatch.setattr(pydantic.BaseModel, "__setstate__", lambda self, state: None)
    assert shape_digest(made()) == before
