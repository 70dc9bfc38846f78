"""The log over real pipes: of readers that stand still, that die, and of lines that come too fast."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cachee_bridge.system import logs
from cachee_bridge.system.logs import Lines, Mistakes

F_SETPIPE_SZ = 1031
WAIT_S = 20.0


class Pipe:
    """What a log driver reads; its buffer is one page."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        fcntl.fcntl(self.writes, F_SETPIPE_SZ, 4096)
        self.open = [self.reads, self.writes]

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors or tuple(self.open):
            self.open.remove(descriptor)
            os.close(descriptor)

    def read_until(self, text: str) -> str:
        """All that comes up to the first read that brings `text`."""
        come = ""
        end = time.monotonic() + WAIT_S
        while text not in come:
            assert time.monotonic() < end
            come += os.read(self.reads, 4096).decode()
        return come


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def say(lines: Lines, text: str) -> None:
    lines.handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, (), None))


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    lines = Lines(pipe.writes)
    for number in range(50):
        say(lines, f"line {number}")
    lines.close()
    assert os.read(pipe.reads, 4096).decode().splitlines() == [f"line {number}" for number in range(50)]


def test_a_reader_that_stands_still_holds_up_nobody_and_what_was_dropped_is_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LINES_MAX", 10)
    lines = Lines(pipe.writes)
    say(lines, "x" * 8192)
    until(lambda: not lines._queue)  # the thread writes it, and waits for the reader
    for _ in range(100):
        say(lines, "x" * 1000)
    assert lines.dropped == 90
    lines.close()
    said = pipe.read_until("were dropped")
    assert said.count("\n") <= 20
    assert "90 lines of this log were dropped" in said
    assert lines.dropped == 0


@pytest.mark.parametrize("count", [3, 500])
def test_where_no_thread_can_be_made_the_end_writes_what_the_descriptor_takes(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(logs, "LINES_BURST", 1000)
    lines = Lines(pipe.writes)
    for number in range(count):
        say(lines, f"line {number}")
    lines.close()  # the pipe takes one page, and its reader stands still
    os.set_blocking(pipe.reads, False)
    said = os.read(pipe.reads, 1 << 16).decode().splitlines()
    assert said[:3] == ["line 0", "line 1", "line 2"] and (len(said) == count or len(said) > 100)


def test_a_reader_that_dies_ends_nothing(pipe: Pipe) -> None:
    lines = Lines(pipe.writes)
    pipe.close(pipe.reads)
    say(lines, "to nobody")
    until(lambda: lines.dropped == 1)
    say(lines, "to nobody")
    until(lambda: lines.dropped == 2)
    lines.close()


def test_a_descriptor_that_somebody_made_non_blocking_ends_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writes, False)
    lines = Lines(pipe.writes)
    for _ in range(20):
        say(lines, "x" * 1000)
        time.sleep(0.001)
    until(lambda: lines.dropped)
    pipe.read_until("xxx")
    say(lines, "later")
    assert "were dropped\nlater" in pipe.read_until("later")
    lines.close()


def test_lines_that_come_too_fast_are_dropped_and_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LINES_BURST", 3)
    now = 100.0
    lines = Lines(pipe.writes, lambda: now)
    for number in range(10):
        say(lines, f"line {number}")
    assert lines.dropped == 7
    assert pipe.read_until("line 2").count("\n") == 3
    now += 2 / logs.LINES_PER_S
    say(lines, "again")
    lines.close()
    said = os.read(pipe.reads, 4096).decode().splitlines()
    assert said == ["7 lines of this log were dropped", "again"]


def test_a_line_that_cannot_be_formatted_is_told_as_it_is(pipe: Pipe) -> None:
    lines = Lines(pipe.writes)
    lines.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%d of %d", ("no number",), None))
    lines.close()
    assert "'%d of %d'" in os.read(pipe.reads, 4096).decode()


def test_a_mistake_is_told_once_a_minute_with_how_often_it_came(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    mistakes = Mistakes(lambda: now)
    for _ in range(5):
        mistakes.tell("a tick", ZeroDivisionError("nothing"))
    mistakes.tell("a tick", OSError(24, "Too many open files"))
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    now = logs.MISTAKE_S
    mistakes.tell("a tick", ZeroDivisionError("nothing"))
    assert "4 times more" in caplog.messages[-1]


def test_kinds_of_mistakes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KINDS_MAX", 3)
    mistakes = Mistakes()
    for number in range(20):
        mistakes.tell(f"task {number}", ValueError())
    assert len(mistakes._seen) <= 3
