"""What the demo's processes saw, one line each: a tag and tab-separated fields, as in the classes below.

Every time is CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a machine, which is why two
hosts of one machine can be compared. Every process writes a file of its own; the checker reads them all
afterwards.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

UNANSWERED = -1  # the version of a write whose client got no answer: it may or may not have been committed


class Read(NamedTuple):
    """A row that a client was shown. `body` is the row's one changing column."""

    host: str
    key: str
    version: int
    body: int
    start_ns: int  # before the request was sent
    end_ns: int  # after its answer was received


class Write(NamedTuple):
    """A row as a client changed it: `version` and `body` are those of the new row."""

    host: str
    key: str
    version: int
    body: int
    start_ns: int
    end_ns: int


class Position(NamedTuple):
    """How far `target` has applied what `source` announced, as ring positions of `source`."""

    source: str
    target: str
    before_ns: int  # before `tail` was read: every write that had returned by then is at or below `tail`
    tail: int
    cursor: int
    after_ns: int  # after `cursor` was read: everything at or below `cursor` was applied by then


class Probe(NamedTuple):
    """One measured propagation; `took_ns` is -1 where the other host had not evicted after a second."""

    source: str
    target: str
    start_ns: int
    took_ns: int


Record = Read | Write | Position | Probe
KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in (Read, Write, Position, Probe)}


class Journal:
    """A file of records, open for writing. A kill leaves at most the last line incomplete."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1, encoding="utf-8")

    def add(self, record: Record) -> None:
        self._file.write("\t".join((type(record).__name__, *map(str, record))) + "\n")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read(paths: Iterable[Path]) -> Iterator[Record]:
    """All records of these files; a line that a killed process left incomplete is passed over."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield parse(line)


def parse(line: str) -> Record:
    tag, *fields = line.rstrip("\n").split("\t")
    kind = KINDS[tag]
    types = kind.__annotations__.values()
    values = [of(field) for of, field in zip(types, fields, strict=True)]
    return kind(*values)
