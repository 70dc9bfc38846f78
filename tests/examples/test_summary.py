"""The demo's verdict and its words, from constructed evidence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_shm.cli.demo.checker import Evidence, check
from cachee_shm.cli.demo.journal import UNANSWERED, Position, Probe, Read, Write
from cachee_shm.cli.demo.live import Counters, milliseconds, percentile
from cachee_shm.cli.demo.summary import Cut, Summary

A, B = "a", "b"
KEY = "price:1"
S = 1_000_000_000
CUT = Cut(begin_ns=10 * S, end_ns=20 * S)
CAPPED_NS = 4 * S


def read(host: str, version: int, at_s: float) -> Read:
    return Read(host, KEY, version, version, round(at_s * S), round(at_s * S) + 1)


def summary(
    reads: list[Read], written_s: float = 11, *, cut: Cut | None = CUT, probes: list[Probe] | None = None
) -> Summary:
    """One write at host A. Its announcement reaches B when the cut is over, half a second after its end."""
    write = Write(A, KEY, 2, 2, round(written_s * S) - 2, round(written_s * S))
    looks = [
        Position(A, B, second * S, 5, 5 if second > 20 else 4, second * S + S // 2) for second in range(30)
    ]
    evidence = Evidence(reads, [write], looks, probes or [], {KEY: {2: write.start_ns + 1}})
    return Summary(evidence, check(evidence, S), Counters([A, B]), 0, cut, CAPPED_NS)


# Without a cut


def test_cold_reads_are_loads_on_demand_and_those_that_were_loaded_ahead_would_be_more_of_them() -> None:
    found = summary([read(B, 2, 21 + 0.1 * number) for number in range(100)], cut=None)
    stats = {"loads": 13, "loads_ahead": 4, "loads_ahead_read": 3}  # 1 was the first load of the row at B
    found.counters.take("observe", {"stats": {A: {}, B: stats}, "agreed_ns": 0})
    assert "8.0%, without loading ahead 11.0%   4 rows loaded ahead, 3 of them read" in found.text()


def test_no_stale_read_is_fine() -> None:
    found = summary([read(B, 1, 5), read(B, 2, 25)], cut=None)
    assert found.fine and "Stale reads: 0." in found.text()


def test_a_stale_read_is_not_fine_and_is_described() -> None:
    found = summary([read(A, 1, 12)], cut=None)
    assert not found.fine
    text = " ".join(found.text().split())
    assert "STALE READS: 1, of which 1 break a promise." in text
    assert "price:1 at a: version 1, although it had applied the newer one (2), 1.000 s behind" in text


def test_a_run_without_reads_proves_nothing() -> None:
    assert not summary([], cut=None).fine


def test_a_failed_request_is_not_fine_and_is_told() -> None:
    found = summary([read(B, 2, 25)], cut=None)
    found.counters.take("load-0", {"failed": "GET /prices/1: 500"})
    assert not found.fine and "1 requests failed, the first: GET /prices/1: 500" in found.text()


def test_a_contradiction_is_not_fine_and_is_told() -> None:
    found = summary([read(B, 9, 25)], cut=None)
    assert not found.fine and "Contradiction: price:1: b showed version 9" in found.text()


def test_a_lost_probe_is_not_fine_and_is_counted() -> None:
    found = summary([read(B, 2, 25)], cut=None, probes=[Probe(A, B, 5 * S, -1), Probe(A, B, 6 * S, 100_000)])
    assert not found.fine and "0.100 ms / 0.100 ms   1 probes, 1 lost" in found.text()


# With one


def test_stale_reads_during_the_cut_and_within_the_bound_are_what_a_cut_shows() -> None:
    found = summary([read(B, 1, 13), read(B, 1, 14), read(B, 2, 25)])
    assert found.fine
    text = " ".join(found.text().split())
    assert "Stale reads: 2, from 3.00 s to 4.00 s after the bridges stopped" in text
    assert "None was further behind than 3.00 s: the bound is lost_after + isolation_ttl = 4 s." in text
    assert "The hosts agreed again 1.50 s after the bridges went on." in text


@pytest.mark.parametrize(
    ("reads", "fault"),
    [
        ([read(B, 2, 13)], "there was no stale read to find"),
        ([read(B, 1, 16)], "1 were further behind than the bound"),
        ([read(A, 1, 13)], "1 break a promise that a cut does not touch"),
        ([read(B, 1, 25)], "1 stale reads were not during the cut"),
    ],
)
def test_a_cut_does_not_excuse_everything(reads: list[Read], fault: str) -> None:
    found = summary(reads)
    assert not found.fine
    assert f"FAULT: {fault}" in " ".join(found.text().split())


def test_probes_of_the_cut_are_not_among_the_measured_ones() -> None:
    found = summary([read(B, 1, 13)], probes=[Probe(A, B, 15 * S, -1), Probe(A, B, 25 * S, 200_000)])
    assert found.fine and "0.200 ms / 0.200 ms   1 probes" in found.text()


# The parts


@given(st.lists(st.integers(0, 10**9), min_size=1), st.integers(0, 100))
def test_a_percentile_is_one_of_the_values_and_no_fewer_are_above_than_it_says(
    values: list[int], percent: int
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value > found for value in values) <= len(values) * (100 - percent) / 100


def test_a_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 99) == 0


def test_milliseconds_have_three_places_below_ten() -> None:
    assert (milliseconds(123_456), milliseconds(12_345_678_901)) == ("0.123 ms", "12,346 ms")


def test_counters_leave_out_what_came_before_the_start_and_what_the_prober_added() -> None:
    counters = Counters([A, B])
    probe = {"source": A, "target": B, "took_ns": 5}
    stats = {"loads": 11, "applied": 7}
    counters.take("observe", {"stats": {A: stats, B: stats}, "agreed_ns": 3})
    counters.take("probe", {**probe, "loads": {A: 0, B: 1}, "applied": {A: 0, B: 1}})
    counters.begin()
    stats = {"loads": 22, "applied": 17}
    counters.take("observe", {"stats": {A: stats, B: stats}, "agreed_ns": 9})
    counters.take("probe", {**probe, "loads": {A: 0, B: 5}, "applied": {A: 0, B: 3}})
    assert (counters.total("loads"), counters.since_begin(B, "applied")) == (11 + 7, 8)
    assert (counters.agreed_ns, counters.took_ns) == (9, [5])


def test_hosts_have_met_once_a_probe_came_through_in_each_direction() -> None:
    counters = Counters([A, B])
    for source, target, took_ns, met in ((A, B, 5, False), (B, A, -1, False), (B, A, 6, True)):
        none = {A: 0, B: 0}
        counters.take(
            "probe", {"source": source, "target": target, "took_ns": took_ns, "loads": none, "applied": none}
        )
        assert counters.have_met is met


def test_unanswered_writes_are_not_counted_as_written() -> None:
    found = summary([read(B, 2, 25)], cut=None)
    found.evidence.writes.append(Write(A, KEY, UNANSWERED, 0, 1, 2))
    assert "rows written              1 " in found.text()
