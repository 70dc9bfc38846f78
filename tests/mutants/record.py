"""What a run of mutants has found so far, in a file: a run that was broken off goes on where it was."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NO_MUTANT", "UNDECIDED", "Record"]

NO_MUTANT = "no mutant"  # in the place of a killer: it does not compile, or compiles to the same
UNDECIDED = "undecided"  # a test fails with it and without it


class Record:
    """Lines of a killer, a tab, and a mutant's name. ``known`` maps names to the killers of earlier runs.

    A mutant that survived or was not decided is not written down, so the next run tries it again.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        if path and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                killer, _, name = line.partition("\t")
                self.known[name] = killer

    def add(self, name: str, killer: str) -> None:
        """Write a verdict down at once."""
        if self.path and killer not in ("", UNDECIDED):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{killer}\t{name}\n")
