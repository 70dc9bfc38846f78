"""The shell in one process: real segments of this process alone, real TCP, the real mesh."""

from __future__ import annotations

import asyncio

import pytest

from cachee_bridge.ports.effects import TickSoon
from cachee_bridge.streams import buckets
from cachee_shm.errors import BridgeRunning, SegmentRetired
from tests.bridge.shells import HEARTBEAT_S, WAIT_S, Side, held, perform, run, until


def test_a_write_on_one_side_evicts_on_the_other() -> None:
    async def test(left: Side, right: Side) -> None:
        right.cache.get_or_load("k", lambda: b"old")
        left.cache.delete("k")
        await until(lambda: right.cache.get("k") is None)

    run(test)


def test_a_lapped_ring_is_repaired_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        monkeypatch.setattr(buckets, "EVICT_WORDS", 1000)
        parts, go_on = [], right.shell.mesh.go_on
        monkeypatch.setattr(right.shell.mesh, "go_on", lambda now: parts.append(now) or go_on(now))
        keys = [f"k{number}" for number in range(500)]
        for key in keys:
            right.cache.get_or_load(key, lambda: b"old")
        left.cache.delete_many(keys[:50])
        left.cache.delete_many([f"other{number}" for number in range(2 * left.cache.ring_slots)])
        await until(lambda: [row[3] for row in right.cache.sources()] == [left.cache.tail])
        assert not right.cache.get_many(keys[:50])
        assert len(right.cache.get_many(keys)) > 350
        assert len(parts) > 3

    run(test)


def test_a_bridge_that_leaves_for_good_waits_until_its_peers_have_applied_all_or_it_is_told_to_stop() -> None:
    async def test(left: Side, right: Side) -> None:
        right.cache.get_or_load("k", lambda: b"old")
        left.cache.delete("k")
        assert await left.shell.leave(WAIT_S)
        assert right.cache.get("k") is None
        looks: list[int] = []

        def at_once() -> bool:
            looks.append(1)
            return len(looks) > 2

        left.shell.mesh.left = lambda: False  # type: ignore[method-assign]
        assert not await left.shell.leave(WAIT_S, at_once)
        assert len(looks) == 3
        assert not await left.shell.leave(0)

    run(test)


def test_a_namespace_added_later_is_relayed() -> None:
    async def test(left: Side, right: Side) -> None:
        news = [held("news") for _ in "lr"]
        left.shell.add_namespace("news", news[0])
        right.shell.add_namespace("news", news[1])
        await until(lambda: all(cache.serve_until >= cache.now_ms() for cache in news))
        news[1].get_or_load("k", lambda: b"old")
        news[0].delete("k")
        await until(lambda: news[1].get("k") is None)

    run(test)


def test_a_mistake_that_a_link_sets_off_costs_that_link_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(left: Side, right: Side) -> None:
        received = left.shell.mesh.received

        def mistaken(link: int, data: bytes, now: float, wire_bytes: int) -> None:
            if link != left.shell.mesh._links.up["right"].number:  # both dialled: that one gives way
                received(link, data, now, wire_bytes)
                return
            monkeypatch.setattr(left.shell.mesh, "received", received)
            raise ZeroDivisionError("a mistake")

        monkeypatch.setattr(left.shell.mesh, "received", mistaken)
        await until(lambda: not left.up())
        await until(lambda: left.up() == ["right"] and right.up() == ["left"])
        assert not left.broken
        assert "a mistake in the bridge" in caplog.text

    run(test)


def test_ticks_that_are_mistaken_again_and_again_end_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        def mistaken(now: float) -> float:
            raise ZeroDivisionError("a mistake")

        monkeypatch.setattr(left.shell.mesh, "tick", mistaken)
        await until(lambda: left.broken)
        assert isinstance(left.broken[0], ZeroDivisionError)

    run(test)


def test_a_tick_that_is_far_away_comes_at_the_next_heartbeat_once_something_stirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(left: Side, right: Side) -> None:
        shell, ticks, stirring = left.shell, 0, 0

        def tick(now: float) -> float:
            nonlocal ticks, stirring
            ticks += 1
            if stirring:
                stirring -= 1
                shell.performer.perform(TickSoon())
            return now + 3600.0

        monkeypatch.setattr(shell.mesh, "tick", tick)
        for stirring in (0, 3):
            wanted = ticks + stirring + 1
            perform(shell, [TickSoon()])
            await until(lambda wanted=wanted: ticks >= wanted)
        shell.stop()
        wanted = ticks
        perform(shell, [TickSoon()])
        await asyncio.sleep(3 * HEARTBEAT_S)
        assert ticks == wanted

    run(test)


@pytest.mark.parametrize("lost", [SegmentRetired, BridgeRunning])
def test_a_segment_lost_while_a_frame_is_applied_ends_the_shell(
    monkeypatch: pytest.MonkeyPatch, lost: type[Exception]
) -> None:
    async def test(left: Side, right: Side) -> None:
        class Lost:
            def __getattr__(self, name: str) -> object:
                if name in ("apply", "receive"):
                    raise lost("to nobody, or to another")
                return getattr(right.cache, name)

        right.shell.mesh._session.namespaces.members["shop"].sources["left"]._store = Lost()  # type: ignore[assignment]
        left.cache.delete("k")
        await until(lambda: right.broken)
        assert isinstance(right.broken[0], lost)

    run(test)


def test_a_port_in_use_ends_the_start_and_nothing_runs() -> None:
    async def test(left: Side, right: Side) -> None:
        third = Side("third", left.port)
        with pytest.raises(OSError, match="in use"):
            await third.start(left.port)
        third.shell.stop()
        third.cache.close()

    run(test)
