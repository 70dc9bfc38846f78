"""The life of a key across the mesh, from the journals of its hosts: ``Cache.explain``, `cachee explain`.

A host's journal is a part of its segment (core/journal.h). This host's is read directly. This host's bridge
asks every linked peer for its journal, and converts the times of their rows to this host's clock; the answer
says how inexact these are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cachee_shm.asking import ask_bridge
from cachee_shm.errors import AccessDenied, BridgeError

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Ahead", "Explanation", "Row", "WhyStale", "explain", "watch"]

NOT_OBSERVED = "not observed"
STAMP_S = 1 / 16
"""An entry keeps the time of its value in sixteenths of a second."""
OTHERS = "the other hosts"
READS = ("first_read", "stale_served")
WRITES = ("written", "deleted")
ENDS = ("received", "evicted", "written", "deleted", "filled")
"""Events that remove an old copy, or replace it."""
REFUSED_WRITES = ("local", "lost to a newer write")


@dataclass(frozen=True)
class Row:
    """One thing that happened to the key on one host.

    ``at``: seconds, ``time.time()`` of this host. ``kind``: "written", "deleted", "sent" (packed for the
    peers), "received" (a peer's announcement was applied), "evicted", "filled" (stored after a load),
    "refused" (a fill), "stale_served" (past its lifetime, or the host was isolated), "held" (the value when
    the key was armed), "first_read" (the first read after that). ``why`` says more. ``layer``: "near" if the
    reader's near cache had the value too, else "segment". ``source``: the host where a received record began.
    ``sequence``: a position of the ring of ``host``; of "held" and "first_read", the copy's. ``since``: when
    the copy that was held or read was stored, to a sixteenth of a second; 0: no copy. ``digest``: 16 bits of
    the value's digest; 0: unknown. ``pid`` 0: the journal no longer knows the process.
    """

    at: float
    host: str
    kind: str
    why: str
    layer: str
    source: str
    incarnation: int
    sequence: int
    pid: int
    command: str
    service: str
    since: float = 0.0
    digest: int = 0

    @property
    def who(self) -> str:
        """The process, for people."""
        if not self.pid:
            return "a process whose name is no longer known"
        return f"{self.service or self.command} (pid {self.pid}, {self.command})"


@dataclass(frozen=True)
class WhyStale:
    """An answer to: which service served the old value, which layer held it, and for how long was it stale?

    ``served``, ``held``, ``lasted``: a line each, "not observed" where the journals do not say. Three rows,
    each None where it was not observed: ``read`` is the read of the old value, ``write`` the write that made
    the copy stale, ``end`` the event that took the copy away. ``stale_s``: seconds from the write to that
    end; if there is none, to the moment of this question.
    """

    served: str = NOT_OBSERVED
    held: str = NOT_OBSERVED
    lasted: str = NOT_OBSERVED
    read: Row | None = None
    write: Row | None = None
    end: Row | None = None
    stale_s: float | None = None

    @property
    def lines(self) -> tuple[str, str, str]:
        """The three of them."""
        return (f"served by: {self.served}", f"held by: {self.held}", f"for how long: {self.lasted}")


@dataclass(frozen=True)
class Ahead:
    """Whether a load of the key ahead of its next read is worth its price: see core/prewarm.h.

    ``p``: the probability that the key is read before it is written again and before it falls out. ``price``:
    the p above which a load at once is worth it now. ``delay_s``: after a write, how long until it would be
    loaded; None: it would not be. ``since_s``: since its last write. ``outcomes``: of its last writes, the
    oldest first: "read" or "not read" before the next. ``features``: of each feature its bucket and weight;
    p is the logistic function of the sum of the weights and ``bias``. ``state``: "wait" (evicted), "queued"
    (to be loaded), "warm" (loaded, not read yet) or "idle".
    """

    state: str
    p: float
    price: float
    delay_s: float | None
    since_s: float
    outcomes: tuple[str, ...]
    features: Mapping[str, tuple[int, float]]
    bias: float

    @property
    def lines(self) -> tuple[str, str]:
        """For people."""
        then = (
            "not loaded ahead" if self.delay_s is None else f"loaded {_seconds(self.delay_s)} after a write"
        )
        outcomes = f"after its last writes it was {', '.join(self.outcomes)}" if self.outcomes else ""
        why = ", ".join(
            f"{name} {bucket} ({weight:+.2f})" for name, (bucket, weight) in self.features.items()
        )
        return (
            f"loading ahead: {self.state}, last written {_seconds(self.since_s)} ago; p {self.p:.2f} of a "
            f"read first, price {self.price:.2f}: {then}",
            f"  by {why}, bias {self.bias:+.2f}{'; ' if outcomes else ''}{outcomes}",
        )


FEATURES = ("frequency", "age", "history", "estimate")  # as core/prewarm.h orders them


def _ahead(segment: Segment, hashed: int) -> Ahead | None:
    known = segment.warm_explain(hashed)
    if known is None:
        return None
    features = dict(zip(FEATURES, zip(known["buckets"], known["weights"], strict=True), strict=True))
    history = f"{known['buckets'][FEATURES.index('history')]:b}"[1:]  # behind a leading 1
    return Ahead(
        state=known["state"],
        p=known["p"],
        price=known["price"],
        delay_s=None if known["delay_ms"] < 0 else known["delay_ms"] / 1000,
        since_s=known["since_ms"] / 1000,
        outcomes=tuple("read" if bit == "1" else "not read" for bit in history),
        features=features,
        bias=known["bias"],
    )


@dataclass(frozen=True)
class Explanation:
    """What the hosts' journals say of one key; ``rows`` in the order of time.

    ``unheard``: hosts without an answer, and why. ``clocks``: by how many seconds the times of a host's rows
    may be wrong, seen from this host. ``ahead``: what this host's pre-warming knows of the key; None where
    there is none, or nothing is known.
    """

    namespace: str
    key: str
    hash: int
    host: str
    at: float
    rows: tuple[Row, ...]
    unheard: Mapping[str, str] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)
    ahead: Ahead | None = None

    def uncertain_s(self, *hosts: str) -> float:
        """How inexact a time between events on these hosts is."""
        return sum(self.clocks.get(host, 0.0) for host in set(hosts))

    def why_stale(self) -> WhyStale:
        """The last read of an old copy, if the journals show one."""
        return _why_stale(self)

    def as_dict(self) -> dict[str, Any]:
        """Of plain values, for JSON."""
        return {**asdict(self), "hash": f"{self.hash:016x}", "why_stale": asdict(self.why_stale())}


def explain(segment: Segment, key: str | bytes, patience_s: float | None = None) -> Explanation:
    """See ``Cache.explain``."""
    hashed, host = segment._hash(key), segment.spec.host
    rows, unheard, clocks = _told_by_bridge(segment, hashed, patience_s)
    if host not in {row.host for row in rows}:
        rows += _rows(host, segment.journal(hashed))
    text = key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")
    ordered = tuple(sorted(rows, key=lambda row: (row.at, row.sequence)))
    ahead = _ahead(segment, hashed)
    return Explanation(segment.namespace, text, hashed, host, time.time(), ordered, unheard, clocks, ahead)


def watch(segment: Segment, key: str | bytes, seconds: float) -> dict[str, str]:
    """Arm the key here and at every linked peer; hosts that were not reached, and why."""
    hashed = segment._hash(key)
    segment.arm(hashed, seconds)
    if not segment.spec.has_bridge:
        return {}
    request = {"do": "arm", "namespace": segment.namespace, "hash": hashed, "seconds": seconds}
    try:
        told = ask_bridge(segment.spec.host, segment.spec.group, request)
    except (BridgeError, AccessDenied) as error:
        return {OTHERS: str(error)}
    return {OTHERS: told["error"]} if "error" in told else dict(told.get("unheard", {}))


def _told_by_bridge(
    segment: Segment, hashed: int, patience_s: float | None
) -> tuple[list[Row], dict[str, str], dict[str, float]]:
    """Rows, hosts that did not answer, and clocks; without a bridge there is no other host."""
    if not segment.spec.has_bridge:
        return [], {}, {}
    request = {"do": "explain", "namespace": segment.namespace, "hash": hashed}
    try:
        told = ask_bridge(segment.spec.host, segment.spec.group, request, patience_s)
    except (BridgeError, AccessDenied) as error:
        return [], {OTHERS: str(error)}, {}
    if "error" in told:
        return [], {OTHERS: told["error"]}, {}
    rows: list[Row] = []
    unheard: dict[str, str] = {}
    for host, said in told.get("hosts", {}).items():
        if isinstance(said, dict):
            unheard[host] = str(said["error"])
        else:
            rows += _rows(host, said)
    return rows, unheard, dict(told.get("clocks", {}))


def _rows(host: str, said: Iterable[Mapping[str, Any]]) -> list[Row]:
    names = Row.__dataclass_fields__.keys() - {"host"}
    return [Row(host=host, **{name: row[name] for name in names if name in row}) for row in said]


# Why was it stale?


def _why_stale(told: Explanation) -> WhyStale:
    """The last read of an old copy; if no read was journalled, the last row that shows one."""
    for kinds in (("first_read",), ("held",)):
        for row in reversed(told.rows):
            write = _overtaken_by(told, row) if row.kind in kinds else None
            if write is not None:
                return _stale(told, row, write)
    for row in reversed(told.rows):
        if row.kind == "stale_served":
            return _served_knowingly(row)
    return WhyStale()


def _overtaken_by(told: Explanation, seen: Row) -> Row | None:
    """The write on another host that made the copy of this row old; None: no journal shows one.

    A copy is old if it was stored before the write, has other bytes, was seen after the write for certain,
    and its host had not applied the write by then.
    """
    newest: Row | None = None
    for row in told.rows:
        if row.host == seen.host or not _replaces(row):
            continue
        wrong_s = told.uncertain_s(row.host, seen.host)
        written, stamped = _time_of(row), STAMP_S if row.kind == "held" else 0.0
        if seen.at <= written + stamped + wrong_s or not 0 < seen.since <= written + STAMP_S + wrong_s:
            continue
        if _same_bytes(row, seen) or _applied_between(told, row, seen):
            continue
        newest = row if newest is None or _time_of(row) >= _time_of(newest) else newest
    return newest


def _replaces(row: Row) -> bool:
    """A write that other hosts must apply, or a row that shows the value of such a write."""
    if row.kind == "held":
        return row.since > 0 and row.why != "local"
    return row.kind in WRITES and row.why not in REFUSED_WRITES


def _time_of(write: Row) -> float:
    return write.since if write.kind == "held" else write.at


def _same_bytes(write: Row, seen: Row) -> bool:
    return write.kind != "deleted" and write.digest != 0 and write.digest == seen.digest


def _applied_between(told: Explanation, write: Row, seen: Row) -> bool:
    """Whether the host of the copy had applied the write by then: then its copy is not older."""
    earliest = _time_of(write) - told.uncertain_s(write.host, seen.host)
    return any(
        row.kind == "received"
        and row.host == seen.host
        and row.source == write.host
        and earliest <= row.at <= seen.at
        for row in told.rows
    )


def _stale(told: Explanation, seen: Row, write: Row) -> WhyStale:
    end = next(
        (row for row in told.rows if row.host == seen.host and row.at > seen.at and row.kind in ENDS), None
    )
    began, ended = _time_of(write), end.at if end else told.at
    is_read = seen.kind in READS
    after = f"{_seconds(seen.at - began)} after the write" if seen.at >= began else "at the write"
    return WhyStale(
        served=f"{seen.who} on {seen.host}, {after}" if is_read else NOT_OBSERVED,
        held=_layer(seen),
        lasted=_lasted(told, seen, write, end, ended - began),
        read=seen if is_read else None,
        write=write,
        end=end,
        stale_s=ended - began,
    )


def _layer(seen: Row) -> str:
    near = f"the near cache of {seen.who} and " if seen.layer == "near" else ""
    return f"{near}the segment of {seen.host}"


def _lasted(told: Explanation, seen: Row, write: Row, end: Row | None, stale_s: float) -> str:
    """With its beginning, its end, and by how much it may be wrong."""
    wrong_s = told.uncertain_s(write.host, seen.host) + (STAMP_S if write.kind == "held" else 0.0)
    by = f"at least {_seconds(stale_s)}" if end is None else _seconds(stale_s)
    what = (
        f"{write.host} has held another value since"
        if write.kind == "held"
        else f"{write.kind} by {write.who} on {write.host}"
    )
    ended = (
        "until now, and it may be there still"
        if end is None
        else f"until it was {end.kind} on {end.host}{f' ({end.why})' if end.why else ''}"
    )
    return f"{by} (give or take {_seconds(wrong_s)}): {what} {clock(_time_of(write))}, {ended}"


def _served_knowingly(row: Row) -> WhyStale:
    return WhyStale(
        served=f"{row.who} on {row.host}, on purpose: {row.why}",
        held=_layer(row),
        lasted=NOT_OBSERVED,
        read=row,
    )


def _seconds(seconds: float) -> str:
    """For people: three digits that count."""
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.3g} ms"


def clock(at: float) -> str:
    """The time of day, to the microsecond."""
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1e6):06d}"
