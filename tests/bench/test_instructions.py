"""Instructions are counted where they belong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import machine

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPT = BENCH / "instructions.py"


@pytest.fixture
def instructions(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import instructions

    return instructions


def run(out: Path, path: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--out", str(out)],
        env=None if path is None else {"PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs("valgrind")
def test_each_instruction_of_a_get_and_a_set_has_its_function(tmp_path):
    text = run(tmp_path)
    if "Nothing was counted" in text:
        machine.skip("valgrind", text.strip())
    counts = json.loads((tmp_path / "instructions.json").read_text())["per_operation"]["no bridge"]
    assert {"hash_key (hash.h)", "Segment_get (module_verbs.c)"} <= set(counts["get, hot"])
    assert {"hash_key (hash.h)", "ring_append (ring.c)"} <= set(counts["set, hot"])
    assert not [row for rows in counts.values() for row in rows if "PyInit" in row]  # the start cancels out
    assert re.search(r"^in all +\d", text, re.MULTILINE)


def test_without_valgrind_it_says_how_to_get_it(tmp_path):
    assert "apt-get install valgrind" in run(tmp_path, path="/nonexistent")


def test_what_a_call_cost_in_all_is_not_counted_twice(instructions):
    assert instructions.tally(
        ["ob=/lib/libc.so.6", "fn=strlen", "0 7", "cfn=memchr", "calls=1 0", "0 500", "0 3"]
    ) == {"strlen (libc)": 10}


def test_a_line_belongs_to_the_function_that_it_stands_in(instructions, tmp_path):
    source = tmp_path / "some.c"
    source.write_text(
        "static int one(int a) { return a; }\n"
        "int declared(int a);\n"
        "struct thing *two(int a,\n"
        "                  int b)\n"
        "{\n"
        "    if (a)\n"
        "        return one(b);\n"
        "}\n"
    )
    assert instructions.functions_of(source) == {1: "one", **dict.fromkeys(range(3, 9), "two")}
