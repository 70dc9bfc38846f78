"""The truth of a simulation, which no simulated host can see: the origin, all announcements, the invariants.

I1  A served value is an origin version >= floor(host, key). The floor is the newest version among the
    announcements that a cursor of the host covers, and among the host's own verbs that have returned.
I2  No announcement of a met or configured source superseded a served value longer ago than the bound. Of a
    removed source, its announcements before the removal count. (Not under the policy "serve". A machine whose
    clock stood still notices that only when it hears from a peer: it has the bound once more.)
I3  At rest every entry equals the origin, and no host is isolated.
I4  A cursor never moves back within an incarnation.
I5  A range is applied as a whole or not at all: if a bridge is killed in the middle of it, the cursor has not
    moved. (Then its records count for no floor. That they are all applied later follows from I1 and I3.)
I6  A frame that evicts anything stands for an announcement in its range, or for a later one.
I7  If workers are told that a peer has applied their ring up to a position, the peer has.
I11 A worker that writes after its host's farewell, when there is no bridge, finds a mark that says so.
I12 A local value is never evicted by another host.
I13 After the second announcement of a write of unknown outcome, no older row is served (I1). Without a second
    announcement, no older row is served later than twice unknown_ttl after a host has applied the first one
    (later than unknown_ttl, if no later doubt in the same range of hashes moved the cap).

Nothing has an effect outside its namespace. I8 to I10 are about loading: see loading.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.watched import namespace_of

if TYPE_CHECKING:
    from cachee_bridge.wire.messages import Frame
    from tests.simulation.watched import Watched


class Broken(Exception):
    """An invariant does not hold."""


class Life(NamedTuple):
    """One source in one namespace, until its segment is gone."""

    host: str
    namespace: str
    incarnation: int


@dataclass
class Announcement:
    at: float
    position: int
    versions: dict[int, int]
    """Per key hash, the origin version that is announced."""


class Word(NamedTuple):
    """What was announced of one key."""

    at: float
    version: int
    life: Life
    paid_at: float
    """When its own host must have evicted what is older: later, if its worker died in the middle."""


@dataclass
class Doubt:
    """A commit that was sent, and not answered."""

    key: int
    value: int
    life: Life
    position: int
    ends_ms: dict[str, int]
    """Per host that has applied its first announcement, by that host's clock."""
    version: int | None = None
    """None: it has not taken effect."""


DEBT_S = 2.0
"""Within this time some verb of the living pays what a dead worker owed."""


class Truth:
    def __init__(self, isolation_ttl: float, lost_after: float) -> None:
        self.now = 0.0
        self.may_be_stale = False
        """The policy is to serve what may be stale."""
        self.bound = max(isolation_ttl, lost_after) + 0.001
        self.bound_awake = isolation_ttl + lost_after + 0.001
        self.values: dict[int, list[int]] = defaultdict(lambda: [0])
        """Per key hash, the value of each origin version."""
        self.announced: dict[Life, list[Announcement]] = defaultdict(list)
        """In the order of their positions."""
        self.by_key: dict[int, list[Word]] = defaultdict(list)
        """Per key hash, every announcement."""
        self.doubts: dict[int, list[Doubt]] = defaultdict(list)
        """Per key hash."""
        self.floors: dict[tuple[str, int], int] = defaultdict(int)
        self.met: dict[tuple[str, Life], float] = {}
        """When a host, since it was booted, first kept a cursor of a life."""
        self.applied: dict[tuple[str, Life], int] = {}
        """How far, since it was booted; also of lives that it has forgotten."""
        self.reached: dict[tuple[str, Life], int] = defaultdict(int)
        """How far it ever was."""
        self.configured: dict[Life, float] = {}
        """Lives that every host expects without having met them, and since when."""
        self.no_more: dict[str, float] = {}
        """Since when no host has to expect the lives of these names that it has not met."""
        self.given_up: dict[tuple[str, str], float] = {}
        """When a host was told by its operator, or by forget_after, not to wait for a name."""
        self.lines: dict[tuple[str, str], float] = {}
        """When a host last drew a line in a namespace."""
        self.gone: dict[tuple[str, Life], float] = {}
        """Where its last line was drawn, when a host removed a life."""
        self.gone_silent: set[Life] = set()
        """Lives that have left, and whose bridge is not back."""
        self.ended: set[Life] = set()
        """Whose segment is gone with its machine."""
        self.wakes: dict[str, float] = {}
        self.anybody_may_be_removed = False
        self.farewells: dict[Life, list[int]] = defaultdict(list)
        """Its tail, each time that it left."""
        self.counts: dict[str, int] = defaultdict(int)

    # The origin

    def current(self, key: int) -> int:
        return self.values[key][-1]

    def commit(self, key: int, value: int) -> int:
        """A new version; the value may be an old one. Who wrote the row before, and has not committed yet,
        holds its lock: that commit comes first."""
        for doubt in self.doubts[key]:
            self.takes_effect(doubt)
        return self._commit(key, value)

    def _commit(self, key: int, value: int) -> int:
        self.values[key].append(value)
        self.counts["commits"] += 1
        return self.version(key)

    # Writes of unknown outcome

    def doubt(self, segment: Watched, key: int, value: int, position: int, wide: bool) -> Doubt:
        """`wide`: the write is of a tag. Then only its own host caps the lifetimes of fills."""
        life = Life(segment.host, segment.namespace, segment.incarnation)
        ends_ms = {segment.host: segment.now_ms() + segment.unknown_ttl_ms}
        made = Doubt(key, value, life, -1 if wide else position, ends_ms)
        self.doubts[key].append(made)
        self.counts["doubts"] += 1
        return made

    def takes_effect(self, doubt: Doubt) -> None:
        if doubt.version is None:
            doubt.version = self._commit(doubt.key, doubt.value)

    def _heard(self, segment: Watched, life: Life, after: int, upto: int) -> None:
        """`segment` has applied the records of this life in (after, upto]."""
        for doubts in self.doubts.values():
            for doubt in doubts:
                if doubt.life == life and after < doubt.position <= upto:
                    doubt.ends_ms.setdefault(segment.host, segment.now_ms() + segment.unknown_ttl_ms)

    def _not_in_doubt(self, segment: Watched, key: int, version: int) -> None:
        for doubt in self.doubts[key]:
            ends_ms = doubt.ends_ms.get(segment.host)
            ended = ends_ms is not None and segment.now_ms() > ends_ms + segment.unknown_ttl_ms
            if ended and doubt.version is not None and version < doubt.version:
                raise Broken(
                    f"I13 {segment.host} {segment.namespace}: key {key:x} version {version} is served "
                    f"{segment.now_ms() - (ends_ms or 0)} ms after the doubt about {doubt.version} ended"
                )

    # Announcements

    def version(self, key: int) -> int:
        return len(self.values[key]) - 1

    def announce(self, segment: Watched, position: int, versions: dict[int, int], owed: bool = False) -> None:
        """`owed`: the verb's worker died in it. On its own host others pay its debts, and have a while."""
        life = Life(segment.host, segment.namespace, segment.incarnation)
        announced = self.announced[life]
        if announced and announced[-1].position > position:
            raise Broken(f"{life} announces {position} after {announced[-1].position}")
        announced.append(Announcement(self.now, position, versions))
        if life in self.gone_silent and not segment.left:
            raise Broken(f"I11 {life} writes after its farewell, without a bridge, and finds no mark")
        for key, version in versions.items():
            self.by_key[key].append(Word(self.now, version, life, self.now + DEBT_S * owed))
        self.counts["announcements"] += 1

    def returned(self, host: str, key: int, version: int) -> None:
        """A verb of this host that announced `version` has returned."""
        self.floors[host, key] = max(self.floors[host, key], version)

    def concerns(self, segment: Watched, key: int) -> None:
        """`key`: a hash, or 0 for "all"."""
        if key and namespace_of(key) != segment.number:
            raise Broken(
                f"{segment.host}: namespace {segment.namespace} is asked to evict a key of another one"
            )

    def leaves(self, segment: Watched) -> None:
        life = Life(segment.host, segment.namespace, segment.incarnation)
        self.farewells[life].append(segment.tail)
        self.gone_silent.add(life)

    def is_back(self, segment: Watched) -> None:
        self.gone_silent.discard(Life(segment.host, segment.namespace, segment.incarnation))

    def forgotten(self, segment: Watched, source: str, incarnation: int, cursor: int) -> None:
        """`segment` has forgotten a source. Either the source has left, and all that it announced was
        applied: then nothing is promised about it until it is met again. Or it is back without this
        namespace: then everything that it announced stays promised."""
        life = Life(source, segment.namespace, incarnation)
        if life in self.ended:
            self.counts["absent"] += 1
            return
        if cursor < min(self.farewells[life], default=cursor + 1):
            raise Broken(
                f"{segment.host}: {life} is forgotten at {cursor}; it left at {self.farewells[life]}"
            )
        self.met.pop((segment.host, life), None)

    def may_remove(self, host: str, name: str) -> None:
        """An operator, discovery or forget_after said that `name` is no member; host "" stands for all."""
        self.given_up[host, name] = self.now

    def line_drawn(self, segment: Watched) -> None:
        self.lines[segment.host, segment.namespace] = self.now

    def removed(self, segment: Watched, source: str, incarnation: int) -> None:
        life = Life(source, segment.namespace, incarnation)
        allowed = (segment.host, source) in self.given_up or ("", source) in self.given_up
        if not allowed and not self.anybody_may_be_removed:
            raise Broken(f"{segment.host}: {life} is removed, and nobody said so")
        self.gone[segment.host, life] = self.lines[segment.host, segment.namespace]
        self.counts["removals"] += 1

    def woke(self, host: str) -> None:
        self.wakes[host] = self.now

    def raised(self, segment: Watched, incarnation: int) -> None:
        """The ring goes on under another incarnation; its announcements stay as they were."""
        was = Life(segment.host, segment.namespace, segment.incarnation)
        now = was._replace(incarnation=incarnation)
        self.announced[now] = self.announced[was]
        for doubts in self.doubts.values():
            for doubt in doubts:
                doubt.life = now if doubt.life == was else doubt.life
        if was in self.configured:
            self.configured[now] = self.configured[was]
        self.counts["raised"] += 1

    def crashed(self, host: str, segments: Iterable[Watched]) -> None:
        """It knows nobody any more."""
        for doubts in self.doubts.values():
            for doubt in doubts:
                doubt.ends_ms.pop(host, None)
        self.ended |= {Life(host, segment.namespace, segment.incarnation) for segment in segments}
        self.gone = {known: at for known, at in self.gone.items() if known[0] != host}
        self.met = {known: at for known, at in self.met.items() if known[0] != host}
        self.applied = {known: cursor for known, cursor in self.applied.items() if known[0] != host}

    # Invariants

    def sent(self, frame: Frame) -> None:
        """One frame leaves its source, or a relay."""
        life = Life(frame.source, frame.namespace, frame.incarnation)
        announced = self.announced[life]
        if frame.payload and not (announced and announced[-1].position >= frame.first):
            raise Broken(
                f"I6 {life} announced nothing in {frame.first}..{frame.last}, and sends {frame.payload!r}"
            )

    def cursor_moved(self, segment: Watched, source: str, was: tuple[int, int], now: tuple[int, int]) -> None:
        if was[0] == now[0] and now[1] < was[1]:
            raise Broken(f"I4 {segment.host}: the cursor of {source} moved back from {was} to {now}")
        life = Life(source, segment.namespace, now[0])
        self._back(segment.host, life)
        self.met.setdefault((segment.host, life), self.now)
        self.applied[segment.host, life] = now[1]
        self.reached[segment.host, life] = max(self.reached[segment.host, life], now[1])
        covered_from = was[1] if was[0] == now[0] else 0
        self._heard(segment, life, covered_from, now[1])
        for announcement in reversed(self.announced[life]):
            if announcement.position <= covered_from:
                break
            if announcement.position <= now[1]:
                for key, version in announcement.versions.items():
                    self.returned(segment.host, key, version)
        self.counts["cursors"] += 1

    def _back(self, host: str, life: Life) -> None:
        """Of a removed source all is promised again; of an earlier life, at once: nothing older is left."""
        for known in [known for known in self.gone if known[0] == host and known[1][:2] == life[:2]]:
            del self.gone[known]
            self.met[known] = self.now
            for announcement in self.announced[known[1]] if known[1] != life else ():
                for key, version in announcement.versions.items():
                    self.returned(host, key, version)

    def refused(self, host: str, ousted: bool) -> None:
        self.counts["zombies refused"] += 1
        if not ousted:
            raise Broken(f"{host}: its one bridge is refused what is its own")

    def acked(self, segment: Watched, peer: str, position: int) -> None:
        """The bridge tells its workers that `peer` has applied so much of their ring."""
        life = Life(segment.host, segment.namespace, segment.incarnation)
        self.counts["acked"] += 1
        if position > self.reached[peer, life]:
            raise Broken(f"I7 {life}: {peer} is said to have {position}, it has {self.reached[peer, life]}")

    def served(self, segment: Watched, key: int, value: int) -> None:
        """One read."""
        self.counts["served"] += 1
        version = self.at_least_floor(segment, key, value)
        self._not_too_stale(segment, key, version)
        self._not_in_doubt(segment, key, version)

    def lives(self, segment: Watched, key: int, expires_ms: int) -> None:
        """I8, by the clock of the segment's host; 0 is no end."""
        late = segment.now_ms() - expires_ms
        if expires_ms and late >= 0:
            raise Broken(f"I8 {segment.host}: key {key:x} is served {late} ms after its end")

    def at_least_floor(self, segment: Watched, key: int, value: int) -> int:
        """I1 for what is served or stored; which version it is. (A slow load may be old when it is
        stored.)"""
        values = self.values[key]
        version = len(values) - 1
        while version >= 0 and values[version] != value:
            version -= 1
        floor = self.floors[segment.host, key]
        if version < floor:
            raise Broken(
                f"I1 {segment.host} {segment.namespace}: key {key:x} version {version}, floor {floor}"
            )
        return version

    def _not_too_stale(self, segment: Watched, key: int, version: int) -> None:
        woke = self.wakes.get(segment.host, float("-inf"))
        if self.may_be_stale or self.now - woke <= self.bound_awake:
            return
        for announced_at, newer, life, paid_at in self.by_key[key]:
            at = paid_at if life.host == segment.host else announced_at
            if newer <= version or at > self._promised_until(segment.host, life):
                continue
            known = self.met.get((segment.host, life), self.configured.get(life, float("inf")))
            if self.now - max(at, known) > self.bound:
                raise Broken(
                    f"I2 {segment.host} {segment.namespace}: key {key:x} version {version} served at "
                    f"{self.now:.3f}, {newer} was announced by {life} at {at:.3f}"
                )

    def _promised_until(self, host: str, life: Life) -> float:
        if (host, life) in self.met:
            return self.gone.get((host, life), float("inf"))
        given_up = self.given_up.get((host, life.host), float("inf"))
        return min(given_up, self.no_more.get(life.host, float("inf")))

    def at_rest(self, segment: Watched) -> None:
        """I3, by the clock of the segment's host."""
        if segment.now_ms() > segment.serve_until:
            raise Broken(f"I3 {segment.host} {segment.namespace}: isolated at rest")
        for key, entry in segment.entries.items():
            if segment.is_valid(entry) and not entry.local and entry.value != self.current(key):
                raise Broken(
                    f"I3 {segment.host} {segment.namespace}: key {key:x} is {entry.value} at rest, "
                    f"the origin has {self.current(key)}"
                )

    def may_be_lost(self, life: Life, hosts: list[str]) -> bool:
        """Whether every host either waits for this life, or has all of it. Else it ends as a writer whom
        nobody has met: no protocol can cover that without blocking writes."""
        last = max((announcement.position for announcement in self.announced[life]), default=0)
        others = [host for host in hosts if host != life.host]
        return all(
            self._waits_for(host, life) or self.applied.get((host, life), 0) >= last for host in others
        )

    def _waits_for(self, host: str, life: Life) -> bool:
        """Or, if it has removed that life, remembers it, and will trust nothing when its host comes back."""
        if (host, life) in self.met:
            return True
        return life in self.configured and self._promised_until(host, life) == float("inf")
