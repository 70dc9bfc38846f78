"""The shell when something raises where nothing should: it costs what it was for, and nothing else."""

from __future__ import annotations

import pytest

from cachee_bridge.links.link import put_each
from cachee_bridge.ports.effects import (
    Close,
    Connect,
    Discover,
    Effect,
    GoOn,
    Log,
    Pause,
    Resume,
    Send,
    SendEach,
    ServeUntil,
)
from cachee_bridge.shell.question import Question
from cachee_bridge.shell.resolver import Answer
from cachee_bridge.shell.ticks import TICKS_MISTAKEN_MAX
from cachee_shm.errors import BridgeRunning, SegmentRetired
from tests.bridge.shells import Side, perform, run, until


class Mistaken(Exception):
    """Of no kind that anybody expects."""


def mistaken(*arguments: object) -> None:
    raise Mistaken("on purpose")


EFFECTS: list[Effect] = [
    Send(99, b"to nobody"),
    SendEach([99], [b"to nobody"]),
    Connect("127.0.0.1:1"),
    Discover(),
    Close(99, "no reason"),
    Pause(99),
    Resume(99),
    Log("info", "a line"),
    ServeUntil(("no such namespace",), 1.0),
    GoOn(),
]


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
def test_an_effect_that_raises_does_not_cost_the_rest_of_the_batch(
    effect: Effect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(left: Side, right: Side) -> None:
        shell = left.shell
        if isinstance(effect, Send | SendEach):
            name = "send" if isinstance(effect, Send) else "send_each"
            monkeypatch.setattr(shell.network, name, mistaken)
        elif not isinstance(effect, ServeUntil):
            shell.performer.by_type[type(effect)] = mistaken
        if isinstance(effect, Discover):
            shell.mesh.discover("dns:nobody:1", 0.0)
        perform(shell, [effect, effect, ServeUntil(("shop",), 12.5)])
        assert left.cache.serve_until == 12500
        assert not left.broken

    run(test)


@pytest.mark.parametrize("effect", [Send, SendEach])
def test_a_send_that_raises_costs_its_link_which_is_made_anew(
    effect: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(left: Side, right: Side) -> None:
        number = left.shell.mesh._links.up["right"].number

        def once(*arguments: object) -> None:
            monkeypatch.undo()
            raise Mistaken

        monkeypatch.setattr(left.shell.network, "send" if effect is Send else "send_each", once)
        perform(left.shell, [Send(number, b"") if effect is Send else SendEach([number], [b""])])
        assert number not in left.shell.mesh._links.by_number
        await until(lambda: left.up() == ["right"] and right.up() == ["left"])
        assert left.shell.mesh._links.up["right"].number != number
        assert not left.broken

    run(test)


def test_of_a_send_to_each_that_a_socket_does_not_take_the_rest_costs_that_link_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(left: Side, right: Side) -> None:
        number = left.shell.mesh._links.up["right"].number
        monkeypatch.setattr(left.shell.network, "send_each", lambda links, data: [(98, b"x"), (number, b"")])
        real = left.shell.network.send

        def send(link: int, data: bytes) -> bool:
            return real(link, data) if link != 98 else mistaken()  # type: ignore[func-returns-value]

        monkeypatch.setattr(left.shell.network, "send", send)
        perform(left.shell, [SendEach([98, number], [b"x", b""])])
        assert number in left.shell.mesh._links.by_number

    run(test)


def test_of_a_send_to_each_what_waits_for_its_socket_counts_as_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(left: Side, right: Side) -> None:
        link = left.shell.mesh._links.up["right"]
        monkeypatch.setattr(left.shell.network, "send_each", lambda links, data: [(link.number, b"12345")])
        monkeypatch.setattr(left.shell.network, "send", lambda link, data: False)
        effect = SendEach([link.number], put_each([link], b"12345678"))
        perform(left.shell, [effect])
        assert link._under_way == len(effect.data[0]) >= 8
        left.shell.writable(link.number)
        assert link._under_way == 0

    run(test)


@pytest.mark.parametrize("kind", [Pause, Resume])
def test_an_effect_that_raises_costs_its_link_which_is_made_anew(kind: type) -> None:
    async def test(left: Side, right: Side) -> None:
        number = left.shell.mesh._links.up["right"].number
        performers = left.shell.performer.by_type
        right_one = performers[kind]

        def once(effect: Effect) -> None:
            performers[kind] = right_one
            raise Mistaken

        performers[kind] = once
        perform(left.shell, [kind(number)])
        assert number not in left.shell.mesh._links.by_number
        await until(lambda: left.up() == ["right"] and right.up() == ["left"])
        assert left.shell.mesh._links.up["right"].number != number
        assert not left.broken

    run(test)


def test_ticks_that_raise_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(left: Side, right: Side) -> None:
        tick, failures = left.shell.mesh.tick, []

        def at_first(now: float) -> float:
            if len(failures) < TICKS_MISTAKEN_MAX - 1:
                failures.append(now)
                raise Mistaken
            return tick(now)

        monkeypatch.setattr(left.shell.mesh, "tick", at_first)
        await until(lambda: len(failures) == TICKS_MISTAKEN_MAX - 1)
        before = left.cache.serve_until
        await until(lambda: left.cache.serve_until > before)
        assert not left.broken

    run(test)


def test_a_machine_without_memory_or_descriptors_never_ends_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(left: Side, right: Side) -> None:
        tick, failures = left.shell.mesh.tick, []

        def for_long(now: float) -> float:
            if len(failures) < 3 * TICKS_MISTAKEN_MAX:
                failures.append(now)
                raise (MemoryError if len(failures) % 2 else OSError(24, "Too many open files"))
            return tick(now)

        monkeypatch.setattr(left.shell.mesh, "tick", for_long)
        await until(lambda: len(failures) == 3 * TICKS_MISTAKEN_MAX)
        before = left.cache.serve_until
        await until(lambda: left.cache.serve_until > before)
        assert not left.broken

    run(test)


@pytest.mark.parametrize(
    "call", ["connect_failed", "go_on", "writable", "link_opened", "link_closed", "ring_moved"]
)
def test_any_call_of_the_mesh_that_raises_leaves_the_shell_alive(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def test(left: Side, right: Side) -> None:
        met = []
        right_one = getattr(left.shell.mesh, call)

        def twice(*arguments: object) -> object:
            met.append(arguments)
            if len(met) <= 2:
                raise Mistaken
            return right_one(*arguments)

        monkeypatch.setattr(left.shell.mesh, call, twice)
        shell = left.shell
        for _ in range(2):
            shell.connect_failed("127.0.0.1:1", "no reason")
            shell.writable(99)
            shell.closed(99, "no reason")
            shell.opened(98, None, "127.0.0.1", None)
            shell._go_on()
            shell._ring_moved("shop")
        assert len(met) >= 2
        left.cache.delete("k")
        await until(lambda: right.cache.tail >= 1 and left.up() == ["right"])
        assert not left.broken

    run(test)


class Asked:
    what = "dns:nobody:1"

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    async def ask(self) -> Answer:
        if not self._answers:
            raise OSError("no such name")
        return Answer(["127.0.0.1:1"], 60.0)


@pytest.mark.parametrize("call", ["discovered", "discovery_failed"])
def test_what_a_name_server_answers_costs_no_link(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    async def test(left: Side, right: Side) -> None:
        shell = left.shell
        monkeypatch.setattr(shell.mesh, call, mistaken)
        given_up: list[int] = []
        monkeypatch.setattr(shell.inputs, "_give_up", given_up.append)
        question = Question(shell._loop, Asked(call == "discovered"), shell.mesh, shell.inputs)
        question.ask()
        assert question._asking is not None
        await question._asking
        assert not given_up and not left.broken

    run(test)


def test_a_ring_that_cannot_be_read_does_not_hold_up_another() -> None:
    async def test(left: Side, right: Side) -> None:
        class Unreadable:
            def __getattr__(self, name: str) -> object:
                raise Mistaken(name)

        left.shell.pump._rings = {"broken": Unreadable(), **left.shell.pump._rings}  # type: ignore[dict-item]
        right.cache.get_or_load("k", lambda: b"old")
        left.cache.delete("k")
        await until(lambda: right.cache.get("k") is None)
        assert not left.broken

    run(test)


@pytest.mark.parametrize("lost", [SegmentRetired, BridgeRunning])
def test_the_loss_of_a_segment_that_the_pump_notices_ends_the_shell(lost: type[Exception]) -> None:
    async def test(left: Side, right: Side) -> None:
        class Lost:
            def __getattr__(self, name: str) -> object:
                raise lost(name)

        left.shell.pump._rings["shop"] = Lost()  # type: ignore[assignment]
        await until(lambda: left.broken)
        assert isinstance(left.broken[0], lost)
        left.shell.pump._rings.clear()

    run(test)
