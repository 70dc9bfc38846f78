"""Header fields, as a cache reads them. What is malformed is read as what forbids more.

Names and values are ``str`` of latin-1, as in WSGI. Nothing here raises for what a client or an application
sent, and nothing takes longer than in proportion to its length.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable

__all__ = ["DELTA_S_MAX", "Directives", "Fields", "age_of", "entity_tags", "http_date", "normalized"]

DELTA_S_MAX = 1 << 31  # RFC 9111, 1.2.2: what is larger counts as this

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
DIRECTIVE = re.compile(
    r'[ \t]*([!#$%&\'*+.^_`|~\w-]+)(?:=("(?:[^"\\]|\\.)*"|[^\s",]*))?[ \t]*(?:,|\Z)', re.ASCII
)
ENTITY_TAG = re.compile(r'[ \t,]*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')


class Fields:
    """The header of a message, in order. Names are compared without their case."""

    __slots__ = ("_lines", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = list(pairs)
        self._lines: dict[str, list[str]] = {}
        for name, value in self.pairs:
            self._lines.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> list[str]:
        """The values of all lines of this (lowercase) name."""
        return self._lines.get(name, [])

    def joined(self, name: str) -> str | None:
        """All lines of this name as one; None where there is none."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def without(self, names: Iterable[str]) -> Fields:
        """The fields that have none of these (lowercase) names."""
        dropped = frozenset(names)
        return Fields(pair for pair in self.pairs if pair[0].lower() not in dropped)

    def are_clean(self) -> bool:
        """Whether no name and no value can end its line, or hides what does."""
        return all(NAME.fullmatch(name) and VALUE.fullmatch(value) for name, value in self.pairs)


class Directives:
    """``Cache-Control``: names without their case; arguments as tokens or quoted strings."""

    __slots__ = ("_found",)

    def __init__(self, text: str) -> None:
        self._found: dict[str, list[str | None]] = {}
        at = 0
        while at < len(text):
            match = DIRECTIVE.match(text, at)
            if match is None:  # "max-age = 5": the name counts, without an argument
                comma = text.find(",", at)
                piece = text[at : comma if comma >= 0 else len(text)]
                name = NAME.match(piece.lstrip())
                if name:
                    self._found.setdefault(name[0].lower(), []).append(None)
                at += len(piece) + 1
                continue
            argument = match[2]
            if argument is not None and argument.startswith('"'):
                argument = re.sub(r"\\(.)", r"\1", argument[1:-1])
            self._found.setdefault(match[1].lower(), []).append(argument)
            at = match.end()

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def argument(self, name: str) -> str | None:
        """The first one; None where there is none."""
        return self._found.get(name, [None])[0]

    def seconds(self, name: str) -> int | None:
        """The least of its arguments, 0 if one is no number; None where there is no such directive."""
        found = self._found.get(name)
        return None if found is None else min(_delta(argument) for argument in found)


def _delta(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdigit()):
        return 0
    return DELTA_S_MAX if len(text) > 10 else min(int(text), DELTA_S_MAX)


def age_of(values: list[str]) -> int | None:
    """What ``Age`` says in seconds, 0 without it; None for what is no age."""
    if not values:
        return 0
    text = values[0].split(",")[0].strip()
    return _delta(text) if text.isascii() and text.isdigit() else None


# Dates: RFC 9110, 5.6.7

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
MONTH = rf"(?P<month>{'|'.join(MONTHS)})"
DATES = [
    re.compile(
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) {MONTH} (?P<year>\d{{4}}) {CLOCK} GMT", re.ASCII
    ),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d\d)-{MONTH}-(?P<year>\d\d) {CLOCK} GMT",
        re.ASCII,
    ),
    re.compile(
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {MONTH} (?P<day>[ \d]\d) {CLOCK} (?P<year>\d{{4}})", re.ASCII
    ),
]


def http_date(text: str, now_s: float) -> int | None:
    """Seconds since 1970; None for what is no date. ``now_s`` tells the century of a year of two digits."""
    match = next((found for found in (form.fullmatch(text) for form in DATES) if found), None)
    if match is None:
        return None
    year, month = int(match["year"]), MONTHS.index(match["month"]) + 1
    if len(match["year"]) == 2:
        now_year = 1970 + int(now_s // 31_556_952)
        year += now_year // 100 * 100
        year -= 100 if year > now_year + 50 else 0
    day, hour, minute, second = (int(match[part]) for part in ("day", "hour", "minute", "second"))
    if not (year >= 1 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


# Validators and negotiation


def entity_tags(text: str) -> set[str] | None:
    """The opaque parts of ``If-None-Match``, quotes included; ``{"*"}`` for a star; None if malformed."""
    if text.strip() == "*":
        return {"*"}
    found, at, text = set(), 0, text.rstrip(" \t,")  # empty elements of a list count for nothing
    while at < len(text):
        match = ENTITY_TAG.match(text, at)
        if match is None:
            return None
        found.add(match[1])
        at = match.end()
    return found


def normalized(name: str, values: list[str]) -> str | None:
    """What a field says, for comparing: lines joined, without the space around commas; None without it.

    The codings of ``accept-encoding`` have neither case nor order.
    """
    if not values:
        return None
    parts = [part.strip(" \t") for part in ",".join(values).split(",")]
    if name == "accept-encoding":
        parts = sorted({re.sub(r"[ \t]", "", part.lower()) for part in parts if part})
    return ",".join(parts)
