"""By which relays a host gets what another host announces."""

import pytest

from cachee_bridge.routing import fanout
from cachee_bridge.routing.fanout import Fanout, links_of, step_of


def mesh(count, fanout=2, regions=("",)):
    """Every host's own view of the same mesh."""
    where = {f"h{number:03}": regions[number % len(regions)] for number in range(count)}
    views = {name: Fanout(name, where[name], fanout) for name in where}
    for name, view in views.items():
        view.settle({other: region for other, region in where.items() if other != name})
    return views, where


def way(views, source, name):
    """The hosts that a record of `source` passes on its way to `name`, both included."""
    hops = [name]
    while hops[-1] != source:
        hops.append(views[hops[-1]].feeder(source))
        assert len(hops) < 6, f"{source} -> {name}: {hops}"
    return hops[::-1]


def test_up_to_fanout_peers_are_followed_directly():
    views, _ = mesh(3)
    assert all(view.direct for view in views.values())
    assert all(views[name].feeder(source) == source for name in views for source in views if name != source)


@pytest.mark.parametrize("count", [4, 5, 6, 7, 12, 33, 64, 101, 500])
def test_beyond_that_each_reaches_each_in_two_hops(count):
    views, _ = mesh(count)
    names = sorted(views)
    for source in names[:: max(1, count // 40)]:
        assert max(len(way(views, source, name)) for name in names if name != source) == 3


@pytest.mark.parametrize(("count", "links", "sends"), [(64, 21, 18), (500, 62, 43), (997, 122, 62)])
def test_the_number_of_links_grows_as_the_root_of_the_number_of_hosts(count, links, sends):
    views, _ = mesh(count)
    linked = {name: set() for name in views}
    receivers = dict.fromkeys(views, 0)
    for name, view in views.items():
        for source in views:
            if source != name:
                feeder = view.feeder(source)
                linked[name].add(feeder)
                linked[feeder].add(name)
                receivers[source] += feeder == source
    assert {len(peers) for peers in linked.values()} == {links} == {links_of(count, step_of(count))}
    assert set(receivers.values()) == {sends}


def test_relays_are_sent_to_before_other_followers():
    views, _ = mesh(12)
    step = step_of(12)
    assert [name for name in sorted(views) if name != "h000" and views["h000"].relays(name)] == [
        f"h{number:03}" for number in range(step, 12, step)
    ]


@pytest.mark.parametrize(("count", "fanout"), [(8, 32), (24, 32), (40, 3)])
def test_each_source_crosses_once_into_every_other_region(count, fanout):
    views, where = mesh(count, fanout, ("eu", "us", "ap"))
    for source in sorted(views):
        crossings = {
            (hop, after)
            for name in views
            if name != source
            for hop, after in zip(way(views, source, name), way(views, source, name)[1:], strict=False)
            if where[hop] != where[after]
        }
        assert len(crossings) == 2
        assert {where[after] for _, after in crossings} == {"eu", "us", "ap"} - {where[source]}


def test_two_gateways_of_a_region_share_what_comes_in():
    views, where = mesh(40, 32, ("eu", "us"))
    gateways = {
        views[name].feeder(source)
        for name in views
        for source in views
        if where[name] == "us" and where[source] == "eu"
    }
    assert len(gateways & {name for name in views if where[name] == "us"}) == 2


def test_a_source_that_no_relay_is_known_to_reach_is_asked_itself():
    views, _ = mesh(12)
    assert views["h000"].feeder("gone") == "gone"


@pytest.mark.parametrize("count", [*range(2, 260), 500, 777])
def test_the_step_is_the_best_of_all_though_few_are_tried(count):
    tried = range(2, max(3, count))
    assert step_of(count) == min(tried, key=lambda step: (links_of(count, step), step))


def test_few_steps_are_tried_for_the_largest_mesh(monkeypatch):
    tried: list[int] = []
    monkeypatch.setattr(fanout, "links_of", lambda count, step: tried.append(step) or step)
    step_of.__wrapped__(4095)
    assert len(tried) < 2 * 64
