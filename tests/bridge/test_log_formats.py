"""Lines of the log for people and for programs, and how it is told which of them a descriptor wants."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cachee_bridge.ports.effects import Level
from cachee_bridge.shell import lines
from cachee_bridge.system.log_formats import Json, Text, chosen, fields, is_journal
from cachee_bridge.system.logs import Lines


def record(text: str, level: int = logging.WARNING, **named: str | int) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord(
        "x", level, __file__, 1, "%s", (text,), None, extra=fields(**named)
    )


def written(*levels: tuple[Level, str, dict[str, str]]) -> list[dict[str, object]]:
    """What the log of a bridge has of these, as JSON, read from its descriptor."""
    reads, writes = os.pipe()
    handler = Lines(writes)
    handler.setFormatter(Json(priorities=False))
    lines.log.addHandler(handler)
    lines.log.setLevel(logging.INFO)
    try:
        for level, text, named in levels:
            lines.write(level, text, **named)
        handler.close()
    finally:
        lines.log.removeHandler(handler)
        lines.log.setLevel(logging.NOTSET)
        os.close(writes)
    with open(reads) as pipe:
        return [json.loads(line) for line in pipe]


def test_text_names_the_level_and_ends_with_the_parts_of_the_line() -> None:
    line = record("it is lost", peer="web-2", lag=3)
    assert Text(stamp=False).format(line) == "cachee-bridge WARNING: it is lost peer=web-2 lag=3"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ cachee-bridge WARNING: .*", Text(stamp=True).format(line))


def test_json_has_the_parts_by_their_names_and_the_time_in_utc() -> None:
    line = record("it is lost", peer="web-2", lag=3)
    line.created, line.msecs = 1767323045.678, 678.0
    assert json.loads(Json(priorities=False).format(line)) == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "message": "it is lost",
        "peer": "web-2",
        "lag": 3,
    }


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (25, 6)]
)
def test_the_journal_is_told_how_grave_a_line_is(level: int, priority: int) -> None:
    line = Json(priorities=True).format(record("x", level))
    assert line.startswith(f"<{priority}>{{")
    json.loads(line[3:])


def test_a_traceback_is_a_part_of_its_line() -> None:
    try:
        raise ZeroDivisionError("by none")
    except ZeroDivisionError:
        line = record("a mistake")
        line.exc_info = sys.exc_info()
    for text in (Json(priorities=False).format(line),):
        assert "\n" not in text
        assert "ZeroDivisionError: by none" in json.loads(text)["exception"]
    assert Text(stamp=False).format(line).endswith("ZeroDivisionError: by none")


def test_no_part_takes_the_place_of_what_each_line_has() -> None:
    line = json.loads(Json(priorities=False).format(record("true", level=logging.INFO)))
    forged = record("true", time="never", exception="none", peer="p")
    shown = json.loads(Json(priorities=False).format(forged))
    assert shown["message"] == line["message"] == "true"
    assert shown["time"] != "never" and "exception" not in shown and shown["peer"] == "p"


def test_what_a_peer_calls_itself_makes_no_second_line_and_no_second_object() -> None:
    name = 'web"}\n{"level": "error"\x1b[2J'
    (line,) = written(("warning", f"a peer\n{name}", {"peer": name}))
    assert line["peer"] == 'web"}?{"level": "error"?[2J'
    assert line["message"] == f"a peer?{line['peer']}"


def test_lines_that_were_dropped_are_counted_in_the_format_of_the_others() -> None:
    reads, writes = os.pipe()
    handler = Lines(writes)
    handler.setFormatter(Json(priorities=False))
    handler.dropped = 7
    handler.handle(record("the next"))
    handler.close()
    os.close(writes)
    with open(reads) as pipe:
        told = [json.loads(line)["message"] for line in pipe]
    assert told == ["7 lines of this log were dropped", "the next"]


def test_json_is_for_the_journal_unless_another_format_is_asked_for(tmp_path: Path) -> None:
    with open(tmp_path / "stream", "w") as stream:
        number, stat = stream.fileno(), os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        inherited = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + 1}"}
        assert (
            is_journal(number, journal) and not is_journal(number, inherited) and not is_journal(number, {})
        )
        assert isinstance(chosen("auto", number, journal), Json)
        assert isinstance(chosen("text", number, journal), Text)
        assert isinstance(chosen("auto", number, inherited), Text)
        assert isinstance(chosen("json", number, {}), Json)
    assert not is_journal(number, journal)


def test_the_command_writes_what_it_is_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cachee_bridge", "--config", str(tmp_path / "none.toml")]
    for name in ("json", "text", "auto"):
        said = subprocess.run([*command, "--log-format", name], stderr=subprocess.PIPE, text=True).stderr
        assert said.startswith("{") is (name == "json")
        if name == "json":
            line = json.loads(said)
            assert line["level"] == "error" and "none.toml" in line["message"]
