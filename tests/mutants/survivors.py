"""Mutants that no test kills, each with the argument why it is harmless: ``survivors.toml``."""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["explained", "outdated"]

FILE = Path(__file__).parent / "survivors.toml"


@cache
def arguments() -> dict[str, str]:
    """Name of the mutant -> why it changes nothing that is promised."""
    entries = tomllib.loads(FILE.read_text(encoding="utf-8")).get("survivor", [])
    return {entry["mutant"]: entry["why"] for entry in entries}


def explained(name: str) -> bool:
    """Is there an argument for this mutant?"""
    return name in arguments()


def outdated(tried: Collection[str]) -> list[str]:
    """Arguments for mutants that were not among those tried."""
    return [name for name in arguments() if name not in tried]
