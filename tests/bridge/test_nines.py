"""Counts of canaries, by peer and by region."""

from cachee_bridge.checker import nines
from cachee_bridge.checker.nines import BOUNDS_S, WINDOWS_S, Histogram, Nines


def test_a_canary_counts_in_each_window_that_it_was_seen_within():
    counts = Nines()
    counts.of("b").canaries = 3
    counts.seen("b", 0.0005, at_first=True)
    counts.seen("b", 0.05, at_first=False)
    view = counts.view({})["peers"]["b"]
    assert view["canaries"] == 3
    assert view["visible"] == {"0.001": 1, "0.01": 1, "0.1": 2, "1": 2, "60": 2}


def test_a_window_holds_what_comes_at_its_very_end():
    counts = Nines()
    for window in WINDOWS_S:
        counts.seen("b", window, at_first=False)
    assert list(counts.of("b").visible.values()) == [1, 2, 3, 4, 5]


def test_regions_are_sums_of_their_peers():
    counts = Nines()
    for name, region in (("b", "eu"), ("c", "eu"), ("d", "us")):
        counts.of(name).region, counts.of(name).canaries = region, 2
        counts.seen(name, 0.0001, at_first=True)
    regions = counts.view({})["regions"]
    assert {name: (one["canaries"], one["visible"]["0.001"]) for name, one in regions.items()} == {
        "eu": (4, 2),
        "us": (2, 1),
    }


def test_a_canary_that_may_still_be_seen_in_time_is_pending_in_that_window_and_no_other():
    counts = Nines()
    counts.of("b").canaries, counts.of("b").region = 4, "eu"
    counts.seen("b", 0.0005, at_first=True)
    view = counts.view({"b": [0.05, 2.0, 61.0]})
    for told in (view["peers"]["b"], view["regions"]["eu"]):
        assert told["pending"] == {"0.001": 0, "0.01": 0, "0.1": 1, "1": 1, "60": 2}


def test_answers_of_all_peers_are_summed_by_how_soon_they_came():
    counts = Nines()
    assert counts.spread() == []
    for peer, seconds in (("b", 0.00005), ("c", 0.00005), ("c", 0.15), ("c", 61.0)):
        counts.seen(peer, seconds, at_first=True)
    spread = dict(counts.spread())
    assert len(spread) == len(BOUNDS_S) + 1
    assert (spread[50e-6], spread[0.2], spread[None], sum(spread.values())) == (2, 1, 1, 4)


def test_only_answers_to_the_first_question_tell_how_long_the_way_takes():
    counts = Nines()
    counts.seen("b", 0.0002, at_first=True)
    counts.seen("b", 0.5, at_first=False)
    histogram = counts.of("b").propagation
    assert (histogram.count, histogram.sum_s) == (1, 0.0002)
    assert histogram.counts[BOUNDS_S.index(200e-6)] == 1


def test_a_time_above_all_bounds_is_counted_last():
    histogram = Histogram()
    for seconds in (0.0, 50e-6, 51e-6, 1e9):
        histogram.add(seconds)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (2, 1, 1)
    assert sum(histogram.counts) == histogram.count == 4


def test_peers_are_bounded(monkeypatch):
    monkeypatch.setattr(nines, "PEERS_MAX", 2)
    counts = Nines()
    for name in "bcd":
        counts.of(name).canaries += 1
    assert sorted(counts.peers) == ["c", "d"]
