"""What `cachee doctor` finds, and the host that it checks."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cachee_shm.cli.existing import existing
from cachee_shm.cli.operator import ask
from cachee_shm.config import Config, NamespaceConfig
from cachee_shm.errors import CacheeError, ConfigError

PATIENCE_S = 2.0
"""How long to wait for the bridge: it answers in milliseconds, unless it hangs."""


class Level(Enum):
    """How much it matters."""

    PROBLEM = "problem"
    """Something does not work, or will not: exit code 1."""
    NOTE = "note"
    """Worth knowing, but not wrong."""
    UNKNOWN = "unknown"
    """It could not be checked: exit code 3, if there is no problem."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    check: str
    """The name of the check, for programs."""
    level: Level
    what: str
    """What was found, and where."""
    state: str
    """What that does to the cache."""
    mend: str
    """The command or the change that ends it."""
    trace: tuple[str, ...] = ()
    """What is known about how it came about, for a report."""


class Patient:
    """The host that is checked: its configuration, its bridge's answer, its segments."""

    def __init__(self, path: str | None, config: Config | None) -> None:
        """`path`: as it was named; `config`: None where there is none, or none that can be used."""
        self.path, self.config = path, config
        self.host = config.host.name if config is not None else str(os.getuid())

    @property
    def has_bridge(self) -> bool:
        """Whether the configuration asks for one."""
        return self.config is not None and self.config.bridge is not None

    @property
    def gid(self) -> int | None:
        """The configured group's number; None if there is no group, or the machine does not know it."""
        try:
            return self.config.host.gid() if self.config is not None else None
        except ConfigError:
            return None

    @functools.cached_property
    def answer(self) -> tuple[dict[str, Any] | None, CacheeError | None]:
        """The bridge's answer, or why there is none; neither if no bridge is configured."""
        if self.config is None or not self.has_bridge:
            return None, None
        try:
            return ask(self.config, {"do": "peers"}, PATIENCE_S), None
        except CacheeError as error:
            return None, error

    @property
    def told(self) -> dict[str, Any] | None:
        """The bridge's answer; None if there is none."""
        return self.answer[0]

    @functools.cached_property
    def namespaces(self) -> list[str]:
        """The namespaces of this host that have a segment of this build's layout."""
        return existing(self.host)

    def settings(self, namespace: str) -> NamespaceConfig | None:
        """The namespace's settings; None if the configuration has none, or none that can be used."""
        try:
            return self.config.namespace(namespace) if self.config is not None else None
        except ConfigError:
            return None


Check = Callable[[Patient], Iterator[Finding]]
