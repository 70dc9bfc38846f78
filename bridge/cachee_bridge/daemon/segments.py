"""The segments of this host that its bridge serves: it opens, locks and sweeps them, and notices when they
are replaced.

A bridge owns each segment by a lock that the kernel releases at its death. Configured namespaces are opened
at the start (made, where no worker has made them yet); those that workers make later on first use are found
by their name in /dev/shm.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cachee_bridge.daemon.older import SHARED_MEMORY, Search, Segment
from cachee_bridge.system.log_formats import fields
from cachee_shm import segment
from cachee_shm.errors import BridgeRunning, CacheeError, SegmentBusy, SegmentRetired

if TYPE_CHECKING:
    from cachee_shm.config import Config

OPENERS = 16
"""Segments that are opened at the same time. To make one takes a sleep of two ticks of the coarse clock, 9
ms: with 200 namespaces, one after another, that is 1.8 s."""

log = logging.getLogger("cachee_bridge")


class Segments:
    """All that one bridge holds."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.held: dict[str, Segment] = {}
        self._generations: dict[str, int] = {}
        self._inodes: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self.unserved: frozenset[str] = frozenset()
        """Namespaces whose segments existed at the last check, but cannot be opened."""
        self._search = Search(config.host.name)

    def open_configured(self) -> None:
        """Every configured namespace, and every other whose segment exists already.

        Raises BridgeRunning when another process serves one of them, and what attaching raises; but for one
        that another process is making: `open_found` has it when that is done.
        """
        for namespace, error in self._open(list(self._config.namespaces)).items():
            if not isinstance(error, SegmentBusy):
                raise error
            self._log_once(namespace, str(error))
        self.open_found()
        self._search.look(self.held, starting=True)

    def use(self, config: Config) -> None:
        """`open_found` has the namespaces that are new in it."""
        self._config = config

    def open_found(self) -> list[str]:
        """The namespaces that workers have made since the last call. BridgeRunning as above; waits for none.

        One that cannot be attached is logged, once for each reason, and tried again at the next call.
        """
        found, making = self._found(), set()
        missing = sorted((found | self._config.namespaces.keys()) - self.held.keys())
        for namespace, error in self._open(missing).items():
            if isinstance(error, BridgeRunning):
                raise error
            if isinstance(error, SegmentBusy):  # nobody can have written in it yet
                making.add(namespace)
            self._log_once(namespace, str(error))
        self.unserved = frozenset(found - self.held.keys() - making)
        return [namespace for namespace in missing if namespace in self.held]

    def sweep(self) -> None:
        """Sweep the slots of dead workers."""
        for namespace, held in self.held.items():
            swept = held.sweep()
            if swept:
                log.info("swept what %d dead processes left", swept, extra=fields(namespace=namespace))

    def check(self) -> None:
        """Raises SegmentRetired when a segment was replaced, BridgeRunning when another bridge took it over.

        One that was only unlinked is retired first: its workers have not noticed, and follow.
        """
        for namespace, held in self.held.items():
            if held.bridge_generation() != self._generations[namespace]:
                raise BridgeRunning(f"another bridge has taken over namespace {namespace!r}; this one stops")
            if _inode(held) != self._inodes[namespace]:
                held.retire()
                raise SegmentRetired(f"segment {held.name} was removed or replaced")
        self._search.look(self.held, starting=False)

    def unused(self) -> bool:
        """No worker is attached anywhere, and every record has been healed and handed to the mesh."""
        return all(
            held.attached_workers() == 0 and held.tail == held.pump_cursor and not held.older
            for held in self.held.values()
        )

    def leave(self) -> bool:
        """Mark every segment as left, for workers that attach from now on. False, and none is marked, when a
        worker is attached or something is not sent: it may have come since that was last looked at, also in
        a new namespace. Raises what `check` raises: workers may be in the successor of a segment."""
        self.check()
        self.open_found()
        for held in self.held.values():
            held.bridge_leave(True)
        if self.unused():
            return True
        for held in self.held.values():
            held.bridge_leave(False)
        return False

    def close(self) -> None:
        for held in self.held.values():
            held.close()
        self.held.clear()

    def _open(self, namespaces: Sequence[str]) -> dict[str, CacheeError]:
        """Opens these. Returns those that could not be opened, with the reason."""
        if not namespaces:
            return {}
        with ThreadPoolExecutor(min(OPENERS, len(namespaces)), "cachee-opener") as openers:
            opening = {name: openers.submit(self._taken, name) for name in namespaces}
        errors = {name: task.exception() for name, task in opening.items()}
        for namespace, task in opening.items():
            if errors[namespace] is None:
                self._hold(namespace, task.result())
        failed: dict[str, CacheeError] = {}
        for namespace, error in errors.items():
            if isinstance(error, CacheeError):
                failed[namespace] = error
            elif error is not None:
                raise error
        return failed

    def _taken(self, namespace: str) -> Segment:
        """The segment, for this bridge alone. In a thread of its own."""
        held = Segment(segment.spec_of(self._config, namespace))
        if not held.bridge_acquire():
            held.close()
            raise BridgeRunning(
                f"namespace {namespace!r} of host {self._config.host.name!r} is served by another bridge; "
                f"nothing was changed; stop that one first, or give this one another [host] name"
            )
        return held

    def _hold(self, namespace: str, held: Segment) -> None:
        self.held[namespace] = held
        self._generations[namespace] = held.bridge_generation()
        self._inodes[namespace] = _inode(held)
        self._failed.pop(namespace, None)

    def _found(self) -> set[str]:
        """Namespaces of this host whose segments, of whatever layout, exist. Without [defaults], none."""
        return self._search.namespaces() if self._config.defaults is not None else set()

    def _log_once(self, namespace: str, reason: str) -> None:
        if self._failed.get(namespace) != reason:
            self._failed[namespace] = reason
            log.warning("cannot serve it: %s", reason, extra=fields(namespace=namespace))


def _inode(held: Segment) -> int:
    """Of the object that now has the segment's name; 0 when none has."""
    try:
        return os.stat(f"{SHARED_MEMORY}/{held.name.lstrip('/')}").st_ino
    except OSError:
        return 0
