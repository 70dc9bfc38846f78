"""The table of pairings in atomics.h names what is in the sources, and they name what is in the table."""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parent.parent.parent / "cachee_shm" / "core"
ROW = re.compile(r"^ \*   ([A-Z]{4,})  +(\w+(?:, \w+)*)  +(\w+(?:, \w+)*)(?:  +.*)?$", re.M)
KINDS = "static |inline |enum |struct |unsigned |const "
DEFINITION = re.compile(rf"^(?:{KINDS})*[a-z]\w*[ *]+(\w+)\([^;{{]*\)\s*\{{", re.M)
ORDERED = re.compile(
    r"^.*\b(?:load\w*|store\w*|cas\w*|fence_\w+|racing_\w+|raise_max)\(.*?/\* (.*?)(?:\*/|$)", re.M
)
WORDS = re.compile(r"((?:[A-Z]{4,}, )*[A-Z]{4,})\s*(?:[:.]|$)")


def sources() -> dict[str, str]:
    return {path.name: path.read_text() for path in CORE.glob("*.[ch]") if path.name != "atomics.h"}


def rows() -> list[tuple[str, list[str], list[str]]]:
    """(pairing, functions of the writing side, functions of the reading side)"""
    head = (CORE / "atomics.h").read_text().partition("*/")[0]
    return [(name, writers.split(", "), readers.split(", ")) for name, writers, readers in ROW.findall(head)]


def bodies() -> dict[str, str]:
    found: dict[str, str] = {}
    for text in sources().values():
        for match in DEFINITION.finditer(text):
            found[match[1]] = found.get(match[1], "") + _whole(text, match)
    return found


def _whole(text: str, match: re.Match[str]) -> str:
    """To the brace that ends the function: the first at the beginning of a line, or on its one line."""
    first = text[match.start() : text.index("\n", text.index("{", match.start()))]
    if first.count("{") == first.count("}"):
        return first
    return text[match.start() : text.index("\n}", match.start())]


def named(text: str) -> set[str]:
    """The pairings that the comments of ordered accesses name."""
    found = (WORDS.match(comment.strip()) for comment in ORDERED.findall(text))
    return {word for match in found if match for word in match[1].split(", ")}


def test_the_table_is_read():
    assert len(rows()) >= 14
    assert len(bodies()) > 250


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_function_of_the_table_is_there_and_says_its_pairing(row):
    pairing, writers, readers = row
    text = bodies()
    for function in (*writers, *readers):
        assert function in text, f"{pairing}: there is no function {function}"
        assert pairing in named(text[function]), (
            f"{function} has no ordered access with the comment {pairing}"
        )


def test_each_pairing_that_a_source_names_is_in_the_table():
    known = {pairing for pairing, _, _ in rows()}
    for name, text in sources().items():
        assert named(text) <= known, name


def test_each_line_of_the_table_is_a_row():
    head = (CORE / "atomics.h").read_text().partition("*/")[0]
    lines = head[head.index(" *   pairing ") :].partition("\n *\n")[0].splitlines()[1:]
    assert len(lines) == len(rows())
