"""When each address is dialled next: queues in the order of their times, so that a tick costs what is due.

    trusted   expected addresses, and those where their host has answered
    told      learned from peers: few are dialled at a time (TOLD_DIALS_MAX, TOLD_CALLING_MAX)
    resting   their host is linked, or a relay passes on its records: they are not dialled until `wake`
    neither   an address that is being dialled: it is put in again when that ends

An address that is put in again gets a new number. An entry with an old number is skipped when its time comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol

TOLD_DIALS_MAX, TOLD_CALLING_MAX = 16, 64
"""Of addresses that are only learned from peers: how many are dialled at once, and how many dials may be
under way. A peer can make up thousands."""


class Dialled(Protocol):
    """What is needed of an address."""

    address: str
    name: str | None
    place: int
    due: float
    dialling: bool
    proven: bool
    is_self: bool

    @property
    def expected(self) -> bool: ...


NeedsNoDial = Callable[[str], bool]
Queue = list[tuple[float, int, "Dialled"]]


class Dials:
    """Of all addresses of one host."""

    def __init__(self) -> None:
        self._trusted: Queue = []
        self._told: Queue = []
        self._numbers = count(1)
        self._number_of: dict[str, int] = {}
        """By address, the number of the entry that counts."""
        self._resting: dict[str, dict[str, Dialled]] = {}
        self._told_calling: dict[str, Dialled] = {}
        """Learned addresses that are being dialled; some of them may be trusted by now."""

    def put(self, known: Dialled) -> None:
        """The address is new, or its time, its name or its trust has changed, or a dial of it has ended."""
        number = self._number_of[known.address] = next(self._numbers)
        queue = self._trusted if _is_trusted(known) else self._told
        heapq.heappush(queue, (known.due, number, known))

    def drop(self, address: str) -> None:
        """Stop dialling it."""
        self._number_of.pop(address, None)
        self._told_calling.pop(address, None)

    def wake(self, name: str | None = None) -> None:
        """The host of this name may need a dial now; None: any host."""
        names = list(self._resting) if name is None else [name]
        for each in names:
            for known in self._resting.pop(each, {}).values():
                if self._number_of.get(known.address) == 0:
                    self.put(known)

    def take(self, now: float, needs_no_dial: NeedsNoDial) -> list[str]:
        """Addresses to dial now, as the book has them in order; each counts as being dialled from here on."""
        if not (_may_be_due(self._trusted, now) or _may_be_due(self._told, now)):
            return []
        taken = self._due(self._trusted, now, needs_no_dial, len(self._trusted))
        calling = self._told_calling = {
            address: known
            for address, known in self._told_calling.items()
            if known.dialling and not _is_trusted(known)
        }
        room = max(0, min(TOLD_DIALS_MAX, TOLD_CALLING_MAX - len(calling)))
        told = self._due(self._told, now, needs_no_dial, room)
        calling.update((known.address, known) for known in told)
        return [known.address for known in sorted(taken + told, key=lambda known: known.place)]

    def soonest(self, needs_no_dial: NeedsNoDial) -> float:
        """When the next one is due."""
        trusted = self._first(self._trusted, needs_no_dial) if self._trusted else None
        told = self._first(self._told, needs_no_dial) if self._told else None
        if trusted is None or told is None:
            first = trusted or told
            return first.due if first is not None else float("inf")
        return min(trusted.due, told.due)

    def _due(self, queue: Queue, now: float, needs_no_dial: NeedsNoDial, most: int) -> list[Dialled]:
        taken: list[Dialled] = []
        while len(taken) < most and (known := self._first(queue, needs_no_dial)) and known.due <= now:
            heapq.heappop(queue)
            known.dialling = True
            taken.append(known)
        return taken

    def _first(self, queue: Queue, needs_no_dial: NeedsNoDial) -> Dialled | None:
        """The next that is to be dialled. Others before it leave the queue."""
        while queue:
            _, number, known = queue[0]
            if self._number_of.get(known.address) == number and not known.dialling:
                if known.name is None or not needs_no_dial(known.name):
                    if not known.is_self or known.expected:
                        return known
                else:
                    self._resting.setdefault(known.name, {})[known.address] = known
                    self._number_of[known.address] = 0
            heapq.heappop(queue)
        return None


def _may_be_due(queue: Queue, now: float) -> bool:
    return bool(queue) and queue[0][0] <= now


def _is_trusted(known: Dialled) -> bool:
    return known.expected or known.proven
