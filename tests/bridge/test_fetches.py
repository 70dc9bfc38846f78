"""Peer fill in the protocol: which host is asked, which values it gives, and which the asker refuses."""

from __future__ import annotations

from typing import Any

import pytest

from cachee_bridge.ports.effects import Brought, Failure
from cachee_bridge.protocol import fetches
from cachee_bridge.wire.messages import (
    ELSEWHERE,
    GIVEN,
    LOAD,
    NOTHING,
    PAYLOAD_ALL,
    Applied,
    Fetch,
    Fetched,
)
from tests.bridge.meshes import Cable, FakeStore, Node
from tests.bridge.meshes import key as record

KEY = (7).to_bytes(8, "little")
FILLS = {"shop": 1000}
PATIENCE_S = 1.0


@pytest.fixture
def cable() -> Cable:
    return Cable()


def mesh(cable: Cable, *names: str, **settings: Any) -> list[Node]:
    nodes = [cable.node(name, names, peer_fill=FILLS, **settings) for name in names]
    cable.run(1.0)
    return nodes


def look(*nodes: Node) -> None:
    for node in nodes:
        node.mesh.fetches.look(node.cable.now)
    nodes[0].cable.settle()


def ask(node: Node, peer: str, key: bytes = KEY) -> None:
    node.mesh.fetches.ask(peer, "shop", key, node.cable.now, PATIENCE_S)
    node.cable.settle()


def told(node: Node) -> Brought:
    (brought,) = node.brought
    node.brought.clear()
    return brought


def outcome(node: Node, peer: str, key: bytes = KEY) -> tuple[int, str]:
    ask(node, peer, key)
    brought = told(node)
    assert brought.fetched is not None, brought.failure
    return brought.fetched.outcome, brought.fetched.host


class TestWhatIsGiven:
    def test_a_fill_is_given_with_all_that_is_known_of_it(self, cable):
        a, b = mesh(cable, "a", "b")
        assert b.store.fill(7, "loaded", b.store.tail, b.store.now_ms(), ttl_ms=5000, tags=(3,))
        ask(a, "b")
        fetched = told(a).fetched
        assert fetched is not None
        assert (fetched.outcome, fetched.key, fetched.value) == (GIVEN, KEY, b"loaded")
        assert (fetched.tags, fetched.left_ms) == ((3,), 5000)
        assert fetched.age_ms <= 125

    def test_what_was_set_or_is_local_is_not(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.set(7, "set")
        b.store.fill(8, "local", b.store.tail, b.store.now_ms(), local=True)
        assert outcome(a, "b")[0] == LOAD
        assert outcome(a, "b", (8).to_bytes(8, "little"))[0] == LOAD

    def test_a_namespace_without_peer_fill_gives_nothing_and_asks_nobody(self, cable):
        a = cable.node("a", ("a", "b"), peer_fill=FILLS)
        b = cable.node("b", ("a", "b"))
        cable.run(1.0)
        b.store.hold(7)
        assert outcome(a, "b") == (NOTHING, "")
        ask(b, "a")
        assert told(b).failure is Failure.UNSHARED
        assert b.mesh.fetches.chosen("shop", KEY) == "b"

    def test_a_value_costs_its_size_and_a_peer_over_its_budget_is_given_none(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.fill(7, "x" * 900, b.store.tail, b.store.now_ms())
        budget = b.mesh._links.up["a"].throttle.budget
        owed = budget.owed
        ask(a, "b")
        assert told(a).fetched.outcome == GIVEN
        assert budget.owed >= owed + 900
        budget.owe(budget.bytes_per_s * 2)
        link, fetch = b.mesh._links.up["a"], Fetch(99, "shop", KEY, 1000, ())
        a.mesh.fetches._open.clear()
        b.mesh.fetches.on_fetch(link, fetch, cable.now)
        assert not b.mesh.fetches.is_busy  # answered at once, with nothing

    def test_nothing_of_a_namespace_that_is_not_shared_with_the_asker(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.fill(7, "loaded", b.store.tail, b.store.now_ms())
        b.mesh._links.up["a"].unshare("shop")
        assert outcome(a, "b") == (NOTHING, "")

    def test_nor_what_is_pickled(self, cable, monkeypatch):
        """It may lie in a segment from before `pickle` was taken away."""
        a, b = mesh(cable, "a", "b")
        pickled = fetches.PICKLED, 1, 0, (), b"loaded"
        monkeypatch.setattr(b.store, "fetch", lambda key, bytes_max: (0, False, pickled))
        assert outcome(a, "b") == (LOAD, "")

    def test_nor_to_a_peer_that_does_not_read_what_it_is_sent(self, cable, monkeypatch):
        a, b = mesh(cable, "a", "b")
        b.store.fill(7, "loaded", b.store.tail, b.store.now_ms())
        monkeypatch.setattr(b.mesh._links.up["a"], "room", lambda: False)
        ask(a, "b")
        assert not b.mesh.fetches.is_busy
        assert GIVEN not in [each.fetched.outcome for each in a.brought if each.fetched]

    def test_a_peer_of_an_older_wire_is_not_asked_and_stays_linked(self, cable):
        a = cable.node("a", ("a", "b"), peer_fill=FILLS)
        b = cable.node("b", ("a", "b"), peer_fill=FILLS, newest_wire=2)
        cable.run(1.0)
        assert {a.mesh.fetches.chosen("shop", bytes([n])) for n in range(64)} == {"a"}
        ask(a, "b")
        assert told(a).failure is Failure.UNSHARED
        cable.run(1.0)
        assert "b" in a.mesh._links.up and "a" in b.mesh._links.up


class TestWhatIsNotOlder:
    def test_a_host_that_lacks_what_the_asker_has_applied_gives_nothing_until_it_has(self, cable):
        a, b, c = mesh(cable, "a", "b", "c")
        b.store.hold(7)
        cable.deaf.add(("c", "b"))
        c.write(record(7))
        assert a.store.cursor_of("c") == c.store.tail
        ask(a, "b")
        look(b)
        assert not a.brought  # b has the older value still
        cable.deaf.clear()
        c.write(record(9))
        cable.run(0.5)
        look(b)
        fetched = told(a).fetched
        assert fetched is not None and fetched.outcome == LOAD
        assert 7 not in b.store.entries

    def test_nor_does_one_that_lacks_what_the_asker_itself_has_written(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.hold(7)
        cable.deaf.add(("a", "b"))
        a.write(record(7))
        cable.deaf.clear()
        ask(a, "b")
        look(b)
        assert not a.brought
        a.write(record(9))  # b notices that it lacks something, and asks for it again
        cable.run(0.5)
        look(b)
        assert told(a).fetched.outcome == LOAD

    def test_records_of_others_that_an_asker_has_applied_hold_nobody_up(self, cable):
        """They move its ring, and no peer confirms that."""
        a, b, c = mesh(cable, "a", "b", "c")
        a.store._pump = lambda was: None  # type: ignore[method-assign]  # it heals by the mesh, as a real one
        c.write(record(9))
        assert a.store.tail > b.store.cursor_of("a")
        b.store.hold(7)
        assert outcome(a, "b")[0] == GIVEN

    def test_nor_does_the_empty_range_for_them_that_has_come_to_another_peer_only(self, cable):
        """The other one wrote and waits for its peers, say, so it has been sent a beat."""
        a, b, c = mesh(cable, "a", "b", "c")
        a.store._pump = lambda was: None  # type: ignore[method-assign]  # it heals by the mesh, as a real one
        c.write(record(9))
        cable.deaf.add(("a", "b"))
        cable.run(0.4)
        cable.deaf.clear()
        assert c.store.cursor_of("a") == a.store.tail > b.store.cursor_of("a")
        b.store.hold(7)
        assert outcome(a, "b")[0] == GIVEN

    def test_a_source_that_the_giver_follows_and_the_asker_does_not_know_forbids_it(self, cable):
        a, b, _ = mesh(cable, "a", "b", "c")
        b.store.hold(7)
        fetch = Fetch(5, "shop", KEY, 1000, a.mesh.fetches._applied("shop"))
        without = fetch._replace(applied=tuple(row for row in fetch.applied if row.source != "c"))
        members = b.mesh._session.namespaces.members["shop"]
        assert b.mesh.fetches._knows_the_same(members, fetch)
        assert not b.mesh.fetches._knows_the_same(members, without)
        strange = fetch._replace(applied=(*fetch.applied, Applied("z", 1, 0)))
        assert not b.mesh.fetches._knows_the_same(members, strange)

    def test_nothing_is_given_to_an_asker_that_does_not_follow_the_giver(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.loading.add(7)
        ask(a, "b")
        (asked,) = a.mesh.fetches._open.values()
        b.store.fill(7, "loaded", b.store.tail, b.store.now_ms())
        rows = tuple(row for row in asked.fetch.applied if row.source != "b")
        assert len(rows) == 1
        b.mesh.fetches.on_fetch(b.mesh._links.up["a"], asked.fetch._replace(applied=rows), cable.now)
        b.mesh.tick(cable.now)
        cable.settle()
        assert told(a).fetched.outcome == NOTHING

    def test_with_more_sources_than_a_question_can_name_nobody_is_asked(self, cable, monkeypatch):
        a, _, _ = mesh(cable, "a", "b", "c")
        monkeypatch.setattr(fetches, "ROWS_MAX", 2)
        ask(a, "b")
        assert told(a).failure is Failure.UNREADY

    def test_another_life_of_a_source_is_not_the_same_position(self, cable):
        a, b = mesh(cable, "a", "b")
        fetch = Fetch(5, "shop", KEY, 1000, a.mesh.fetches._applied("shop"))
        members = b.mesh._session.namespaces.members["shop"]
        assert b.mesh.fetches._has_applied(members, fetch)
        other = tuple(row._replace(incarnation=row.incarnation + 1) for row in fetch.applied)
        assert not b.mesh.fetches._has_applied(members, fetch._replace(applied=other))

    def test_while_a_map_is_being_applied_nobody_is_asked(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.hold(7)
        a.mesh._session.namespaces.members["shop"].sources["b"].applying = object()
        ask(a, "b")
        assert told(a).failure is Failure.UNREADY

    def test_a_host_that_is_met_without_the_namespace_may_have_been_a_source(self, cable):
        """a evicts all then: what x wrote in a life that a missed may not have come to b either."""
        store = FakeStore()
        store.write(record(1))
        a = cable.node("a", ("b", "x"), {"shop": store}, peer_fill=FILLS)
        b = cable.node("b", ("a",), peer_fill=FILLS)
        cable.run(10.0)
        b.store.now_ms = lambda: round(1000 * cable.now)  # type: ignore[method-assign]
        assert b.store.fill(7, "old", b.store.tail, b.store.now_ms())
        cable.run(1.0)
        cable.node("x", ("a",), {"jobs": FakeStore()})
        cable.run(3.0)
        assert a.store.payloads().count(PAYLOAD_ALL) == 1
        assert b.store.fetch(KEY, 1000)[2] is not None
        ask(a, "b")
        brought = told(a)
        assert brought.fetched is None and brought.failure is Failure.OLD

    def test_after_a_source_has_gone_only_what_was_loaded_since_is_taken(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.hold(7)
        cable.run(1.0)
        a.mesh._session.namespaces.members["shop"].departed += 1
        ask(a, "b")
        assert told(a).failure is Failure.OLD
        cable.run(1.0)
        b.store.now_ms = lambda: round(1000 * cable.now)  # type: ignore[method-assign]
        b.store.entries.clear()
        b.store.hold(7)
        ask(a, "b")
        assert told(a).fetched.outcome == GIVEN

    @pytest.mark.parametrize("event", ["left", "absent", "removed"])
    def test_each_way_of_going_counts(self, cable, event):
        a, _ = mesh(cable, "a", "b")
        members = a.mesh._session.namespaces.members["shop"]
        before = members.departed
        if event == "left":
            members.sources["b"].final = members.sources["b"].cursor
            assert members.settle("b")
        elif event == "absent":
            assert members.drop_absent("b", cable.now)
        else:
            members._set_aside("b")
        assert members.departed > before

    def test_a_bridge_that_finds_a_used_segment_takes_nothing_from_before_its_start(self, cable):
        used = FakeStore()
        used.write(record(1))
        a = cable.node("a", ("a", "b"), {"shop": used}, peer_fill=FILLS)
        b = cable.node("b", ("a", "b"), peer_fill=FILLS)
        assert a.mesh.fetches._settled["shop"][1].at(cable.now) == cable.now
        assert b.mesh.fetches._settled["shop"][1].at(cable.now) == float("-inf")


class TestWhatIsBelieved:
    def answer(self, cable: Cable, **changed: Any) -> list[Brought]:
        """What comes of an answer that is right but for `changed`."""
        a, b = mesh(cable, "a", "b")
        b.store.loading.add(7)
        ask(a, "b")
        (asked,) = a.mesh.fetches._open.values()
        said = Fetched(asked.fetch.number, "shop", KEY, GIVEN, "", 1, 0, 0, (), b"v")
        a.mesh.fetches.on_fetched(asked.link, said._replace(**changed), cable.now)
        cable.settle()
        return a.brought

    def test_an_answer_is(self, cable):
        (brought,) = self.answer(cable)
        assert brought.fetched is not None

    @pytest.mark.parametrize("changed", [{"key": b"other"}, {"namespace": "news"}, {"number": 77}])
    def test_one_to_another_question_is_not(self, cable, changed):
        assert self.answer(cable, **changed) == []

    @pytest.mark.parametrize("changed", [{"type": fetches.PICKLED}, {"value": b"x" * 1001}])
    def test_what_is_pickled_or_too_large_is_not_taken(self, cable, changed):
        (brought,) = self.answer(cable, **changed)
        assert brought.fetched is None and brought.failure is Failure.UNFIT


class TestOneLoad:
    def test_the_first_is_told_to_load_and_the_next_who_does(self, cable):
        a, b, c = mesh(cable, "a", "b", "c")
        assert outcome(a, "b") == (LOAD, "")
        assert outcome(c, "b") == (ELSEWHERE, "a")
        assert outcome(a, "b") == (LOAD, "")  # it asks again: its load has failed
        assert b.mesh.fetches.loader("shop", KEY, cable.now) == "a"

    def test_who_is_sent_there_waits_for_the_load_and_is_given_its_value(self, cable):
        a, _, c = mesh(cable, "a", "b", "c")
        assert outcome(a, "b") == (LOAD, "")
        a.store.loading.add(7)
        assert outcome(c, "b") == (ELSEWHERE, "a")
        ask(c, "a")
        look(a)
        assert not c.brought
        a.store.hold(7)
        a.store.loading.clear()
        look(a)
        assert told(c).fetched.outcome == GIVEN

    def test_a_load_of_the_chosen_host_is_waited_for(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.loading.add(7)
        ask(a, "b")
        assert not a.brought and a.mesh.fetches.is_busy and b.mesh.fetches.is_busy
        b.store.hold(7)
        look(b)
        assert told(a).fetched.outcome == GIVEN
        assert not a.mesh.fetches.is_busy and not b.mesh.fetches.is_busy

    def test_an_event_of_the_key_makes_another_load_needed(self, cable):
        a, _, c = mesh(cable, "a", "b", "c")
        assert outcome(a, "b") == (LOAD, "")
        c.write(record(7))
        cable.run(0.5)
        assert outcome(c, "b") == (LOAD, "")

    def test_a_loader_that_is_lost_or_takes_too_long_is_replaced(self, cable):
        a, b, c = mesh(cable, "a", "b", "c")
        assert outcome(a, "b") == (LOAD, "")
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        assert outcome(c, "b") == (LOAD, "")
        cable.run(fetches.LOADER_S + 0.1)
        assert b.mesh.fetches.loader("shop", KEY, cable.now) == ""

    def test_all_choose_the_same_host_and_a_lost_ones_keys_go_to_others(self, cable):
        nodes = mesh(cable, "a", "b", "c")
        keys = [str(number).encode() for number in range(200)]
        chosen = [[node.mesh.fetches.chosen("shop", key) for key in keys] for node in nodes]
        assert chosen[0] == chosen[1] == chosen[2]
        assert all(chosen[0].count(name) > 30 for name in "abc")
        cable.cut |= {frozenset("ac"), frozenset("bc")}
        cable.remove(nodes[2])
        cable.run(5.0)
        after = [nodes[0].mesh.fetches.chosen("shop", key) for key in keys]
        assert all(now == was for now, was in zip(after, chosen[0], strict=True) if was != "c")
        assert "c" not in after

    def test_hosts_of_other_regions_are_not_chosen(self, cable):
        a = cable.node("a", ("a", "b"), peer_fill=FILLS, region="west")
        cable.node("b", ("a", "b"), peer_fill=FILLS, region="east")
        cable.run(1.0)
        assert {a.mesh.fetches.chosen("shop", bytes([number])) for number in range(50)} == {"a"}


class TestPatience:
    def test_both_ends_give_up(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.loading.add(7)
        ask(a, "b")
        cable.run(PATIENCE_S + 0.1)
        fetched = told(a).fetched
        assert fetched is None or fetched.outcome == NOTHING
        assert not a.mesh.fetches.is_busy and not b.mesh.fetches.is_busy

    def test_when_the_link_ends_the_asker_is_told_at_once_and_may_ask_another(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.loading.add(7)
        ask(a, "b")
        cable.break_link(a, b)
        look(a, b)
        brought = told(a)
        assert brought.fetched is None and brought.is_lost
        assert brought.failure is Failure.UNLINKED
        assert not b.mesh.fetches.is_busy

    def test_what_waits_is_bounded(self, cable, monkeypatch):
        monkeypatch.setattr(fetches, "WAITING_MAX", 2)
        a, b = mesh(cable, "a", "b")
        b.store.loading |= {7, 8, 9}
        for number in (7, 8):
            ask(a, "b", number.to_bytes(8, "little"))
        assert not a.brought
        ask(a, "b", (9).to_bytes(8, "little"))
        assert told(a).failure is Failure.BUSY
        link, fetch = b.mesh._links.up["a"], Fetch(99, "shop", (9).to_bytes(8, "little"), 1000, ())
        applied = a.mesh.fetches._applied("shop")
        b.mesh.fetches.on_fetch(link, fetch._replace(applied=applied), cable.now)
        assert len(b.mesh.fetches._waiting) == 2

    def test_so_is_how_long_a_question_of_a_peer_waits(self, cable):
        a, b = mesh(cable, "a", "b")
        b.store.loading.add(7)
        fetch = Fetch(99, "shop", KEY, 1 << 31, a.mesh.fetches._applied("shop"))
        b.mesh.fetches.on_fetch(b.mesh._links.up["a"], fetch, cable.now)
        assert b.mesh.fetches.is_busy
        b.mesh.fetches.look(cable.now + fetches.PATIENCE_S_MAX)
        assert not b.mesh.fetches.is_busy

    def test_so_is_who_was_told_to_load(self, cable, monkeypatch):
        monkeypatch.setattr(fetches, "LOADERS_MAX", 2)
        a, b = mesh(cable, "a", "b")
        for number in range(5):
            assert outcome(a, "b", number.to_bytes(8, "little"))[0] == LOAD
        assert len(b.mesh.fetches._loaders) == 2


def test_a_flush_moves_the_position_that_is_named(cable):
    a, b = mesh(cable, "a", "b")
    b.write(PAYLOAD_ALL)
    rows = {row.source: row for row in a.mesh.fetches._applied("shop")}
    assert rows["b"].position == a.store.cursor_of("b") == b.store.tail
