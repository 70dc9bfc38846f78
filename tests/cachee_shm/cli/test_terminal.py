"""What commands write: no character that moves a terminal, columns under each other, numbers for people."""

import os
import sys

import pytest

from cachee_shm.cli import terminal
from tests.cachee_shm.cli.terminals import on_a_terminal


@pytest.mark.parametrize(
    ("text", "text_shown"),
    [
        ("user:42 é 日本", "user:42 é 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b\u202e\r\n", "\\x9b\\u202e\\r\\n"),
        ("\udcff", "\\udcff"),
        ("", ""),
    ],
)
def test_a_control_character_is_shown_as_an_escape(text, text_shown):
    assert terminal.shown(text) == text_shown
    assert terminal.shown("a\n\x1b", kept="\n") == "a\n\\x1b"


def test_columns_stand_under_each_other_also_those_of_wide_characters():
    lines = terminal.table([("NAME", "N"), ("日本", "10"), ("e\u0301", "7")], right={1})
    assert lines == ["NAME   N", "日本  10", "e\u0301      7"]
    assert terminal.table([]) == []


def test_what_is_too_long_is_cut_and_says_so():
    assert terminal.cut("abcdef", 6) == "abcdef"
    assert terminal.cut("abcdefg", 6) == "abc..."
    assert terminal.cut("日本日本", 7) == "日本..."
    assert terminal.fitted("\x1b[31mabcdef\x1b[0m", 6) == "\x1b[31mabcdef\x1b[0m"
    assert terminal.fitted("\x1b[31mabcdefg\x1b[0m", 6) == "abc..."


PAINT = "import cachee_shm.cli.terminal as t; print(t.paint('x', 'red'), t.columns())"


@pytest.mark.parametrize(
    ("environ", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(environ, colours):
    seen = on_a_terminal([sys.executable, "-c", PAINT], columns=132, **environ)
    assert seen == ("\x1b[31mx\x1b[0m 132\r\n" if colours else "x 132\r\n")


def test_what_is_no_terminal_gets_no_colours_and_eighty_columns(capfd):
    os.system(f'{sys.executable} -c "{PAINT}"')
    assert capfd.readouterr().out == "x 80\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.04, "0.0 s"), (119.0, "119.0 s"), (120.0, "2 min"), (7200.0, "2 h"), (172800.0, "2 d")],
)
def test_times_are_for_people(seconds, text):
    assert terminal.ago(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (256 << 20, "256 MiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_for_people(number, text):
    assert terminal.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.25, "0.2"), (7, "7"), (9999, "9,999"), (123456, "123.5 k"), (2e9, "2,000.0 M")],
)
def test_rates_are_for_people(number, text):
    assert terminal.rate(number) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 0, "-"), (1, 2, "50.0 %"), (99999, 100000, "99.9 %"), (7, 7, "100.0 %")]
)
def test_a_share_of_all_but_one_is_not_all(part, whole, text):
    assert terminal.share(part, whole) == text
