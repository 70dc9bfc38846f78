"""What Prometheus is told, read by the parser of its own client library."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cachee_bridge.http.exposition import Exposition, Histogram
from cachee_bridge.http.messages import Request
from cachee_bridge.http.metrics import FRESH_S, OTHERS, PEERS_MAX, Metrics
from cachee_bridge.ports.effects import Failure
from cachee_bridge.ports.reasons import Reason, Why
from cachee_bridge.ports.views import NamespaceView, PeerView, Repairs, StreamView
from cachee_shm import Cache

ODD = 'a"b\\c\nd{e="f"} \x00ü'


def families(text: bytes) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def samples(text: bytes, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    found = [sample for family in families(text).values() for sample in family.samples if sample.name == name]
    assert len({tuple(sorted(sample.labels.items())) for sample in found}) == len(found)
    return {tuple(sorted(sample.labels.items())): sample.value for sample in found}


@dataclass
class Shown:
    """A mesh as people see it."""

    seen: list[PeerView] = field(default_factory=list)
    served: list[NamespaceView] = field(default_factory=list)

    def peers(self) -> list[PeerView]:
        return self.seen

    def namespaces(self, now: float) -> list[NamespaceView]:
        return self.served

    def unmet(self) -> list[str]:
        return ["web-9"]


def peer(name: str, lag: int = 0, state: str = "up", heard_at: float = 99.0) -> PeerView:
    stream = StreamView(1, 5, 5, 7, lag, 90.0, Repairs(1, 2, 3, 4), 0)
    return PeerView(name, "", state, namespaces={"shop": stream}, heard_at=heard_at)


def told(shown: Shown, **held: Any) -> bytes:
    return Metrics("web-1", shown, held, lambda: 100.0, {}, {}).text(100.0)


def test_every_sample_is_of_a_family_with_a_type_and_an_explanation(cache: Cache) -> None:
    text = told(Shown([peer("web-2")]), shop=cache)
    for family in families(text).values():
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert family.documentation.endswith("."), family.name
        assert family.name.startswith(("cachee_", "process_"))


def test_verbs_of_the_segment_are_counted_by_command_and_status(cache: Cache) -> None:
    cache.set("k", 1)
    cache.get("k")
    cache.get("none")
    cache.delete("k")
    commands = samples(told(Shown(), shop=cache), "cachee_commands_total")
    found = {(dict(key)["command"], dict(key)["status"]): value for key, value in commands.items()}
    assert (
        found["get", "hit"] == found["get", "miss"] == found["set", "stored"] == found["delete", "done"] == 1
    )
    assert found["set", "lost"] == 0


def test_loads_waits_and_evictions_are_told_by_what_came_of_them(cache: Cache) -> None:
    for number in range(400):
        cache.set(f"x{number}", bytes(16000), ttl=None)
    cache.get_or_load("k", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("none", lambda: 1 // 0)
    text = told(Shown(), shop=cache)
    evictions = samples(text, "cachee_evictions_total")
    assert {dict(key)["reason"] for key in evictions} == {
        *("capacity", "expired", "invalidated", "tag", "isolation")
    }
    assert evictions[(("namespace", "shop"), ("reason", "capacity"))] == cache.stats()["evicted"] > 0
    loads = {dict(key)["result"]: value for key, value in samples(text, "cachee_loads_total").items()}
    assert loads == {"ok": 1, "error": 1, "refused": 0, "stale_served": 0}
    waits = {dict(key)["outcome"] for key in samples(text, "cachee_lease_waits_total")}
    assert waits == {"served", "failed", "again", "stale", "over", "circular"}
    assert samples(text, "cachee_load_duration_seconds_count") == {(("namespace", "shop"),): 2}
    memory, limit = samples(text, "cachee_memory_bytes"), samples(text, "cachee_memory_limit_bytes")
    ((key, used),) = memory.items()
    assert limit[key] / 2 < used <= limit[key] == 4 << 20
    assert samples(text, "cachee_overevicted_total") == {(("namespace", "shop"),): 0}


@pytest.mark.needs("Prometheus")
def test_prometheus_own_linter_has_nothing_to_say(cache: Cache) -> None:
    cache.get_or_load("k", lambda: 1)
    text = told(Shown([peer("web-2")], [isolated("shop", "web-2")]), shop=cache)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_empty_segment_uses_little_of_its_memory(cache: Cache) -> None:
    text = told(Shown(), shop=cache)
    ((key, used),) = samples(text, "cachee_memory_bytes").items()
    assert 0 < used < samples(text, "cachee_memory_limit_bytes")[key] / 2


def test_the_text_is_made_anew_after_a_while_and_not_for_each_that_asks(cache: Cache) -> None:
    now = [100.0]
    metrics = Metrics("web-1", Shown(), {"shop": cache}, lambda: now[0], {}, {})

    def sets() -> float:
        text = metrics.handle(Request("GET", "/metrics")).body
        key = (("command", "set"), ("namespace", "shop"), ("status", "stored"))
        return samples(text, "cachee_commands_total")[key]

    assert sets() == 0
    cache.set("k", 1)
    assert sets() == 0
    now[0] += FRESH_S
    assert sets() == 1
    now[0] = 0.0  # no clock goes back; if one did, nothing would be stuck
    cache.set("k", 2)
    assert sets() == 2


def test_of_more_peers_than_have_lines_the_rest_are_summed_and_the_worst_of_them_is_told() -> None:
    peers = [peer(f"web-{number:03}", number, heard_at=100.0 - number) for number in range(PEERS_MAX + 10)]
    peers[-1] = peer("web-999", 1000, "down", heard_at=1.0)
    text = told(Shown(peers[::-1]))
    lag = samples(text, "cachee_peer_lag_records")
    assert len(lag) == PEERS_MAX + 1
    others = (("namespace", "shop"), ("peer", OTHERS))
    assert lag[others] == sum(range(PEERS_MAX, PEERS_MAX + 9)) + 1000
    assert samples(text, "cachee_peer_up")[(("peer", OTHERS),)] == 9
    assert samples(text, "cachee_peer_last_heard_seconds")[(("peer", OTHERS),)] == 99.0
    assert samples(text, "cachee_peers") == {(): PEERS_MAX + 10}


def test_a_peer_that_was_never_heard_is_told_as_such() -> None:
    text = told(Shown([peer("web-2", heard_at=-math.inf)]))
    assert samples(text, "cachee_peer_last_heard_seconds") == {(("peer", "web-2"),): math.inf}


def isolated(namespace: str, *who: str) -> NamespaceView:
    whys = [Why(Reason.SILENT, name) for name in who]
    return NamespaceView(namespace, 50.0, "cap", list(who), [], math.inf, whys)


def test_an_isolated_namespace_names_the_sources_and_a_calm_one_says_that_it_is() -> None:
    calm = NamespaceView("calm", 200.0, "cap", [], [], math.inf)
    text = told(Shown([peer("web-2"), peer("web-3")], [isolated("shop", "web-3"), calm]))
    assert samples(text, "cachee_isolated_namespace") == {
        (("namespace", "shop"),): 1,
        (("namespace", "calm"),): 0,
    }
    assert samples(text, "cachee_isolated") == {
        (("namespace", "shop"), ("source", "web-2")): 0,
        (("namespace", "shop"), ("source", "web-3")): 1,
        (("namespace", "calm"), ("source", "web-2")): 0,
        (("namespace", "calm"), ("source", "web-3")): 0,
    }


def test_a_partition_from_hundreds_of_hosts_has_a_bounded_number_of_lines() -> None:
    names = [f"web-{number}" for number in range(500)]
    lines = samples(
        told(Shown([peer(name) for name in names], [isolated("shop", *names)])), "cachee_isolated"
    )
    assert len(lines) == PEERS_MAX + 1
    assert lines[(("namespace", "shop"), ("source", OTHERS))] == 500 - PEERS_MAX


def test_names_hold_what_they_hold_and_no_line_more() -> None:
    text = told(Shown([peer(ODD)], [isolated("shop", ODD)]))
    assert samples(text, "cachee_peer_up") == {(("peer", ODD),): 1}
    assert (("namespace", "shop"), ("source", ODD)) in samples(text, "cachee_isolated")


def test_half_a_surrogate_in_a_name_costs_a_character_and_not_the_scrape() -> None:
    assert samples(told(Shown([peer("a\udcff")])), "cachee_peer_up") == {(("peer", "a?"),): 1}


def test_what_the_bridge_is_and_uses_is_told() -> None:
    text = told(Shown())
    ((labels, value),) = samples(text, "cachee_build_info").items()
    assert value == 1 and {"version", "layout", "wire", "python", "host"} == dict(labels).keys()
    assert samples(text, "process_resident_memory_bytes")[()] > 1 << 20
    assert samples(text, "process_open_fds")[()] > 2
    assert samples(text, "cachee_unmet_hosts") == {(): 1}


@pytest.mark.parametrize("bounds", [[], [0.1], [0.001, 0.5]])
def test_a_histogram_is_cumulative_and_ends_with_all(bounds: list[float]) -> None:
    made = Exposition()
    made.begin("cachee_load_duration_seconds", "histogram", "Loads.")
    made.add_histogram(Histogram(bounds, [3] * (len(bounds) + 1), 1.25), namespace="shop")
    text = made.text()
    buckets = samples(text, "cachee_load_duration_seconds_bucket")
    assert [value for _, value in sorted(buckets.items(), key=lambda item: item[1])] == [
        3 * number for number in range(1, len(bounds) + 2)
    ]
    assert samples(text, "cachee_load_duration_seconds_sum") == {(("namespace", "shop"),): 1.25}
    assert samples(text, "cachee_load_duration_seconds_count")[(("namespace", "shop"),)] == 3 * (
        len(bounds) + 1
    )


def test_each_scrape_counts_the_entries_of_one_namespace_in_turns(cache: Cache) -> None:
    made = Metrics("web-1", Shown(), {"a": cache, "b": cache}, lambda: 100.0, {}, {})
    values = []
    for number in range(3):
        values.append(samples(made.text(100.0), "cachee_entries"))
        cache.set(f"key {number}", 1)
    a, b = (("namespace", "a"),), (("namespace", "b"),)
    assert [(found[a], found[b]) for found in values] == [(0, 0), (1, 0), (1, 2)]


def test_questions_for_values_are_told_by_what_came_of_them(cache: Cache) -> None:
    fills = {("shop", "filled", ""): 3, ("shop", "failed", "late"): 1}
    text = Metrics("web-1", Shown(), {"shop": cache}, lambda: 100.0, {}, fills).text(100.0)
    found = samples(text, "cachee_peer_fills_total")
    assert {key: count for key, count in found.items() if count} == {
        (("namespace", "shop"), ("reason", ""), ("result", "filled")): 3,
        (("namespace", "shop"), ("reason", "late"), ("result", "failed")): 1,
    }
    assert {dict(key)["reason"] for key in found} == {"", *(failure.value for failure in Failure)}
    assert b"peer_fills" not in told(Shown(), shop=cache)
