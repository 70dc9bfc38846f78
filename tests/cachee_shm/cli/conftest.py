"""Hosts for commands, each of one test alone."""

from __future__ import annotations

import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


class Configured:
    """A host as `$CACHEE_CONFIG` names it: with [defaults], nobody attached, no bridge."""

    def __init__(self, folder: Path) -> None:
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.path = folder / "cachee.toml"
        self.write("2MiB")

    def write(self, memory: str, more: str = "") -> None:
        self.path.write_text(f'[host]\nname = "{self.name}"\n[defaults]\nmemory = "{memory}"\n{more}')


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    """What was attached there is removed at the end."""
    made = Configured(tmp_path)
    monkeypatch.setenv("CACHEE_CONFIG", str(made.path))
    yield made
    for path in glob.glob(f"/dev/shm/cachee.{made.name}.*"):
        os.unlink(path)
