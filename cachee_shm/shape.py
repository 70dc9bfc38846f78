"""The shape of a class: it decides whether an object that one release stored may be used in another.

    fields              names, types, order, constraints, defaults of a model, dataclass, attrs class or named
                        tuple; the same of each such class and TypedDict in them; an enum's members; what a
                        type of the user's tells pydantic of itself
    slots               of any class that is stored
    private attributes  names, types, defaults
    configuration       ``model_config``, and the type of what is allowed besides the fields
    functions           validators, and the methods that make or restore an object; no other method

``shape_digest`` gives it as 8 bytes; ``member_digest`` gives that of one member of an enum: its name and
value. They are the same in each process that runs the same code: no address and no order of a set is in them.
Functions are compared by their bytecode. So two versions of Python do not share objects whose class has such
functions. If shapes differ although nothing relevant has changed, that costs a miss. If they were equal
although the class has changed, a reader would get an object that the present class could not make.
"""

from __future__ import annotations

import enum
import functools
import sys
import types
import typing
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["member_digest", "shape_digest"]

DIGEST_BYTES = 8
DEPTH_MAX = 32
FIELD_PARTS = (
    "annotation",
    "default",
    "default_factory",
    "metadata",
    "discriminator",
    "frozen",
    "validate_default",
)
PRIVATE_PARTS = ("default", "default_factory")
DECORATORS = ("validators", "field_validators", "root_validators", "model_validators")
METHODS = (
    "__new__",
    "__init__",
    "__getstate__",
    "__setstate__",
    "__get_pydantic_core_schema__",
    "model_post_init",
)
"""Methods of a model that count if a class of the user's defines them."""
HOOKS = ("__get_pydantic_core_schema__", "__get_validators__", "__call__")
"""Methods that count of a class or object that an annotation names."""
SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...))
RECORDS = ("__total__", "__dataclass_fields__", "__attrs_attrs__", "_field_defaults")
"""The attribute by which a TypedDict, a dataclass, an attrs class and a named tuple are known."""
RECORD_PARTS = ("name", "type", "default", "default_factory", "factory", "converter", "validator")
"""What counts of a field of a dataclass or attrs class."""
MAKERS = ("__new__", "__init__")
"""Methods that count of any stored class that defines them."""
RECORD_METHODS = (
    *("__post_init__", "__attrs_init__", "__attrs_pre_init__", "__attrs_post_init__"),
    *("__getstate__", "__setstate__"),
)
GENERATED_BY = ("dataclasses", "collections", "attr._make")
UNIONS = (typing.Union, types.UnionType)

DIGESTS: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()
MEMBERS: weakref.WeakKeyDictionary[type, dict[str, bytes]] = weakref.WeakKeyDictionary()


def shape_digest(kind: type) -> bytes:
    """8 bytes that differ when the class has changed in anything that its stored objects depend on."""
    digest = DIGESTS.get(kind)
    if digest is None:
        digest = _digest(_shape_of(kind))
        if getattr(kind, "__pydantic_complete__", True):
            DIGESTS[kind] = digest
    return digest


def _shape_of(thing: Any) -> object:
    """A class that raised when it was examined raises again; an exception of a signal handler goes to the
    caller."""
    walk, again = Walk(), Walk()
    shape = walk.whole(thing)
    if walk.refusals:
        again.whole(thing)
        counts, counts_again = (Counter(map(type, each.refusals)) for each in (walk, again))
        odd = (counts - counts_again) + (counts_again - counts)
        for refusal in (*walk.refusals, *again.refusals):
            if type(refusal) in odd:
                raise refusal
    return shape


def member_digest(member: enum.Enum) -> bytes:
    """8 bytes that differ when the member has another name or value. Other members do not matter."""
    known = MEMBERS.setdefault(type(member), {})
    name = member._name_
    if name not in known:
        known[name] = _digest((name, _shape_of(member._value_)))
    return known[name]


def _digest(shape: object) -> bytes:
    import hashlib  # loads OpenSSL: only a process that stores objects of classes pays for it

    return hashlib.blake2b(repr(shape).encode(errors="backslashreplace"), digest_size=DIGEST_BYTES).digest()


class Walk:
    """One walk over a class and what it refers to. A shape is a str, or a tuple of shapes."""

    def __init__(self) -> None:
        self._entered: set[int] = set()
        self._depth = 0
        self.refusals: list[Exception] = []

    def whole(self, thing: Any) -> object:
        """The shape of a class with its slots and what makes its objects, or that of a member's value."""
        if not isinstance(thing, type):
            return (self.shape(thing),)
        return (self.shape(thing), *self.slots(thing), *self._functions_of(thing, MAKERS))

    def shape(self, thing: Any) -> object:
        """The shape of anything. For objects that have been entered already, or lie too deep, only the type
        counts."""
        if isinstance(thing, SCALARS):
            return repr(thing)
        if id(thing) in self._entered or self._depth > DEPTH_MAX:
            return ("again", _name(thing if isinstance(thing, type) else type(thing)))
        self._entered.add(id(thing))
        self._depth += 1
        try:
            return self._shape(thing)
        except Exception as error:  # an object of the user's that raises when it is examined
            self.refusals.append(error)
            return ("opaque", _name(type(thing)))
        finally:
            self._depth -= 1
            if not isinstance(thing, type):
                self._entered.discard(id(thing))  # two equal ones side by side are no cycle

    def _shape(self, thing: Any) -> object:
        if thing is typing.Any:  # a class from Python 3.11 on, an object before
            return ("any",)
        if isinstance(thing, dict):
            return ("dict", *sorted((repr(self.shape(key)), self.shape(thing[key])) for key in thing))
        if isinstance(thing, (list, tuple)):
            return ("list", *map(self.shape, thing))
        if isinstance(thing, (set, frozenset)):
            return ("set", *sorted(repr(self.shape(each)) for each in thing))
        if isinstance(thing, enum.Enum):
            return ("member", _name(type(thing)), thing.name)
        if typing.get_origin(thing) is not None:
            return self._generic(thing)
        if isinstance(thing, type):
            return self._class(thing)
        return self._function(thing) or self._typing_name(thing) or self._object(thing)

    def _generic(self, thing: Any) -> object:
        origin = typing.get_origin(thing)
        name = "Union" if origin in UNIONS else self.shape(origin)
        return (
            "of",
            name,
            *map(self.shape, typing.get_args(thing)),
            *map(self.shape, getattr(thing, "__metadata__", ())),
        )

    def _class(self, kind: Any) -> object:
        if _is_model(kind):
            return self._model(kind)
        if any(hasattr(kind, mark) for mark in RECORDS):
            return self._record(kind)
        if issubclass(kind, enum.Enum):
            members = ((name, self.shape(member._value_)) for name, member in kind.__members__.items())
            return ("enum", _name(kind), *members)
        return ("class", _name(kind), *self._functions_of(kind, HOOKS))

    def _record(self, kind: Any) -> object:
        required = getattr(kind, "__required_keys__", ())
        return (
            "record",
            _name(kind),
            self.shape(self._annotations(kind)),
            *sorted(map(repr, required)),
            *(self._parts(field, RECORD_PARTS) for field in _fields(kind)),
            self.shape(getattr(kind, "_fields", ())),
            self.shape(getattr(kind, "_field_defaults", {})),
            *self._functions_of(kind, RECORD_METHODS),
        )

    def _annotations(self, kind: type) -> dict[str, Any]:
        """The annotations of the class and its bases; a text annotation is looked up in its class's
        module."""
        merged: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            try:
                merged.update(getattr(base, "__annotations__", {}))
            except NameError:  # Python 3.14 evaluates annotations only now
                merged["?"] = _name(base)
                continue
            for name in vars(base).get("__annotations__", {}):
                merged[name] = self._meant(merged[name], base)
        return merged

    def _meant(self, annotation: Any, owner: type) -> Any:
        """Evaluate ``"list[User]"``. A name that exists only for type checkers stays text."""
        one = types.SimpleNamespace(__annotations__={"it": annotation})
        names = vars(sys.modules.get(owner.__module__, typing))
        try:
            meant = typing.get_type_hints(one, names, dict(vars(owner)), include_extras=True)["it"]
        except Exception as error:  # whatever looking a name up raises
            self.refusals.append(error)
            return annotation
        return (annotation, meant) if isinstance(annotation, str) else meant

    def slots(self, kind: type) -> Iterator[object]:
        """The slots of the class and its bases."""
        for base in kind.__mro__:
            if base is not object and base.__module__ != "builtins":
                slots = vars(base).get("__slots__")
                yield (_name(base), self.shape(sorted(slots) if isinstance(slots, (tuple, list)) else slots))

    def _functions_of(self, kind: type, names: tuple[str, ...]) -> tuple[object, ...]:
        return tuple(
            (name, self.shape(vars(base)[name]))
            for base in kind.__mro__
            if base.__module__.partition(".")[0] not in ("builtins", "pydantic")
            for name in names
            if name in vars(base) and not _is_generated(base, name)
        )

    def _model(self, kind: Any) -> object:
        decorators = kind.__pydantic_decorators__
        return (
            "model",
            _name(kind),
            *((name, self._parts(field, FIELD_PARTS)) for name, field in kind.model_fields.items()),
            *(
                (
                    "private",
                    name,
                    self.shape(self._annotations(kind).get(name)),
                    self._parts(private, PRIVATE_PARTS),
                )
                for name, private in sorted(kind.__private_attributes__.items())
            ),
            ("extra", self.shape(self._annotations(kind).get("__pydantic_extra__"))),
            ("config", self.shape(dict(kind.model_config))),
            *(
                (name, each, self.shape(one.info), self.shape(one.func))
                for name in DECORATORS
                for each, one in sorted(getattr(decorators, name).items())
            ),
            *self._functions_of(kind, METHODS),
        )

    def _parts(self, thing: Any, names: tuple[str, ...]) -> object:
        return tuple((name, self.shape(getattr(thing, name, None))) for name in names)

    def _function(self, thing: Any) -> object:
        if isinstance(thing, functools.partial):
            return ("partial", self.shape(thing.func), self.shape(thing.args), self.shape(thing.keywords))
        function = getattr(thing, "__func__", thing)  # of a method, a classmethod, a staticmethod
        code = getattr(function, "__code__", None)
        if isinstance(code, types.CodeType):
            cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
            defaults = (function.__defaults__, function.__kwdefaults__)
            return ("def", self._code(code), self.shape(defaults), self.shape(cells))
        if isinstance(thing, types.BuiltinFunctionType):
            return ("builtin", thing.__module__, thing.__qualname__)
        return None

    def _code(self, code: types.CodeType) -> object:
        consts = (self._code(c) if isinstance(c, types.CodeType) else self.shape(c) for c in code.co_consts)
        return (code.co_code.hex(), code.co_names, *consts)

    def _typing_name(self, thing: Any) -> object:
        if isinstance(thing, typing.TypeVar):
            return ("var", thing.__name__, self.shape(thing.__bound__), self.shape(thing.__constraints__))
        if isinstance(thing, typing.ForwardRef):
            return ("forward", thing.__forward_arg__)
        for below in ("__supertype__", "__value__"):  # NewType, `type X = ...`
            if hasattr(thing, below):
                return ("alias", thing.__name__, self.shape(getattr(thing, below)))
        return None

    def _object(self, thing: Any) -> object:
        """By its type and state, if it has any; never by its repr, which may contain an address."""
        state = dict(getattr(thing, "__dict__", {}))
        for base in type(thing).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                    state[name] = getattr(thing, name)
        if not state and type(thing).__module__ in ("typing", "datetime", "decimal", "uuid", "re", "pathlib"):
            return ("value", repr(thing))
        return ("object", _name(type(thing)), *self._functions_of(type(thing), HOOKS), self.shape(state))


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_model(kind: type) -> bool:
    main = sys.modules.get("pydantic.main")
    return main is not None and issubclass(kind, main.BaseModel)


def _fields(kind: Any) -> Iterable[Any]:
    """The fields of a dataclass or an attrs class."""
    if hasattr(kind, "__dataclass_fields__"):
        return sys.modules["dataclasses"].fields(kind)  # type: ignore[no-any-return]
    return getattr(kind, "__attrs_attrs__", ())


def _is_generated(base: Any, name: str) -> bool:
    """Whether a method was generated from the fields of its class, which are in the shape already.

    Its bytecode differs between versions of Python, so it must not count. Where the globals of a generated
    method are those of the user's module, the file name of its code shows that it was generated.
    """
    function = getattr(vars(base)[name], "__func__", vars(base)[name])
    file = getattr(getattr(function, "__code__", None), "co_filename", "")
    if name == "__new__" and "_fields" in vars(base):
        return bool(file == "<string>")
    if name == "__init__" and "__dataclass_params__" in vars(base):
        return file == "<string>" and bool(base.__dataclass_params__.init)
    made_by = getattr(function, "__globals__", {}).get("__name__")
    return made_by in GENERATED_BY or file.startswith("<attrs generated")
