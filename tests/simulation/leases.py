"""The model of core/lease.c: who loads which key on one host, since when, and whom that serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

LOADS_MAX = 2


class Holder(Protocol):
    """Who loads."""

    closed: bool
    """It is dead."""


@dataclass(eq=False)
class Lease:
    """One load under way; its holder may be dead."""

    holder: Holder
    token: int
    began: float
    late: bool = False


class Leases:
    """Each caller is a process of its own: a load serves it if its value may still be stored."""

    def __init__(self) -> None:
        self.by_key: dict[int, list[Lease]] = {}

    def running(self, key: int, now: float, late_s: float) -> list[Lease]:
        """Loads of the living that are not late; whoever finds one late marks it."""
        found = []
        for lease in self.by_key.get(key, []):
            lease.late = lease.late or now - lease.began > late_s
            if self.counts(lease):
                found.append(lease)
        return found

    def counts(self, lease: Lease) -> bool:
        """Is it one that a caller may wait for?"""
        return not lease.holder.closed and not lease.late

    def held(self, key: int, fence: int, now: float, late_s: float) -> bool:
        """Is a caller to wait?"""
        running = self.running(key, now, late_s)
        return any(lease.token >= fence for lease in running) or len(running) >= LOADS_MAX

    def take(self, lease: Lease, key: int, fence: int, late_s: float) -> bool:
        """Unless it is held."""
        if self.held(key, fence, lease.began, late_s):
            return False
        self.by_key.setdefault(key, []).append(lease)
        return True

    def release(self, key: int, holder: Holder) -> None:
        left = [lease for lease in self.by_key.get(key, []) if lease.holder is not holder]
        self.by_key[key] = left
