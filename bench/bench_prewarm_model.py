"""Loading ahead: how good the predicted probability of a read is, beside boosted trees (targets W4 and W5).

The product is replayed as in bench_prewarm.py, and whatever was here is loaded again at once. So the outcome
of each invalidation is known: was the key read before its next write, and before its entry fell out? At each
of these decisions the product's own p is noted, and the features are that follow. The trees are trained three
times, each time on the last 60,000 decisions before; the first half of the decisions is for training alone.

  cachee    the model in the segment, online
  same      trees that see the model's four features
  free      trees that see besides what costs no store on a hit: intervals of writes and of misses, when an
            entry that was loaded ahead was first read, exact counts of outcomes, exact ages
  all       trees that see besides what does: when it was last read, how often, at which intervals
  count     no model: the share of the key's earlier writes that a read followed

  AUC       the probability that a decision with a read has a higher p than one without
  avoided   of the cold reads, by the threshold that is best in hindsight, where the loads ahead that nobody
            reads are at most 5 % of the loads without loading ahead
  ECE       the mean difference between p and the share that was read, in ten bins; the first quarter of the
            decisions is left out

Rows of fewer than 400 decisions, or fewer than 20 reads after the half, are left out. The mean of `free` at
5 % of writes, less that of `cachee`, both at the waste that `cachee` has, estimates what further information
could bring (W5). Without scikit-learn there are no trees.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_prewarm as replayed
import numpy as np
from measuring import Target, save, start, table, targets_table
from prewarm_oracle import RATES
from writes import MIXES, Mixture

os.environ.setdefault("OMP_NUM_THREADS", "1")  # trees on several threads spin where cores are shared
try:
    from sklearn.ensemble import HistGradientBoostingClassifier
except ImportError:
    HistGradientBoostingClassifier = None

Array = Any  # of numpy, which has no types where it is not installed

TRAINED_ON, TRAININGS = 60_000, 3
DECISIONS_MIN, READS_MIN = 400, 20
BINS = 10
MODEL = slice(0, 4)
FREE = slice(0, 13)
STEADY = ("orm-busy", "w106", "oltp", "zipf")  # whose calibration is a target; others have few decisions
LOAD_MORE = 0.05
AUC_BEHIND_MAX, OF_SAME_MIN, OF_ALL_MIN, ECE_MAX, AMBITION = 0.02, 0.97, 0.94, 0.05, 0.03
W5_RATE = 0.05


def bits(t: float) -> float:
    return math.log2(1 + t)


class Smoothed:
    """A mean in which the last value counts a quarter; 0 before the first."""

    def __init__(self) -> None:
        self.mean = 0.0

    def add(self, value: float) -> None:
        self.mean = 0.75 * self.mean + 0.25 * value if self.mean else value


class Known:
    """All that can be known of one key, exactly."""

    def __init__(self, now: int, capacity: int) -> None:
        self._half_life = 4.0 * capacity
        self._first, self._loaded, self._read, self._missed, self._written = now, now, 0, 0, 0
        self._reads, self._writes, self._misses, self._first_reads = (Smoothed() for _ in range(4))
        self._decayed, self._decayed_at = 0.0, now
        self._reads_since, self._loads = 0, 0
        self._followed, self._outcomes = 0, 0

    def features(self, now: int) -> tuple[float, ...]:
        """Those that cost no store on a hit come first."""
        decayed = self._decayed * 2.0 ** ((self._decayed_at - now) / self._half_life)
        since_read = now - self._read
        return (
            bits(now - self._loaded),
            bits(now - self._written) if self._written else 0.0,
            bits(self._writes.mean),
            bits(self._first_reads.mean),
            bits(self._misses.mean),
            bits(now - self._missed),
            bits(self._loads),
            bits(now - self._first),
            self.share_followed,
            bits(since_read),
            bits(self._reads.mean),
            bits(decayed),
            bits(self._reads_since),
            since_read / (self._reads.mean + 1) if self._read else 1e3,
        )

    @property
    def share_followed(self) -> float:
        return (self._followed + 1) / (self._outcomes + 2)

    def read(self, now: int, missed: bool) -> None:
        if self._read:
            self._reads.add(now - self._read)
        if not self._reads_since and self._written and not missed:
            self._first_reads.add(now - self._written)
        if missed:
            if self._missed:
                self._misses.add(now - self._missed)
            self._missed = self._loaded = now
            self._loads += 1
        self._decayed = self._decayed * 2.0 ** ((self._decayed_at - now) / self._half_life) + 1
        self._decayed_at, self._read = now, now
        self._reads_since += 1

    def written(self, now: int, loaded: bool) -> None:
        if self._written:
            self._writes.add(now - self._written)
        self._outcomes += 1
        self._followed += self._reads_since > 0
        self._written, self._reads_since = now, 0
        if loaded:
            self._loaded = now


class Shadow(replayed.Replay):
    """Whatever was here is loaded at once; what was known at each such decision, and its outcome, is kept."""

    def __init__(self, *arguments: Any, capacity: int) -> None:
        super().__init__(*arguments)
        self._capacity = capacity
        self.decisions: list[tuple[float, ...]] = []  # features
        self.p: list[float] = []
        self.count: list[float] = []
        self.outcomes = bytearray()

    def _run(self, loads_ahead: bool, cold: bytes | None) -> bytes:
        cache, keys, known = self._cache, self._keys, dict[int, Known]()
        undecided: dict[int, int] = {}
        last = -1
        operations = self._operations
        for number, now, is_write in zip(operations.keys, operations.times, operations.writes, strict=True):
            if now != last:
                cache._freeze(now)
                last = now
            key = known.get(number)
            if is_write:
                undecided.pop(number, None)
                if self._write(keys[number], key, now):
                    undecided[number] = len(self.outcomes) - 1
                continue
            missed = cache.get(keys[number]) is None
            at = undecided.pop(number, None)
            if at is not None and not missed:
                self.outcomes[at] = True
            if missed:
                position, began = cache._token()
                cache._fill(keys[number], self._value, position, began, None, 0, (), False)
            if key is None:
                key = known[number] = Known(now, self._capacity)
            key.read(now, missed)
        return b""

    def _write(self, key: bytes, known: Known | None, now: int) -> bool:
        """True: there was a copy, so this was a decision."""
        hashed = self._cache._hash(key)
        self._cache.apply(self._peer, b"\x01" + hashed.to_bytes(8, "little"))
        seen = self._cache.warm_explain(hashed) if known else None
        decided = seen is not None and seen["state"] in ("queued", "wait") and seen["buckets"][0] < 8
        if known is not None:
            if seen is not None and decided:
                self.decisions.append((*seen["buckets"], *known.features(now)))
                self.p.append(seen["p"])
                self.count.append(known.share_followed)
                self.outcomes.append(False)
            known.written(now, decided)
        self._orders.take(now)
        self._load_due(now)
        return decided


@dataclass(frozen=True)
class Judged:
    """How well one forecaster does in a row."""

    auc: float
    avoided: float
    waste: float  # with those avoided
    at_our_waste: float = 0.0  # avoided


@dataclass(frozen=True)
class Row:
    """One trace, mix and rate."""

    trace: str
    mix: str
    rate: float
    decisions: int
    read: float
    ece: float
    bins: tuple[tuple[float, float, int], ...]  # p, share that was read, how many
    by: dict[str, Judged]

    @property
    def name(self) -> str:
        return f"{self.trace} {self.mix} {100 * self.rate:g} %"

    @property
    def cells(self) -> tuple[str, ...]:
        found = [self.by.get(name) for name in FORECASTERS]
        return (
            self.name,
            str(self.decisions),
            f"{self.read:.2f}",
            f"{self.ece:.3f}",
            *(f"{each.auc:.3f}" if each else "-" for each in found),
            *(f"{each.avoided:.3f}" if each else "-" for each in found),
        )


FORECASTERS = ("cachee", "same", "free", "all", "count")
HEADER = ("", "decisions", "read", "ECE", *(f"AUC {name}" for name in FORECASTERS))
HEADER += tuple(f"avoided {name}" for name in FORECASTERS)


def auc_of(p: Array, read: Array) -> float:
    """By ranks; those of equal p share theirs."""
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    reads = int(read.sum())
    others = len(read) - reads
    return float((ranks[read == 1].sum() - reads * (reads + 1) / 2) / (reads * others)) if others else 1.0


class Curve:
    """What each threshold avoids and wastes."""

    def __init__(self, p: Array, read: Array) -> None:
        falling = read[np.argsort(-p, kind="stable")]
        self._useful = np.cumsum(falling)
        self._wasted = np.cumsum(1 - falling)
        self._waste = self._wasted / (self._useful + self._wasted)

    def within_load(self, wasted_most: float) -> tuple[float, float]:
        """Avoided, and the waste with it."""
        within = np.flatnonzero(self._wasted <= wasted_most)
        at = within[self._useful[within].argmax()] if len(within) else None
        return (self._avoided(at), float(self._waste[at])) if at is not None else (0.0, 0.0)

    def within_waste(self, most: float) -> float:
        """Avoided."""
        within = np.flatnonzero(self._waste <= most)
        return self._avoided(within[self._useful[within].argmax()]) if len(within) else 0.0

    def _avoided(self, at: Any) -> float:
        return float(self._useful[at] / max(1, self._useful[-1]))


def judged(p: Array, read: Array, wasted_most: float, our_waste: float | None = None) -> Judged:
    curve = Curve(p, read)
    avoided, waste = curve.within_load(wasted_most)
    at_ours = curve.within_waste(waste if our_waste is None else our_waste)
    return Judged(auc_of(p, read), avoided, waste, at_ours)


def trees(features: Array, read: Array) -> Array:
    """p of the second half of the decisions, each from trees that were trained on decisions before it."""
    n, half = len(read), len(read) // 2
    p = np.zeros(n)
    for turn in range(TRAININGS):
        begin, end = (half + (n - half) * at // TRAININGS for at in (turn, turn + 1))
        past = slice(max(0, begin - TRAINED_ON), begin)
        forest = HistGradientBoostingClassifier(
            max_iter=60, learning_rate=0.08, min_samples_leaf=40, l2_regularization=1.0, random_state=0
        ).fit(features[past], read[past])
        p[begin:end] = forest.predict_proba(features[begin:end])[:, -1]
    return p[half:]


def calibration(p: Array, read: Array) -> tuple[tuple[float, float, int], ...]:
    """Of each bin that is not empty: mean p, share that was read, how many."""
    p, read = p[len(p) // 4 :], read[len(read) // 4 :]
    bins = np.minimum(BINS - 1, (p * BINS).astype(int))
    each = [(p[bins == b], read[bins == b]) for b in range(BINS) if (bins == b).any()]
    return tuple((float(at.mean()), float(was.mean()), len(at)) for at, was in each)


def measure(trace: str, mix: str, rate: float, chosen: argparse.Namespace) -> Row | None:
    """Two replays, and the trees. None: too few decisions."""
    reads, steps = replayed.reads_of(trace, chosen.traces, chosen.reads)
    capacity = replayed.CAPACITIES[trace]
    room, operations = replayed.room_for(capacity), Mixture(reads, capacity, mix, rate, steps).draw()
    never = replayed.Replay(room, operations, replayed.WEIGHT, replayed.BUDGET, 0)
    never.run(False, bytes(len(operations.keys)))
    shadow = Shadow(room, operations, replayed.ALWAYS_WEIGHT, 0.0, 0, capacity=capacity)
    shadow.run(True, None)
    read = np.frombuffer(shadow.outcomes, dtype=np.uint8).astype(int)
    half = len(read) // 2
    later = read[half:]
    if len(read) < DECISIONS_MIN or later.sum() < READS_MIN:
        return None
    wasted_most = LOAD_MORE * never.counted.misses / 2
    p = np.array(shadow.p)
    ours = judged(p[half:], later, wasted_most)
    by = {"cachee": ours, "count": judged(np.array(shadow.count)[half:], later, wasted_most, ours.waste)}
    if HistGradientBoostingClassifier is not None:
        features = np.array(shadow.decisions, dtype=np.float32)
        for name, seen in (("same", MODEL), ("free", FREE), ("all", slice(None))):
            by[name] = judged(trees(features[:, seen], read), later, wasted_most, ours.waste)
    bins = calibration(p, read)
    judged_of = sum(count for _, _, count in bins)
    ece = sum(abs(at - was) * count for at, was, count in bins) / judged_of
    return Row(trace, mix, rate, len(read), float(read.mean()), ece, bins, by)


def rows_of(chosen: argparse.Namespace) -> Iterator[Row]:
    for trace in list(replayed.CAPACITIES) if chosen.traces else ["zipf"]:
        for mix in ("mixed",) if chosen.quick else MIXES:
            for rate in (0.05,) if chosen.quick else chosen.rates:
                if chosen.only and not any(f"{trace} {mix}".startswith(only) for only in chosen.only):
                    continue
                row = measure(trace, mix, rate, chosen)
                if row is not None:
                    print("  ".join(row.cells), flush=True)
                    yield row


def mean_of(rows: Sequence[Row], name: str, figure: Callable[[Judged], float]) -> float | None:
    found = [figure(row.by[name]) for row in rows if name in row.by]
    return statistics.mean(found) if found else None


def targets(rows: Sequence[Row]) -> Iterator[Target]:
    def auc(name: str) -> float | None:
        return mean_of(rows, name, lambda each: each.auc)

    def avoided(name: str) -> float | None:
        return mean_of(rows, name, lambda each: each.avoided)

    def of(part: float | None, whole: float | None) -> float | None:
        return part / whole if part is not None and whole else None

    ours, same = auc("cachee"), auc("same")
    behind = same - ours if ours is not None and same is not None else None
    yield Target("W4", "AUC, behind trees on the same features", behind, AUC_BEHIND_MAX)
    yield Target(
        "W4",
        "avoided, of what trees on the same features avoid",
        of(avoided("cachee"), avoided("same")),
        OF_SAME_MIN,
        is_floor=True,
    )
    yield Target(
        "W4",
        "avoided, of what trees that see all avoid",
        of(avoided("cachee"), avoided("all")),
        OF_ALL_MIN,
        is_floor=True,
    )
    steady = [row.ece for row in rows if row.trace in STEADY]
    yield Target("W4", "ECE, mean of four traces", statistics.mean(steady) if steady else None, ECE_MAX)
    at_rate = [row for row in rows if row.rate == W5_RATE]
    free = mean_of(at_rate, "free", lambda each: each.at_our_waste)
    here = mean_of(at_rate, "cachee", lambda each: each.at_our_waste)
    more = free - here if free is not None and here is not None else None
    yield Target(
        "W5", "what `free` avoids more at the same waste, 5 % of writes", more, AMBITION, is_floor=True
    )


def draw(figure: Any, rows: Sequence[Row]) -> None:
    """Left: calibration, a line a row. Right: what we avoid against what trees avoid."""
    calibrated, beside = figure.subplots(1, 2)
    calibrated.plot([0, 1], [0, 1], color="black", linewidth=0.5)
    for row in rows:
        calibrated.plot(
            [p for p, _, _ in row.bins], [read for _, read, _ in row.bins], linewidth=0.5, marker="."
        )
    calibrated.set_xlabel("p")
    calibrated.set_ylabel("share that was read")
    beside.plot([0, 1], [0, 1], color="black", linewidth=0.5)
    for name, colour in (("same", "tab:blue"), ("free", "tab:green"), ("all", "tab:red")):
        pairs = [(row.by[name].avoided, row.by["cachee"].avoided) for row in rows if name in row.by]
        beside.scatter([x for x, _ in pairs], [y for _, y in pairs], color=colour, label=name)
    beside.set_xlabel("avoided by trees, 5 % more loads")
    beside.set_ylabel("avoided by Cachee's model")
    beside.legend()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traces", type=Path, metavar="DIR", help="published traces; without, one is drawn")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES[1:], metavar="SHARE", help="of writes"
    )
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows whose names begin so")
    parser.add_argument("--reads", type=int, default=replayed.READS, metavar="N", help="of each trace")


def main() -> None:
    chosen = start(__doc__ or "", 1, options)
    if chosen.quick:
        chosen.reads = replayed.QUICK_READS
    rows = list(rows_of(chosen))
    print(table("The model beside boosted trees", HEADER, [row.cells for row in rows]))
    verdicts = list(targets(rows))
    print(targets_table(verdicts))
    data = [vars(row) | {"by": {name: vars(each) for name, each in row.by.items()}} for row in rows]
    save(chosen.out, "prewarm_model", {"rows": data}, verdicts, lambda figure: draw(figure, rows))


if __name__ == "__main__":
    main()
