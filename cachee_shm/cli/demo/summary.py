"""The result of one demo, as a table and a sentence."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from cachee_shm.cli.demo.checker import Evidence, Stale, Verdict, applied_by_link
from cachee_shm.cli.demo.journal import UNANSWERED, Probe
from cachee_shm.cli.demo.live import Counters, milliseconds, percentile

SLACK_NS = 200_000_000  # a heartbeat, and what a busy machine adds to a clock that is read in between
WRONG_SHOWN_MAX = 10
NAME_WIDTH = 26
LINE_WIDTH = 100


@dataclass
class Cut:
    """While both bridges were stopped; `end_ns` is None until they go on."""

    begin_ns: int
    end_ns: int | None = None


@dataclass
class Summary:
    """The result. It is `fine` if, without a cut, no read was stale; or if, with a cut, some reads were stale
    and `cut_faults` is empty."""

    evidence: Evidence
    verdict: Verdict
    counters: Counters
    begin_ns: int
    cut: Cut | None
    capped_ns: int

    @property
    def fine(self) -> bool:
        if self.verdict.wrong or self.counters.failures or not self.evidence.reads:
            return False
        return not self.cut_faults() if self.cut else not self.verdict.stale and not self.lost_probes()

    def text(self) -> str:
        lines = [f"  {name:<{NAME_WIDTH}}{value}" for name, value in self.facts()]
        told = [textwrap.fill(sentence, LINE_WIDTH) for sentence in self.sentences()]
        return "\n".join(["", *lines, "", *told])

    def facts(self) -> Iterable[tuple[str, str]]:
        evidence, counters = self.evidence, self.counters
        loads, writes = counters.total("loads"), sum(write.version != UNANSWERED for write in evidence.writes)
        first_loads = len({(read.host, read.key) for read in evidence.reads})
        capped = ", with those that the cut's short lifetimes cost" if self.cut else ""
        yield "requests", f"{counters.requests:,}   {self.latency()}"
        yield "rows read", f"{len(evidence.reads):,}"
        yield "rows written", f"{writes:,}   on both hosts at once"
        yield (
            "hit ratio",
            f"{1 - loads / max(1, len(evidence.reads)):.1%}   rows read without asking the database",
        )
        yield "invalidations", f"{writes:,}   applied by the other host: {counters.total('applied'):,}"
        yield "propagation p50 / p99", self.propagation()
        yield (
            "loads per invalidation",
            f"{max(0, loads - first_loads) / max(1, writes):.2f}   on two hosts{capped}",
        )
        yield "cold reads", self.cold_reads(loads - first_loads)
        yield "stale reads", f"{len(self.verdict.stale):,}"

    def cold_reads(self, loads: int) -> str:
        """Rows that were loaded when they were read, since they had been invalidated. Without loading ahead,
        each row that was loaded ahead and then read would have been one more."""
        rows = max(1, len(self.evidence.reads))
        ahead, read = self.counters.total("loads_ahead"), self.counters.total("loads_ahead_read")
        cold = max(0, loads - ahead)
        return (
            f"{cold / rows:.1%}, without loading ahead {(cold + read) / rows:.1%}   "
            f"{ahead:,} rows loaded ahead, {read:,} of them read"
        )

    def latency(self) -> str:
        took = [read.end_ns - read.start_ns for read in self.evidence.reads]
        p50, p99 = (milliseconds(percentile(took, percent)) for percent in (50, 99))
        return f"reads over HTTP: p50 {p50}, p99 {p99}"

    def propagation(self) -> str:
        took = [probe.took_ns for probe in self.probes() if probe.took_ns >= 0]
        p50, p99 = (milliseconds(percentile(took, percent)) for percent in (50, 99))
        return f"{p50} / {p99}   {len(took)} probes" + (
            f", {self.lost_probes()} lost" if self.lost_probes() else ""
        )

    def probes(self) -> list[Probe]:
        """The probes of the time under load, without those during a cut."""
        cut = (self.cut.begin_ns - 10**9, self.agreed_again_ns()) if self.cut else (0, 0)
        return [
            probe
            for probe in self.evidence.probes
            if probe.start_ns >= self.begin_ns and not cut[0] <= probe.start_ns <= cut[1]
        ]

    def lost_probes(self) -> int:
        return sum(probe.took_ns < 0 for probe in self.probes())

    def sentences(self) -> Iterable[str]:
        yield from self.cut_sentences() if self.cut else self.stale_sentences()
        if self.counters.failures:
            yield f"{len(self.counters.failures)} requests failed, the first: {self.counters.failures[0]}"
        for wrong in self.verdict.wrong[:WRONG_SHOWN_MAX]:
            yield f"Contradiction: {wrong}"
        if len(self.verdict.wrong) > WRONG_SHOWN_MAX:
            yield f"... and {len(self.verdict.wrong) - WRONG_SHOWN_MAX} more"

    def stale_sentences(self) -> Iterable[str]:
        if not self.verdict.stale:
            yield "Stale reads: 0. Every row that was shown was at least as new as its host had to know."
            return
        worst = max(self.verdict.stale, key=lambda one: one.behind_ns)
        yield f"STALE READS: {len(self.verdict.stale)}, of which {len(self.verdict.broken)} break a promise."
        yield f"The oldest: {describe(worst)}"

    def agreed_again_ns(self) -> int:
        """When all that was announced during the cut was applied, if it ever was."""
        assert self.cut is not None
        end_ns = self.cut.end_ns or self.cut.begin_ns
        applied = applied_by_link(self.evidence.positions).values()
        return max((link.by(end_ns) or end_ns for link in applied), default=end_ns)

    def cut_faults(self) -> list[str]:
        """Faults that a cut does not excuse."""
        assert self.cut is not None
        stale, capped_ns = self.verdict.stale, self.capped_ns + SLACK_NS
        begin_ns, end_ns = self.cut.begin_ns, self.agreed_again_ns()
        outside = sum(not begin_ns <= one.read.start_ns <= end_ns for one in stale)
        longer = sum(one.behind_ns > capped_ns for one in stale)
        faults = {
            "there was no stale read to find: the checker has proved nothing": not stale,
            f"{outside} stale reads were not during the cut": outside,
            f"{longer} were further behind than the bound": longer,
            f"{len(self.verdict.broken)} break a promise that a cut does not touch": self.verdict.broken,
        }
        return [fault for fault, found in faults.items() if found]

    def cut_sentences(self) -> Iterable[str]:
        assert self.cut is not None
        begin_ns, end_ns = self.cut.begin_ns, self.cut.end_ns or self.cut.begin_ns
        yield (
            f"This was the cut: both bridges were stopped for {since(begin_ns, end_ns)}, on purpose; each "
            "host went on serving without a word from the other."
        )
        if self.verdict.stale:
            yield self.how_long(begin_ns)
        yield f"The hosts agreed again {since(end_ns, self.agreed_again_ns())} after the bridges went on."
        yield from (f"FAULT: {fault}." for fault in self.cut_faults())

    def how_long(self, begin_ns: int) -> str:
        starts = [one.read.start_ns for one in self.verdict.stale]
        behind_ns = max(one.behind_ns for one in self.verdict.stale)
        return (
            f"Stale reads: {len(starts):,}, from {since(begin_ns, min(starts))} to "
            f"{since(begin_ns, max(starts))} after the bridges stopped (a row counts once its successor is a "
            f"second old). None was further behind than {behind_ns / 1e9:.2f} s: the bound is lost_after + "
            f"isolation_ttl = {self.capped_ns / 1e9:g} s."
        )


def since(begin_ns: int, end_ns: int) -> str:
    return f"{(end_ns - begin_ns) / 1e9:.2f} s"


def describe(stale: Stale) -> str:
    read = stale.read
    promise = (
        "although it had applied the newer one" if stale.broken else "although the newer one was long written"
    )
    return (
        f"{read.key} at {read.host}: version {read.version}, {promise} ({stale.needed}), "
        f"{stale.behind_ns / 1e9:.3f} s behind"
    )
