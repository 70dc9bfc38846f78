"""The checker of real bridges: calm, and one bridge of which something is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bridge.hosts import Host, hosts, until
from tests.bridge.shells import Side, run
from tests.bridge.test_explaining import ask

OFTEN = 'check_every = "20ms"'

LOSES = """
import struct
from cachee_bridge.daemon import older
class Losing(older.Segment):
    lost = 0
    def _takes(self):
        self.lost += 1
        return self.lost < 100
    def apply(self, source, payload):
        return super().apply(source, payload) if self._takes() else 0
    def receive(self, source, incarnation, cursor, head, data, sealed, frames_max):
        return None
import cachee_bridge.daemon.segments as segments
segments.Segment = Losing
"""
"""Suppresses each invalidation from some moment on, and counts it as applied."""

LIES = """
from cachee_bridge.daemon import older
class Lying(older.Segment):
    stored = 0
    def source_store(self, index, incarnation, cursor):
        self.stored += 1
        if self.stored < 100:
            super().source_store(index, incarnation, cursor)
    def apply(self, source, payload):
        return super().apply(source, payload) if self.stored < 100 else 0
    def receive(self, source, incarnation, cursor, head, data, sealed, frames_max):
        return None
import cachee_bridge.daemon.segments as segments
segments.Segment = Lying
"""
"""Says from some moment on that it has applied what its segment has not."""

IGNORES = """
from cachee_bridge.daemon import older
class Ignoring(older.Segment):
    def canary_fill(self, hashed, value, token):
        return super().canary_fill(hashed, value, self.tail)
import cachee_bridge.daemon.segments as segments
segments.Segment = Ignoring
"""
"""Stores what was loaded, whatever has happened since."""


@contextmanager
def two(folder: Path, broken: str = "pass") -> Iterator[tuple[Host, Host]]:
    with hosts(folder, bridge=OFTEN) as (a, b):
        a.start(), b.start(broken)
        for host in (a, b):
            host.attach()
        yield a, b


def checker(host: Host) -> dict[str, Any]:
    return ask(host, do="checker")


def seen(host: Host, peer: Host) -> dict[str, Any]:
    found: dict[str, Any] = checker(host)["peers"].get(peer.name, {"canaries": 0})
    return found


def suspect(host: Host, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def is_found() -> bool:
        found[:] = [one for one in checker(host)["suspects"] if one["name"] == name]
        return bool(found)

    until(is_found, f"a suspect of {name}")
    return found[0]


def test_two_calm_bridges_see_each_others_canaries_and_suspect_nobody(tmp_path: Path) -> None:
    with two(tmp_path) as (a, b):
        until(lambda: seen(a, b)["canaries"] >= 50 and seen(b, a)["canaries"] >= 50, "fifty canaries")
        for one, other in ((a, b), (b, a)):
            told = checker(one)
            counts = told["peers"][other.name]
            assert counts["visible"]["60"] >= counts["canaries"] - 2  # the last may be under way
            assert told["every_s"] == 0.02 and counts["error"] == ""
            assert told["suspects"] == []
        assert "stale" not in a.log + b.log


def test_canaries_leave_no_trace_in_what_workers_see(tmp_path: Path) -> None:
    with two(tmp_path) as (a, b):
        caches = [host.attach() for host in (a, b)]
        until(lambda: seen(a, b)["canaries"] and seen(b, a)["canaries"], "both have met")
        events = [cache.events() for cache in caches]
        until(lambda: seen(a, b)["canaries"] >= 50, "fifty canaries")
        assert [len(cache) for cache in caches] == [0, 0]
        assert [each.poll() for each in events] == [[], []]
        for cache in caches:
            stats = cache.stats()
            assert stats["sets"] == stats["fills"] == stats["invalidated"] == stats["misses"] == 0


def test_a_suppressed_invalidation_is_reported_by_name_with_its_trace(tmp_path: Path) -> None:
    with two(tmp_path, LOSES) as (a, b):
        found = suspect(a, "invalidation lost")
        assert (found["peer"], found["namespace"], found["what"]) == (b.name, "shop", "canary")
        assert "holds version" in found["trace"][0]
        until(
            lambda: any("journal of" in line for one in checker(a)["suspects"] for line in one["trace"]),
            "what the peer's journal says",
        )
        until(lambda: f"stale at {b.name}: invalidation lost: canary" in a.log, "a line of the log")


def test_a_bridge_that_lies_about_its_cursor_is_reported_by_name(tmp_path: Path) -> None:
    with two(tmp_path, LIES) as (a, b):
        found = suspect(a, "cursor ahead of its segment")
        assert found["peer"] == b.name
        assert "its bridge has told that it applied" in found["why"]


def test_a_fill_that_ignores_its_token_is_reported_by_name(tmp_path: Path) -> None:
    with two(tmp_path, IGNORES) as (a, b):
        found = suspect(a, "fill ignored its token")
        assert found["peer"] == b.name and found["trace"]


def test_a_tick_that_raises_is_tried_again_and_costs_nobody_else_anything() -> None:
    async def test(left: Side, right: Side) -> None:
        checking, calls = left.shell.checking, []

        def raises(now: float) -> None:
            calls.append(now)
            raise ValueError("a mistake")

        checking.checker.tick = raises  # type: ignore[method-assign]
        checking._tick()
        assert len(calls) == 1 and left.broken == []
        assert checking._timer is not None and left.up() == ["right"]

    run(test)
