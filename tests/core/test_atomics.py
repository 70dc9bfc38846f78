"""The table of pairings in atomics.h names what is in the sources, and they name what is in the table."""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parent.parent.parent / "cachee_shm" / "core"
ROW = re.compile(r"^ \*   ([A-Z]{4,}) +\S.*\n \* {14}(\w+(?:, \w+)*) -> (\w+(?:, \w+)*)$", re.M)
KINDS = "static |inline |enum |struct |unsigned |const "
DEFINITION = re.compile(rf"^(?:{KINDS})*[a-z]\w*[ *]+(\w+)\([^;{{]*\)\s*\{{", re.M)
ORDERED = re.compile(r"\b(load\w*|store\w*|cas\w*|fence_\w+|racing_\w+|raise_max)\(")
UNFINISHED = re.compile(r"(?<=[^;{}:/\n])\n +(?=[^ /])")  # the end of a line that the statement goes beyond
COMMENTED = re.compile(r"^(.*?)/\* (.*?)(?:\*/|$)", re.M)
# What may give a writing side its order, and what a reading one.
RELEASES = re.compile(r"store(32)?_release|cas(32|128)?|fence_(release|seq_cst\w*|raise_one)|raise_max")
ACQUIRES = re.compile(r"load(32)?_acquire|cas(32|128)?|fence_(acquire|seq_cst\w*)")
# Each process is on both sides, and reads behind the full fence of its own writing: a relaxed load is enough.
BEHIND_ITS_OWN_FENCE = {"WAITS"}
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


def orderings(text: str) -> dict[str, set[str]]:
    """By pairing: the calls of the lines whose comments name it."""
    found: dict[str, set[str]] = {}
    for code, comment in COMMENTED.findall(UNFINISHED.sub(" ", text)):
        words = WORDS.match(comment.strip())
        for word in words[1].split(", ") if words and ORDERED.search(code) else ():
            found.setdefault(word, set()).update(ORDERED.findall(code))
    return found


def faults(table: list[tuple[str, list[str], list[str]]], text: dict[str, str]) -> list[str]:
    """What is wrong with the table, held to the functions of these sources."""
    found = []
    for pairing, writers, readers in table:
        for functions, gives in ((writers, RELEASES), (readers, ACQUIRES)):
            for function in functions:
                calls = orderings(text[function]).get(pairing, set()) if function in text else None
                if calls is None:
                    found.append(f"{pairing}: there is no function {function}")
                elif pairing in BEHIND_ITS_OWN_FENCE and functions is readers and "load_relaxed" in calls:
                    continue
                elif not any(gives.fullmatch(call) for call in calls):
                    found.append(f"{function} has no access with the comment {pairing} that gives the order")
    known = {pairing for pairing, _, _ in table}
    for function, body in text.items():
        found += [f"{function}: {word} is not in the table" for word in orderings(body).keys() - known]
    return found


def test_the_table_is_read():
    assert len(rows()) >= 14
    assert len(bodies()) > 250


def test_the_table_and_the_sources_agree():
    assert faults(rows(), bodies()) == []


def test_each_pairing_that_a_source_names_is_in_the_table():
    known = {pairing for pairing, _, _ in rows()}
    for name, text in sources().items():
        assert orderings(text).keys() <= known, name


def test_each_two_lines_of_the_table_are_a_row():
    head = (CORE / "atomics.h").read_text().partition("*/")[0]
    lines = head[head.index(" *   READY ") :].partition("\n *\n")[0].splitlines()
    assert len(lines) == 2 * len(rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_way_to_break_a_pairing_is_seen(row):
    """A function that is gone, an access that says nothing or orders nothing, a row that is gone."""
    pairing, writers, readers = row
    text, others = bodies(), [other for other in rows() if other[0] != pairing]
    for function in (*writers, *readers):
        assert faults([row], {name: body for name, body in text.items() if name != function})
        assert faults(rows(), text | {function: text[function].replace(pairing, "NOTHING")})
        assert faults(rows(), text | {function: text[function].replace("/* ", "/* see ")})
    for function in writers:
        relaxed = re.sub(r"\b(store\w*|cas\w*|fence_\w+|raise_max)\(", "store_relaxed(", text[function])
        assert faults(rows(), text | {function: relaxed})
    for function in readers if pairing not in BEHIND_ITS_OWN_FENCE else ():
        relaxed = re.sub(r"\b(load\w*|cas\w*|fence_\w+)\(", "load_relaxed(", text[function])
        assert faults(rows(), text | {function: relaxed})
    assert faults(others, text)
