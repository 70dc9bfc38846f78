"""The checks of a message's fields. A check takes a field as msgpack has unpacked it, and returns it as the
message holds it, or raises FrameError."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cachee_shm.errors import FrameError

NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
ADDRESS = re.compile(
    r"(\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]|[A-Za-z0-9._-]{0,253}):([0-9]{1,5})"
)
KNOWN_MAX = 256
"""Texts that a check remembers."""

Check = Callable[[Any], Any]


def integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise FrameError(f"not an integer of {low}..{high}")
        return value

    return check


def octets(low: int, high: int) -> Check:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or not low <= len(value) <= high:
            raise FrameError(f"not {low}..{high} bytes")
        return value

    return check


def text(chars_max: int) -> Check:
    """Only printable characters, because the text goes to logs even if its sender has proven nothing."""

    def check(value: Any) -> str:
        if type(value) is not str or len(value) > chars_max or not value.isprintable():
            raise FrameError(f"not a printable text of up to {chars_max} characters")
        return value

    return check


def matching(pattern: re.Pattern[str], what: str) -> Check:
    known: set[str] = set()
    """Some texts that matched, because each beat has the same ones."""

    def check(value: Any) -> str:
        if type(value) is str and value in known:
            return value
        if type(value) is not str or pattern.fullmatch(value) is None:
            raise FrameError(f"not {what}")
        if len(known) < KNOWN_MAX:
            known.add(value)
        return value

    return check


def one_of(*accepted: Any) -> Check:
    def check(value: Any) -> Any:
        if value not in accepted or type(value) is not type(accepted[0]):
            raise FrameError(f"not one of {accepted}")
        return value

    return check


def address(may_lack_host: bool) -> Check:
    def check(value: Any) -> str:
        match = ADDRESS.fullmatch(value) if type(value) is str else None
        if may_lack_host and value == "":
            return ""
        if match is None or not 1 <= int(match[2]) <= 65535 or not (match[1] or may_lack_host):
            raise FrameError("not an address")
        return str(value)

    return check


def list_of(item: Check, low: int, high: int) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not low <= len(value) <= high:
            raise FrameError(f"not a list of {low}..{high}")
        return tuple([item(each) for each in value])

    return check


def row(shape: type[Any], *fields: Check) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not list or len(value) != len(fields):
            raise FrameError(f"not {len(fields)} fields")
        items = [field(item) for field, item in zip(fields, value, strict=True)]
        return tuple.__new__(shape, items)  # as a named tuple's constructor does, without a call of Python

    return check
