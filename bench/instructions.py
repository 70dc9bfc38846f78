"""Where the instructions of a get and a set go, function by function, counted by valgrind.

Two runs of the same process under callgrind, of which one does twice as many operations: their difference is
the operations' and nothing else, divided by how many it is. Counts do not depend on what else the machine
does; they say nothing of caches, of waiting for memory, or of what an atomic operation costs beyond being one
instruction.

The core is compiled anew as for a release, with debug information, into build/callgrind. An instruction
belongs to the function in whose source it stands, also where the compiler has inlined that; all of the
interpreter is one row, and so is the loop around the calls, which is its.

  hot, random        one key; one of 2,000 keys, drawn by lot
  no bridge          a private segment without a lifetime
  a bridge has been  default_ttl 1h, serve_until far ahead, and a bridge once held the segment

This needs valgrind (apt-get install valgrind), on a processor whose 16-byte compare-and-swap valgrind knows;
without, it says so and ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from measuring import save, start, table

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "callgrind"
CORE = ROOT / "cachee_shm" / "core"
KEYS = 2_000
OPERATIONS, QUICK_OPERATIONS = 5_000, 500
LEAST = 5.0  # instructions per operation: less is in the last row
VERBS = ("get", "set")
PLACES = {"hot": 1, "random": KEYS}
SITUATIONS = {"no bridge": "no", "a bridge has been": "yes"}
INTERPRETER, OTHERS, SUM = "the interpreter and its loop", "all else", "in all"

Counts = Counter[str]


class LeftOut(Exception):
    """Nothing can be counted here; the text says why."""


@dataclass(frozen=True)
class Case:
    """What is counted."""

    verb: str
    place: str
    situation: str

    @property
    def name(self) -> str:
        return f"{self.verb}, {self.place}"


def compiled() -> Path:
    """A folder to import from: this tree's package, its core optimised as always, with debug information."""
    log = BUILD.with_suffix(".log")
    options = ["--buildtype=release", "-Ddebug=true"]
    BUILD.parent.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where .venv has meson and ninja
    with log.open("w", encoding="utf-8") as out:

        def step(*command: str) -> None:
            subprocess.run(
                command, cwd=ROOT, env=os.environ | {"PATH": path}, stdout=out, stderr=out, check=True
            )

        try:
            step("meson", "setup", str(BUILD), *options, "--reconfigure")
        except subprocess.CalledProcessError:  # it is missing, or half made
            shutil.rmtree(BUILD, ignore_errors=True)
            step("meson", "setup", str(BUILD), *options)
        step("ninja", "-C", str(BUILD))
    package = BUILD / "package" / "cachee_shm"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for part in [*(ROOT / "cachee_shm").glob("*.py"), *BUILD.glob("_core.*.so")]:
        (package / part.name).symlink_to(part)
    return package.parent


def run(package: Path, case: Case, operations: int, folder: Path) -> Counts:
    """One process under callgrind: instructions by row of the table, the start of Python included."""
    out = folder / f"{case.verb}.{case.place}.{case.situation}.{operations}".replace(" ", "-")
    command = ["valgrind", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]
    program = [sys.executable, str(ROOT / "bench" / "one_verb.py"), case.verb, str(operations)]
    done = subprocess.run(
        [
            *command,
            f"--callgrind-out-file={out}",
            *program,
            str(PLACES[case.place]),
            SITUATIONS[case.situation],
        ],
        # The first of two runs must not compile what the second finds compiled.
        env=os.environ | {"PYTHONPATH": str(package), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise LeftOut(f"valgrind does not run it ({done.returncode}): {done.stderr[-1000:]}")
    with out.open(encoding="utf-8", errors="replace") as lines:
        return tally(lines)


def tally(lines: Iterator[str]) -> Counts:
    """Callgrind's own costs, by row. What a call cost in all stands in the line after it, and is left out."""
    found: Counts = Counter()
    place = {"ob": "", "fl": "", "fn": ""}
    is_call = False
    for line in lines:
        name, is_named, value = line.rstrip("\n").partition("=")
        if is_named and name in ("ob", "fl", "fi", "fe", "fn"):
            place["fl" if name in ("fi", "fe") else name] = value
        elif name == "calls":
            is_call = True
        elif line[:1].isdigit():
            number, cost = line.split()[:2]
            if not is_call:
                found[row_of(place["ob"], place["fl"], place["fn"], int(number))] += int(cost)
            is_call = False
    return found


@cache
def row_of(library: str, source: str, function: str, line: int) -> str:
    """The function of the core in whose source the line stands; of other libraries, by library."""
    path = Path(source)
    if path.parent.name == CORE.name and "_core." in library:
        return f"{functions_of(CORE / path.name).get(line, function)} ({path.name})"
    if "_core." in library:
        return f"{function} (headers of Python's)"
    if re.search(r"/libc[.-]|/ld-", library):
        return f"{function.partition('@')[0]} (libc)"
    return INTERPRETER


@cache
def functions_of(source: Path) -> dict[int, str]:
    """Which function each line is in: in this code a definition begins in column 0, and so does its end."""
    found: dict[int, str] = {}
    name = ""
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        begun = re.match(r"[A-Za-z_][\w *]*?(\w+)\(", line)
        if begun and not line.rstrip().endswith(";"):
            name = begun[1]
        if name:
            found[number] = name
        if line.startswith("}") or (begun and line.rstrip().endswith("}")):
            name = ""
    return found


def counted(package: Path, case: Case, operations: int, folder: Path) -> dict[str, float]:
    """Instructions per operation, by row."""
    once, twice = (run(package, case, operations * times, folder) for times in (1, 2))
    twice.subtract(once)
    return {row: count / operations for row, count in twice.items() if count}


def all_counted(cases: list[Case], operations: int) -> list[dict[str, float]]:
    """As many processes at once as there are cores: nothing here depends on time."""
    package = compiled()
    with (
        tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-") as folder,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        return list(pool.map(lambda case: counted(package, case, operations, Path(folder)), cases))


def print_table(situation: str, found: dict[str, dict[str, float]]) -> None:
    rows = sorted({row for counts in found.values() for row in counts} - {INTERPRETER})
    rows.sort(key=lambda row: -sum(counts.get(row, 0) for counts in found.values()))
    is_told = {row: any(abs(counts.get(row, 0)) >= LEAST for counts in found.values()) for row in rows}
    lines = [
        (row, *(f"{counts.get(row, 0):.1f}" for counts in found.values()))
        for row in [*(row for row in rows if is_told[row]), INTERPRETER]
    ]
    rest = [sum(counts.get(row, 0) for row in rows if not is_told[row]) for counts in found.values()]
    lines.append((OTHERS, *(f"{count:.1f}" for count in rest)))
    lines.append((SUM, *(f"{sum(counts.values()):.1f}" for counts in found.values())))
    print(table(f"Instructions per operation, {situation}", ("", *found), lines), flush=True)


def draw(found: dict[str, dict[str, dict[str, float]]]) -> Callable[[Any], None]:
    """The dearest rows of each verb, stacked."""

    def on(figure: Any) -> None:
        for axis, (situation, cases) in zip(
            figure.subplots(len(found), 1, squeeze=False).flat, found.items(), strict=True
        ):
            for name, counts in cases.items():
                left = 0.0
                for row, count in sorted(counts.items(), key=lambda item: -item[1]):
                    axis.barh(name, count, left=left, edgecolor="white")
                    if count > 25:
                        axis.text(
                            left + count / 2,
                            name,
                            row.replace(" (", "\n("),
                            ha="center",
                            va="center",
                            fontsize=5,
                        )
                    left += count
            axis.set_title(situation, fontsize=9)
        axis.set_xlabel("instructions per operation")

    return on


def main() -> None:
    chosen = start(__doc__, repeats=1)
    operations = QUICK_OPERATIONS if chosen.quick else OPERATIONS
    cases = [Case(*each) for each in product(VERBS, PLACES, SITUATIONS)]
    cases = [case for case in cases if not chosen.quick or case == Case(case.verb, "hot", "no bridge")]
    try:
        if shutil.which("valgrind") is None:
            raise LeftOut("no valgrind here (apt-get install valgrind)")
        counts = all_counted(cases, operations)
    except LeftOut as reason:
        print(f"Nothing was counted: {reason}")
        return
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case, count in zip(cases, counts, strict=True):
        found.setdefault(case.situation, {})[case.name] = count
    for situation, of_situation in found.items():
        print_table(situation, of_situation)
    save(chosen.out, "instructions", {"per_operation": found}, [], draw(found))


if __name__ == "__main__":
    main()
