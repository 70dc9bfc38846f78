"""The checker's counts and the repairs as metrics of Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from cachee_bridge.checker.nines import Nines
from cachee_bridge.http.checked import RepairsTold, tell_nines
from cachee_bridge.http.exposition import Exposition
from cachee_bridge.ports.views import PeerView, Repairs, StreamView


def samples(told: Exposition) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    families = text_string_to_metric_families(told.text().decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def counted(*names: str) -> Nines:
    nines = Nines()
    for name in names:
        nines.of(name).canaries = 3
        nines.seen(name, 0.00005, at_first=True)
        nines.seen(name, 0.05, at_first=False)
    return nines


def test_canaries_are_told_by_peer_and_window_and_the_way_as_a_histogram() -> None:
    told = Exposition()
    tell_nines(told, counted("b").peers, 64, "(others)")
    found = samples(told)
    assert found["cachee_canary_total", "b"] == 3
    visible = {key[2]: value for key, value in found.items() if key[0] == "cachee_canary_visible_total"}
    assert visible == {"0.001": 1, "0.01": 1, "0.1": 2, "1": 2, "60": 2}
    assert found["cachee_propagation_seconds_bucket", "b", "5e-05"] == 1
    assert found["cachee_propagation_seconds_bucket", "b", "+Inf"] == 1
    assert found["cachee_propagation_seconds_sum", "b"] == 0.00005


def test_of_too_many_peers_the_rest_are_summed() -> None:
    told = Exposition()
    tell_nines(told, counted("b", "c", "d", "e").peers, 2, "(others)")
    found = samples(told)
    totals = {key[1]: value for key, value in found.items() if key[0] == "cachee_canary_total"}
    assert totals == {"b": 3, "c": 3, "(others)": 6}
    assert found["cachee_canary_visible_total", "(others)", "60"] == 4
    assert found["cachee_propagation_seconds_count", "(others)"] == 2


def peer(name: str, **repairs: int) -> PeerView:
    stream = StreamView(1, 0, 0, 0, 0, 0.0, Repairs(**repairs), 0)
    return PeerView(name, "", "up", namespaces={"shop": stream})


def repaired(telling: RepairsTold, *peers: PeerView) -> dict[str, float]:
    told = Exposition()
    telling.tell(told, peers)
    return {key[1]: value for key, value in samples(told).items() if value}


def test_repairs_are_summed_over_peers_and_never_fall() -> None:
    telling = RepairsTold()
    assert repaired(telling, peer("b", maps=2), peer("c", maps=1, replays=4)) == {"maps": 3, "replays": 4}
    assert repaired(telling, peer("c", maps=1, replays=5)) == {"maps": 3, "replays": 5}
    again = repaired(telling, peer("b", flushes=1), peer("c", replays=1))
    assert again == {"maps": 3, "replays": 6, "flushes": 1}
