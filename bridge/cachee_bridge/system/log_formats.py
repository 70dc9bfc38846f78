"""How a line of the log looks: text for people, JSON for programs.

    text    2026-01-02 03:04:05,678 cachee-bridge WARNING: what happened peer=web-2 namespace=shop
    json    {"time": "2026-01-02T03:04:05.678Z", "level": "warning", "message": "what happened",
             "peer": "web-2", "namespace": "shop"}

A line of JSON is one line, whatever is in it: a traceback is a string of its own, "exception". In the journal
it begins with <4> or the like, by which the journal knows how grave it is (sd-daemon(3)).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["FORMATS", "Json", "Text", "chosen", "fields", "is_journal"]

FORMATS = ("auto", "json", "text")
FIXED = ("time", "level", "message", "exception")
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def fields(**named: str | int | float) -> dict[str, Any]:
    """As `extra` of a log call: parts of the line that a program can find by their names."""
    return {"fields": named}


def chosen(name: str, descriptor: int, environ: Mapping[str, str]) -> logging.Formatter:
    """The format that `name` (one of FORMATS) means for a log that is written to `descriptor`."""
    in_journal = is_journal(descriptor, environ)
    if name == "json" or (name == "auto" and in_journal):
        return Json(priorities=in_journal)
    return Text(stamp=not in_journal)


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether `descriptor` is the stream that systemd connected to its journal. A process that inherited the
    variable and writes elsewhere is told apart by the stream's device and inode."""
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def _named(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


class Text(logging.Formatter):
    """For people. `stamp`: with the time, which the journal puts to each line by itself."""

    def __init__(self, stamp: bool) -> None:
        super().__init__(f"{'%(asctime)s ' if stamp else ''}cachee-bridge %(levelname)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record) + "".join(
            f" {key}={value}" for key, value in _named(record).items()
        )


class Json(logging.Formatter):
    """For programs. `priorities`: for the journal."""

    def __init__(self, priorities: bool) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line.update((key, value) for key, value in _named(record).items() if key not in FIXED)
        begin = f"<{PRIORITIES.get(record.levelno, 6)}>" if self._priorities else ""
        return begin + json.dumps(line)
