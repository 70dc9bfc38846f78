"""Finds stale reads by comparing what the clients saw with what the database remembers.

A read of a key from a host is *stale* if it shows a version older than one that this host had to know when
the read began. A host has to know a write
  - that it took itself:            once that write has returned to its client       (promise 1)
  - that another host took:         once it has applied the other's announcement     (promise 2)
  - that any host took:             `bound_ns` after it returned, whatever happened  (a cut shows here)
The first two promises have no condition, so a read that breaks one is *broken*; a read that breaks only the
third is *late*. "Has applied" is known from the positions: they say which part of a source's ring a host had
applied at which time, and a write that has returned is in its source's ring at or below the tail that is read
afterwards.

A read may always show a newer row, because writes may come while it runs. All errors of measurement (the time
of a request's way to the server, the pause between two samples of the positions) only hide stale reads: a
read that is reported as stale is stale.

`check` also compares the journals with the database, so that an error in either is found: an acknowledged
write must be in the history, versions must have no gap, and no read may show a version before it was written,
or with another version's contents.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from cachee_shm.cli.demo.journal import UNANSWERED, Position, Probe, Read, Record, Write

History = Mapping[str, Mapping[int, int]]  # key -> version -> when it was written, within its transaction
FIRST_VERSION = 1  # of every row, before anybody wrote it: not in the history


@dataclass
class Evidence:
    """All records of one run."""

    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    history: History = field(default_factory=dict)


@dataclass(frozen=True)
class Stale:
    """A stale read: `needed` is the version that its host had to know.

    `behind_ns` runs from the return of the first write that replaced the version shown to the read's begin.
    """

    read: Read
    needed: int
    broken: bool
    behind_ns: int


@dataclass(frozen=True)
class Verdict:
    """`wrong` are sentences about evidence that contradicts itself; a sound run has none."""

    stale: list[Stale]
    wrong: list[str]

    @property
    def broken(self) -> list[Stale]:
        return [one for one in self.stale if one.broken]


def gather(records: Iterable[Record], history: History) -> Evidence:
    evidence = Evidence(history=history)
    for record in records:
        if isinstance(record, Read):
            evidence.reads.append(record)
        elif isinstance(record, Write):
            evidence.writes.append(record)
        elif isinstance(record, Position):
            evidence.positions.append(record)
        else:
            evidence.probes.append(record)
    return evidence


def check(evidence: Evidence, bound_ns: int) -> Verdict:
    return Verdict(find_stale(evidence, bound_ns), find_wrong(evidence))


class Known:
    """From when on a host had to know which version of one key."""

    def __init__(self, facts: Iterable[tuple[int, int]]) -> None:
        """`facts` are (time, version): a read after the time must show the version or a newer one."""
        ordered = sorted(facts)
        self._times = [time for time, _ in ordered]
        self._newest = list(accumulate((version for _, version in ordered), max))

    def at(self, time_ns: int) -> int:
        """The version that a read which begins at this time must see at least; 0: any."""
        before = bisect_left(self._times, time_ns)
        return self._newest[before - 1] if before else 0


class Applied:
    """When one host had applied what another had announced by some time."""

    def __init__(self, positions: Iterable[Position]) -> None:
        ordered = sorted(positions, key=lambda position: position.before_ns)
        self._looked = [position.before_ns for position in ordered]
        self._tails = [position.tail for position in ordered]
        self._cursors = list(accumulate((position.cursor for position in ordered), max))
        self._seen = [position.after_ns for position in ordered]

    def by(self, announced_ns: int) -> int | None:
        """A time by which everything announced before `announced_ns` was applied; None: no sample shows
        one."""
        look = bisect_left(self._looked, announced_ns)
        if look == len(self._looked):
            return None
        caught_up = bisect_left(self._cursors, self._tails[look])
        return self._seen[caught_up] if caught_up < len(self._seen) else None


def find_stale(evidence: Evidence, bound_ns: int) -> list[Stale]:
    writes = by_key(write for write in evidence.writes if write.version != UNANSWERED)
    applied = applied_by_link(evidence.positions)
    strict: dict[tuple[str, str], Known] = {}
    late: dict[str, Known] = {}
    stale = []
    for read in evidence.reads:
        host, key = read.host, read.key
        if (host, key) not in strict:
            strict[host, key] = Known(must_know(host, writes[key], applied))
            late[key] = Known((write.end_ns + bound_ns, write.version) for write in writes[key])
        promised, bounded = strict[host, key].at(read.start_ns), late[key].at(read.start_ns)
        if read.version < max(promised, bounded):
            behind_ns = read.start_ns - replaced_ns(read, writes[key])
            stale.append(Stale(read, max(promised, bounded), read.version < promised, behind_ns))
    return stale


def must_know(
    host: str, writes: Iterable[Write], applied: Mapping[tuple[str, str], Applied]
) -> Iterable[tuple[int, int]]:
    """(time, version) of these writes of one key that `host` took, or was seen to have applied."""
    for write in writes:
        if write.host == host:
            yield write.end_ns, write.version
        elif (write.host, host) in applied:
            time_ns = applied[write.host, host].by(write.end_ns)
            if time_ns is not None:  # it may have been applied before its client knew: no matter
                yield max(time_ns, write.end_ns), write.version


def replaced_ns(read: Read, writes: Iterable[Write]) -> int:
    """When the first write that replaced the version shown had returned."""
    return min(write.end_ns for write in writes if write.version > read.version)


def by_key(writes: Iterable[Write]) -> dict[str, list[Write]]:
    found: dict[str, list[Write]] = defaultdict(list)
    for write in writes:
        found[write.key].append(write)
    return found


def applied_by_link(positions: Iterable[Position]) -> dict[tuple[str, str], Applied]:
    links: dict[tuple[str, str], list[Position]] = defaultdict(list)
    for position in positions:
        links[position.source, position.target].append(position)
    return {link: Applied(found) for link, found in links.items()}


def find_wrong(evidence: Evidence) -> list[str]:
    """Contradictions: each finding is a fault of the shop or of the demo, or a lost write."""
    return [*wrong_history(evidence.history), *wrong_writes(evidence), *wrong_reads(evidence)]


def wrong_history(history: History) -> Iterable[str]:
    for key, versions in history.items():
        expected = range(FIRST_VERSION + 1, FIRST_VERSION + 1 + len(versions))
        if sorted(versions) != list(expected):
            yield f"{key}: the history has a gap: {len(versions)} versions, the newest {max(versions)}"


def wrong_writes(evidence: Evidence) -> Iterable[str]:
    seen: set[tuple[str, int]] = set()
    for write in evidence.writes:
        if write.version == UNANSWERED:
            continue
        at_ns = evidence.history.get(write.key, {}).get(write.version)
        if at_ns is None:
            yield f"{write.key}: version {write.version} was acknowledged and is not in the history"
        elif not write.start_ns <= at_ns <= write.end_ns:
            yield f"{write.key}: version {write.version} was not written while its request was under way"
        if (write.key, write.version) in seen:
            yield f"{write.key}: version {write.version} was acknowledged twice"
        seen.add((write.key, write.version))


def wrong_reads(evidence: Evidence) -> Iterable[str]:
    bodies = {(write.key, write.version): write.body for write in evidence.writes}
    for read in evidence.reads:
        at_ns = evidence.history.get(read.key, {}).get(read.version)
        if at_ns is None and read.version != FIRST_VERSION:
            yield f"{read.key}: {read.host} showed version {read.version}, which nobody wrote"
        elif at_ns is not None and read.end_ns < at_ns:
            yield f"{read.key}: {read.host} showed version {read.version} before it was written"
        elif bodies.get((read.key, read.version), read.body) != read.body:
            yield f"{read.key}: {read.host} showed version {read.version} with contents of another"
