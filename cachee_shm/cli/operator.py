"""Asks this host's bridge, which is found by the configuration: see asking.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cachee_shm.asking import ask_bridge

if TYPE_CHECKING:
    from cachee_shm.config import Config


def ask(host_config: Config, request: Mapping[str, Any], patience_s: float | None = None) -> dict[str, Any]:
    """See ``ask_bridge``."""
    return ask_bridge(host_config.host.name, host_config.host.gid(), request, patience_s)
