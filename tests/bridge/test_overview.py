"""The dashboard's one answer: the snapshot, counters, the hottest keys, and the checker's view."""

from __future__ import annotations

import json
from typing import Any

from cachee_bridge.http.messages import Request
from cachee_bridge.http.overview import FRESH_S, Overview
from cachee_shm import Cache, attach

ASKED = Request("GET", "/api/mesh")


class Given:
    """An overview of one real segment, at a time that the test sets."""

    def __init__(self, checker: dict[str, Any] | None = None) -> None:
        self.checker = checker
        self.now, self.asked = 100.0, 0
        self.cache: Cache = attach(private=True)
        self.held = {"shop": self.cache}
        self.overview = Overview(self._ask, self.held, lambda: self.now, "eu", lambda: [(None, 7)])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if request == {"do": "checker"}:
            return self.checker or {}
        assert request == {"do": "peers"}
        self.asked += 1
        return {"host": "web-1", "peers": []}

    def told(self) -> dict[str, Any]:
        self.now += FRESH_S
        answer: dict[str, Any] = json.loads(self.overview.handle(ASKED).body)
        return answer


def test_it_joins_the_snapshot_the_counters_and_the_hottest_keys() -> None:
    given = Given()
    given.overview.look()
    given.cache.set("user:secret", 1)
    given.overview.look()
    told = given.told()
    assert (told["host"], told["region"], told["propagation"]) == ("web-1", "eu", [[None, 7]])
    assert told["stats"]["shop"]["sets"] == 1
    assert told["hottest"] == {"shop": [{"hash": f"{given.cache._hash('user:secret'):016x}", "count": 1}]}
    assert "secret" not in json.dumps(told)


def test_what_was_written_before_the_bridge_began_is_not_counted_as_hot() -> None:
    given = Given()
    given.cache.set("old", 1)
    given.overview.look()
    assert given.told()["hottest"] == {"shop": []}


def test_the_view_of_the_checker_is_passed_on() -> None:
    view = {"peers": {"web-2": {"canaries": 3}}, "suspects": []}
    assert Given(view).told()["checker"] == view


def test_many_pages_cost_one_answer_in_each_fifth_of_a_second() -> None:
    given = Given()
    given.now += 1
    answers = {given.overview.handle(ASKED).body for _ in range(50)}
    assert (given.asked, len(answers)) == (1, 1)
    given.told()
    assert given.asked == 2


def test_a_namespace_that_is_made_later_is_in_the_next_answer() -> None:
    given = Given()
    given.overview.look()
    given.held["news"] = attach(private=True)
    given.overview.look()
    assert given.told()["stats"].keys() == given.told()["hottest"].keys() == {"news", "shop"}
