"""The commands of ``cachee``: ``main`` parses and runs them; the other files are one, or a family, each."""

from __future__ import annotations

from cachee_shm.cli.main import main

__all__ = ["main"]
