"""Where peers are dialled: configured addresses, those that discovery names, those learned from peers, and
who answered there.

    an address is    expected while it is configured or named: it isolates until somebody has answered there
                     resolved to a name, or to this host, by whoever proves its name there; at each answer;
                     to this host also by its interfaces, or by a peer whom it has answered there
    it is dialled    unless its name is linked already, by any address. One that leads to this host is dialled
                     each OWN_LOOK_S: the name, or the IP address, may belong to another host by then
    it leads here    no longer when another host answers there, or when the dial comes to nothing and went to
                     other IP addresses than those that led here. Then it isolates as at the start
    a wait           is uniform in 0..backoff (full jitter: all do not dial a restarted host at one instant)
    a learned one    is only what a peer says. It isolates nobody, a new host waits for two dials of it at
                     most, and few are dialled at a time. It is dropped when its host has left, or after
                     FAILURES_MAX when nobody is missed there

Peers repeat what they know, so what was dropped comes back if it should. An address that discovery does not
name any more is from then on a learned one, if somebody ever answered there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from cachee_bridge.membership.dials import Dials
from cachee_bridge.membership.discovery import ABSENCES

ADDRESSES_MAX = 4096
"""Configured and learned together: 8 times the largest mesh that was simulated."""
TOLD_FAILURES_MAX = 2
"""Dials in vain after which an address that is only known from peers is not waited for any more."""
OWN_LOOK_S = 10.0
"""A dial of one's own address ends at the look at the interfaces, or costs a handshake with oneself."""
FAILURES_MAX = 20
"""About 80 s of dialling with the default backoff."""


@dataclass
class Address:
    address: str
    configured: bool
    since: float
    """Nobody has been linked through it, or by the name it resolves to, since then."""
    place: int = 0
    """In the order in which the book came to know them."""
    name: str | None = None
    is_self: bool = False
    led_by: frozenset[str] | None = frozenset()
    """The IP addresses by which it led to this host when that was last known. None: a peer has said so, and
    they are not known yet. Empty: the interfaces say so, and a dial that goes out has left this host."""
    led_away: bool = False
    """It led to this host, and does no more."""
    proven: bool = False
    """`name` has answered there, and not only been told."""
    dialling: bool = False
    """From Connect until the link is refused, fails or closes."""
    failures: int = 0
    due: float = 0.0
    named: bool = False
    """By discovery."""
    absences: int = 0
    """Answers of discovery in a row without it."""
    given_up: bool = False
    """Nobody has answered there, and nobody is waited for any more."""

    @property
    def expected(self) -> bool:
        return self.configured or self.named


class AddressBook:
    def __init__(self, own_name: str, first_s: float, max_s: float, rng: random.Random) -> None:
        self._own_name = own_name
        self._first_s, self._max_s, self._rng = first_s, max_s, rng
        self._book: dict[str, Address] = {}
        self._left: set[str] = set()
        self._unreached: set[str] = set()
        """Names of which peers told, and whose addresses were dropped without an answer."""
        self.changes = 0
        """How often who may be where has changed: what is derived from it is kept until then."""
        self._named: dict[str, dict[str, Address]] = {}
        """By name, all addresses of it."""
        self._dials = Dials()
        self._places = 0
        self._open: dict[str, Address] = {}
        """Expected addresses, but those at which a host has answered that is met."""
        self._failed: dict[str, Address] = {}
        """Whose dials have failed since it was last looked at what is due: they may be dialled no more."""
        self._lost_since: float | None = None
        """Since when the longest unreachable host is out of reach. inf: none is. None: to be computed."""

    def _changed(self, *changed: Address) -> None:
        """These are new, or something about them has changed."""
        self.changes += 1
        for known in changed:
            if known.expected and not (known.is_self or known.given_up):
                self._open[known.address] = known
            else:
                self._open.pop(known.address, None)
            self._dials.put(known)
            if known.expected or known.proven:
                self._lost_since = None

    def reach_changed(self, name: str | None = None) -> None:
        """A host became linked, heard through a relay, or needed, or is so no longer. None: any host."""
        self._dials.wake(name)
        self._lost_since = None

    def _at(self, name: str) -> list[Address]:
        """All addresses of `name`."""
        known = self._named.get(name)
        return sorted(known.values(), key=_place) if known else []

    def _name(self, known: Address, name: str | None) -> None:
        """From now on it is an address of this name."""
        if known.name is not None and (before := self._named.get(known.name)) is not None:
            before.pop(known.address, None)
            if not before:
                del self._named[known.name]
        known.name = name
        if name is not None:
            self._named.setdefault(name, {})[known.address] = known

    def _take_in(self, known: Address) -> Address:
        """A new one, in the place of what was known of the address."""
        if (before := self._book.get(known.address)) is not None:
            self._name(before, None)
            known.place = before.place
        else:
            self._places = known.place = self._places + 1
        self._book[known.address] = known
        self._name(known, known.name)
        return known

    def __iter__(self) -> Iterator[Address]:
        return iter(self._book.values())

    def configure(self, address: str, now: float) -> None:
        """An address of the configuration. The first dial is at once."""
        known = self._book.get(address) or self._take_in(Address(address, True, now, due=now))
        known.configured = True
        self._changed(known)

    def discovered(self, addresses: Collection[str], now: float) -> list[str]:
        """All that discovery names; which it named before and does not any more."""
        self.changes += 1
        for address in addresses:
            known = self._book.get(address) or self._take_in(Address(address, False, now, due=now))
            was_expected, known.named, known.absences = known.expected, True, 0
            if not was_expected:
                self._changed(known)
        gone = []
        for known in self._book.values():
            if known.named and known.address not in addresses:
                known.absences += 1
                known.named = known.absences < ABSENCES
                gone += [] if known.named else [known]
        self._changed(*gone)
        self._drop([at for at in gone if at.name is None and not (at.expected or at.dialling)])
        return [known.address for known in gone]

    def give_up(self, address: str) -> None:
        """Nobody is waited for there any more; who answers all the same is met."""
        if (known := self._book.get(address)) is not None:
            known.given_up = True
            self._changed(known)

    def learn(self, name: str, address: str, now: float) -> None:
        """A peer says that `name` is up at `address`."""
        if name == self._own_name or (address not in self._book and len(self._book) >= ADDRESSES_MAX):
            return
        if name in self._left:
            self._left.discard(name)
            self._unlinked(name, now)
        known = self._book.get(address)
        if known is None or (known.is_self and not known.expected and known.due <= now):
            wait = self._rng.uniform(0.0, self._first_s)
            self._changed(self._take_in(Address(address, False, now, name=name, due=now + wait)))

    def answered(self, address: str, name: str) -> None:
        """`name` has proven itself at `address`."""
        if (known := self._book.get(address)) is not None:
            self._name(known, name)
            known.is_self, known.given_up, known.proven, known.led_away = False, False, True, False
            self._changed(known)

    def found_self(self, address: str, host: str, now: float) -> None:
        """This host has answered there, at the IP address `host`."""
        if (known := self._book.get(address)) is not None:
            self._leads_here(known, frozenset((host,)), now)

    def is_own(self, address: str, now: float) -> bool:
        """This host's interfaces say that it leads here. Whether that is news: where another host has
        answered, they are not believed."""
        known = self._book.get(address)
        if known is None:
            return False
        if known.proven:
            self.failed(address, now)
            return False
        return self._leads_here(known, frozenset(), now)

    def told_self(self, address: str, now: float) -> bool:
        """A peer says that this host has answered it there. Whether that is news. The peer may have asked
        long ago: it is not believed where another host has answered, or nobody does any more."""
        known = self._book.get(address)
        if known is None or known.is_self or known.proven or known.led_away:
            return False
        return self._leads_here(known, None, now)

    def _leads_here(self, known: Address, led_by: frozenset[str] | None, now: float) -> bool:
        """Whether that is news."""
        news = not known.is_self
        self._name(known, self._own_name)
        known.is_self, known.led_by = True, led_by
        known.dialling = known.proven = known.led_away = False
        known.failures, known.due = 0, now + OWN_LOOK_S
        self._dials.put(known)
        if news:
            self._changed(known)
        return news

    def _own_is_silent(self, known: Address, dialled: frozenset[str], now: float) -> None:
        """A dial of an own address has come to nothing. Without a name server's answer nothing follows."""
        known.due = now + OWN_LOOK_S * self._rng.uniform(0.9, 1.0)
        if dialled and known.led_by is None:
            known.led_by = dialled
        elif not dialled <= (known.led_by or frozenset()):
            self._name(known, None)
            known.is_self, known.led_away, known.since = False, True, now
            self._changed(known)

    def answering(self, name: str) -> list[str]:
        """Expected addresses at which `name` has answered."""
        return [at.address for at in self._at(name) if at.proven and at.expected]

    def failed(self, address: str, now: float, dialled: Iterable[str] = ()) -> int:
        """Dialling or a link dialled there came to an end; how many ends in a row without a link that came
        up. `dialled`: the IP addresses that were tried."""
        known = self._book.get(address)
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
        self._left.discard(name)
        self._lost_since = None

    def works(self, name: str) -> None:
        """What is said on the link to `name` comes back answered: the next failure is the first again."""
        for known in self._at(name):
            known.failures = 0

    def lost(self, name: str, now: float) -> None:
        """The last link to `name` is gone: dial again, soon, where that did not fail."""
        self._unlinked(name, now)
        self._dials.wake(name)
        for known in self._at(name):
            if not known.dialling and not known.failures:
                known.due = now + self._rng.uniform(0.0, self._first_s)
                self._dials.put(known)

    def left(self, name: str) -> None:
        """`name` has left for good, or is removed: learned addresses of it go, expected ones wait for its
        return."""
        self._left.add(name)
        self.reach_changed(name)
        self._drop([known for known in self._at(name) if not (known.expected or known.dialling)])
        self._left = {known for known in self._left if known in self._named}

    def due(self, now: float, is_up: Callable[[str], bool], is_missed: Callable[[str], bool]) -> list[str]:
        """Addresses to dial now; each counts as being dialled from here on.

        `is_up`: a name is linked. `is_missed`: it is not, and what it announces is waited for.
        """
        failed = self._failed
        if failed:
            self._failed = {}
        for known in failed.values() if failed else ():
            if known.expected or known.dialling or self._book.get(known.address) is not known:
                continue
            if known.name is None:
                self._drop([known])
            elif known.failures >= FAILURES_MAX and not is_missed(known.name):
                self._note_unreached(known.name)
                self._drop([known])
        return self._dials.take(now, is_up)

    def next_due(self, is_up: Callable[[str], bool]) -> float:
        """When `due` has something next."""
        return self._dials.soonest(is_up)

    def unanswered(self, met: Callable[[str], bool]) -> list[str]:
        """Expected addresses at which no host that has been `met` has answered: these isolate."""
        for known in list(self._open.values()):
            if known.name is not None and met(known.name):
                del self._open[known.address]
        return [known.address for known in sorted(self._open.values(), key=_place)]

    def nameless(self) -> list[str]:
        """Those of them at which nobody at all has answered."""
        return [known.address for known in sorted(self._open.values(), key=_place) if known.name is None]

    def unmet(self, met: Callable[[str], bool], told_until: float) -> list[str]:
        """Addresses at which no host that has been `met` has answered yet: those that are expected, and,
        for some dials, those that peers told of before `told_until`. Later ones are no reason to wait: a peer
        could go on to make them up."""
        return [
            known.address
            for known in self._book.values()
            if not (known.is_self or known.given_up or known.name in self._left)
            and (known.name is None or not met(known.name))
            and (known.expected or (known.failures < TOLD_FAILURES_MAX and known.since <= told_until))
        ]

    def unanswered_since(self, address: str) -> float:
        """Since when `address` is known, and nobody has been linked through it."""
        known = self._book.get(address)
        return known.since if known is not None else float("inf")

    def expects(self, name: str, is_up: Callable[[str], bool]) -> bool:
        """Whether `name` may be at an expected address: its own, or one where nobody else is linked."""
        return any(
            known.name == name or not is_up(known.name or "")
            for known in self._book.values()
            if known.expected and not (known.is_self or known.given_up)
        )

    def out_of_reach(self, now: float, is_up: Callable[[str], bool], lost_after_s: float) -> bool:
        """Whether a host that is at an expected address, or has answered at another, and neither left nor is
        removed, has not been linked here for `lost_after_s`."""
        if self._lost_since is None:
            lost = (
                known.since
                for known in self._book.values()
                if known.expected or known.proven
                if not known.is_self and not is_up(known.name or "") and known.name not in self._left
            )
            self._lost_since = min(lost, default=float("inf"))
        return self._lost_since + lost_after_s < now

    def is_late(self, name: str, now: float, lost_after_s: float) -> bool:
        """Whether peers told of `name` more than `lost_after_s` ago, and it has not been linked since: what
        it wrote in a former life may have been missed. To be asked as it comes up."""
        known = [at.since for at in self._at(name)]
        return (
            min(known, default=now) + lost_after_s < now or name in self._unreached or "" in self._unreached
        )

    def _note_unreached(self, name: str) -> None:
        """It is dialled no more. Beyond so many names, it may be anybody: ""."""
        self._unreached.add(name if len(self._unreached) < ADDRESSES_MAX else "")

    def of(self, name: str) -> str:
        """An address at which `name` answers, "" if none is known."""
        return next((known.address for known in self._at(name)), "")

    def _unlinked(self, name: str, now: float) -> None:
        self._lost_since = None
        for known in self._at(name):
            known.since = now

    def _drop(self, gone: Iterable[Address]) -> None:
        """These are forgotten."""
        for known in gone:
            del self._book[known.address]
            self._name(known, None)
            self._open.pop(known.address, None)
            self._dials.drop(known.address)
            self.changes += 1
            self._lost_since = None


def _place(known: Address) -> int:
    return known.place
