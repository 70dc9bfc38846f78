"""Drawing mutants: seeded, in proportion to each file's lines, one operator as likely as another.

No mutant is chosen or removed by hand. Its place in its file's order follows from the seed and its own name
alone. So an edit changes the mutants of the lines that it touches, and hardly any others: the arguments about
survivors stay valid.
"""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.mutants import operators_c, operators_python
from tests.mutants.mutant import Mutant, mutant_of

__all__ = ["files", "order", "shares"]

FOLDERS = ("cachee_shm", "bridge/cachee_bridge")
LEFT_OUT = ("cachee_shm/cli/demo/",)  # a show, not the product


def files(root: Path) -> list[str]:
    """The sources of core, bridge and package, relative to the checkout."""
    found = [
        str(path.relative_to(root))
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".c", ".h", ".py") and not _says_only_what_it_is(path)
    ]
    return [name for name in found if not name.startswith(LEFT_OUT)]


def _says_only_what_it_is(path: Path) -> bool:
    """A package's file with nothing but its docstring: there is nothing to break."""
    return path.name == "__init__.py" and len(ast.parse(path.read_text(encoding="utf-8")).body) <= 1


def shares(root: Path, seed: int, count: int, only: str = "") -> dict[str, int]:
    """How many of ``count`` mutants each file gets: its share of all lines. Files are in a seeded order."""
    names = sorted((name for name in files(root) if only in name), key=lambda name: _rank(seed, name))
    lines = {name: (root / name).read_bytes().count(b"\n") for name in names}
    total, before, share = sum(lines.values()), 0, {}
    for name in names:
        share[name] = (before + lines[name]) * count // total - before * count // total
        before += lines[name]
    return share


def order(root: Path, seed: int, name: str) -> Iterator[Mutant]:
    """The mutants of one file: the first one of every operator, then the second ones, and so on."""
    source = (root / name).read_bytes()
    find = operators_python.sites if name.endswith(".py") else operators_c.sites
    by_operator: dict[str, list[tuple[bytes, Mutant]]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for site in find(source):
        mutant = mutant_of(name, source, site)
        seen[mutant.name] += 1
        by_operator[mutant.operator].append((_rank(seed, f"{mutant.name} {seen[mutant.name]}"), mutant))
    ranked = [
        (place, rank, mutant)
        for mutants in by_operator.values()
        for place, (rank, mutant) in enumerate(sorted(mutants))
    ]
    return iter([mutant for _, _, mutant in sorted(ranked)])


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
