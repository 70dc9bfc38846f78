"""Keys made from a call's arguments: different arguments never make the same key.

    "user:{uid}"           the argument's text
    "{user.id}:{page}"     an attribute; {row[id]} is an item
    (no template)          "module.function(uid=7,page=1)"

An argument's text shows its type. 7 is ``7``, and "7" is ``'7``: a str that looks like a value of another
type gets a quote. Other words stay as they are: "user:{name}" for "anna" is "user:anna". A character that
would end the argument too early is escaped as in a URL, and so is ``%``: "{a}:{b}" for "x:y" and 1 is
"x%3Ay:1". An argument at the end of the key needs no escapes. An object of an unknown type is refused.

A value of a subclass of str, int or float has the text of the built-in value, so ``cache.delete("user:7")``
reaches it. The text of a container that is not a list, tuple, set or dict (a named tuple, an OrderedDict)
contains its class. That of a time contains its zone.

A key of more than 256 bytes ends in a digest of it; no other key is longer than that.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import operator
import re
import string
import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from cachee_shm.errors import InvalidKey

__all__ = ["Template", "call_text", "module_name", "shortened"]

WHOLE_BYTES_MAX = 256
HEAD_BYTES = 224
DEPTH_MAX = 16

LIKE_ANOTHER_TYPE = re.compile(
    r"""(?!\w)                                    # empty, or beginning with a sign, a quote, a bracket ...
    | \d                                          # a number, a date
    | (None|True|False|nan|inf)\Z
    | [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z # a UUID
    """,
    re.VERBOSE,
)
WITHIN = "%,=()[]{}<>"
"""Characters that are escaped in the text of a container's item; the first one begins an escape."""
FIELD = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*|\[[^\[\]]+\])*")
INT_WHOLE = 1 << 2048  # Python refuses to write longer ones in digits (sys.set_int_max_str_digits)
MAIN = ("__main__", "__mp_main__")


class Template:
    """A key, or a tag, with arguments in it."""

    __slots__ = ("_head", "_parts", "text")

    def __init__(self, text: str, parameters: Collection[str]) -> None:
        """``ValueError`` for a template that cannot be parsed, or that names something not in
        ``parameters``."""
        self.text = text
        literals, fields = _parsed(text)
        self._head = literals[0]
        self._parts = [  # field, the characters to escape in its text, the literal after it
            (field, _ending(behind), behind) for field, behind in zip(fields, literals[1:], strict=True)
        ]
        if any(not behind for _, _, behind in self._parts[:-1]):
            raise ValueError(f"{text!r} has two fields without anything between them. Put a separator there.")
        unknown = sorted({_name_of(field) for field in fields} - set(parameters))
        if unknown:
            raise ValueError(
                f"{text!r} names {', '.join(unknown)}, which is not a parameter of the function. "
                f"It has: {', '.join(parameters) or 'none'}."
            )

    @property
    def names(self) -> frozenset[str]:
        """The parameters that it names."""
        return frozenset(_name_of(field) for field, _, _ in self._parts)

    def filled(self, arguments: Mapping[str, Any]) -> str:
        """The key. Raises ``InvalidKey`` for an argument that has no text, and whatever reading an attribute
        raises."""
        pieces = [self._head]
        for field, escaped, behind in self._parts:
            value, _ = FORMATTER.get_field(field, (), arguments)
            pieces += _escaped(_text(value, f"{{{field}}} of {self.text!r}"), escaped), behind
        return shortened("".join(pieces))


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """The key of a call without a template."""
    inside = ",".join(f"{each}={_item(value, f'{each} of {name}')}" for each, value in arguments.items())
    return shortened(f"{name}({inside})")


def shortened(key: str) -> str:
    """``key``; if it is long, its beginning and a digest, together longer than any key left as it is."""
    data = key.encode("utf-8", "surrogatepass")
    if len(data) <= WHOLE_BYTES_MAX:
        return key
    head = data[:HEAD_BYTES].decode("utf-8", "replace")
    return f"{head}~{hashlib.blake2b(data, digest_size=20).hexdigest()}"


FORMATTER = string.Formatter()


def _parsed(text: str) -> tuple[list[str], list[str]]:
    """The literals around the fields, and the fields (one fewer)."""
    literals, fields = [""], []
    try:
        parts = list(FORMATTER.parse(text))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no template: {error}. Write a brace that is text twice: {{{{ }}}}."
        ) from None
    for literal, field, form, conversion in parts:
        literals[-1] += literal
        if field is None:
            continue
        if not FIELD.fullmatch(field):
            raise ValueError(
                f"{text!r}: {{{field}}} names no parameter. Write {{name}}, {{name.attribute}} or "
                "{name[item]}."
            )
        if form or conversion:
            raise ValueError(
                f"{text!r}: {{{field}}} has a format: two values may get the same key. Leave the format "
                "out, or give key= a function."
            )
        fields.append(field)
        literals.append("")
    return literals, fields


def _name_of(field: str) -> str:
    return re.split(r"[.\[]", field, maxsplit=1)[0]


def _ending(behind: str) -> str:
    """The characters to escape in a field's text, so that it ends where ``behind`` begins."""
    return ("~%" if behind[0] == "%" else "%" + behind[0]) if behind else ""


def _escaped(text: str, characters: str) -> str:
    for each in characters:  # the first of them begins an escape
        if each in text:
            text = text.replace(each, "".join(f"{characters[0]}{byte:02X}" for byte in each.encode()))
    return text


def module_name(module: str | None) -> str:
    """A name for a module that is the same in every process: for a script, the name by which it would be
    imported."""
    if module not in MAIN:
        return str(module)
    main = sys.modules.get(module)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return spec.name if spec is not None else PurePath(file).stem if file else MAIN[0]


# Text: different values, also of different types, have different texts


CONTAINERS = (list, tuple, set, frozenset, dict)


def _text(value: Any, where: str, depth: int = DEPTH_MAX) -> str:
    kind = type(value)
    if issubclass(kind, enum.Flag):  # of several members together, the name may be None
        return f"={_class_text(kind)}({value._value_})"
    if issubclass(kind, enum.Enum):  # before str and int, which it may be as well
        return f"={_class_text(kind)}.{value._name_}"
    for each, text in TEXTS.items():
        if issubclass(kind, each):  # not isinstance, because a proxy claims to be of another class
            return text(value)
    if issubclass(kind, CONTAINERS):
        if depth == 0:
            raise InvalidKey(f"{where} is nested over {DEPTH_MAX} deep. Nothing was read or written.")
        return _container_text(value, where, depth - 1)
    with suppress(TypeError):  # no int, or an array of several
        return _int_text(operator.index(value))  # int and its kin; bool came before
    raise InvalidKey(
        f"{where} is of type {kind.__module__}.{kind.__qualname__}, which has no text of its own. "
        "Nothing was read or written. Name what identifies it ({user.id}), or give key= a function."
    )


def _str_text(value: str) -> str:
    text = str.__str__(value)
    return f"'{text}" if LIKE_ANOTHER_TYPE.match(text) else text


def _int_text(value: int) -> str:
    return str(value) if -INT_WHOLE < value < INT_WHOLE else f"=int:{value:x}"


def _class_text(kind: type) -> str:
    return f"{module_name(kind.__module__)}.{kind.__qualname__}"


def _datetime_text(value: dt.datetime | dt.time) -> str:
    text = value.isoformat() + _zone_text(value)
    return f"={text};fold" if value.fold else text


def _zone_text(value: dt.datetime | dt.time) -> str:
    """The zone, unless it is a fixed offset: two zones with equal offsets may differ on another day."""
    zone = value.tzinfo
    if zone is None or (type(zone) is dt.timezone and str(zone) == str(dt.timezone(zone.utcoffset(None)))):
        return ""
    if type(zone).__repr__ is object.__repr__ and type(zone).__str__ is object.__str__:
        raise InvalidKey(
            f"A time of zone {_class_text(type(zone))}, which has no name. Nothing was read or written. "
            "Give the class a __str__, or use ZoneInfo."
        )
    return f"[{zone}]"


TEXTS: dict[Any, Callable[[Any], str]] = {
    str: _str_text,
    bool: str,
    type(None): str,
    float: float.__repr__,
    bytes: lambda value: f"=bytes:{value.hex()}",
    uuid.UUID: str,
    dt.datetime: _datetime_text,  # before date, which it is as well
    dt.date: lambda value: value.isoformat(),
    dt.time: _datetime_text,
    dt.timedelta: lambda value: f"=timedelta:{value // dt.timedelta(microseconds=1)}",
    decimal.Decimal: lambda value: f"=Decimal:{value}",
    complex: lambda value: f"=complex:{value!r}",
    type: lambda value: f"=class:{_class_text(value)}",
}
"""The first that fits."""


def _item(value: object, where: str, depth: int = DEPTH_MAX) -> str:
    """The text of an item. Brackets and commas are escaped in it, because they structure the container's
    text."""
    text = _text(value, where, depth)
    return text if issubclass(type(value), CONTAINERS) else _escaped(text, WITHIN)


PLAIN = (list, tuple, set, dict)


def _container_text(value: Any, where: str, depth: int) -> str:
    """Read by the built-in type's own methods, because a subclass may show less (Django's QueryDict)."""

    def items(values: Iterable[object]) -> Iterable[str]:
        return (_item(each, where, depth) for each in values)

    kind = type(value)
    said = "" if kind in PLAIN else _escaped(f"={_class_text(kind)}", WITHIN)
    if issubclass(kind, dict):
        pairs = list(map("=".join, zip(items(dict.keys(value)), items(dict.values(value)), strict=True)))
        return f"{said}{{{','.join(pairs if issubclass(kind, OrderedDict) else sorted(pairs))}}}"
    if issubclass(kind, list):
        return f"{said}[{','.join(items(list.__iter__(value)))}]"
    if issubclass(kind, tuple):
        return f"{said}({','.join(items(tuple.__iter__(value)))})"
    held = set.__iter__(value) if issubclass(kind, set) else frozenset.__iter__(value)
    return f"{said}<{','.join(sorted(items(held)))}>"
