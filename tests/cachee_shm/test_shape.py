"""A release whose model has changed gets a miss for what the other one stored, whatever has changed."""

import functools
import os
import subprocess
import sys
import types

import pytest

from cachee_shm.codec import decode, encode
from cachee_shm.errors import Undecodable, Unserializable
from cachee_shm.shape import shape_digest

HEAD = """
import enum, functools, typing
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypeVar
from pydantic import *
from typing_extensions import TypedDict
T = TypeVar("T")
"""
MODULE = "releases"
FUTURE = "from __future__ import annotations\n"


@pytest.fixture
def release(monkeypatch):
    """The model classes of one release, under the module's name that all releases share."""

    def release(text):
        module = types.ModuleType(MODULE)
        monkeypatch.setitem(sys.modules, MODULE, module)
        first = FUTURE if text.startswith(FUTURE) else ""
        exec(first + HEAD + text.removeprefix(FUTURE), vars(module))
        return module

    return release


M = "class M(BaseModel):\n    x: int = 1\n"
CHILD = "class Child(BaseModel):\n    a: int = 1\n" + M + "    children: list[Child] = []\n"
CONFIG = "class M(BaseModel):\n    model_config = ConfigDict(extra='allow')\n    x: int = 1\n"
VALIDATED = """
class M(BaseModel):
    x: int = 1
    @field_validator("x")
    @classmethod
    def small(cls, x):
        if x > 5: raise ValueError
        return x
"""
AFTER = (
    "def small(x):\n    return x + 1\nclass M(BaseModel):\n    x: Annotated[int, AfterValidator(small)] = 1\n"
)
PRIVATE = M + "    _memo: dict = PrivateAttr(default_factory=dict)\n"
DICTS = "class D(TypedDict):\n    a: int\nclass M(BaseModel):\n    x: int = 1\n    d: Optional[D] = None\n"
GENERIC = (
    "class Box(BaseModel, Generic[T]):\n    x: Optional[T] = None\n    y: int = 1\nclass M(Box[int]): pass\n"
)
BASE = "class Base(BaseModel):\n    y: int = 1\nclass M(Base):\n    x: int = 1\n"
CUSTOM = (
    "from pydantic_core import core_schema\nclass S:\n    {0}\n"
    "    def __get_pydantic_core_schema__({1}, source, handler): return core_schema.str_schema()\n"
    "class M(BaseModel):\n    x: {2} = 'a'\n"
)
CALLED = (
    "class V:\n    def __call__(self, x): return x\n"
    "class M(BaseModel):\n    x: Annotated[str, AfterValidator(V())] = 'a'\n"
)
ENUM = (
    "class E(enum.Enum):\n    A = 'a'\nclass M(BaseModel):\n"
    "    model_config = ConfigDict(use_enum_values=True, validate_default=True)\n    x: E = E.A\n"
)
MIXIN = "class X:\n    def model_post_init(self, context): pass\nclass M(X, BaseModel):\n    x: int = 1\n"
CHANGES = {
    "a field too many": (
        M,
        "    x: int = 1\n",
        "    x: int = 1\n    y: int = 2\n",
    ),
    "a field too few": (M + "    y: int = 2\n", "    y: int = 2\n", ""),
    "a renamed field": (M + "    y: int = 2\n", "y:", "z:"),
    "a field's type": (M, "x: int", "x: float"),
    "a field's bound": ("class M(BaseModel):\n    x: int = Field(1, le=9)\n", "le=9", "le=8"),
    "a bound inside a type": (
        "class M(BaseModel):\n    x: list[Annotated[int, Field(le=9)]] = []\n",
        "le=9",
        "le=8",
    ),
    "a pattern": ("class M(BaseModel):\n    x: str = Field('a', pattern='^a')\n", "'^a'", "'^b'"),
    "a default": (M, "= 1", "= 2"),
    "a default that is made": (
        "class M(BaseModel):\n    x: list = Field(default_factory=lambda: [1])\n",
        "[1]",
        "[2]",
    ),
    "a literal": ("class M(BaseModel):\n    x: Literal['a', 'b'] = 'a'\n", "'a', 'b'", "'a', 'c'"),
    "a model within": (CHILD, "a: int = 1", "a: int = Field(1, ge=0)"),
    "a private attribute of a model within": (CHILD, "a: int = 1", "a: int = 1\n    _b: int = 1"),
    "a base": (BASE, "y: int", "y: float"),
    "a private attribute too many": (PRIVATE, "    _memo", "    _more: int = 1\n    _memo"),
    "a private attribute's default": (PRIVATE, "default_factory=dict", "default_factory=lambda: {}"),
    "a private attribute's type": (PRIVATE, "_memo: dict", "_memo: dict[str, int]"),
    "what is allowed besides": (CONFIG, "'allow'", "'forbid'"),
    "the configuration": (CONFIG, "extra='allow'", "extra='allow', frozen=True"),
    "the type of what is allowed besides": (
        CONFIG,
        "    x:",
        "    __pydantic_extra__: dict[str, int]\n    x:",
    ),
    "a validator": (VALIDATED, "x > 5", "x > 6"),
    "a validator's comparison": (VALIDATED, "x > 5", "x >= 5"),
    "a validator's mode": (VALIDATED, '("x")', '("x", mode="before")'),
    "a validator in a type": (AFTER, "x + 1", "x + 2"),
    "what a model does once it is made": (
        PRIVATE,
        "    x:",
        "    def model_post_init(self, context): self._memo = {1: 1}\n    x:",
    ),
    "a typed dict": (DICTS, "a: int", "a: str"),
    "which keys a typed dict may lack": (DICTS, "D(TypedDict)", "D(TypedDict, total=False)"),
    "an enum's value": (ENUM, "A = 'a'", "A = 'b'"),
    "a type of the user's": (CUSTOM.format("@classmethod", "cls", "S"), "str_schema", "any_schema"),
    "a type of the user's within another": (
        CUSTOM.format("@classmethod", "cls", "list[S] | S"),
        "str_schema",
        "any_schema",
    ),
    "what annotates a type": (CUSTOM.format("", "self", "Annotated[str, S()]"), "str_schema", "any_schema"),
    "an object that validates": (CALLED, "return x", "return x + 'b'"),
    "a keyword's default of a validator": (
        AFTER.replace("small(x)", "small(x, *, by=1)"),
        "by=1",
        "by=2",
    ),
    "what a mixin does once a model is made": (MIXIN, "pass", "self.x = 2"),
    "a generic model": (GENERIC, "y: int = 1", "y: int = 2"),
    "a generic model's argument": (GENERIC, "Box[int]", "Box[Any]"),
    "a new type": (
        "N = NewType('N', int)\nclass M(BaseModel):\n    x: Optional[N] = 1\n",
        "'N', int",
        "'N', float",
    ),
    "a model validator": (
        M + "    @model_validator(mode='after')\n    def f(self): return self\n",
        "return self",
        "assert self.x; return self",
    ),
}
LATER = (
    "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import NamedTuple\n"
)
ROW = "class D(TypedDict):\n    a: int\n"
CHANGES |= {
    "a typed dict, named as text": (
        LATER + ROW + "@dataclass\nclass M:\n    x: D = None\n",
        "a: int",
        "a: str",
    ),
    "a typed dict in a list, named as text": (
        LATER + ROW + "@dataclass\nclass M:\n    x: list[D] = ()\n",
        "a: int",
        "a: str",
    ),
    "a typed dict of a base, named as text": (
        LATER
        + ROW
        + "@dataclass\nclass B:\n    x: D | None = None\n@dataclass\nclass M(B):\n    y: int = 1\n",
        "a: int",
        "a: str",
    ),
    "a typed dict of a typed dict, named as text": (
        LATER + ROW + "class E(TypedDict):\n    d: D\n@dataclass\nclass M:\n    x: E = None\n",
        "a: int",
        "a: str",
    ),
    "another name of a type, named as text": (
        LATER + "N = int\nclass M(NamedTuple):\n    x: N = 1\n",
        "N = int",
        "N = float",
    ),
    "a text within a type": (
        "from dataclasses import dataclass\n" + ROW + "@dataclass\nclass M:\n    x: list['D'] = ()\n",
        "a: int",
        "a: str",
    ),
    "what makes a str": (
        "class M(str):\n    def __new__(cls): return str.__new__(cls, 'a')\n",
        "'a'",
        "'b'",
    ),
    "what fills an object": (
        "from dataclasses import dataclass\n@dataclass(init=False)\nclass M:\n    x: int = 1\n"
        "    def __init__(self): self.x = 2\n",
        "self.x = 2",
        "self.x = 3",
    ),
    "what fills an object of a base": (
        "class B:\n    def __init__(self): self.x = 2\n"
        "from dataclasses import dataclass\n@dataclass(init=False)\nclass M(B):\n    x: int = 1\n",
        "self.x = 2",
        "self.x = 3",
    ),
}
NO_CHANGES = {
    "a name for type checkers": (
        LATER + "@dataclass\nclass M:\n    x: Missing = 1\n    def f(self): return 1\n",
        "return 1",
        "return 2",
    ),
    "the wrapper that dataclasses generate": (
        LATER + "@dataclass\nclass M:\n    x: int = 1\n",
        "@dataclass\n",
        "@dataclass(eq=True, repr=True, init=True)\n",
    ),
    "a method": (M + "    def f(self): return 1\n", "return 1", "return 2"),
    "a computed field": (
        M + "    @computed_field\n    @property\n    def y(self) -> int: return self.x\n",
        "self.x",
        "self.x + 1",
    ),
    "a cached property": (
        M + "    @functools.cached_property\n    def y(self): return 1\n",
        "return 1",
        "return 2",
    ),
    "nothing": (CHILD + "\n", "\n\n", "\n"),
}


@pytest.mark.parametrize(("text", "old", "new"), CHANGES.values(), ids=CHANGES)
def test_what_a_class_stored_is_a_miss_to_a_class_that_differs_in(release, text, old, new):
    assert old in text
    stored = encode(release(text).M())
    release(text.replace(old, new))
    with pytest.raises(Undecodable, match="was another class"):
        decode(*stored)
    stored = encode(sys.modules[MODULE].M())
    release(text)
    with pytest.raises(Undecodable, match="was another class"):
        decode(*stored)


@pytest.mark.parametrize(("text", "old", "new"), NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_a_class_stored_comes_back_from_one_that_differs_only_in(release, text, old, new):
    assert old in text
    stored = encode(release(text).M())
    newer = release(text.replace(old, new))
    assert decode(*stored) == newer.M()


def test_a_class_that_was_removed_or_renamed_is_a_miss(release):
    stored = encode(release(M).M())
    release("class N(BaseModel):\n    x: int = 1\n")
    with pytest.raises(Undecodable):
        decode(*stored)


def test_a_cached_property_is_computed_anew_by_the_class_that_reads(release):
    text = M + "    @functools.cached_property\n    def y(self): return 1\n"
    model = release(text).M()
    assert model.y == 1
    stored = encode(model)
    release(text.replace("return 1", "return 2"))
    assert decode(*stored).y == 2
    assert isinstance(vars(type(model))["y"], functools.cached_property)


def test_a_cached_property_that_no_codec_takes_does_not_keep_its_model_out(release):
    text = M + "    @functools.cached_property\n    def y(self): return object()\n"
    model = release(text).M()
    assert model.y
    assert decode(*encode(model)).x == 1


def test_a_generic_model_comes_back_where_it_was_used_with_the_same_arguments(release):
    text = "class Outer:\n    class Box(BaseModel, Generic[T]):\n        x: T\n"
    module = release(text)
    made = module.Outer.Box[dict[str, int]](x={"a": 1})
    stored = encode(made)
    assert decode(*stored) == made
    again = release(text)
    with pytest.raises(Undecodable, match="has not been used here with these arguments"):
        decode(*stored)
    kind = again.Outer.Box[dict[str, int]]
    assert type(decode(*stored)) is kind


def test_two_generic_models_of_one_name_are_not_mixed_up(release):
    module = release("class Box(BaseModel, Generic[T]):\n    x: T\nclass A(BaseModel):\n    y: int = 1\n")
    first, other = module.A, type("A", (module.A,), {"__module__": MODULE, "__qualname__": "A"})
    assert decode(*encode(module.Box[first](x=first()))).x == first()
    with pytest.raises(Unserializable):
        encode(module.Box[other](x=other()))


def test_a_model_that_refers_to_itself_has_a_shape(release):
    text = "class M(BaseModel):\n    x: 'Optional[M]' = None\n"
    one = shape_digest(release(text).M)
    assert one == shape_digest(release(text).M)
    assert one != shape_digest(release(text + "    y: int = 1\n").M)


def test_a_default_that_cannot_be_looked_at_does_not_keep_its_model_out(release):
    class Shy:
        def __getattribute__(self, name):
            raise RuntimeError(name)

    module = release("class M(BaseModel):\n    x: Any = None\n")
    module.M.model_fields["x"].metadata.append(Shy())
    assert decode(*encode(module.M(x=1))).x == 1


def test_a_shape_is_the_same_in_every_process():
    program = (
        HEAD
        + VALIDATED.replace(
            "x: int = 1", "x: int = 1\n    s: frozenset = frozenset('abcdefgh')\n    l: Any = object()"
        )
        + (
            "    @model_validator(mode='after')\n    def f(self): return {'a', 'b', 'c'} and self\n"
            "from cachee_shm.shape import shape_digest\nprint(shape_digest(M).hex())"
        )
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(digests) == 1
