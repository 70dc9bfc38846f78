"""What is known of each address, by address and by the name of the host that answers there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Address:
    address: str
    configured: bool
    since: float
    """Since when no link has been up through it, or to the host of its name."""
    place: int = 0
    """In the order in which the table came to know them."""
    name: str | None = None
    is_self: bool = False
    led_by: frozenset[str] | None = frozenset()
    """The IP addresses by which it led to this host when that was last found. None: a peer has said so, and
    they are not known yet. Empty: the interfaces say so; a dial that leaves this host leads elsewhere."""
    led_away: bool = False
    """It led to this host before, and no longer does."""
    proven: bool = False
    """`name` has answered there. Otherwise only a peer has said so."""
    dialling: bool = False
    """From Connect until the link is refused, fails or closes."""
    failures: int = 0
    due: float = 0.0
    named: bool = False
    """By discovery."""
    absences: int = 0
    """Answers of discovery in a row without it."""
    given_up: bool = False
    """No host has answered there, and no answer is awaited any more."""

    @property
    def expected(self) -> bool:
        """Whether the configuration or discovery names it."""
        return self.configured or self.named


class AddressTable:
    """Of one host."""

    def __init__(self) -> None:
        self._addresses: dict[str, Address] = {}
        self._named: dict[str, dict[str, Address]] = {}
        """By name, all addresses of it."""
        self._places = 0

    def __iter__(self) -> Iterator[Address]:
        return iter(self._addresses.values())

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, address: str) -> bool:
        return address in self._addresses

    def get(self, address: str) -> Address | None:
        """What is known of `address`."""
        return self._addresses.get(address)

    def at(self, name: str) -> list[Address]:
        """All addresses of `name`, in order."""
        known = self._named.get(name)
        return sorted(known.values(), key=place_of) if known else []

    def has_name(self, name: str) -> bool:
        """Whether any address of `name` is known."""
        return name in self._named

    def of(self, name: str) -> str:
        """An address at which `name` answers, "" if none is known."""
        return next((known.address for known in self.at(name)), "")

    def answering(self, name: str) -> list[str]:
        """Expected addresses at which `name` has answered."""
        return [known.address for known in self.at(name) if known.proven and known.expected]

    def unanswered_since(self, address: str) -> float:
        """Since when `address` is known, and nobody has been linked through it."""
        known = self._addresses.get(address)
        return known.since if known is not None else float("inf")

    def put(self, known: Address) -> Address:
        """A new one, in the place of what was known of the address."""
        if (before := self._addresses.get(known.address)) is not None:
            self.name(before, None)
            known.place = before.place
        else:
            self._places = known.place = self._places + 1
        self._addresses[known.address] = known
        self.name(known, known.name)
        return known

    def name(self, known: Address, name: str | None) -> None:
        """From now on it is an address of this name."""
        if known.name is not None and (before := self._named.get(known.name)) is not None:
            before.pop(known.address, None)
            if not before:
                del self._named[known.name]
        known.name = name
        if name is not None:
            self._named.setdefault(name, {})[known.address] = known

    def drop(self, known: Address) -> None:
        """Forget the address."""
        del self._addresses[known.address]
        self.name(known, None)


def place_of(known: Address) -> int:
    """The sort key of addresses."""
    return known.place
