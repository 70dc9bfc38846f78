"""Reloading the configuration: which keys have changed, and when each change takes effect.

    now          peers, drain, namespaces that are new
    links        what the protocol works by (fanout, budgets, intervals, discovery, ...). Links are made anew:
                 for peers it is a restart of this bridge. Nothing is evicted
    bridge       what the host is called and who may open its segments; a namespace that is listed no more
                 is served until then
    processes    what each process reads of a namespace when it attaches
    segment      how large a segment is: an existing one stays as it is

What waits for a restart is in force as before. So it is told again at each reload, until it is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from pydantic import BaseModel

from cachee_bridge.daemon.in_force import InForce, bridge_of, credentials_of, settings
from cachee_bridge.system.log_formats import fields
from cachee_shm.config import Bridge, Config, Defaults, load

__all__ = ["RELOAD_S", "Change", "Reloads", "When", "differences", "merged", "read_anew", "tell"]

RELOAD_S = 1.0  # between two reloads: one reads all files, and shakes hands twice

log = logging.getLogger("cachee_bridge")


class When(Enum):
    """When a change takes effect."""

    NOW = "in force now"
    LINKS = "in force now; all links are made anew"
    BRIDGE = "in force when this bridge is restarted"
    PROCESSES = "in force for the bridge and for each worker when it is restarted"
    SEGMENT = "in force for a new segment: stop bridge and workers, then `cachee segment rm`"


BRIDGE_KEYS = {
    **dict.fromkeys(("peers", "drain"), When.NOW),
    **dict.fromkeys(
        ("listen", "discover", "nameserver", "secret_file", "tls", "peer_budget", "fanout", "heartbeat"),
        When.LINKS,
    ),
    **dict.fromkeys(
        ("lost_after", "forget_after", "check_every", "metrics", "admin", "http_token_file"), When.LINKS
    ),
}
"""Keys of [bridge]. A key that is not here waits for a restart."""
SEGMENT_KEYS = ("memory", "entry_size")


class Change(NamedTuple):
    """One key of the file: its old and new value, and when the change takes effect."""

    key: str
    before: object
    after: object
    when: When


def read_anew(used: InForce) -> tuple[list[Change], InForce]:
    """The file from which `used` was read: what has changed, and what is used now.

    Raises ConfigError and ListenRefused when it cannot be used.
    """
    found = load(used.config.source)
    bridge_of(found)
    found.host.gid()
    changes, config = differences(used.config, found), merged(used.config, found)
    anew = any(change.when is When.LINKS for change in changes)
    credentials = credentials_of(config) if anew else used.credentials
    return changes, InForce(config, bridge_of(config), credentials, settings(config, credentials))


def tell(changes: list[Change]) -> None:
    """A line for each."""
    for change in changes:
        named = fields(key=change.key, before=repr(change.before), after=repr(change.after))
        log.info("the configuration has changed: %s", change.when.value, extra=named)
    if not changes:
        log.info("the configuration has not changed")


def differences(old: Config, new: Config) -> list[Change]:
    """All of them, in the order of the file."""
    found = [
        Change(f"host.{key}", before, after, When.LINKS if key == "region" else When.BRIDGE)
        for key, before, after in _changed(old.host, new.host)
    ]
    if old.defaults is None or new.defaults is None:
        if old.defaults is not new.defaults:
            found.append(Change("defaults", _there(old.defaults), _there(new.defaults), When.BRIDGE))
    else:
        found += _of_namespace("defaults", old.defaults, new.defaults)
    for name in [*old.namespaces, *(name for name in new.namespaces if name not in old.namespaces)]:
        before, after = old.namespaces.get(name), new.namespaces.get(name)
        if before is None or after is None:
            when = When.NOW if before is None else When.BRIDGE
            found.append(Change(f"namespaces.{name}", _there(before), _there(after), when))
        else:
            found += _of_namespace(f"namespaces.{name}", before, after)
    assert old.bridge is not None and new.bridge is not None
    return found + [
        Change(f"bridge.{key}", before, after, BRIDGE_KEYS.get(key, When.BRIDGE))
        for key, before, after in _changed(old.bridge, new.bridge)
    ]


def merged(old: Config, new: Config) -> Config:
    """The configuration to use: `new`, except for keys that wait for a restart."""
    assert old.bridge is not None and new.bridge is not None
    kept = {key: getattr(old.bridge, key) for key in Bridge.model_fields if key not in BRIDGE_KEYS}
    return new.model_copy(
        update={
            "host": old.host.model_copy(update={"region": new.host.region}),
            "defaults": old.defaults,
            "namespaces": {**new.namespaces, **old.namespaces},
            "bridge": new.bridge.model_copy(update=kept),
        }
    )


def _changed(old: BaseModel, new: BaseModel) -> Iterator[tuple[str, object, object]]:
    for key in type(old).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield key, before, after


def _of_namespace(name: str, old: Defaults, new: Defaults) -> list[Change]:
    """A value that is given and equals the default counts as changed where it was not given: in a namespace
    it takes the place of what [defaults] says."""
    return [
        Change(
            f"{name}.{key}",
            getattr(old, key) if key in old.model_fields_set else None,
            getattr(new, key) if key in new.model_fields_set else None,
            When.SEGMENT if key in SEGMENT_KEYS else When.PROCESSES,
        )
        for key in type(old).model_fields
        if getattr(old, key) != getattr(new, key)
        or (key in old.model_fields_set) != (key in new.model_fields_set)
    ]


def _there(table: object) -> str | None:
    return None if table is None else "a table"


class Reloads:
    """Collects SIGHUPs: however many come, files are read at most once in RELOAD_S."""

    def __init__(self) -> None:
        self._told = False
        self._from = 0.0
        """By time.monotonic(): until then, a SIGHUP waits for the once-a-second check."""

    def told(self) -> bool:
        """A SIGHUP has come. Returns whether to read the files at once."""
        self._told = True
        return time.monotonic() >= self._from

    def due(self) -> bool:
        """Whether to read the files now; if so, it counts as done."""
        if not self._told or time.monotonic() < self._from:
            return False
        self._told, self._from = False, time.monotonic() + RELOAD_S
        return True
