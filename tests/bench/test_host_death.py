"""What bench_host_death makes of the loads that it saw."""

import pytest

from tests.bench.test_bench import BENCH


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import bench_host_death

    return bench_host_death


def stream(bench, whole_at, *loads):
    return bench.Stream(cache=None, loads=list(loads), whole_at=whole_at)


def test_what_is_loaded_twice_since_the_host_is_whole_has_no_full_lifetime(bench):
    capped = stream(bench, 10.0, (8.0, "a"), (10.0, "a"), (11.0, "b"), (12.5, "a"), (14.0, "a"))
    assert capped.loaded_again() == 2


def test_what_is_loaded_once_more_since_then_was_capped_before(bench):
    assert stream(bench, 10.0, (8.0, "a"), (9.0, "a"), (10.5, "a"), (11.0, "b")).loaded_again() == 0


def test_the_rush_as_isolation_begins_is_not_taken_for_one_as_it_ends(bench):
    rush = [(1.05 + number / 1000, f"key-{number}") for number in range(30)]
    streams = {
        bench.CAP: [stream(bench, 6.0, *rush, (6.5, "a")), stream(bench, 5.0, (5.5, "b"), (5.51, "c"))]
    }
    death = bench.Death(died_at=0.0, dropped_at=3.0, streams=streams)
    assert (death.as_it_begins(bench.CAP), death.as_it_ends(bench.CAP)) == (30, 2)
