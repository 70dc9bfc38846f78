"""What the hosts' journals say of a key, and who served an old copy of it (explain.py)."""

import json
import os
import time

import pytest

import cachee_shm
from cachee_shm.explain import Explanation, Row

NOT_OBSERVED = "not observed"
START = 1_800_000_000.0


def row(at, host, kind, why="", **fields):
    """At so many seconds after START."""
    told = {"layer": "segment", "source": host, "incarnation": 1, "sequence": 1, "pid": 7} | fields
    told = {"command": "python", "service": "shop"} | told
    if "since" in told:
        told["since"] += START
    return Row(at=START + at, host=host, kind=kind, why=why, **told)


def told(*rows, now=10.0, clocks=None):
    ordered = tuple(sorted(rows, key=lambda each: each.at))
    return Explanation("shop", "user:42", 42, "a", START + now, ordered, {}, clocks or {})


def test_an_old_copy_that_was_read_after_a_write_elsewhere_is_explained():
    why = told(
        row(1, "a", "written", service="checkout", pid=11, digest=5),
        row(1.1, "a", "sent"),
        row(3, "b", "first_read", service="reports", pid=22, command="gunicorn", since=0, digest=4),
        row(5.5, "b", "evicted", "repair"),
        clocks={"b": 0.002},
    ).why_stale()
    served, held, lasted = why.lines
    assert served == "served by: reports (pid 22, gunicorn) on b, 2.00 s after the write"
    assert held == "held by: the segment of b"
    assert lasted.startswith(
        "for how long: 4.50 s (give or take 2 ms): written by checkout (pid 11, python) on a"
    )
    assert lasted.endswith("until it was evicted on b (repair)")
    assert (why.stale_s, why.read.pid, why.write.pid, why.end.kind) == (4.5, 22, 11, "evicted")


def test_a_copy_that_is_still_there_has_been_stale_at_least_until_now():
    why = told(row(1, "a", "deleted"), row(3, "b", "first_read", since=0), now=9.0).why_stale()
    assert why.lasted.startswith("at least 8.00 s")
    assert why.lasted.endswith("until now, and it may be there still")
    assert (why.stale_s, why.end) == (8.0, None)


def test_the_near_cache_that_had_it_too_is_named():
    why = told(row(1, "a", "written"), row(3, "b", "first_read", layer="near", since=0)).why_stale()
    assert why.held == "the near cache of shop (pid 7, python) and the segment of b"


def test_without_a_journalled_read_the_service_is_not_observed():
    why = told(row(1, "a", "written"), row(3, "b", "held", since=0)).why_stale()
    assert (why.served, why.held, why.read) == (NOT_OBSERVED, "the segment of b", None)
    assert why.lasted.startswith("at least 9.00 s")


def test_a_write_that_was_not_journalled_is_known_by_what_its_host_holds():
    """The key was armed at both hosts only afterwards."""
    why = told(
        row(3, "a", "held", since=1, digest=5),
        row(3, "b", "held", since=0, digest=4),
        row(4, "b", "first_read", since=0, digest=4, service="reports"),
    ).why_stale()
    assert why.served.startswith("reports (pid 7, python) on b")
    assert "a has held another value since" in why.lasted
    assert why.stale_s == pytest.approx(9.0)


def test_of_two_writes_the_last_one_before_the_read_counts():
    why = told(
        row(1, "a", "written"),
        row(2, "c", "written"),
        row(4, "a", "written"),
        row(3, "b", "first_read", since=0),
    ).why_stale()
    assert why.write.host == "c"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1, "a", "written")],
        [row(1, "a", "written"), row(3, "b", "first_read", since=2)],  # loaded since
        [row(1, "b", "written"), row(3, "b", "first_read", since=0)],  # its own: the segment orders these
        [row(4, "a", "written"), row(3, "b", "first_read", since=0)],  # not yet written
        [row(1, "a", "written", digest=5), row(3, "b", "first_read", since=0, digest=5)],  # the same bytes
        [
            row(1, "a", "written"),
            row(2, "b", "received", "kept: same value", source="a"),
            row(3, "b", "first_read", since=0),
        ],
        [row(1, "a", "written", "local"), row(3, "b", "first_read", since=0)],
        [row(1, "a", "written", "lost to a newer write"), row(3, "b", "first_read", since=0)],
        [row(3, "a", "held", "not held"), row(3, "b", "held", since=0)],
    ],
)
def test_what_is_no_stale_read_is_not_called_one(rows):
    assert told(*rows).why_stale().lines == (
        f"served by: {NOT_OBSERVED}",
        f"held by: {NOT_OBSERVED}",
        f"for how long: {NOT_OBSERVED}",
    )


def test_what_is_within_the_clocks_uncertainty_may_be_stale():
    rows = (row(1, "a", "written"), row(3, "b", "first_read", since=1.5))
    assert told(*rows).why_stale().write is None
    assert told(*rows, clocks={"b": 0.5}).why_stale().write is not None


def test_a_read_that_may_have_come_before_the_write_is_not_called_stale():
    rows = (row(1, "a", "written"), row(1.2, "b", "first_read", since=0))
    assert told(*rows, clocks={"b": 0.1}).why_stale().write is not None
    assert told(*rows, clocks={"b": 0.3}).why_stale().write is None


def test_a_stale_value_that_was_served_on_purpose_is_said_to_be():
    why = told(row(3, "b", "stale_served", "its load failed", service="reports")).why_stale()
    assert why.served == "reports (pid 7, python) on b, on purpose: its load failed"
    assert why.lasted == NOT_OBSERVED


def test_a_process_whose_name_was_given_away_is_said_to_be_unknown():
    why = told(row(1, "a", "written", pid=0), row(3, "b", "first_read", since=0)).why_stale()
    assert "written by a process whose name is no longer known on a" in why.lasted


def test_an_explanation_is_plain_values_for_json():
    found = json.loads(json.dumps(told(row(1, "a", "written"), row(3, "b", "first_read", since=0)).as_dict()))
    assert found["hash"] == f"{42:016x}"
    assert [each["kind"] for each in found["rows"]] == ["written", "first_read"]
    assert found["why_stale"]["read"]["host"] == "b"


def test_a_host_without_a_bridge_explains_what_it_did_itself(config):
    config["namespaces"]["shop"]["journal"] = "all"
    with cachee_shm.attach(config=config, service="checkout") as cache:
        before = time.time()
        cache.set("a", 1)
        cache.delete("a")
        found = cache.explain("a")
    assert [(each.kind, each.host, each.service, each.pid) for each in found.rows] == [
        ("written", found.host, "checkout", os.getpid()),
        ("deleted", found.host, "checkout", os.getpid()),
    ]
    assert before <= found.rows[0].at <= found.rows[1].at <= found.at
    assert (found.key, found.unheard, dict(found.clocks)) == ("a", {}, {})


def test_where_the_bridge_does_not_answer_this_host_is_explained_and_that_is_said(config):
    config["bridge"] = {"listen": "127.0.0.1:7946"}
    config["namespaces"]["shop"]["journal"] = "all"
    with cachee_shm.attach(config=config) as cache:
        cache.set("a", 1)
        found = cache.explain("a")
    assert [each.kind for each in found.rows] == ["written"]
    assert "no bridge runs" in found.unheard["the other hosts"]


def test_a_key_that_was_never_seen_has_no_rows(config):
    with cachee_shm.attach(config=config) as cache:
        assert cache.explain("never").rows == ()
        assert cache.explain(b"\xff\xfe").key == "\\xff\\xfe"


def test_a_record_of_a_third_host_does_not_say_that_the_write_was_applied():
    rows = [row(1, "a", "written"), row(2, "b", "first_read", since=0.5)]
    for source, stale in (("c", True), ("a", False)):
        heard = row(1.5, "b", "received", source=source)
        found = told(*rows[:1], heard, *rows[1:], clocks={"a": 0.0, "b": 0.0}).why_stale()
        assert (found.read is not None) is stale
