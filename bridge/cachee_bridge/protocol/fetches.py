"""Peer fill: a host that misses a key asks another one for its value, so that one load feeds a region.

    asker                        chosen host                        the host that loads
    a worker misses, takes
    its token, asks ──FETCH────▶ has it?             ──GIVEN──▶
                                 is loading it here? it waits, then GIVEN
                                 has told another to load it:
                    ◀─ELSEWHERE─ which one
                    ──FETCH──────────────────────────────────────▶  waits for its own load, then GIVEN
                    ◀─LOAD────── nobody loads it: "you do"; the next askers are told ELSEWHERE

The chosen host is the same for all hosts that are linked to each other: rendezvous hashing over their names.
It holds no value for others and needs no loader: it only says who loads. Its word is advice. If it is lost or
silent the next one is asked, or the asker loads: one load more, never a stale value.

Why a value that is given is not stale. A worker takes its token, then asks. Its bridge says how far it has
applied each source, and how far it has announced itself, at that later moment. The other host gives a value
only when it has applied as much itself. So each invalidation that the asker had applied before its token has
evicted the older value there too, and what is still there was loaded after it, or holds the bytes that it
announced. What the asker applies after its token refuses the fill, as it refuses any (core/cache.c).

    only fills are given     what a worker has set may be older than the origin's: see core/module_fetch.c
    all sources are named    a host that follows a source which the asker does not know gives nothing: if that
                             source is lost with its last words, only the giver would evict their keys
    former sources           nobody is asked how far it has applied a source that has left, or was removed, at
                             the asker. What is given has to be loaded after that: its age tells, by the
                             asker's clock alone
    maps of buckets          while one is being applied its fences are ahead of the cursor: nobody is asked
    age                      the value is as old here as it is there: isolation caps it as it would have there
    identity                 the key travels whole, both ways, and is compared
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cachee_bridge.ports.effects import Brought, Failure
from cachee_bridge.wire.frames import SINCE
from cachee_bridge.wire.messages import (
    ELSEWHERE,
    GIVEN,
    LOAD,
    NOTHING,
    ROWS_MAX,
    Applied,
    Fetch,
    Fetched,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.sources.members import Members

LOADER_S = 5.0
"""So long others are sent to the host that was told to load, as a local load has to be late for a second."""
LOADERS_MAX = 4096
WAITING_MAX = 256
"""Questions of peers that wait for a load here, and own ones without an answer: each is looked at anew every
few milliseconds."""
PATIENCE_S_MAX = 4.0
"""So long a peer's question waits here at most, whatever the peer asks for: the longest peer_fill_wait."""
PICKLED = 12
"""The type of a pickled value (cachee_shm/codec.py): it never travels."""
AGE_DRIFT = 0.001
"""By so much two hosts' clocks may run apart."""
AGE_MARGIN_S = 0.01


class Loader(NamedTuple):
    """Who was told to load a key."""

    host: str
    fence: int
    """Of the key, here. Once it has moved, another load is needed."""
    until: float


@dataclass(frozen=True, eq=False)
class Waiting:
    """A peer's question that is not answered yet."""

    link: Link
    fetch: Fetch
    until: float


@dataclass(frozen=True, eq=False)
class Open:
    """An own question that is not answered yet."""

    link: Link
    fetch: Fetch
    asked_at: float
    settled_at: float
    until: float


class Settled:
    """Since when no source of a namespace has gone: what is loaded after that is no older than the last words
    of any that did."""

    def __init__(self, members: Members, now: float) -> None:
        self._members, self._departed = members, members.departed
        self._at = float("-inf") if members.is_new else now

    def at(self, now: float) -> float:
        """Never too early: a departure counts from when it is noticed here."""
        if self._departed != self._members.departed:
            self._departed, self._at = self._members.departed, now
        return self._at


class Fetches:
    def __init__(
        self, name: str, settings: Settings, links: LinkTable, namespaces: Namespaces, effects: Collected
    ) -> None:
        self._name, self._region, self._bytes_max = name, settings.region, settings.peer_fill
        self._links, self._namespaces, self._effects = links, namespaces, effects
        self._loaders: dict[tuple[str, bytes], Loader] = {}
        """By namespace and key, the oldest first."""
        self._waiting: dict[Waiting, None] = {}
        self._open: dict[int, Open] = {}
        self._settled: dict[str, tuple[Members, Settled]] = {}
        self._number = 0

    @property
    def is_busy(self) -> bool:
        """Whether `look` has something to do soon."""
        return bool(self._waiting or self._open)

    def use(self, peer_fill: Mapping[str, int]) -> None:
        """Another `Settings.peer_fill`: the configuration has a new namespace."""
        self._bytes_max = peer_fill

    def entered(self, namespace: str, now: float) -> None:
        """A namespace of this host, or a new life of one."""
        members = self._namespaces.members[namespace]
        self._settled[namespace] = members, Settled(members, now)

    # Asking

    def chosen(self, namespace: str, key: bytes) -> str:
        """The host that says who loads: this one, or a linked one of this region."""
        hosts = [self._name]
        for name, link in self._links.up.items():
            if self._unaskable(link, namespace) is None and link.region == self._region:
                hosts.append(name)
        return max(hosts, key=lambda host: _weight(host, key))

    def loader(self, namespace: str, key: bytes, now: float) -> str:
        """For a key whose chosen host is this one: the name of the peer that was told to load it, or "" if
        none was."""
        members = self._namespaces.members.get(namespace)
        if members is None or namespace not in self._bytes_max:
            return ""
        fence, _, _ = members.store.fetch(key, 0)
        return self._told((namespace, key), fence, self._name, now)

    def ask(self, peer: str, namespace: str, key: bytes, now: float, patience_s: float) -> int:
        """Ask a linked peer for a value. Returns the number that its Brought will bear."""
        self._number += 1
        link, applied = self._links.up.get(peer), self._applied(namespace)
        failure = self._unaskable(link, namespace)
        if failure is None and applied is None:
            failure = Failure.UNREADY
        if link is None or failure is not None or applied is None:
            self._effects.add(Brought(self._number, peer, None, failure, now, link is None))
            return self._number
        patience_ms = max(1, int(1000 * patience_s))
        fetch = Fetch(self._number, namespace, key, patience_ms, applied)
        settled_at = self._settled[namespace][1].at(now)
        self._effects.stir()
        self._open[self._number] = Open(link, fetch, now, settled_at, now + patience_s)
        link.send(fetch)
        self._effects.flush(self._links.ready)
        return self._number

    def _unaskable(self, link: Link | None, namespace: str) -> Failure | None:
        if link is None or link.is_closed:
            return Failure.UNLINKED
        understands = link.version >= SINCE[Fetch] and namespace in link.shared
        if namespace not in self._bytes_max or not understands:
            return Failure.UNSHARED
        return None if len(self._open) < WAITING_MAX else Failure.BUSY

    def _applied(self, namespace: str) -> tuple[Applied, ...] | None:
        """How far this host has applied each source, and how far it has announced; None: nobody may be asked
        now."""
        members = self._namespaces.members.get(namespace)
        if members is None or len(members.sources) >= ROWS_MAX:
            return None
        if any(inbox.applying is not None for inbox in members.sources.values()):
            return None
        own = self._namespaces.packers[namespace].announced()
        return (
            Applied(self._name, members.store.incarnation, own),
            *(Applied(name, inbox.incarnation, inbox.carried) for name, inbox in members.sources.items()),
        )

    def on_fetched(self, link: Link, fetched: Fetched, now: float) -> None:
        """One that comes too late, or that was never asked for, is dropped."""
        asked = self._open.get(fetched.number)
        if asked is None or asked.link is not link:
            return
        if (asked.fetch.namespace, asked.fetch.key) != (fetched.namespace, fetched.key):
            return
        del self._open[fetched.number]
        failure = self._unusable(asked, fetched) if fetched.outcome == GIVEN else None
        brought = fetched if failure is None else None
        self._effects.add(Brought(fetched.number, link.name, brought, failure, asked.asked_at))

    def _unusable(self, asked: Open, fetched: Fetched) -> Failure | None:
        if fetched.type == PICKLED or len(fetched.value) > self._bytes_max[fetched.namespace]:
            return Failure.UNFIT
        age_s = fetched.age_ms / 1000 * (1 + AGE_DRIFT) + AGE_MARGIN_S
        if asked.asked_at - age_s <= asked.settled_at:
            return Failure.OLD
        return None

    # Answering

    def on_fetch(self, link: Link, fetch: Fetch, now: float) -> None:
        """Answer a peer now, or once the load is over that it waits for."""
        waiting = Waiting(link, fetch, now + min(fetch.patience_ms / 1000, PATIENCE_S_MAX))
        if self._try(waiting, now):
            return
        if len(self._waiting) >= WAITING_MAX:
            self._say(waiting, NOTHING)
        else:
            self._waiting[waiting] = None

    def look(self, now: float) -> None:
        """At all that wait: whether what they wait for is there, or they have waited for long enough."""
        for waiting in list(self._waiting):
            if waiting.link.is_closed or self._try(waiting, now):
                del self._waiting[waiting]
            elif waiting.until <= now:
                del self._waiting[waiting]
                self._say(waiting, NOTHING)
        for number, asked in list(self._open.items()):
            if asked.link.is_closed or asked.until <= now:
                del self._open[number]
                failure = Failure.UNLINKED if asked.link.is_closed else Failure.LATE
                self._effects.add(
                    Brought(number, asked.link.name, None, failure, asked.asked_at, asked.link.is_closed)
                )
        self._effects.flush(self._links.ready)

    def _try(self, waiting: Waiting, now: float) -> bool:
        """Whether it is answered."""
        link, fetch = waiting.link, waiting.fetch
        members = self._namespaces.members.get(fetch.namespace)
        if members is None or fetch.namespace not in self._bytes_max or fetch.namespace not in link.shared:
            self._say(waiting, NOTHING)
            return True
        if link.throttle.budget.spent(now) or not link.room():
            self._say(waiting, NOTHING)
            return True
        if not self._knows_the_same(members, fetch):
            self._say(waiting, NOTHING)
            return True
        if not self._has_applied(members, fetch):
            return False
        fence, loads, given = members.store.fetch(fetch.key, self._bytes_max[fetch.namespace])
        if given is not None and given[0] != PICKLED:
            self._give(waiting, given)
            return True
        what = fetch.namespace, fetch.key
        host = self._told(what, fence, link.name, now)
        if host:
            self._say(waiting, ELSEWHERE, host)
        elif not loads:
            self._loaders.pop(what, None)
            self._loaders[what] = Loader(link.name, fence, now + LOADER_S)
            if len(self._loaders) > LOADERS_MAX:
                del self._loaders[next(iter(self._loaders))]
            self._say(waiting, LOAD)
        return bool(host) or not loads

    def _told(self, what: tuple[str, bytes], fence: int, asker: str, now: float) -> str:
        """Who was told to load a key, and may be at it still; "": nobody, or the asker."""
        told = self._loaders.get(what)
        if told is None or told.fence != fence or told.until <= now or told.host not in self._links.up:
            return ""
        return told.host if told.host != asker else ""

    def _knows_the_same(self, members: Members, fetch: Fetch) -> bool:
        """Whether both know all sources that either follows."""
        asked = {row.source for row in fetch.applied}
        known = all(name == self._name or members.cursor(name) is not None for name in asked)
        return known and members.sources.keys() <= asked and self._name in asked

    def _has_applied(self, members: Members, fetch: Fetch) -> bool:
        """Whether all that the asker has applied and announced is applied here."""
        own = members.store.incarnation, members.store.pump_cursor
        for source, incarnation, position in fetch.applied:
            has = own if source == self._name else members.cursor(source)
            if has is None or has[0] != incarnation or has[1] < position:
                return False
        return True

    def _give(self, waiting: Waiting, given: tuple[int, int, int, tuple[int, ...], bytes]) -> None:
        fetch = waiting.fetch
        waiting.link.throttle.budget.owe(len(given[4]))
        waiting.link.send(Fetched(fetch.number, fetch.namespace, fetch.key, GIVEN, "", *given))

    def _say(self, waiting: Waiting, outcome: int, host: str = "") -> None:
        fetch = waiting.fetch
        waiting.link.send(Fetched(fetch.number, fetch.namespace, fetch.key, outcome, host, 0, 0, 0, (), b""))


def _weight(host: str, key: bytes) -> tuple[bytes, str]:
    """The host with the highest one is chosen: when one is lost, only its keys get another."""
    return hashlib.blake2b(key, digest_size=8, key=host.encode()[:64]).digest(), host
