"""The shell in one process: real segments of this process alone, real TCP, the real mesh."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import pytest
import uvloop

import cachee_shm
from cachee_bridge.carriers.tls import Contexts
from cachee_bridge.ports.effects import Close, Connect, Effect, Log, ServeUntil
from cachee_bridge.protocol.mesh import Settings
from cachee_bridge.shell.shell import Grid, Shell
from cachee_bridge.streams import buckets
from cachee_shm import Cache
from cachee_shm.errors import BridgeRunning, SegmentRetired
from tests.workers import free_ports

WAIT_S = 30.0
HEARTBEAT_S = 0.05


def held(namespace: str) -> Cache:
    """A worker's segment, which its bridge holds as well. There is none of another layout."""
    cache: Cache = cachee_shm.attach(namespace, private=True, config={"defaults": {"memory": "4MiB"}})
    cache.gather = lambda: None  # type: ignore[attr-defined]
    return cache


class Side:
    """One shell over one namespace."""

    def __init__(
        self, name: str, port: int, secrets: tuple[bytes, ...] = (), tls: Contexts | None = None
    ) -> None:
        self.port = port
        self.cache = held("shop")
        self.broken: list[BaseException] = []
        settings = Settings(address=f"127.0.0.1:{port}", heartbeat_s=HEARTBEAT_S, secrets=secrets)
        loop = asyncio.get_running_loop()
        self.shell = Shell(loop, name, {"shop": self.cache}, settings, None, self.broken.append, tls)

    async def start(self, *peers: int) -> None:
        await self.shell.start("127.0.0.1", self.port, [f"127.0.0.1:{peer}" for peer in peers])

    def up(self) -> list[str]:
        return [peer.name for peer in self.shell.mesh.views.peers() if peer.state == "up"]


def run(test: Callable[[Side, Side], Awaitable[None]]) -> None:
    async def main() -> None:
        ports = free_ports(2)
        left, right = Side("left", ports[0]), Side("right", ports[1])
        try:
            await left.start(*ports)
            await right.start(*ports)
            await until(lambda: left.up() == ["right"] and right.up() == ["left"])
            await test(left, right)
        finally:
            for side in (left, right):
                side.shell.stop()
                side.cache.close()

    uvloop.run(main())


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), WAIT_S)


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


def test_who_leaves_for_good_waits_until_its_peers_have_applied_all_or_it_is_told_to_wait_no_longer() -> None:
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


def test_serve_until_reaches_the_segment_in_its_own_milliseconds() -> None:
    async def test(left: Side, right: Side) -> None:
        shell = left.shell
        for until_s, ms in ((12.5, 12500), (float("inf"), 1 << 63)):
            perform(shell, [ServeUntil(("shop",), until_s)])
            assert left.cache.serve_until == ms

    run(test)


def perform(shell: Shell, effects: list[Effect]) -> None:
    """As if the mesh had wanted just these."""
    shell.mesh.effects()
    for effect in effects:
        shell.mesh._effects.add(effect)
    shell.perform()


def test_a_log_is_one_line_whatever_a_peer_calls_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def test(left: Side, right: Side) -> None:
        with caplog.at_level(logging.INFO, logger="cachee_bridge"):
            perform(left.shell, [Log("warning", "a\nb is up", {"peer": "x\x1b[2Jy", "links": 3})])
        assert caplog.messages[-1] == "a?b is up peer=x?[2Jy links=3"

    run(test)


def test_an_inbound_link_that_is_closed_for_a_reason_is_logged_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(left: Side, right: Side) -> None:
        turned_away: list[tuple[str, str]] = []
        monkeypatch.setattr(left.shell, "refused", lambda *told: turned_away.append(told))
        monkeypatch.setattr(left.shell.network, "stranger", lambda link: "10.0.0.9:5\n" if link < 92 else "")
        with caplog.at_level(logging.INFO, logger="cachee_bridge"):
            caplog.clear()
            closes = (Close(90, "it lies", False), Close(91, "it lies", True), Close(92, "it lies", False))
            perform(left.shell, [*closes, Close(90, "", False)])
        assert caplog.messages == ["closed inbound link 90 from 10.0.0.9:5?: it lies"]
        assert turned_away == [("10.0.0.9:5\n", "it lies")]

    run(test)


def test_an_address_that_cannot_be_dialled_is_a_failed_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        failed: list[str] = []
        monkeypatch.setattr(left.shell.mesh, "connect_failed", lambda *told: failed.append(told[0]))
        perform(left.shell, [Connect("host:99999"), Connect("nonsense")])
        assert failed == ["host:99999", "nonsense"]
        assert not left.broken

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


@pytest.mark.parametrize("lost", [SegmentRetired, BridgeRunning])
def test_a_segment_lost_while_a_frame_is_applied_ends_the_shell(
    monkeypatch: pytest.MonkeyPatch, lost: type[Exception]
) -> None:
    async def test(left: Side, right: Side) -> None:
        class Lost:
            def __getattr__(self, name: str) -> object:
                if name == "apply":
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


def test_ticks_of_all_hosts_fall_on_one_grid_of_the_wall_clock() -> None:
    early, late = Grid(0.1, 1000.0), Grid(0.1, 1234.56)
    assert early.next(5.03) == pytest.approx(5.1)
    assert late.next(5.03) + 1234.56 == pytest.approx(1239.6)


def test_what_is_due_does_not_wait_for_a_slow_heartbeat() -> None:
    grid = Grid(60.0, 0.0)
    assert grid.next(7.03) == pytest.approx(7.1)
    assert grid.next(60.0) == pytest.approx(60.0)


def test_a_tick_counts_as_if_it_were_on_time() -> None:
    grid = Grid(0.1, 0.0)
    assert grid.settle(7.003) == pytest.approx(7.0)
    assert grid.next(7.1) == pytest.approx(7.1)


def test_a_beat_due_on_the_grid_is_not_a_rounding_error_too_early() -> None:
    grid = Grid(0.1, 1795402233.123)
    now, ticks = 86_400.0, []
    for _ in range(1000):
        wake = grid.next(now + 0.1)
        now = grid.settle(wake + 0.001)
        ticks.append(now)
    assert [round(after - before, 6) for before, after in itertools.pairwise(ticks)] == [0.1] * 999


def test_a_tick_that_comes_far_too_late_is_told_the_truth() -> None:
    grid = Grid(0.1, 0.0)
    grid.next(7.0)
    assert grid.settle(9.05) == 9.05
