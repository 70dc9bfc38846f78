"""The addresses of peers: from the configuration, from discovery, and learned from other peers.

    an address is    expected while the configuration or discovery names it: it isolates this host until a
                     host has answered there
                     resolved to the name of the host that proves its name there, anew at each answer; or to
                     this host, if its interfaces say so, or a peer whom it has answered there
    it is dialled    unless the host of that name is linked already, by any address. An address that leads to
                     this host is dialled each OWN_LOOK_S: its name may belong to another host by then
    it leads here    until another host answers there, or a dial fails that went to other IP addresses than
                     those that led here. Then it isolates as at the start
    a wait           is uniform in 0..backoff (full jitter: not all hosts dial a restarted host at once)
    a learned one    is only what a peer says. It does not isolate, a new host waits for two dials of it at
                     most, and few are dialled at a time. It is dropped when its host has left, or after
                     FAILURES_MAX if no member is missing there

Peers repeat what they know, so a dropped address comes back if a host lives there. An address that discovery
no longer names counts as learned from then on, if a host has ever answered there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable

from cachee_bridge.membership.absent import Absent
from cachee_bridge.membership.address_table import Address, AddressTable
from cachee_bridge.membership.awaited import Awaited
from cachee_bridge.membership.dials import Dials
from cachee_bridge.membership.discovery import ABSENCES

ADDRESSES_MAX = 4096
"""Configured and learned together: 8 times the largest mesh that was simulated."""
OWN_LOOK_S = 10.0
"""Such a dial ends when the interfaces have been looked at, or costs a handshake with this host itself."""
FAILURES_MAX = 20
"""About 80 s of dialling with the default backoff."""


class AddressBook:
    def __init__(self, own_name: str, first_s: float, max_s: float, rng: random.Random) -> None:
        self._own_name = own_name
        self._first_s, self._max_s, self._rng = first_s, max_s, rng
        self.table = table = AddressTable()
        self.absent = Absent(table)
        self.awaited = Awaited(table, self.absent)
        self.changes = 0
        """The number of changes of addresses. Results that are derived from addresses are cached until it
        changes."""
        self._dials = Dials()
        self._failed: dict[str, Address] = {}
        """Addresses whose dials have failed since `due` was last called: these may have to be dropped."""

    def _changed(self, *changed: Address) -> None:
        """These are new, or something about them has changed."""
        self.changes += 1
        for known in changed:
            self.awaited.changed(known)
            self._dials.put(known)
            if known.expected or known.proven:
                self.absent.changed()

    def reach_changed(self, name: str | None = None) -> None:
        """Whether `name` is linked, relayed or needed may have changed. None: of any host."""
        self._dials.wake(name)
        self.absent.changed()

    def configure(self, addresses: Iterable[str], now: float) -> list[str]:
        """`addresses` are all that the configuration names. The first dial of a new one is at once. Returns
        those that it named before and names no more."""
        named = set(addresses)
        for address in dict.fromkeys(addresses):
            known = self.table.get(address) or self.table.put(Address(address, False, now, due=now))
            if not known.configured:
                known.configured, known.given_up = True, False
                self._changed(known)
        gone = [known for known in self.table if known.configured and known.address not in named]
        for known in gone:
            known.configured = False
        self._changed(*gone)
        self._drop_nameless(gone)
        return [known.address for known in gone]

    def discovered(self, addresses: Collection[str], now: float) -> list[str]:
        """`addresses` are all that discovery names. Returns those that it named before and names no more."""
        self.changes += 1
        for address in addresses:
            known = self.table.get(address) or self.table.put(Address(address, False, now, due=now))
            was_expected, known.named, known.absences = known.expected, True, 0
            if not was_expected:
                self._changed(known)
        gone = []
        for known in self.table:
            if known.named and known.address not in addresses:
                known.absences += 1
                known.named = known.absences < ABSENCES
                gone += [] if known.named else [known]
        self._changed(*gone)
        self._drop_nameless(gone)
        return [known.address for known in gone]

    def give_up(self, address: str) -> None:
        """Stop waiting for an answer from this address. If a host answers there later, it becomes a peer."""
        if (known := self.table.get(address)) is not None:
            known.given_up = True
            self._changed(known)

    def learn(self, name: str, address: str, now: float) -> None:
        """A peer says that `name` is up at `address`."""
        if name == self._own_name or (address not in self.table and len(self.table) >= ADDRESSES_MAX):
            return
        if self.absent.come_back(name):
            self.absent.unlinked(name, now)
        known = self.table.get(address)
        if known is None or (known.is_self and not known.expected and known.due <= now):
            wait = self._rng.uniform(0.0, self._first_s)
            self._changed(self.table.put(Address(address, False, now, name=name, due=now + wait)))

    def answered(self, address: str, name: str) -> None:
        """`name` has proven itself at `address`."""
        if (known := self.table.get(address)) is not None:
            self.table.name(known, name)
            known.is_self, known.given_up, known.proven, known.led_away = False, False, True, False
            self._changed(known)

    def found_self(self, address: str, host: str, now: float) -> None:
        """This host has answered there, at the IP address `host`."""
        if (known := self.table.get(address)) is not None:
            self._leads_here(known, frozenset((host,)), now)

    def is_own(self, address: str, now: float) -> bool:
        """This host's interfaces say that `address` leads to it. Returns whether that is new. It is not
        accepted for an address where another host has answered."""
        known = self.table.get(address)
        if known is None:
            return False
        if known.proven:
            self.failed(address, now)
            return False
        return self._leads_here(known, frozenset(), now)

    def told_self(self, address: str, now: float) -> bool:
        """A peer says that this host has answered it at `address`. Returns whether that is new. The peer may
        have dialled long ago, so it is not accepted if another host has answered there since, or no host
        does."""
        known = self.table.get(address)
        if known is None or known.is_self or known.proven or known.led_away:
            return False
        return self._leads_here(known, None, now)

    def _leads_here(self, known: Address, led_by: frozenset[str] | None, now: float) -> bool:
        """Returns whether that is new."""
        news = not known.is_self
        self.table.name(known, self._own_name)
        known.is_self, known.led_by = True, led_by
        known.dialling = known.proven = known.led_away = False
        known.failures, known.due = 0, now + OWN_LOOK_S
        self._dials.put(known)
        if news:
            self._changed(known)
        return news

    def _own_is_silent(self, known: Address, dialled: frozenset[str], now: float) -> None:
        """A dial of this host's own address has failed. Without an answer of a name server nothing
        follows."""
        known.due = now + OWN_LOOK_S * self._rng.uniform(0.9, 1.0)
        if dialled and known.led_by is None:
            known.led_by = dialled
        elif not dialled <= (known.led_by or frozenset()):
            self.table.name(known, None)
            known.is_self, known.led_away, known.since = False, True, now
            self._changed(known)

    def failed(self, address: str, now: float, dialled: Iterable[str] = ()) -> int:
        """A dial, or a link dialled there, has ended. Returns how many have ended in a row without coming up.
        `dialled`: the IP addresses that were tried."""
        known = self.table.get(address)
        if known is None:
            return 0
        known.dialling = False
        if known.is_self:
            self._own_is_silent(known, frozenset(dialled), now)
            if known.is_self:
                self._dials.put(known)
                return 0
        backoff = min(self._max_s, self._first_s * 2 ** min(known.failures, 20))
        known.failures += 1
        known.due = now + self._rng.uniform(0.0, backoff)
        self._dials.put(known)
        self._failed[address] = known
        return known.failures

    def linked(self, name: str) -> None:
        """`name` is up. A host that came back has not left."""
        self.absent.come_back(name)
        self.absent.changed()

    def works(self, name: str) -> None:
        """An echo came back on the link to `name`: the next failure counts as the first again."""
        for known in self.table.at(name):
            known.failures = 0

    def lost(self, name: str, now: float) -> None:
        """The last link to `name` is gone: its addresses are dialled soon, but for those whose dials
        failed."""
        self.absent.unlinked(name, now)
        self._dials.wake(name)
        for known in self.table.at(name):
            if not known.dialling and not known.failures:
                known.due = now + self._rng.uniform(0.0, self._first_s)
                self._dials.put(known)

    def left(self, name: str) -> None:
        """`name` has left for good, or is removed: its learned addresses are dropped, expected ones are kept
        for its return."""
        self.absent.leave(name)
        self.reach_changed(name)
        self._drop([known for known in self.table.at(name) if not (known.expected or known.dialling)])
        self.absent.forget_nameless()

    def due(self, now: float, is_up: Callable[[str], bool], is_missed: Callable[[str], bool]) -> list[str]:
        """Addresses to dial now; each counts as being dialled from here on.

        `is_up`: a name is linked. `is_missed`: it is not, and what it announces is waited for.
        """
        failed, self._failed = self._failed, {}
        for known in failed.values():
            if known.expected or known.dialling or self.table.get(known.address) is not known:
                continue
            if known.name is None:
                self._drop([known])
            elif known.failures >= FAILURES_MAX and not is_missed(known.name):
                self.absent.give_up(known.name)
                self._drop([known])
        return self._dials.take(now, is_up)

    def next_due(self, is_up: Callable[[str], bool]) -> float:
        """When `due` has something next."""
        return self._dials.soonest(is_up)

    def _drop_nameless(self, gone: Iterable[Address]) -> None:
        """Drop those at which no host has answered, and that nothing names any more."""
        self._drop([at for at in gone if at.name is None and not (at.expected or at.dialling)])

    def _drop(self, gone: Iterable[Address]) -> None:
        """These are forgotten."""
        for known in gone:
            self.table.drop(known)
            self.awaited.drop(known.address)
            self._dials.drop(known.address)
            self.changes += 1
            self.absent.changed()
