"""What workers do: values, lifetimes, tags; and what they owe when they die. See cache.c, index.c."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from tests.stand_in.ring import Ring, Shape
from tests.stand_in.wire import (
    ADD,
    CLEAR,
    GUARDED,
    KEY,
    LOCAL,
    RANGE,
    RANGE_BITS,
    SET,
    TAG,
    UNKNOWN,
    digest_bits,
    range_of,
)

MISS, FRESH, STALE = 0, 1, 2
HASH_FREE = 0xFFC00000FFC00000
"""The bits in which hashes differ that no key has: canaries'."""
CANARY_MS = 3_600_000
SERVE_NOTHING = 1
"""In serve_until: a bridge of another layout serves this host."""


class NotACounter(Exception):
    """incr of a value that is no local integer."""


def ttl_class(ttl_ms: int) -> int:
    """Lifetimes are compared by their power of two."""
    return ttl_ms.bit_length() & 63


def stamp(ms: int) -> int:
    """Sixteenths of a second, in 32 bits."""
    return ms * 16 // 1000 & 0xFFFFFFFF


def is_reserved(key: int) -> bool:
    """Whether it is a canary's hash, and no key's."""
    return key != 0 and key & ~HASH_FREE == 0


def digest_of(value: Any, ttl_ms: int, tags: tuple[int, ...]) -> int:
    """Of bytes, type, lifetime and tags; never 0. (The real one is keyed: a test maps one to the other.)"""
    said = repr((type(value), value, ttl_class(ttl_ms), tags)).encode()
    return zlib.crc32(said) << 32 | zlib.crc32(said[::-1]) or 1


@dataclass(frozen=True)
class Entry:
    """One value. `touch` and `incr` replace it by a copy of the same version."""

    key: int
    value: Any
    version: int
    """Twice the position of a set; one more than twice the token of a fill."""
    stored_ms: int
    """When it was set; of a fill or a `writing` block, when that began."""
    ttl_ms: int = 0
    """0: for ever."""
    tags: tuple[int, ...] = ()
    local: bool = False
    grace_ms: int = 0
    expires_ms: int = 0

    @property
    def position(self) -> int:
        return self.version >> 1


class Entries(Ring):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.entries: dict[int, Entry] = {}
        self.serve_until = 0
        self.on_isolation = "cap"
        self.isolation_ttl_s = 30.0
        self.unknown_ttl_ms = 0
        self.doubts: dict[int, int] = defaultdict(int)
        """When fills end, per range of hashes: some write there may or may not have happened."""
        self.doubt_of_all_ms = 0
        self.own_doubt_ms = self.born_ms = 0
        """When the last doubt ends that this host announced; and when this life of the segment began."""
        self.dues: list[tuple[int, int, int]] = []
        """(ms, kind, hash) of second announcements."""
        self.debts: list[int] = []
        """Hashes of writes and `writing` blocks whose worker died."""
        self.armed: dict[int, float] = {}
        self.journalled: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.loading: set[int] = set()
        """Keys that workers of this host load, as a test says."""
        self.range_debts: list[int] = []
        """Ranges of hashes of such blocks that shared a bit."""

    # Reading

    def is_valid(self, entry: Entry) -> bool:
        """No clear, no tag and no range of hashes is newer."""
        ranged = 0 if entry.local else self.range_fences[range_of(entry.key)]
        return max(self.wide_fence(entry.tags, entry.local), ranged) <= entry.position

    def find(self, key: int) -> tuple[int, Entry | None]:
        """(MISS, FRESH or STALE, the entry): invalidated, withheld, expired, in this order."""
        entry = self.entries.get(key)
        if entry is None or not self.is_valid(entry) or self.withheld(entry):
            return MISS, None
        return self.by_age(entry)

    def by_age(self, entry: Entry) -> tuple[int, Entry | None]:
        now = self.now_ms()
        if not entry.expires_ms or now < entry.expires_ms:
            return FRESH, entry
        return (STALE, entry) if now < entry.expires_ms + entry.grace_ms else (MISS, None)

    def withheld(self, entry: Entry) -> bool:
        """Cut off from some peer, and too old for that."""
        now = self.now_ms()
        if now <= self.serve_until:
            return False
        if self.serve_until == SERVE_NOTHING:
            return True
        age = (stamp(now) - stamp(entry.stored_ms)) % (1 << 32) * 1000 // 16 + 63
        before = self.on_isolation == "flush" and age >= now - self.serve_until
        late = age > self.isolation_ttl_s * 1000 or before
        return late and not entry.local and self.on_isolation != "serve"

    def get(self, key: int) -> Any:
        """The value, or None."""
        state, entry = self.find(key)
        return entry.value if entry is not None and state == FRESH else None

    def holding(self, key: int) -> tuple[int, int, int, int, int, bytes]:
        """(0, 1 or, of a local one, 2; version, fence, age in ms, digest, value of a canary)."""
        entry, now = self.entries.get(key), self.now_ms()
        ends = entry.expires_ms + entry.grace_ms if entry is not None and entry.expires_ms else now + 1
        if entry is None or not self.is_valid(entry) or now >= ends:
            return 0, 0, self.fence_of(key), 0, 0, b""
        age_ms = (stamp(now) - stamp(entry.stored_ms)) % (1 << 32) * 1000 // 16 + 63
        value = entry.value if is_reserved(key) else b""
        held = 2 if entry.local else 1
        return held, entry.version, self.fence_of(key), age_ms, self.digest(entry), value

    def fetch(
        self, key: bytes, bytes_max: int
    ) -> tuple[int, bool, tuple[int, int, int, tuple[int, ...], bytes] | None]:
        """What another host may be given. Keys are numbers here: `key` has 8 bytes."""
        hashed = int.from_bytes(key, "little")
        state, entry = self.find(hashed)
        given = None
        if entry is not None and state == FRESH and not entry.local and entry.version & 1:
            now = self.now_ms()
            age_ms = (stamp(now) - stamp(entry.stored_ms)) % (1 << 32) * 1000 // 16 + 63
            left_ms = entry.expires_ms - now if entry.expires_ms else 0
            value = str(entry.value).encode()
            given = (1, age_ms, left_ms, entry.tags, value) if len(value) <= bytes_max else None
        return self.fence_of(hashed), self.is_loading(hashed), given

    def is_loading(self, key: int) -> bool:
        """Whether a worker of this host holds the key's lease."""
        return key in self.loading

    # The journal is not modelled: it has what a test puts into it

    def arm(self, key: int, seconds: float) -> bool:
        self.armed[key] = seconds
        return key in self.entries

    def journal(self, key: int) -> list[dict[str, Any]]:
        return self.journalled[key]

    # Writing

    def canary_hash(self, number: int) -> int:
        number = number % ((1 << 20) - 1) + 1
        return (number << 54 & (1 << 64) - 1) | number >> 10 << 22

    def canary_set(self, key: int, value: bytes) -> bool:
        """A canary of this host."""
        return self.set(key, value, CANARY_MS)

    def canary_fill(self, key: int, value: bytes, token: int) -> bool:
        """Another host's, loaded under `token`."""
        if not is_reserved(key):
            raise ValueError(f"hash {key} is no canary's")
        return self.fill(key, value, token, self.now_ms(), CANARY_MS)

    def kill_lower(self, key: int, version: int, spare_local: bool = False) -> int:
        """How many entries of the key went: 0 or 1."""
        entry = self.entries.get(key)
        if entry is None or entry.version >= version or (spare_local and entry.local):
            return 0
        del self.entries[key]
        return 1

    def digest(self, entry: Entry) -> int:
        return digest_of(entry.value, entry.ttl_ms, entry.tags)

    def between(self, key: int) -> None:
        """A worker is between its record and its entry. A test may let it die here."""

    def _entry(
        self,
        key: int,
        value: Any,
        ttl_ms: int,
        tags: tuple[int, ...],
        local: bool,
        started_ms: int | None = None,
    ) -> Entry:
        now = self.now_ms()
        stored = now if started_ms is None else min(started_ms, now)
        return Entry(key, value, 0, stored, ttl_ms, tags, local, 0, now + ttl_ms if ttl_ms else 0)

    def _event(self, kind: int, entry: Entry, stores: bool) -> bool:
        """Record, then entry; what is not stored still evicts what is older."""
        digest = digest_bits(self.digest(entry)) * stores
        if kind == GUARDED:
            position = self.append_guarded(entry.key, digest)
        else:
            position = self.append(kind, entry.key, not entry.local, digest=digest)
        self.between(entry.key)
        if stores and kind != GUARDED:
            self.entries[entry.key] = replace(entry, version=position << 1)
            return True
        if kind != ADD:
            self.kill_lower(entry.key, position << 1)
        return False

    def set(
        self,
        key: int,
        value: Any,
        ttl_ms: int = 0,
        tags: tuple[int, ...] = (),
        local: bool = False,
        stores: bool = True,
    ) -> bool:
        """A plain set; without `stores` (ttl=0) it is announced only."""
        entry = self._entry(key, value, ttl_ms, tags, local)
        free = stores and not local and not is_reserved(key)
        guarded = free and self.guards(key, digest_bits(self.digest(entry)))
        return self._event(LOCAL if local else GUARDED if guarded else SET, entry, stores)

    def set_fenced(
        self,
        key: int,
        value: Any,
        token: int,
        started_ms: int,
        ttl_ms: int = 0,
        tags: tuple[int, ...] = (),
    ) -> bool:
        """The end of a `writing` block that began under `token`, at `started_ms`."""
        entry = self._entry(key, value, ttl_ms, tags, False, started_ms)
        kind = GUARDED if self.moved_since(key, tags, token) else SET
        return self._event(kind, entry, stores=True)

    def moved_since(self, key: int, tags: tuple[int, ...], token: int) -> bool:
        """Whether anything after `token` concerns the key: another key of its bucket does not."""
        fence = self.fence_of(key)
        own = fence > token and self.conflict(key, token, fence)
        return token > self.tail or own or self.wide_fence(tags, False) > token

    def add(
        self,
        key: int,
        value: Any,
        ttl_ms: int = 0,
        tags: tuple[int, ...] = (),
        local: bool = False,
        stores: bool = True,
    ) -> bool:
        """Only where a get would miss."""
        if self.find(key)[0] == FRESH:
            return False
        self.entries.pop(key, None)
        return self._event(ADD, self._entry(key, value, ttl_ms, tags, local), stores)

    def fill(
        self,
        key: int,
        value: Any,
        token: int,
        started_ms: int,
        ttl_ms: int = 0,
        grace_ms: int = 0,
        tags: tuple[int, ...] = (),
        local: bool = False,
    ) -> bool:
        """Store what was loaded, unless anything in its bucket was announced since."""
        version, held = token << 1 | 1, self.entries.get(key)
        if token > self.tail or self.fence_of(key) > token or self.wide_fence(tags, local) > token:
            return False
        doubted, now = self.doubted_until(key), self.now_ms()
        if started_ms < doubted <= now or (held is not None and held.version > version):
            return False
        made = self._entry(key, value, ttl_ms, tags, local)
        ends, grace_ms = self.capped(key, made.expires_ms), grace_ms if doubted <= now else 0
        self.entries[key] = replace(
            made, version=version, stored_ms=started_ms, grace_ms=grace_ms, expires_ms=ends
        )
        return True

    def delete(self, key: int) -> bool:
        position = self.append(KEY, key, own=True)
        self.between(key)
        return self.kill_lower(key, position << 1) > 0

    def delete_tag(self, tag: int) -> None:
        self.append(TAG, tag, own=True)

    def clear(self) -> None:
        self.append(CLEAR, own=True)

    def touch(self, key: int, ttl_ms: int, at_once: bool = False) -> bool:
        """`at_once`: its lifetime is over now."""
        state, entry = self.find(key)
        if entry is None or state != FRESH:
            return False
        expires = self.now_ms() + (0 if at_once else ttl_ms) if ttl_ms else 0
        expires = self.capped(key, expires) if entry.version & 1 else expires  # what was set is no old row
        self.entries[key] = replace(entry, ttl_ms=ttl_ms, expires_ms=expires)
        return True

    def incr(self, key: int, by: int) -> int | None:
        """The sum; None: there is no value. NotACounter: nothing changed."""
        state, entry = self.find(key)
        if entry is None or state != FRESH:
            return None
        if type(entry.value) is not int or not entry.local:
            raise NotACounter
        self.entries[key] = replace(entry, value=entry.value + by)
        return int(self.entries[key].value)

    # Writes of unknown outcome: see doubt.h

    def doubt(self, key: int) -> None:
        if self.unknown_ttl_ms:
            self.doubts[range_of(key)] = max(self.doubts[range_of(key)], self.now_ms() + self.unknown_ttl_ms)

    def doubt_all(self) -> None:
        if self.unknown_ttl_ms:
            self.doubt_of_all_ms = max(self.doubt_of_all_ms, self.now_ms() + self.unknown_ttl_ms)

    @property
    def in_doubt(self) -> bool:
        """Whether a write that this host has announced may still happen, in this segment or before it."""
        return self.now_ms() < max(self.own_doubt_ms, self.born_ms + self.unknown_ttl_ms)

    def doubt_own(self) -> None:
        self.own_doubt_ms = max(self.own_doubt_ms, self.now_ms() + self.unknown_ttl_ms)

    def doubted_until(self, key: int) -> int:
        return max(self.doubts[range_of(key)], self.doubt_of_all_ms)

    def capped(self, key: int, expires_ms: int) -> int:
        doubted = self.doubted_until(key)
        return min(expires_ms or doubted, doubted) if doubted > self.now_ms() else expires_ms

    def delete_unknown(self, key: int) -> None:
        """The first announcement: the doubt, the due, the record."""
        self.doubt_own()
        self.doubt(key)
        self.dues.append((self.now_ms() + self.unknown_ttl_ms, KEY, key))
        self.kill_lower(key, self.append(KEY, key, own=True, digest=UNKNOWN) << 1)

    def delete_tag_unknown(self, tag: int) -> None:
        """It goes to peers as a plain one: there no fill is capped, and the second one is all they have."""
        self.doubt_own()
        self.doubt_all()
        self.dues.append((self.now_ms() + self.unknown_ttl_ms, TAG, tag))
        self.delete_tag(tag)

    def pay_dues(self) -> list[tuple[int, int, int]]:
        """The second announcements: (position, kind, hash) of each."""
        paid = [due for due in self.dues if due[0] <= self.now_ms()]
        self.dues = [due for due in self.dues if due not in paid]
        announced = [(self.append(kind, key, own=True), kind, key) for _, kind, key in paid]
        for position, kind, key in announced:
            if kind == KEY:
                self.kill_lower(key, position << 1)
        return announced

    # Debts

    def sweep(self) -> None:
        """Announce what the dead owe: as deletes of their keys, and of ranges of hashes."""
        for key in self.debts:
            self.kill_lower(key, self.append(KEY, key, own=True) << 1)
        for shared in sorted(set(self.range_debts)):
            self.append(KEY, shared << (64 - RANGE_BITS) | 1, own=True, digest=RANGE)
        self.debts, self.range_debts = [], []
