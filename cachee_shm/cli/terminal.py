"""What commands print: text without control characters, tables, and numbers for people.

Keys, tags, and the names of hosts and processes may be anybody's text. Control characters in them could move
the cursor, change colours or set the title of the terminal. So each goes through `shown` before it is
printed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Collection, Sequence

WIDTH = 80
"""The columns of an output that is not a terminal."""
COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}
SGR = re.compile(r"\x1b\[[0-9]+m")
UNITS = ("KiB", "MiB", "GiB", "TiB")
MANY = (("G", 1e9), ("M", 1e6), ("k", 1e3))
TIMES = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))


def shown(text: str, kept: str = "") -> str:
    r"""The text with each unprintable character as Python's escape (``\x1b``), except the characters in
    `kept`."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape").decode()
        for each in text
    )


def is_coloured() -> bool:
    """Whether standard output is a terminal, and colours are not switched off (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    """The text in a colour, if output is coloured. `colour`: one of COLOURS, or "" for none."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if colour and is_coloured() else text


def columns() -> int:
    """How many columns a line may have: the terminal's, or WIDTH."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def width(text: str) -> int:
    """The width of a printable text in columns."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def cut(text: str, columns_max: int) -> str:
    """The text, cut to `columns_max` columns. Dots mark what is left out."""
    if width(text) <= columns_max:
        return text
    text = text[: max(0, columns_max - 3)]
    while text and width(text) > columns_max - 3:
        text = text[:-1]
    return f"{text}..."


def fitted(line: str, columns_max: int) -> str:
    """A line that may have colours, cut to `columns_max` columns, without its colours if it is cut."""
    if width(SGR.sub("", line)) <= columns_max:
        return line
    return cut(SGR.sub("", line), columns_max)


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """One line for each row, with aligned columns; those in `right` are aligned to the right. Cells must be
    printable."""
    if not rows:
        return []
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(_padded(cell, widths[at], at in right) for at, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def _padded(cell: str, columns_min: int, is_right: bool) -> str:
    room = " " * (columns_min - width(cell))
    return room + cell if is_right else cell + room


def size(number: float) -> str:
    """A number of bytes, in the largest unit that gives at least 1."""
    unit = "B"
    for larger in UNITS:
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f} {unit}" if number < 10 and unit != "B" else f"{number:.0f} {unit}"


def count(number: int) -> str:
    """A whole number with a comma after each three digits."""
    return f"{number:,}"


def rate(number: float) -> str:
    """A number per second, short enough for a column."""
    for unit, many in MANY:
        if number >= 10 * many:
            return f"{number / many:,.1f} {unit}"
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def share(part: float, whole: float) -> str:
    """A share in per cent; "-" if `whole` is 0. Only the whole is 100 %: 99.96 % is shown as 99.9 %."""
    if not whole:
        return "-"
    tenths = int(1000 * part / whole + 0.5)
    if tenths == 1000 and part < whole:
        tenths = 999
    return f"{tenths / 10:.1f} %"


def ago(seconds: float | None) -> str:
    """A duration; "" for None, which means never."""
    if seconds is None:
        return ""
    for unit, length in TIMES:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"
