"""Lines of the log, as the shell writes them: one line each, whatever a peer put into its name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cachee_bridge.system.log_formats import fields

if TYPE_CHECKING:
    from cachee_bridge.ports.effects import Level

LINE_CHARACTERS_MAX = 1000
LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log = logging.getLogger("cachee_bridge")


def write(level: Level, text: str, **named: str | int | float) -> None:
    """One line, if anybody reads lines of this level. `named` are its parts for programs (peer=...)."""
    if log.isEnabledFor(LEVELS[level]):
        shown = {key: _printable(value) if isinstance(value, str) else value for key, value in named.items()}
        log.log(LEVELS[level], "%s", _printable(text), extra=fields(**shown))


def _printable(text: str) -> str:
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line[:LINE_CHARACTERS_MAX]
