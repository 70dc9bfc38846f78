"""The commands of ``cachee``. ``main`` parses and runs them; each other file is a command or a few of
them."""

from __future__ import annotations

from cachee_shm.cli.main import main

__all__ = ["main"]
