"""Codecs of the user's own: ``cachee_shm.register``.

A registered type is stored as its codec's name and what its ``encode`` returned, which may be any value that
can be stored. The name takes the place of a schema: a codec whose encoding changes gets a new name
(``"money-2"``), so that two releases side by side give each other misses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from cachee_shm.errors import InvalidCodec

__all__ = ["Registered", "called", "of", "register"]

T = TypeVar("T")
NAME_BYTES_MAX = 64


class Registered(NamedTuple):
    """One type's codec."""

    name: str
    kind: type
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]


BY_TYPE: dict[type, Registered] = {}
BY_NAME: dict[str, Registered] = {}
TAKEN: set[type] = {str, bytes, int, float, bool, type(None), list, dict}
"""Types that have an encoding of their own, whatever is registered; ``packing.py`` adds the others."""


def register(kind: type[T], name: str, encode: Callable[[T], object], decode: Callable[[Any], T]) -> None:
    """Store values of exactly this type, in any container, by ``encode`` and ``decode``, in this process.

        class Money:
            def __init__(self, cents, currency): ...

        cachee_shm.register(Money, "money", lambda m: (m.cents, m.currency), lambda parts: Money(*parts))

    ``name``: 1 to 64 bytes of UTF-8; it is stored with each value. ``encode`` returns any value that can be
    stored. ``decode`` is given an equal one and returns a ``kind``; whatever it raises, or another type, is a
    counted miss. So is a name that the reading process has not registered. ``decode`` reads bytes that
    another process wrote: it must not call or import what they name. Call ``register`` where the class is
    defined, so that each process that uses the class has the codec. A subclass needs a codec of its own.

    A codec takes precedence over Cachee's own encoding of dataclasses, models and other classes. Types of
    Python and its standard library that Cachee stores itself cannot be registered. Registering again replaces
    the codec if the class is the same, or a new one of the same module and name (a reloaded module).

    Raises ``InvalidCodec`` if the name or the type has another codec, or cannot have one. Nothing is
    registered then.
    """
    if not isinstance(kind, type) or not callable(encode) or not callable(decode):
        raise InvalidCodec(
            f"The codec {name!r} needs a class and two callables; found {kind!r}, {encode!r}, {decode!r}. "
            "Nothing was registered."
        )
    if not isinstance(name, str) or not 1 <= len(name.encode(errors="replace")) <= NAME_BYTES_MAX:
        raise InvalidCodec(
            f"A codec's name has 1 to {NAME_BYTES_MAX} bytes; found {name!r}. Nothing was registered."
        )
    if kind in TAKEN:
        raise InvalidCodec(
            f"{_path(kind)} is stored by an encoding of its own. Codec {name!r} was not registered. Register "
            "a subclass, or another class."
        )
    older, same = BY_NAME.get(name), BY_TYPE.get(kind)
    if older is not None and _path(older.kind) != _path(kind):
        raise InvalidCodec(
            f"The name {name!r} is the codec of {_path(older.kind)}. That of {_path(kind)} was not "
            "registered. Give it another name."
        )
    if same is not None and same.name != name:
        raise InvalidCodec(
            f"{_path(kind)} has a codec already, {same.name!r}. Codec {name!r} was not registered. Keep one."
        )
    if older is not None:
        BY_TYPE.pop(older.kind, None)
    BY_NAME[name] = BY_TYPE[kind] = Registered(name, kind, encode, decode)


def of(kind: type) -> Registered | None:
    """The codec of exactly this type."""
    return BY_TYPE.get(kind)


def called(name: str) -> Registered:
    """The codec of this name; ``LookupError`` if this process has none."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise LookupError(f"no codec called {name!r} is registered in this process") from None


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
