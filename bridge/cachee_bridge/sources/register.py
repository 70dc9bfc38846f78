"""An index over all namespaces of this host, kept as they change, so that no loop over all of them is needed.

members    by name of a source, the namespaces where it is a member: its silence isolates them
refused    by name of a peer, the namespaces where it cannot be followed
removing   namespaces in which a member is being removed
words      by name of a source, what it has reported of all its namespaces at once
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from cachee_bridge.streams.freshness import Word

Value = TypeVar("Value")


class Register:
    """Of one host, in all namespaces."""

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {}
        self.refused: dict[str, set[str]] = {}
        self.removing: set[str] = set()
        self.changed: set[str] = set()
        """Namespaces whose members are others than when isolation.py last examined them."""
        self.has_reports = False
        """Some source has reported that it is fresh everywhere, and isolation.py has not looked."""
        self._words: dict[str, Word] = {}
        self.lost_at = float("-inf")
        """The last time at which a member of any namespace had been out of reach for too long."""

    def word(self, name: str) -> Word:
        word = self._words.get(name)
        if word is None:
            word = self._words[name] = Word()
        return word

    def keep(self, names: set[str]) -> None:
        """Drop the words of all other sources."""
        self._words = {name: word for name, word in self._words.items() if name in names}


class Listed(dict[str, Value]):
    """A table of one namespace, by name. Each name in it has the namespace in `index` as well."""

    def __init__(
        self, namespace: str, index: dict[str, set[str]], rows: Iterable[tuple[str, Value]] = ()
    ) -> None:
        super().__init__()
        self._namespace, self._index = namespace, index
        for name, value in rows:
            self[name] = value

    def __setitem__(self, name: str, value: Value) -> None:
        super().__setitem__(name, value)
        self._index.setdefault(name, set()).add(self._namespace)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._index[name].discard(self._namespace)
        if not self._index[name]:
            del self._index[name]

    def take(self, name: str) -> Value | None:
        """Remove `name`, and return its value; None if it is not in the table."""
        value = self.get(name)
        if name in self:
            del self[name]
        return value
