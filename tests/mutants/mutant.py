"""One changed place of one source file, and the text in which it is written down."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Mutant", "Site"]


class Site(NamedTuple):
    """A place that an operator can change: the bytes from ``start`` to ``end`` become ``after``."""

    operator: str
    start: int
    end: int
    after: bytes


class Mutant(NamedTuple):
    """A site of a file. ``path`` is relative to the checkout; ``line`` counts from 1."""

    path: str
    line: int
    operator: str
    start: int
    end: int
    before: bytes
    after: bytes
    line_text: str

    @property
    def name(self) -> str:
        """Its name in ``survivors.toml``: without a line number, so that edits elsewhere leave it valid."""
        change = f"{_short(self.before)} -> {_short(self.after)}"
        return f"{self.path}: {self.operator}: {self.line_text} [{change}]"

    @property
    def place(self) -> str:
        """Where an editor finds it."""
        return f"{self.path}:{self.line}"

    def applied_to(self, source: bytes) -> bytes:
        """The file with the change made. Raises ``ValueError`` if the source is not the one that was read."""
        if source[self.start : self.end] != self.before:
            raise ValueError(f"{self.place}: the file has changed since the mutant was drawn")
        return source[: self.start] + self.after + source[self.end :]


def mutant_of(path: str, source: bytes, site: Site) -> Mutant:
    """The mutant that a site of this file makes."""
    begin = source.rfind(b"\n", 0, site.start) + 1
    end = source.find(b"\n", site.start)
    text = source[begin : end if end >= 0 else len(source)].decode().strip()
    line = source.count(b"\n", 0, site.start) + 1
    before = source[site.start : site.end]
    return Mutant(path, line, site.operator, site.start, site.end, before, site.after, text)


def _short(text: bytes) -> str:
    words = " ".join(text.decode().split())
    return words if len(words) <= 40 else f"{words[:37]}..."
