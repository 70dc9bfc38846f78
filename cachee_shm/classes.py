"""Values of classes: a reader finds the class by its name, and restores the value without running any code of
it.

    code  values                                    stored as, after the class's name and its shape's digest
    12    enum members                              the member's name
    13    pydantic models                           fields, names of those set, extra, private
    14    named tuples                              the items, the state or None
    15    dataclasses and attrs classes             the fields' values in order, or the state
    16    subclasses of str, int, float, bytes      that value, the state or None

The state is a dict of everything that the instance holds in its ``__dict__`` and ``__slots__``, except what
cached properties keep there. An instance is made by the ``__new__`` of the built-in type, and its state is
put into the same places. No ``__new__``, ``__init__``, ``__post_init__``, ``__setattr__`` or property of the
class runs. So classes whose instances have more than this state are refused: those with their own
``__reduce__``, ``__getstate__``, ``__setstate__`` or ``__del__``, and those derived from another type than
the above.

A class is found only among the modules that the reader has imported: a value never makes a process import
anything. If the class has changed since another release stored the value, its shape (``shape.py``) differs,
and the value is refused.
"""

from __future__ import annotations

import enum
import sys
import types
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from cachee_shm.errors import Unserializable
from cachee_shm.extensions import Extension, factory_called, factory_name
from cachee_shm.mistakes import is_its_own
from cachee_shm.shape import member_digest, shape_digest

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["FACTORY_DICT", "MODEL", "OF_CLASSES", "class_called", "class_name", "extension_of", "is_model"]

MAIN = ("__main__", "__mp_main__")
BASES = (str, int, float, bytes)
STATE_METHODS = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)
GENERATED_BY = ("dataclasses", "collections", "attr._make", "pydantic.dataclasses")
"""Modules whose generated state methods do the same as this file."""
ATTRS_HASH = "_attrs_cached_hash"  # of this process's hash seed: made anew
GENERIC_CALL = "__orig_class__"  # what ``Box[int](...)`` leaves in its instance
CACHED_PROPERTY = "cached_property"  # of functools, Django, Werkzeug: a class of this name


# By name


def class_name(kind: type) -> str:
    """``module:qualname``; ``Unserializable`` if a reader could not find the class by it."""
    name = f"{kind.__module__}:{_qualname(kind)}"
    if kind.__module__ in MAIN:
        raise Unserializable(
            f"a value of class {name}: {kind.__module__} is another module in each program; nothing was "
            "stored: define the class in a module that its readers import"
        )
    if "<locals>" in name:
        raise Unserializable(
            f"a value of class {name}, which is made inside a function and not found by that name; nothing "
            "was stored: define the class at the top of a module"
        )
    try:
        found = class_called(name)
    except LookupError:
        found = None
    if found is not kind:
        raise Unserializable(
            f"a value of class {name}, which is not found by that name; nothing was stored: keep the class "
            "in its module under its own name"
        )
    return name


def class_called(name: str) -> Any:
    """The class of this name among the imported modules; ``LookupError`` if there is none."""
    module, _, qualname = name.partition(":")
    plain, bracket, _ = qualname.partition("[")
    found: Any = sys.modules[module]
    for part in plain.split("."):
        found = vars(found)[part]
    # By its type, because asking a proxy for its __class__ runs the object behind it.
    if not issubclass(type(found), type) or (found.__module__, found.__qualname__) != (module, plain):
        raise LookupError(f"{name} is no class of that name")
    if bracket:
        found = next((kind for kind in _subclasses(found) if _qualname(kind) == qualname), None)
        if found is None:
            raise LookupError(f"{name} has not been used here with these arguments")
    return found


def _qualname(kind: Any) -> str:
    """The qualified name, also of a generic model with arguments, for which pydantic leaves out the outer
    class."""
    origin = getattr(kind, "__pydantic_generic_metadata__", {}).get("origin")
    if origin is None:
        return str(kind.__qualname__)
    return f"{origin.__qualname__}[{kind.__name__.partition('[')[2]}"


def _subclasses(kind: type) -> list[type]:
    return type.__subclasses__(kind)


def _found(extension: Extension, name: str, digest: bytes) -> Any:
    """The class that a stored value is of, if it is one of this extension and has not changed since."""
    kind = class_called(name)
    if extension_of(kind) is not extension:
        raise TypeError(f"{name} is no {WHAT[extension.code]}")
    if digest != shape_digest(kind):
        raise ValueError(f"{name} was another class when this was stored")
    return kind


def extension_of(kind: type) -> Extension | None:
    """How values of a class are stored; None for a class that is none of those above."""
    if issubclass(kind, enum.Enum):
        return MEMBER
    if is_model(kind):
        return MODEL
    if issubclass(kind, tuple):
        return NAMED_TUPLE if hasattr(kind, "_fields") else None
    if issubclass(kind, BASES):
        return SCALAR if kind not in BASES and kind is not bool else None
    return RECORD if hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__attrs_attrs__") else None


# Members of enums


def _member_state(value: Any) -> list[object]:
    kind, name = type(value), value._name_
    if kind.__members__.get(name) is not value:
        raise Unserializable(
            f"a value of enum {kind.__module__}.{kind.__qualname__} that is no member by name; nothing was "
            "stored: store its number"
        )
    return [class_name(kind), member_digest(value), name]


def _member_from(state: list[Any]) -> object:
    name, digest, member_name = state
    kind = class_called(name)
    if not issubclass(kind, enum.Enum):
        raise TypeError(f"{name} is no enum")
    member = kind.__members__[member_name]
    if digest != member_digest(member):
        raise ValueError(f"{name}.{member_name} was another value when this was stored")
    return member


# pydantic models


def is_model(kind: type) -> TypeGuard[type[BaseModel]]:
    """Whether it is a pydantic model. pydantic is not imported here: if it has not been imported, there are
    no models."""
    main = sys.modules.get("pydantic.main")
    return main is not None and main.BaseModel in kind.__mro__


MODEL_STATE = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def _model_state(value: BaseModel) -> list[object]:
    """What pickle would keep of a model, as ``MODEL_STATE`` orders it; a root model has but the first two.

    From ``__dict__`` only the fields: it also holds cached properties that were used, which are computed
    again.
    """
    kind = type(value)
    try:
        state = value.__getstate__()
    except Exception as error:  # the class may have one of its own
        if not is_its_own(error, kind.__getstate__, value):
            raise
        raise Unserializable(
            f"a value of class {class_name(kind)}, whose state cannot be had ({error!r}); nothing was stored"
        ) from error
    if not state.keys() <= set(MODEL_STATE):
        raise Unserializable(
            f"a value of class {class_name(kind)}, which has a __getstate__ of its own; nothing was stored"
        )
    fields = kind.model_fields
    state["__dict__"] = {name: each for name, each in state["__dict__"].items() if name in fields}
    return [class_name(kind), shape_digest(kind), *(state.get(part) for part in MODEL_STATE)]


def _model_from(whole: list[Any]) -> object:
    name, digest, *state = whole
    kind = _found(MODEL, name, digest)
    model = object.__new__(kind)
    base: Any = sys.modules["pydantic.main"].BaseModel
    base.__setstate__(model, dict(zip(MODEL_STATE, state, strict=True)))
    return model


# What instances hold


class Layout(NamedTuple):
    """The names under which a class's instances keep their values. Only names, so it does not keep the class
    alive."""

    fields: tuple[str, ...]
    slots: frozenset[str]
    left_out: frozenset[str]


LAYOUTS: weakref.WeakKeyDictionary[type, Layout] = weakref.WeakKeyDictionary()


def _layout(kind: Any) -> Layout:
    """The layout of a class; ``Unserializable`` if its instances have more than this state."""
    known = LAYOUTS.get(kind)
    if known is None:
        _require_plain(kind)
        found = dict(_attributes(kind))
        fields = _fields(kind)
        slots = {name for name, each in found.items() if type(each) is types.MemberDescriptorType}
        cached = {name for name, each in found.items() if _is_cached_property(each)}
        left_out = (cached | _attrs_hidden(kind) | {GENERIC_CALL}) - {*fields, ATTRS_HASH}
        known = LAYOUTS[kind] = Layout(fields, frozenset(slots), frozenset(left_out))
    return known


def _attributes(kind: type) -> Iterator[tuple[str, object]]:
    """In the order of a dict that is overwritten: attributes that a look-up finds first come last."""
    for base in reversed(kind.__mro__):
        yield from vars(base).items()


def _fields(kind: Any) -> tuple[str, ...]:
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(each.name for each in attributes)
    if hasattr(kind, "__dataclass_fields__"):
        return tuple(each.name for each in sys.modules["dataclasses"].fields(kind))
    return ()


def _attrs_hidden(kind: type) -> set[str]:
    """Slots that attrs has added for cached properties."""
    made = [base for base in kind.__mro__ if "__attrs_attrs__" in vars(base)]
    return {name for base in made for name in vars(base).get("__slots__", ())}


def _is_cached_property(thing: object) -> bool:
    return any(base.__name__ == CACHED_PROPERTY for base in type(thing).__mro__)


def _require_plain(kind: Any) -> None:
    for name in STATE_METHODS:
        owner = next((base for base in kind.__mro__ if name in vars(base)), object)
        made_by = getattr(vars(owner).get(name), "__globals__", {}).get("__name__")
        if owner not in (object, tuple, *BASES) and made_by not in GENERATED_BY:
            raise _refused(kind, f"has a {name} of its own")
    if hasattr(kind, "__del__"):
        raise _refused(kind, "has a __del__")
    base = next((base for base in (tuple, *BASES) if issubclass(kind, base)), object)
    try:
        base.__new__(kind)
    except TypeError as error:
        if not is_its_own(error, base.__new__, kind):
            raise
        raise _refused(kind, "is derived from a type whose instances hold more than can be seen") from None


def _refused(kind: type, why: str) -> Unserializable:
    return Unserializable(
        f"a value of class {kind.__module__}.{kind.__qualname__}, which {why}; nothing was stored: "
        "give the class a codec by cachee_shm.register"
    )


def _state(value: object, layout: Layout) -> dict[str, Any]:
    kind, state = type(value), {}
    for name in layout.slots:
        with suppress(AttributeError):  # nothing was put into it
            state[name] = getattr(kind, name).__get__(value)
    state |= getattr(value, "__dict__", {})
    if ATTRS_HASH in state:
        state[ATTRS_HASH] = None
    return {name: each for name, each in state.items() if name not in layout.left_out}


def _restore(value: object, state: dict[str, Any] | None) -> object:
    """Puts ``state`` where ``_state`` found it."""
    kind: Any = type(value)
    slots = _layout(kind).slots
    for name, each in (state or {}).items():
        if type(name) is not str:
            raise TypeError("an attribute without a name")
        if name in slots:
            getattr(kind, name).__set__(value, each)
        else:
            value.__dict__[name] = each
    return value


# Dataclasses and attrs classes, named tuples, subclasses of built-in types


def _record_state(value: object) -> list[object]:
    kind = type(value)
    layout = _layout(kind)
    state: Any = _state(value, layout)
    if len(state) == len(layout.fields) and all(name in state for name in layout.fields):
        state = [state[name] for name in layout.fields]
    return [class_name(kind), shape_digest(kind), state]


def _record_from(whole: list[Any]) -> object:
    name, digest, state = whole
    kind = _found(RECORD, name, digest)
    layout = _layout(kind)
    if type(state) is list:
        state = dict(zip(layout.fields, state, strict=True))
    return _restore(object.__new__(kind), state)


def _tuple_state(value: tuple[Any, ...]) -> list[object]:
    kind: Any = type(value)
    items = list(tuple.__iter__(value))
    if len(items) != len(kind._fields):
        raise _refused(kind, "has fields that its tuple lacks")
    return [class_name(kind), shape_digest(kind), items, _state(value, _layout(kind)) or None]


def _tuple_from(whole: list[Any]) -> object:
    name, digest, items, state = whole
    kind = _found(NAMED_TUPLE, name, digest)
    _layout(kind)
    if len(items) != len(kind._fields):
        raise ValueError(f"{len(items)} items for {name}")
    return _restore(tuple.__new__(kind, items), state)


EXACT: dict[type, Any] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
}
"""The value as the plain built-in type, even if the subclass overrides its methods."""


def _scalar_state(value: Any) -> list[object]:
    kind = type(value)
    state = _state(value, _layout(kind)) or None
    base = next(base for base in BASES if issubclass(kind, base))
    return [class_name(kind), shape_digest(kind), EXACT[base](value), state]


def _scalar_from(whole: list[Any]) -> object:
    name, digest, plain, state = whole
    kind = _found(SCALAR, name, digest)
    _layout(kind)
    base = type(plain)
    if base not in BASES or not issubclass(kind, base):
        raise TypeError(f"{name} is no class of {base.__name__}")
    return _restore(base.__new__(kind, plain), state)


# Dicts with a factory


def _factory_dict_state(value: Any) -> list[object]:
    factory = value.default_factory
    name = factory_name(factory)
    if factory is not None and name is None:
        if not issubclass(type(factory), type) or extension_of(factory) is None:
            raise Unserializable(
                f"a defaultdict of {factory!r}; nothing was stored: its factory may be None, a built-in "
                "type, or a class whose instances can be stored; or store dict(...) of it"
            )
        name = class_name(factory)
    return [name, dict(value)]


def _factory_dict_from(whole: list[Any]) -> object:
    """The factory must be a class that could be stored, because the reader's process calls it when a key is
    missing."""
    import collections

    name, items = whole
    factory = None if name is None else factory_called(name)
    if name is not None and factory is None:
        factory = class_called(name)
        if extension_of(factory) is None:
            raise TypeError(f"{name} is no factory")
    if type(items) is not dict:
        raise TypeError("no dict")
    return collections.defaultdict(factory, items)


WHAT = {
    13: "pydantic model",
    14: "named tuple",
    15: "dataclass or attrs class",
    16: "subclass of a built-in type",
}
MEMBER = Extension(12, _member_state, _member_from, is_leaf=False)
MODEL = Extension(13, _model_state, _model_from, is_leaf=False)
NAMED_TUPLE = Extension(14, _tuple_state, _tuple_from, is_leaf=False)
RECORD = Extension(15, _record_state, _record_from, is_leaf=False)
SCALAR = Extension(16, _scalar_state, _scalar_from, is_leaf=False)
FACTORY_DICT = Extension(19, _factory_dict_state, _factory_dict_from, is_leaf=False)
OF_CLASSES = (MEMBER, MODEL, NAMED_TUPLE, RECORD, SCALAR, FACTORY_DICT)
