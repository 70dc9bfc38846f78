"""The pump on a real event loop, with a real doorbell and rings that move when the test says so."""

from __future__ import annotations

import asyncio
import functools
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from glob import glob

import posix_ipc
import pytest
import uvloop

import cachee_shm
from cachee_bridge.daemon.segments import Segments
from cachee_bridge.shell import pump as pump_module
from cachee_bridge.shell.doorbell import MESSAGES_MAX, Doorbell
from cachee_bridge.shell.pump import Pump
from cachee_shm.config import Config
from tests import machine
from tests.bridge.fakes import FakeRing

WAIT_S = 20.0
LOOKS = 20
HEALED_AT_ONCE = 4096


class Rig:
    """A pump over two rings; `moved` collects (namespace, pump_cursor) in the order of the calls."""

    def __init__(self, bell: Doorbell | None) -> None:
        self.bell = bell
        self.rings = {"shop": FakeRing(), "news": FakeRing()}
        self.moved: list[tuple[str, int]] = []
        self.warnings: list[str] = []
        self.after_first: Callable[[], None] = lambda: None
        self.spoilt: list[str] = []
        self.pump = Pump(
            asyncio.get_running_loop(), bell, self._note, self.warnings.append, self._note_mistake
        )
        for name, ring in self.rings.items():
            self.pump.add(name, ring)
        self.pump.start()

    def _note(self, namespace: str) -> int:
        healed = self.rings[namespace].heal(HEALED_AT_ONCE)
        self.moved.append((namespace, healed))
        if len(self.moved) == 1:
            self.after_first()
        return healed

    def _note_mistake(self, what: str, error: Exception) -> None:
        self.spoilt.append(what)

    def write(self, namespace: str, records: int = 1) -> None:
        self.rings[namespace].tail += records

    def ring(self) -> None:
        assert self.bell is not None
        posix_ipc.MessageQueue(self.bell.name).send(b"\0", timeout=0)

    def answered(self) -> bool:
        assert self.bell is not None
        queue = posix_ipc.MessageQueue(self.bell.name)
        waiting = queue.current_messages
        queue.close()
        return waiting == 0

    def asleep(self) -> bool:
        return all(ring.armed for ring in self.rings.values())


Test = Callable[[Rig], Awaitable[None]]


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    machine.require("message queues")
    bell = Doorbell.create(f"test-{uuid.uuid4().hex[:12]}", None)
    yield bell
    bell.close()


def run(test: Test, bell: Doorbell | None) -> None:
    async def main() -> None:
        rig = Rig(bell)
        await test(rig)
        rig.pump.stop()
        assert not any(ring.armed for ring in rig.rings.values())

    uvloop.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), WAIT_S)


def test_what_was_written_while_no_bridge_ran_goes_out_first(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        rig.write("news", 3)  # no turn of the loop has passed since start()
        await until(lambda: rig.moved == [("news", 3)])

    run(test, bell)


def test_while_awake_a_write_needs_no_ring(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        rig.write("shop")
        rig.after_first = lambda: rig.write("shop", 2)  # in the pump's own turn: it cannot be asleep yet
        await until(lambda: rig.moved == [("shop", 1), ("shop", 3)])

    run(test, bell)


def test_silence_arms_the_bell_of_every_ring(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)

    run(test, bell)


def test_a_ring_wakes_it_and_the_bell_is_armed_again(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        rig.rings["news"].armed = False  # as the writer does that rings
        rig.write("news")
        rig.ring()
        await until(lambda: rig.moved == [("news", 1)])
        await until(rig.asleep)

    run(test, bell)


def test_a_worker_that_waits_for_the_peers_is_told_of_once_though_nothing_was_written(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        rig.rings["news"].asked = 7
        rig.ring()
        await until(lambda: rig.moved == [("news", 0)])
        rig.ring()
        await until(rig.answered)
        rig.write("shop")
        rig.ring()
        await until(lambda: rig.moved[1:] == [("shop", 1)])

    run(test, bell)


def test_rings_that_follow_closely_end_the_ringing(bell: Doorbell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "THICK_S", WAIT_S)
    monkeypatch.setattr(pump_module, "STEPS_US", (900_000,))

    async def test(rig: Rig) -> None:
        for _ in range(2):
            rig.write("shop")
            rig.ring()
            await until(lambda: rig.moved[-1:] == [("shop", rig.rings["shop"].tail)])
        assert not rig.asleep()

    run(test, bell)


def test_a_ring_that_a_former_bridge_left_armed_is_disarmed_while_it_is_looked_at(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        ring = FakeRing()
        ring.armed = True
        rig.rings["blog"] = ring
        rig.pump.add("blog", ring)
        assert not ring.armed
        await until(rig.asleep)

    run(test, bell)


def test_a_pace_that_only_the_last_look_meets_never_rings(bell: Doorbell) -> None:
    class Paced(FakeRing):
        def __init__(self) -> None:
            super().__init__()
            self.looks = self.armings = 0

        @property
        def tail(self) -> int:
            return self.looks // len(pump_module.STEPS_US)

        @tail.setter
        def tail(self, tail: int) -> None:
            pass

        def bridge_sleep(self, sleeping: bool, /) -> bool:
            self.armings += sleeping and self.looks < LOOKS
            return super().bridge_sleep(sleeping)

    class Looking(Pump):
        def look(self, names: Iterable[str] | None = None) -> list[str]:
            if paced.looks < LOOKS:
                paced.looks += 1
            return super().look(names)

    paced = Paced()

    async def main() -> None:
        pump = Looking(asyncio.get_running_loop(), bell, lambda namespace: paced.heal(1), print, print)
        pump.add("paced", paced)
        pump.start()
        await until(lambda: paced.looks == LOOKS)
        assert paced.armings == 0
        pump.stop()

    uvloop.run(main())


def test_a_write_between_the_last_look_and_the_arming_is_found_without_a_ring(bell: Doorbell) -> None:
    class Late(FakeRing):
        """Written to in the very moment in which the pump wants to sleep."""

        def bridge_sleep(self, sleeping: bool, /) -> bool:
            self.tail += int(sleeping and self.tail == 0)
            return super().bridge_sleep(sleeping)

    async def test(rig: Rig) -> None:
        rig.rings["late"] = Late()
        rig.pump.add("late", rig.rings["late"])
        await until(lambda: rig.moved == [("late", 1)])
        await until(rig.asleep)

    run(test, bell)


def test_a_worker_that_begins_to_wait_between_the_last_look_and_the_arming_is_told_of_without_a_ring(
    bell: Doorbell,
) -> None:
    class Late(FakeRing):
        def bridge_sleep(self, sleeping: bool, /) -> bool:
            if sleeping:
                self.asked = 7
            return super().bridge_sleep(sleeping)

    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        rig.rings["late"] = Late()
        rig.pump.add("late", rig.rings["late"])
        await until(lambda: rig.moved == [("late", 0)])
        await until(rig.asleep)

    run(test, bell)


def test_a_long_backlog_is_handed_on_in_parts_as_it_heals(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        rig.write("shop", 3 * HEALED_AT_ONCE)
        rig.pump.look()
        step = HEALED_AT_ONCE
        assert rig.moved == [("shop", step), ("shop", 2 * step), ("shop", 3 * step)]

    run(test, bell)


def test_a_ring_that_does_not_heal_further_does_not_hold_the_loop(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        rig.rings["shop"].heal_limit = 0
        rig.write("shop")
        assert rig.pump.look()
        rig.rings["shop"].heal_limit = 1

    run(test, bell)


def test_a_check_finds_what_a_dead_writer_did_not_ring_for(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        rig.write("shop")
        rig.pump.check()
        assert rig.moved == [("shop", 1)]
        await until(rig.asleep)

    run(test, bell)


def test_writers_that_never_ring_are_looked_for_and_told_of_once(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        for _ in range(3):
            await until(rig.asleep)
            rig.write("shop")
            rig.pump.check()
        await until(rig.asleep)
        rig.write("shop")
        await until(lambda: rig.moved[-1] == ("shop", 4))
        assert len(rig.warnings) == 1
        assert "doorbell" in rig.warnings[0]

    run(test, bell)


def test_writers_that_ring_again_are_trusted_again(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        for _ in range(3):
            await until(rig.asleep)
            rig.write("shop")
            rig.pump.check()
        for _ in range(pump_module.UNHEARD_MAX):
            rig.ring()
            await until(rig.answered)
        await until(rig.asleep)
        await asyncio.sleep(2 * pump_module.SLOW_US / 1e6)  # the last slow look was under way already
        told = len(rig.moved)
        rig.write("shop")
        await asyncio.sleep(5 * pump_module.SLOW_US / 1e6)
        assert len(rig.moved) == told
        rig.pump.check()
        assert len(rig.moved) == told + 1

    run(test, bell)


def heard(rig: Rig, writes: int) -> bool:
    return rig.moved == [("news", write) for write in range(1, writes + 1)]


def test_without_a_bell_it_looks_now_and_then_and_arms_nothing() -> None:
    async def test(rig: Rig) -> None:
        for written in range(1, 4):
            await asyncio.sleep(2 * sum(pump_module.STEPS_US) / 1e6)
            assert not rig.asleep()
            rig.write("news")
            await until(functools.partial(heard, rig, written))

    run(test, None)


def test_a_bell_that_a_writer_has_disarmed_and_not_rung_is_armed_again_at_the_next_check(
    bell: Doorbell,
) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        rig.rings["news"].armed = False
        rig.pump.check()
        assert rig.asleep()

    run(test, bell)


def test_a_check_looks_at_each_of_a_few_rings_once(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        looked: list[str] = []
        look_at = rig.pump._look_at
        rig.pump._look_at = lambda name, ring: looked.append(name) or look_at(name, ring)  # type: ignore[method-assign,func-returns-value]
        for _ in range(3):
            rig.pump.check()
        assert looked == ["shop", "news"] * 3

    run(test, bell)


def test_a_ring_added_to_a_sleeping_pump_is_armed_too(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        rig.rings["late"] = FakeRing()
        rig.pump.add("late", rig.rings["late"])
        await until(rig.asleep)

    run(test, bell)


def test_a_ring_costs_a_look_at_what_rang_however_many_others_there_are(bell: Doorbell) -> None:
    looked: list[str] = []

    class Counting(Pump):
        def _look_at(self, name, ring):
            looked.append(name)
            return super()._look_at(name, ring)

    async def main() -> None:
        rings = {f"n{number}": FakeRing() for number in range(200)}
        pump = Counting(asyncio.get_running_loop(), bell, lambda name: rings[name].heal(1), print, print)
        for name, ring in rings.items():
            pump.add(name, ring)
        pump.start()
        await until(lambda: all(ring.armed for ring in rings.values()))
        looked.clear()
        rings["n7"].tail += 1
        rings["n7"].armed = False
        posix_ipc.MessageQueue(bell.name).send(b"n7", timeout=0)
        await until(lambda: rings["n7"].pump_cursor == 1 and rings["n7"].armed)
        assert set(looked) == {"n7"}
        looked.clear()
        pump.check()
        assert len(looked) == pump_module.TURNS
        for _ in range(200 // pump_module.TURNS + 1):
            pump.check()
        assert set(looked) == set(rings)
        pump.stop()

    uvloop.run(main())


@pytest.mark.needs("message queues")
@pytest.mark.parametrize("length", [12, 63], ids=["a host's usual name", "the longest"])
def test_a_write_into_a_real_segment_costs_looks_at_that_one_alone(length: int) -> None:
    host = f"t.{uuid.uuid4().hex}".ljust(length, "x")[:length]
    names = [f"n{number}".ljust(64, "-") for number in range(20)]
    tables = {name: {"memory": "2MiB"} for name in names}
    config = Config.parse({"host": {"name": host}, "namespaces": tables, "bridge": {"listen": "127.0.0.1:1"}})
    bell, segments = Doorbell.create(host, None), Segments(config)
    looked: list[str] = []

    class Counting(Pump):
        def _look_at(self, name, ring):
            looked.append(name)
            return super()._look_at(name, ring)

    def heal(name: str) -> int:
        held = segments.held[name]
        return held.heal(held.pump_cursor, HEALED_AT_ONCE, 0, b"")[0]

    async def main() -> None:
        segments.open_configured()
        pump = Counting(asyncio.get_running_loop(), bell, heal, print, print)
        for name, held in segments.held.items():
            pump.add(name, held)
        pump.start()
        await until(lambda: not pump._awake)
        looked.clear()
        with cachee_shm.attach(names[7], config=config) as cache:
            cache.delete("key")
        await until(lambda: bool(looked) and not pump._awake)
        assert set(looked) == {names[7]}
        assert segments.held[names[7]].pump_cursor == 1
        pump.stop()

    try:
        uvloop.run(main())
    finally:
        segments.close()
        bell.close()
        for path in glob(f"/dev/shm/cachee.{host}.*"):
            os.unlink(path)


def test_where_so_many_ring_that_some_could_not_all_are_looked_at(bell: Doorbell) -> None:
    async def test(rig: Rig) -> None:
        await until(rig.asleep)
        for _ in range(MESSAGES_MAX):
            posix_ipc.MessageQueue(bell.name).send(b"shop", timeout=0)
        rig.write("news")
        await until(lambda: rig.moved == [("news", 1)])

    run(test, bell)
