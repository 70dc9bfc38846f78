"""Classes whose objects the codec's tests store: at the top of a module, where readers find them."""

import collections
import dataclasses
import enum
import functools
import typing

import attrs
from pydantic import BaseModel
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = typing.TypeVar("T")
run: list[str] = []
"""What ran that must not run while a value is decoded."""


def ran(what):
    run.append(what)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(typing.NamedTuple):
    x: float
    y: float = 0.0


Pair = collections.namedtuple("Pair", "left right")


class Named(Point):
    """With a dict, as subclasses of named tuples have."""

    def __new__(cls, *given):
        ran("Named.__new__")
        return super().__new__(cls, *given)


@dataclasses.dataclass
class Person:
    name: str
    age: int = 0
    tags: list = dataclasses.field(default_factory=list)
    greeting: str = dataclasses.field(init=False, default="hello")
    unset: int = dataclasses.field(init=False)

    def __post_init__(self):
        ran("Person.__post_init__")
        self.initials = self.name[:1]

    @functools.cached_property
    def shout(self):
        return self.name.upper()


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    y: typing.Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    y: typing.Any = None


@dataclasses.dataclass(slots=True)
class Loose:
    x: int
    late: int = dataclasses.field(init=False)


@dataclasses.dataclass
class Employee(Person):
    boss: typing.Any = None

    def __setattr__(self, name, value):
        ran("Employee.__setattr__")
        super().__setattr__(name, value)


@dataclasses.dataclass
class Box(typing.Generic[T]):
    item: T


class Undecorated(Frozen):
    """Of a dataclass, and none itself."""

    def __init__(self, x):
        ran("Undecorated.__init__")
        super().__init__(x)


@dataclasses.dataclass
class Behind:
    """Its field is a property."""

    x: int

    def __getx(self):
        return self.__dict__["_x"]

    def __setx(self, value):
        ran("Behind.x")
        self.__dict__["_x"] = value


Behind.x = property(Behind._Behind__getx, Behind._Behind__setx)


@dataclasses.dataclass
class Made:
    x: int

    def __new__(cls, *given):
        ran("Made.__new__")
        return super().__new__(cls)


@pydantic_dataclass
class Checked:
    x: int
    y: str = "a"


@attrs.define
class Car:
    wheels: int = 4
    owner: typing.Any = attrs.field(default=None, on_setattr=attrs.setters.frozen)

    def __attrs_post_init__(self):
        ran("Car.__attrs_post_init__")

    @functools.cached_property
    def axles(self):
        return self.wheels // 2


@attrs.frozen(cache_hash=True)
class Plate:
    text: str


@attrs.define(slots=False, eq=True, unsafe_hash=True, cache_hash=True)
class Wide:
    text: str


class Text(str):
    """With a dict, where more may stand."""

    def __new__(cls, *given):
        ran("Text.__new__")
        return super().__new__(cls, *given)


class Bare(str):
    __slots__ = ()

    def __str__(self):
        return "not this"


class Noted(str):
    __slots__ = ("note",)


class Number(int):
    def __int__(self):
        return 0

    def __index__(self):
        return 0


class Floating(float):
    pass


class Raw(bytes):
    def __getitem__(self, at):
        return b"not this"


class Model(BaseModel):
    x: typing.Any = None

    def __new__(cls, *args, **kwargs):
        ran("Model.__new__")
        return super().__new__(cls)


class Plain:
    """Of no kind that is stored."""

    def __init__(self, x=0):
        self.x = x

    def __eq__(self, other):
        return type(other) is Plain and self.x == other.x

    def __hash__(self):
        return hash(self.x)


class Money:
    """With a codec that tests register."""

    def __init__(self, cents, currency="EUR"):
        self.cents, self.currency = cents, currency

    def __eq__(self, other):
        return type(other) is Money and vars(self) == vars(other)

    def __hash__(self):
        return hash(self.cents)


@dataclasses.dataclass
class Reduced:
    x: int

    def __reduce__(self):
        return (Reduced, (1,))


@dataclasses.dataclass
class Stated:
    x: int

    def __setstate__(self, state):
        ran("Stated.__setstate__")


@dataclasses.dataclass
class Dying:
    x: int

    def __del__(self):
        ran("Dying.__del__")


@dataclasses.dataclass
class Failure(Exception):
    x: int


@dataclasses.dataclass
class Table(dict):
    x: int = 0
