"""The segments of this host that its bridge serves: opened, owned, swept, and noticed when they go.

A bridge owns each segment by a lock that the kernel releases at its death. Configured namespaces are opened
at the start (made, where no worker has made them yet); those that workers make later on first use are found
by their name in /dev/shm.
"""

from __future__ import annotations

import logging
import os

from cachee_bridge.older import SHARED_MEMORY, Search, Segment
from cachee_shm import segment
from cachee_shm.config import Config
from cachee_shm.errors import BridgeRunning, CacheeError, SegmentBusy, SegmentRetired

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
        """Namespaces whose segments exist, as far as was seen last, and cannot be opened."""
        self._search = Search(config.host.name)

    def open_configured(self) -> None:
        """Every configured namespace, and every other whose segment exists already.

        Raises BridgeRunning when another process serves one of them, and what attaching raises; but for one
        that another process is making: `open_found` has it when that is done.
        """
        for namespace in self._config.namespaces:
            try:
                self._open(namespace)
            except SegmentBusy as error:
                self._log_once(namespace, str(error))
        self.open_found()
        self._search.look(self.held, starting=True)

    def open_found(self) -> list[str]:
        """The namespaces that workers have made since the last call. BridgeRunning as above; waits for none.

        One that cannot be attached is logged, once for each reason, and tried again at the next call.
        """
        opened, found, making = [], self._found(), set()
        for namespace in sorted((found | self._config.namespaces.keys()) - self.held.keys()):
            try:
                self._open(namespace)
                opened.append(namespace)
            except BridgeRunning:
                raise
            except CacheeError as error:
                if isinstance(error, SegmentBusy):  # nobody can have written in it yet
                    making.add(namespace)
                self._log_once(namespace, str(error))
        self.unserved = frozenset(found - self.held.keys() - making)
        return opened

    def sweep(self) -> None:
        """What dead workers left."""
        for namespace, held in self.held.items():
            swept = held.sweep()
            if swept:
                log.info("swept what %d dead processes left namespace=%s", swept, namespace)

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

    def _open(self, namespace: str) -> None:
        held = Segment(segment.spec_of(self._config, namespace))
        if not held.bridge_acquire():
            held.close()
            raise BridgeRunning(
                f"namespace {namespace!r} of host {self._config.host.name!r} is served by another bridge; "
                f"nothing was changed; stop that one first, or give this one another [host] name"
            )
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
            log.warning("cannot serve it: %s namespace=%s", reason, namespace)


def _inode(held: Segment) -> int:
    """Of the object that now has the segment's name; 0 when none has."""
    try:
        return os.stat(f"{SHARED_MEMORY}/{held.name.lstrip('/')}").st_ino
    except OSError:
        return 0
