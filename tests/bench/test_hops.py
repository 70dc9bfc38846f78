"""The model of 500 hosts, and what it is fed with."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from hops import Costs, arrivals, costs_of, medians, modelled, sent_to, tree

STEPS = ("wake", "first", "relay_first", "queue", "perform", "write", "trip", "apply")


def costs(**given):
    """Each step costs what is given, else nothing."""
    return Costs(**{name: [given.get(name, 0)] for name in STEPS})


def names(count):
    return [f"h{number:03}" for number in range(count)]


def evicted(count, fanout=2, **given):
    way = tree("h000", names(count), fanout)
    return arrivals("h000", way, costs(**given), random.Random(1))


@pytest.mark.parametrize("count", [2, 3, 7, 50, 500])
def test_each_host_is_sent_once_by_the_source_or_by_whom_the_source_sends(count):
    way = tree("h007" if count > 7 else "h000", names(count), 2)
    source = "h007" if count > 7 else "h000"
    sent = [name for links in way.values() for name in links]
    assert sorted([*sent, source]) == names(count)
    assert way.keys() - {source} <= set(way[source])


def test_relays_are_sent_to_first():
    way = tree("h000", names(50), 2)
    relays = [name in way for name in way["h000"]]
    assert relays == sorted(relays, reverse=True)
    assert any(relays)
    assert not all(relays)


def test_the_last_receiver_is_two_trips_away():
    assert set(evicted(50, trip=10).values()) == {10, 20}
    assert set(evicted(3, trip=10).values()) == {10}


def test_a_host_writes_to_one_link_after_the_other():
    way = tree("h000", names(50), 2)
    found = evicted(50, write=1)
    assert [found[name] for name in way["h000"]] == list(range(len(way["h000"])))
    first = way["h000"][0]
    assert [found[name] for name in way[first]] == list(range(len(way[first])))


def test_every_frame_is_made_before_the_first_is_written():
    links = len(tree("h000", names(50), 2)["h000"])
    assert min(evicted(50, wake=5, first=7, queue=2, perform=3).values()) == 5 + 7 + 2 * (links - 1) + 3


def test_what_a_relay_does_before_it_sends_delays_its_followers_alone():
    found = evicted(50, apply=4, relay_first=6)
    assert set(found.values()) == {4, 4 + 6 + 4}


def test_the_model_tells_the_last_of_each_trial_and_all():
    last, every = modelled(costs(trip=10), 50, 2, 3)
    assert (last, len(every)) == ([20] * 3, 3 * 49)


def test_the_median_of_each_step_stands_for_it():
    assert medians(Costs(**{name: [1, 2, 90] for name in STEPS})) == Costs(**{name: [2] for name in STEPS})


def turn(begun, applied=0, queued=(), written=()):
    return {"begun": begun, "applied": applied, "queued": list(queued), "written": list(written)}


SOURCE = turn(110, 0, [("b", 130), ("c", 135)], [(140, 150), (152, 160)])
RELAY = turn(170, 180, [("d", 187)], [(190, 199)])


def test_a_sources_turn_is_taken_apart():
    found = costs_of("a", {"a": [SOURCE], "b": [RELAY]}, [(100, 1000)])
    assert found == Costs(wake=[10], first=[20], queue=[5], perform=[5], write=[12])


def test_a_relays_turn_is_taken_apart_and_its_trip_begins_with_the_write_to_it():
    found = costs_of("b", {"a": [SOURCE], "b": [RELAY]}, [(100, 1000)])
    assert found == Costs(trip=[30], apply=[10], relay_first=[7], perform=[3])
    assert sent_to(SOURCE, "c") == 152
    assert sent_to(SOURCE, "d") is None


def test_what_was_not_written_by_the_bench_is_left_out():
    traces = {"a": [turn(50, 0, [("b", 60)], [(65, 70)]), SOURCE], "b": [turn(75, 80), RELAY]}
    assert costs_of("b", traces, [(100, 1000)]) == costs_of("b", {"a": [SOURCE], "b": [RELAY]}, [(100, 1000)])
