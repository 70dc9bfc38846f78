"""What a person reads of the findings: one paragraph each, within the window, and nothing that moves it."""

import re
import sys

from cachee_shm.cli import doctor as doctor_module
from cachee_shm.cli.doctor.finding import Finding, Level
from cachee_shm.cli.main import main
from tests.cachee_shm.cli.terminals import on_a_terminal

COMMAND = (
    "sudo systemctl restart "
    "a-unit-with-a-name-of-more-than-eighty-characters-so-that-it-cannot-be-wrapped.service"
)


def alone(monkeypatch, *found):
    """All checks but one are left out: it finds these."""
    monkeypatch.setattr(doctor_module, "CHECKS", {"a check": lambda patient: iter(found)})


def test_problems_come_first_and_each_says_what_mends_it(host, capsys, monkeypatch):
    note = Finding("a check", Level.NOTE, "a note", "nothing is wrong", "nothing")
    problem = Finding(
        "a check", Level.PROBLEM, "it is broken " * 10, "nothing is cached", f"{COMMAND}; look again"
    )
    alone(monkeypatch, note, problem)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"host {host.name}, configuration {host.path}"
    assert lines[2].startswith("problem: it is broken")
    at = lines.index(f"  mend:  {COMMAND}")  # in one piece, to be copied
    assert lines[at + 1] == "         look again"
    assert "note: a note" in lines
    assert lines[-1] == "1 problem, 1 note; 1 checks"
    assert max(len(line) for line in lines[1:] if COMMAND not in line) <= 80


def test_notes_are_no_problem_and_what_could_not_be_looked_at_is_not_well(host, capsys, monkeypatch):
    alone(monkeypatch, Finding("a check", Level.NOTE, "a note", "nothing is wrong", "nothing"))
    assert main(["doctor"]) == 0

    def fails(patient):
        raise OSError("no such thing")

    monkeypatch.setattr(doctor_module, "CHECKS", {"a check": fails})
    capsys.readouterr()
    assert main(["doctor"]) == 3
    assert "unknown: a check: no such thing" in capsys.readouterr().out


def test_a_terminal_gets_colours_and_nothing_else_that_moves_it(host, tmp_path):
    host.path.write_text('[host]\nname = "\\u001b[2Jx"\n[defaults]\n')
    command = [sys.executable, "-m", "cachee_shm.cli", "doctor"]
    seen = on_a_terminal(command, CACHEE_CONFIG=str(host.path))
    assert "\x1b[31mproblem:\x1b[0m" in seen
    assert re.sub(r"\x1b\[[0-9]+m|[\r\n]", "", seen).isprintable()
    assert "\x1b" not in on_a_terminal(command, CACHEE_CONFIG=str(host.path), NO_COLOR="1")
