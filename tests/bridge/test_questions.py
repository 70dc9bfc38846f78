"""Questions to peers about keys: the answers, and what asking costs."""

from __future__ import annotations

from typing import Any

import pytest

from cachee_bridge.ports.effects import Answered
from cachee_bridge.protocol import questions
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import (
    ABSENT,
    ARM,
    ASKED_MAX,
    FILL,
    HOLDS,
    JOURNAL,
    JOURNAL_ROWS_MAX,
    REFUSED,
    SHARED,
    STORED,
    Answer,
    Asked,
    Question,
)
from tests.bridge.meshes import Cable, FakeStore, Node, key, two


@pytest.fixture
def cable() -> Cable:
    return Cable()


def asked(node: Node, peer: str, what: int, *rows: Asked, namespace: str = "shop") -> Answered:
    """What comes of one question, at once or after a second."""
    number = node.mesh.questions.ask(peer, what, namespace, rows, node.cable.now)
    node.cable.settle()
    if not node.answered:
        node.cable.run(1.0)
    (answered,) = node.answered
    node.answered.clear()
    assert (answered.number, answered.peer) == (number, peer)
    return answered


def answer_to(node: Node, peer: str, what: int, *rows: Asked) -> Answer:
    answered = asked(node, peer, what, *rows)
    assert answered.answer is not None, answered.failure
    return answered.answer


class TestHolds:
    def test_a_peer_says_what_it_holds_and_how_far_it_has_applied_this_ring(self, cable):
        a, b = two(cable)
        a.write(key(5))
        b.store.hold(7)
        answer = answer_to(a, "b", HOLDS, Asked(7), Asked(5))
        assert (answer.cursor, answer.incarnation) == (a.store.tail, a.store.incarnation)
        assert answer.tail == b.store.tail
        held, absent = answer.holdings
        assert (held.hash, held.held, held.version) == (7, SHARED, b.store.tail << 1 | 1)
        assert held.digest == b.store.digest(b.store.entries[7])
        assert (absent.hash, absent.held, absent.fence) == (5, ABSENT, b.store.fence_of(5))

    def test_the_value_of_a_users_key_is_not_told(self, cable):
        a, b = two(cable)
        b.store.hold(7)
        assert answer_to(a, "b", HOLDS, Asked(7)).holdings[0].value == b""

    def test_the_cursor_is_the_segments_and_not_what_the_bridge_believes(self, cable):
        a, b = two(cable)
        a.write(key(5))
        b.store.slots[1].cursor = 0
        assert answer_to(a, "b", HOLDS, Asked(5)).cursor == 0


class TestFill:
    def test_a_canary_is_stored_under_a_token_that_nothing_followed_and_told_again(self, cable):
        a, _ = two(cable)
        hashed = a.store.canary_hash(9)
        token = answer_to(a, "b", HOLDS, Asked(hashed)).tail
        assert answer_to(a, "b", FILL, Asked(hashed, token, b"a 1")).holdings[0].held == STORED
        (holding,) = answer_to(a, "b", HOLDS, Asked(hashed)).holdings
        assert (holding.held, holding.value, holding.version) == (SHARED, b"a 1", token << 1 | 1)

    def test_a_token_from_before_a_write_is_refused(self, cable):
        a, b = two(cable)
        hashed = a.store.canary_hash(9)
        token = answer_to(a, "b", HOLDS, Asked(hashed)).tail
        a.store.canary_set(hashed, b"a 2")
        a.mesh.ring_moved("shop", cable.now)
        cable.settle()
        assert answer_to(a, "b", FILL, Asked(hashed, token, b"a 1")).holdings[0].held == REFUSED
        assert hashed not in b.store.entries

    def test_no_peer_can_fill_a_users_key(self, cable):
        a, b = two(cable)
        answer = answer_to(a, "b", FILL, Asked(7, b.store.tail, b"mine"))
        assert answer.holdings[0].held == REFUSED
        assert not b.store.entries


def row(at: float, kind: str = "received", **more: Any) -> dict[str, Any]:
    named = {"why": "", "layer": "segment", "source": "a", "incarnation": 1, "sequence": 5, "pid": 7}
    return {
        "at": at,
        "kind": kind,
        **named,
        "command": "py",
        "service": "s",
        "since": 0.0,
        "digest": 9,
        **more,
    }


class TestJournal:
    def test_rows_come_with_how_long_ago_they_were_and_the_oldest_first(self, cable):
        a, b = two(cable)
        b.mesh.questions.wall_ahead_s = 1e9
        now = 1e9 + cable.now
        b.store.journalled[7] = [row(now - 1, "evicted", since=now - 3), row(now - 2)]
        received, evicted = answer_to(a, "b", JOURNAL, Asked(7), Asked(8)).journal
        assert (received.kind, evicted.kind) == ("received", "evicted")
        assert received.age_us == pytest.approx(2e6, abs=1000) and received.since_us == 0
        assert evicted.since_us == pytest.approx(3e6, abs=1000)
        assert (evicted.hash, evicted.source, evicted.sequence, evicted.pid) == (7, "a", 5, 7)
        assert (evicted.command, evicted.service, evicted.digest) == ("py", "s", 9)

    def test_only_the_newest_rows_come_and_what_would_move_a_terminal_does_not(self, cable):
        a, b = two(cable)
        rows = [row(-number, command="\x1b[2J" * 99) for number in range(1000)]
        b.store.journalled[7] = rows[::-1]
        rows = answer_to(a, "b", JOURNAL, Asked(7)).journal
        assert len(rows) == JOURNAL_ROWS_MAX
        assert rows[0].age_us > rows[-1].age_us
        assert rows[0].command == ("?[2J" * 99)[:64]

    def test_a_row_from_the_future_happened_now(self, cable):
        a, b = two(cable)
        b.store.journalled[7] = [row(1e12, since=1e12)]
        (only,) = answer_to(a, "b", JOURNAL, Asked(7)).journal
        assert (only.age_us, only.since_us) == (0, 1)

    def test_keys_are_armed_for_ten_minutes_at_most(self, cable):
        a, b = two(cable)
        answer_to(a, "b", ARM, Asked(7, 5000), Asked(8, 2**63))
        assert b.store.armed == {7: 5.0, 8: 600.0}


class TestFailures:
    def test_a_peer_that_is_not_linked(self, cable):
        a, _ = two(cable)
        assert asked(a, "c", HOLDS, Asked(7)).failure == "it is not linked"

    def test_a_peer_of_wire_2_is_too_old_to_be_asked_and_nothing_is_sent_to_it(self, cable):
        a = cable.node("a")
        cable.node("b", ("a",), newest_wire=2)
        cable.run(0.3)
        before = len(cable.carried["a", "b"])
        assert asked(a, "b", HOLDS, Asked(7)).failure.startswith("too old to be asked")
        assert len(cable.carried["a", "b"]) == before

    def test_a_namespace_that_the_peer_lacks(self, cable):
        stores = {"shop": FakeStore(), "news": FakeStore()}
        a, b = cable.node("a", ("b",), stores), cable.node("b")
        cable.run(0.3)
        failure = asked(a, "b", HOLDS, Asked(7), namespace="news").failure
        assert failure == "namespace news is not shared with it"
        a.mesh._links.up["b"].shared.add("news")
        failure = asked(a, "b", HOLDS, Asked(7), namespace="news").failure
        assert failure == "namespace news is not shared with a"
        assert b.state_of("a") == "up"

    def test_a_namespace_that_both_have_and_do_not_share_is_not_answered_for(self, cable):
        """Their hash keys differ, so a hash says nothing."""
        theirs = FakeStore()
        theirs.hash_key_fingerprint = 8
        a, b = cable.node("a", ("b",)), cable.node("b", (), {"shop": theirs})
        cable.run(0.3)
        assert (a.state_of("b"), b.store) == ("up", theirs)
        assert "not shared with it" in asked(a, "b", HOLDS, Asked(7)).failure
        a.mesh._links.up["b"].shared.add("shop")
        assert asked(a, "b", HOLDS, Asked(7)).failure == "namespace shop is not shared with a"

    def test_a_namespace_that_a_certificate_excludes_is_not_spoken_of_and_a_question_about_it_ends_the_link(
        self, cable
    ):
        cable.identities = {"a": Identity({"a": frozenset({"shop"})}), "b": Identity({"b": None})}
        stores = [{"shop": FakeStore(), "news": FakeStore()} for _ in range(2)]
        a = cable.node("a", ("b",), stores[0], namespaces=frozenset({"shop"}))
        b = cable.node("b", (), stores[1])
        cable.run(0.3)
        assert "not shared" in asked(b, "a", HOLDS, Asked(7), namespace="news").failure
        link = a.mesh._links.up["b"]
        link.send(Question(9, HOLDS, "news", (Asked(7),)))
        a.mesh._effects.flush(a.mesh._links.ready)
        cable.settle()
        assert "its certificate allows shop" in b.texts("error")

    def test_a_peer_that_does_not_answer_is_given_up_in_time(self, cable):
        a, _ = two(cable)
        cable.deaf.add(("b", "a"))
        answered = asked(a, "b", HOLDS, Asked(7))
        assert answered.failure.startswith("no answer within")
        assert questions.PATIENCE_S <= answered.took_s <= questions.PATIENCE_S + 0.1

    def test_an_answer_that_comes_too_late_or_was_not_asked_for_is_dropped(self, cable):
        a, b = two(cable)
        link = b.mesh._links.up["a"]
        link.send(Answer(1, "shop", "", 1, 0, 0, (), ()))
        b.mesh._effects.flush(b.mesh._links.ready)
        cable.settle()
        assert a.answered == [] and a.state_of("b") == "up"

    def test_one_peer_cannot_answer_for_another(self, cable):
        nodes = {name: cable.node(name, ("a", "b", "c")) for name in "abc"}
        cable.run(1.0)
        a, c = nodes["a"], nodes["c"]
        cable.deaf.add(("b", "a"))
        number = a.mesh.questions.ask("b", HOLDS, "shop", (Asked(7),), cable.now)
        c.mesh._links.up["a"].send(Answer(number, "shop", "", 1, 0, 0, (), ()))
        c.mesh._effects.flush(c.mesh._links.ready)
        cable.settle()
        assert a.answered == []

    def test_open_questions_are_bounded(self, cable, monkeypatch):
        monkeypatch.setattr(questions, "OPEN_MAX", 3)
        a, _ = two(cable)
        cable.deaf.add(("a", "b"))
        for _ in range(5):
            a.mesh.questions.ask("b", HOLDS, "shop", (Asked(7),), cable.now)
        cable.settle()
        assert [answered.failure[:11] for answered in a.answered] == ["3 questions"] * 2
        cable.run(1.0)
        assert len(a.answered) == 5
        assert a.mesh.questions.next_due() == float("inf")


def test_a_question_is_charged_to_the_peers_budget_and_so_is_its_answer(cable):
    a, b = two(cable)
    budget = b.mesh._links.up["a"].throttle.budget

    def cost(*rows: Asked) -> float:
        before = budget.owed
        answer_to(a, "b", HOLDS, *rows)
        return budget.owed - before

    one, most = cost(Asked(7)), cost(*(Asked(1 + number) for number in range(ASKED_MAX)))
    assert one > 1024 + 2 * 256
    assert most - one > 2 * 256 * (ASKED_MAX - 1)


def test_each_look_through_the_journal_is_charged_also_if_it_finds_nothing(cable):
    a, b = two(cable)
    budget = b.mesh._links.up["a"].throttle.budget
    before = budget.owed
    assert answer_to(a, "b", JOURNAL, *(Asked(1 + number) for number in range(ASKED_MAX))).journal == ()
    assert budget.owed - before > ASKED_MAX * 48 * 1024


def test_a_peer_that_asks_too_much_is_not_read_for_a_while(cable):
    a, b = two(cable, peer_budget=1 << 20)
    for _ in range(1000):
        a.mesh.questions.ask("b", HOLDS, "shop", (Asked(7),), cable.now)
    cable.settle()
    assert b.mesh._links.up["a"].throttle.times_held > 0
    assert "over its peer_budget" in b.texts("warning")


def test_linked_peers_that_share_a_namespace_are_those_to_ask(cable):
    stores = {"shop": FakeStore(), "news": FakeStore()}
    a, _ = cable.node("a", ("b",), stores), cable.node("b")
    cable.run(0.3)
    (peer,) = a.mesh.questions.peers("shop")
    assert (peer.name, peer.is_linked, peer.too_old) == ("b", True, False)
    assert a.mesh.questions.peers("news") == []


def test_a_member_that_is_not_linked_and_that_is_not_heard_of_is_lost(cable):
    a, b = two(cable)
    assert a.mesh.questions.lost("shop", cable.now - 1.0) == []
    cable.remove(b)
    cable.break_link(a, b)
    assert a.mesh.questions.lost("shop", cable.now - 1.0) == []
    cable.run(3.0)
    assert [peer.name for peer in a.mesh.questions.lost("shop", cable.now - 1.0)] == ["b"]
    assert a.mesh.questions.lost("none", cable.now) == []


def test_how_far_a_peer_has_told_that_it_applied_this_ring_is_known(cable):
    a, _ = two(cable)
    a.write(key(5))
    cable.run(0.5)
    assert a.mesh.questions.peers("shop")[0].told == a.store.tail
