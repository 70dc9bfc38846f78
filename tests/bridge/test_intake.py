"""How much work one peer may cause in one turn and in all, counted in messages and bytes."""

from __future__ import annotations

import pytest

from cachee_bridge.ports.effects import Close, Effect, GoOn, Pause, Resume, Send
from cachee_bridge.protocol.intake import SLICE_COST
from cachee_bridge.protocol.mesh import Mesh, Settings
from cachee_bridge.streams.stream import PACK_BYTES
from cachee_bridge.wire.budget import MESSAGE_BYTES, ROW_BYTES
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder, encode
from cachee_bridge.wire.messages import (
    Beat,
    Follow,
    Frame,
    Hello,
    Message,
    NamespaceState,
    Peers,
    Replay,
    State,
    Sync,
)
from tests.bridge.meshes import Cable, FakeStore, Node, key

NOW = 100.0
SYNC = encode(Sync())


class Rig:
    """A mesh with `namespaces` of them, and peers by hand; link N is the peer "web-N"."""

    def __init__(self, namespaces: int = 1) -> None:
        self.cable = Cable()
        names = [f"n{number}" for number in range(namespaces)]
        self.node = Node(self.cable, "web-1", {name: FakeStore(incarnation=7) for name in names})
        self.rows = tuple(NamespaceState(name, 4, 20, 7) for name in names)
        self.effects: list[Effect] = []
        self.handled: list[tuple[int, str]] = []
        on_message = self.mesh._intake._on_message

        def counted(link, message, now):  # type: ignore[no-untyped-def]
            self.handled.append((link.number, type(message).__name__))
            on_message(link, message, now)

        self.mesh._intake._on_message = counted

    @property
    def mesh(self) -> Mesh:
        return self.node.mesh

    def connect(self, number: int, name: str = "") -> None:
        self.mesh.link_opened(number, None, NOW, "10.0.0.9")
        hello = Hello("cachee", 2, name or f"web-{number}", 5, bytes(32), "none", "", "")
        self.say(number, hello, State(self.rows))
        self.handled.clear()

    def say(self, number: int, *messages: Message) -> list[Effect]:
        return self.bytes(number, b"".join(map(encode, messages)))

    def bytes(self, number: int, data: bytes) -> list[Effect]:
        """What it makes the mesh want, GoOn not yet followed."""
        self.mesh.received(number, data, NOW)
        return self.take()

    def take(self) -> list[Effect]:
        effects = self.mesh.effects()
        for effect in effects:
            if isinstance(effect, Send):
                self.mesh.writable((effect.link,), NOW)
        self.effects += effects
        return effects

    def go_on(self) -> list[Effect]:
        self.mesh.go_on(NOW)
        return self.take()

    def cost(self, number: int) -> float:
        return self.mesh._links.by_number[number].throttle.budget.owed


def sent(effects: list[Effect]) -> list[Message]:
    decoder = Decoder(FRAME_BYTES_MAX)
    return [
        message for effect in effects if isinstance(effect, Send) for message in decoder.feed(effect.data)
    ]


def count(effects: list[Effect], kind: type) -> int:
    return sum(isinstance(effect, kind) for effect in effects)


def test_what_is_read_at_once_is_handled_in_slices_and_others_are_heard_between_them() -> None:
    rig = Rig()
    rig.connect(2)
    rig.connect(3)
    syncs = (125 << 10) // len(SYNC)
    effects = rig.bytes(2, SYNC * syncs)
    first = len(rig.handled)
    assert first <= SLICE_COST / MESSAGE_BYTES
    assert (count(effects, Pause), count(effects, GoOn), count(effects, Resume)) == (1, 1, 0)
    rig.say(3, Sync())
    assert rig.handled[-1] == (3, "Sync")
    slices = []
    while count(effects, GoOn):
        before = len(rig.handled)
        effects = rig.go_on()
        slices.append(len(rig.handled) - before)
    assert max(slices) <= SLICE_COST / MESSAGE_BYTES
    assert (
        rig.handled.count((2, "Sync")) == syncs
        or rig.mesh._links.by_number[2].throttle.held_since is not None
    )


def test_a_link_that_another_one_replaces_in_the_same_tick_is_heard_no_more() -> None:
    rig, much = Rig(), 1 << 30
    hello = Hello("cachee", 2, "web-2", 5, bytes(32), "none", "", "")
    for number in (2, 3):
        rig.mesh.link_opened(number, None, NOW, "10.0.0.9")
    rig.mesh.received(2, encode(hello), NOW, much)  # over its budget before it is up
    rig.mesh.received(2, encode(State(rig.rows)), NOW)
    rig.say(3, hello, State(rig.rows))
    rig.mesh.received(3, SYNC, NOW, much)
    rig.mesh.received(3, bytes(9), NOW)  # no message
    rig.take()
    rig.mesh.tick(NOW + 1)  # the one that came first is up now, in the place of the other
    assert [effect.link for effect in rig.take() if isinstance(effect, Close)] == [3]
    assert rig.mesh._links.up["web-2"].number == 2


def test_a_link_is_read_again_once_all_that_it_sent_is_handled_in_order() -> None:
    rig = Rig()
    rig.connect(2)
    rig.bytes(2, SYNC * 100)
    rig.bytes(2, encode(Follow(("web-2",))) + SYNC[:3])  # was under way when it was paused
    assert rig.handled[-1] == (2, "Sync")
    effects = rig.go_on()
    assert rig.handled == [*[(2, "Sync")] * 100, (2, "Follow")]
    assert (count(effects, Resume), count(effects, GoOn)) == (1, 0)
    rig.bytes(2, SYNC[3:])
    assert rig.handled[-1] == (2, "Sync")
    assert count(rig.effects, Pause) == 1


def test_links_that_wait_have_their_slices_in_turn() -> None:
    rig = Rig()
    for number in (2, 3, 4):
        rig.connect(number)
    for number in (2, 3, 4):
        rig.bytes(number, SYNC * 200)
    rig.handled.clear()
    turns = []
    for _ in range(6):
        before = len(rig.handled)
        rig.go_on()
        turns += [rig.handled[before][0]]
        assert len({number for number, _ in rig.handled[before:]}) == 1
    assert turns == [2, 3, 4, 2, 3, 4]


def test_a_link_that_is_closed_while_it_waits_is_forgotten() -> None:
    rig = Rig()
    rig.connect(2)
    rig.bytes(2, SYNC * 200)
    rig.mesh.link_closed(2, "reset", NOW)
    assert not rig.mesh._intake.waits
    rig.go_on()


def test_bytes_that_are_no_message_behind_a_slice_close_the_link() -> None:
    rig = Rig()
    rig.connect(2)
    rig.bytes(2, SYNC * 64 + b"\xff" * 64)
    rig.go_on()
    assert 2 not in rig.mesh._links.by_number


def test_questions_for_cursors_are_answered_once_a_slice_after_what_came_before_them() -> None:
    rig = Rig()
    rig.connect(2)
    frame = Frame("n0", "web-2", 4, 21, 25, key(1))
    answers = sent(rig.say(2, Sync(), Sync(), frame, Sync()))
    (beat,) = [message for message in answers if isinstance(message, Beat)]
    assert [row.cursor for row in beat.cursors if row.source == "web-2"] == [25]


def test_an_answer_is_charged_by_its_rows() -> None:
    costs = []
    for namespaces in (1, 50):
        rig = Rig(namespaces)
        rig.connect(2)
        before = rig.cost(2)
        rig.say(2, Sync())
        costs.append(rig.cost(2) - before)
    assert costs[0] >= MESSAGE_BYTES + 2 * ROW_BYTES
    assert costs[1] - costs[0] == 2 * 49 * ROW_BYTES


def test_one_peer_is_answered_only_as_often_as_its_budget_allows() -> None:
    rig = Rig(100)
    rig.connect(2)
    before, answers = rig.cost(2), 0
    while rig.mesh._links.by_number[2].throttle.held_since is None and answers < 10_000:
        answers += count(rig.say(2, Sync()), Send)
    assert answers <= Settings().peer_budget / (200 * ROW_BYTES) + 1
    assert rig.cost(2) - before >= 0.9 * Settings().peer_budget


def test_what_a_peer_has_sent_for_its_bytes_is_charged_where_that_is_more() -> None:
    rig = Rig()
    rig.connect(2)
    before = rig.cost(2)
    rig.mesh.received(2, b"\x00", NOW, 23)
    rig.mesh.received(2, b"", NOW, 100)
    assert rig.cost(2) == before + 123


def test_a_ring_that_is_looked_through_again_is_charged_though_nothing_of_it_is_sent() -> None:
    rig = Rig()
    rig.connect(2)
    rig.node.stores["n0"].write(*[b""] * 10_000)
    rig.say(2, Replay("n0", "web-1", 7, 1))
    before = rig.cost(2)
    rig.say(2, Replay("n0", "web-1", 7, 1))
    assert rig.cost(2) - before >= 10_000


def test_what_a_relay_sends_again_is_charged() -> None:
    rig = Rig()
    rig.connect(2)
    rig.connect(3)
    rig.say(3, Follow(("web-1", "web-2")))
    rig.say(2, Frame("n0", "web-2", 4, 21, 30, key(1) * 1000))
    before = rig.cost(3)
    rig.say(3, Replay("n0", "web-2", 4, 21))
    assert rig.cost(3) - before >= len(key(1) * 1000)


def test_more_keys_than_can_be_applied_at_once_close_the_link_and_move_nothing() -> None:
    rig = Rig()
    rig.connect(2)
    records = key(1) * (PACK_BYTES // len(key(1)) + 1)
    rig.say(2, Frame("n0", "web-2", 4, 21, 30, records))
    assert 2 not in rig.mesh._links.by_number
    assert rig.node.stores["n0"].cursor_of("web-2") == 20


@pytest.mark.parametrize("message", [Sync(), Peers(()), Follow(()), Sync("web-9", 2)])
def test_every_message_costs_at_least_its_share(message: Message) -> None:
    rig = Rig()
    rig.connect(2)
    before = rig.cost(2)
    rig.say(2, message)
    assert rig.cost(2) - before >= MESSAGE_BYTES
