"""What bench_visible makes of the times that its readers noted, and of the stalls beside them."""

import math

import pytest

from tests.bench.test_bench import BENCH

MS = 1_000_000


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


class Cache:
    """A host's, on which nothing is evicted but by hand."""

    def __init__(self):
        self.held = {}

    def get_or_load(self, key, load, *arguments):
        if key not in self.held:
            self.held[key] = load(*arguments)
        return self.held[key]

    def __contains__(self, key):
        return key in self.held


def test_a_write_is_seen_once_its_number_or_a_later_one_is_returned_and_lost_in_the_end(monkeypatch):
    import bench_visible as bench

    written, cache = bench.paper("a", 3), Cache()
    due = bench.Due(cache, "a", "b", written)
    due.fill()
    written.rows[0], written.begun[0] = 0, bench.now_ns()
    assert not due.advance()  # the copy is there still
    del cache.held["a:0"]
    assert due.advance()
    assert written.seen["b"][0] >= written.begun[0]
    written.begun[1] = bench.now_ns()
    assert not due.advance()
    monkeypatch.setattr(bench, "LOST_NS", 0)
    assert due.advance()
    assert not due.advance()  # nobody has begun the third
    assert list(written.seen["b"])[1:] == [0, 0]
    assert not due.is_over


def test_a_write_is_visible_everywhere_when_the_last_host_has_seen_it(monkeypatch):
    import bench_visible as bench

    written = bench.paper("a", 2)
    written.begun[:], written.seen["b"][:], written.seen["c"][:] = [10, 20], [11, 21], [19, 0]
    assert list(bench.trips(written)) == [(10, 19), (20, 0)]


def test_a_late_write_is_late_in_every_figure_whether_or_not_the_machine_stood_still():
    import bench_visible as bench

    trips = [(0, 1 * MS), (0, 12 * MS), (50 * MS, 62 * MS), (0, 0)]
    found = bench.judged(trips, 1.0, 0, [(2 * MS, 5 * MS), (61 * MS, 70 * MS)], True)
    assert found.within == {"1": 1, "2": 1, "5": 1, "10": 1, "100": 3}
    assert (found.lost, found.late_count, found.largest_ms) == (1, 3, 12.0)
    assert [late.by_a_stall for late in found.late] == [True, False]
    assert bench.judge(found)[0].verdict == "missed"


def test_runs_add_up():
    import bench_visible as bench

    one = bench.judged([(0, MS), (0, 20 * MS)], 1.0, 1, [], True)
    both = bench.from_data(one.as_data()).plus(bench.judged([(0, 3 * MS)], 2.0, 0, [(0, MS)], False))
    assert (both.writes, both.seconds, both.unheld, both.within["5"]) == (3, 3.0, 1, 2)
    assert (both.largest_ms, len(both.late), both.has_priority) == (20.0, 1, False)


def test_what_the_bridges_checkers_have_seen_is_summed_over_hosts_and_peers(monkeypatch):
    import bench_visible as bench

    seen = {"0.001": 1, "0.01": 8, "0.1": 9, "1": 10, "60": 10}
    peers = {name: {"canaries": 10, "visible": seen} for name in "bc"}
    monkeypatch.setattr(bench, "asked", lambda host: {"peers": peers})
    found = bench.canaries(["a", "b"])
    assert (found.written, found.within) == (40, {"1": 4, "10": 32, "100": 36, "1000": 40})
    assert (found.late(10), found.late(1000)) == (200_000, 0)


@pytest.mark.parametrize(("writes", "verdict"), [(999_999, "not measured"), (1_000_000, "met")])
def test_one_in_a_million_is_not_told_by_fewer(writes, verdict):
    import bench_visible as bench

    found = bench.judged([(0, MS)], 1.0, 0, [], True)
    found.writes, found.within["10"] = writes, writes
    assert bench.judge(found)[0].verdict == verdict


def test_the_bound_is_three_for_none_and_more_for_each():
    import bench_visible as bench

    assert math.isclose(bench.at_most(0), 2.996, abs_tol=0.001)
    assert math.isclose(bench.at_most(1), 4.744, abs_tol=0.001)
    assert math.isclose(bench.at_most(100), 118.1, abs_tol=0.1)


def test_stalls_of_two_cores_count_once_and_only_where_they_overlap():
    import stalls

    stood_still = stalls.merged([(30, 40), (0, 10), (5, 20), (20, 25), (100, 110)])
    assert stood_still == [(0, 25), (30, 40), (100, 110)]
    assert stalls.stalled_ns(stood_still, 20, 35) == 10
    assert stalls.stalled_ns(stood_still, 26, 30) == 0
    assert stalls.stalled_ns(stood_still, -5, 200) == 45
