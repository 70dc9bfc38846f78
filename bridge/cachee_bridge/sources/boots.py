"""Which boot of each peer was met last.

A boot is one life of a host's shared memory: when the machine boots, or its `/dev/shm` is emptied, every ring
on it is lost. A peer that was met in another boot before may have used any namespace in between, out of this
host's reach. So if it does not have a namespace now, what it may have written there is unknown.
"""

from __future__ import annotations

from enum import Enum

BOOTS_MAX = 4096
"""Names in the table. The one that was met least recently is dropped."""
BOOT_BITS = 32
"""Of an instance (HELLO): the upper bits number the boot, the lower ones the life of the bridge. A build from
before draws all of them at random, so each start of its bridge counts as a boot."""


class Earlier(Enum):
    """What this host knows of the boots of a peer before the present one."""

    NONE_MISSED = "none missed"
    """The present one is known, or the one before it left for good."""
    UNKNOWN = "unknown"
    """None was met since this bridge began."""
    MISSED = "missed"
    """Another one was met last: its end, and perhaps whole boots, were missed."""


class Boots:
    def __init__(self) -> None:
        self._met: dict[str, int | None] = {}
        """By name of the peer; None: it has left for good since."""
        self._is_complete = True
        """False once a name was dropped from the table."""

    def earlier(self, name: str, instance: int) -> Earlier:
        """Of the peer `name`, whose HELLO says `instance`. To be asked before `met` is called."""
        if name not in self._met:
            return Earlier.UNKNOWN if self._is_complete else Earlier.MISSED
        known = self._met[name]
        return Earlier.NONE_MISSED if known in (None, boot_of(instance)) else Earlier.MISSED

    def met(self, name: str, instance: int) -> None:
        """The peer has named all its namespaces, and what follows from that is done."""
        self._met.pop(name, None)  # so that the table is in the order of the last meetings
        self._met[name] = boot_of(instance)
        if len(self._met) > BOOTS_MAX:
            del self._met[next(iter(self._met))]
            self._is_complete = False

    def left(self, name: str) -> None:
        """The peer leaves for good, and has given the final heads of its rings: what is not applied yet is
        waited for."""
        if name in self._met:
            self._met[name] = None


def boot_of(instance: int) -> int:
    return instance >> BOOT_BITS


def instance_of(boot: int, life: int) -> int:
    """`boot`: BOOT_BITS bits; of `life`, as many lower ones are taken."""
    return boot << BOOT_BITS | life & (1 << BOOT_BITS) - 1
