"""How isolation begins and ends: a namespace that is refused, gone, or one of very many."""

import pytest

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.protocol.isolation import PERIOD_S, TELL_S
from cachee_bridge.sources.horizon import Horizon
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import PAYLOAD_ALL, ROWS_MAX, Beat
from tests.bridge.meshes import Cable, FakeStore, key


@pytest.fixture
def cable() -> Cable:
    return Cable()


def two(cable, **settings):
    nodes = [cable.node(name, ("a", "b"), **settings) for name in ("a", "b")]
    cable.run(1.0)
    return nodes


class TestAnIncarnation:
    def test_of_a_lower_number_is_answered_by_a_higher_one_on_the_same_link(self, cable):
        a, b = two(cable)
        a.stores["shop"].incarnation = 5_000
        cable.remove(b)
        cable.break_link(a, b)
        b = cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=0)})
        cable.run(3.0)
        assert "applied here already; refused until it has a higher one" in a.texts("warning")
        assert "was the clock set back" in b.texts("warning")
        assert b.store.incarnation > 1
        assert not (a.isolated() or b.isolated() or a.texts("error") or b.texts("error"))
        b.write(key(9))
        assert a.store.payloads()[-2:] == [PAYLOAD_ALL, key(9)]
        assert a.store.table[1][1:] == (b.store.incarnation, b.store.tail)

    def test_of_a_lower_number_costs_no_other_namespace(self, cable):
        stores = {
            "a": {"shop": FakeStore(), "news": FakeStore()},
            "b": {"shop": FakeStore(), "news": FakeStore()},
        }
        a, b = (cable.node(name, ("a", "b"), stores[name]) for name in ("a", "b"))
        cable.run(1.0)
        b.stores["shop"] = FakeStore(incarnation=0)
        b.stores["shop"].raise_incarnation = lambda incarnation: None
        b.mesh.add_namespace("shop", b.store, cable.now)
        cable.run(5.0)
        assert a.isolated("shop")
        assert not a.isolated("news")
        b.write(key(4), namespace="news")
        assert a.stores["news"].payloads()[-1] == key(4)
        a.write(key(5))
        assert b.store.payloads()[-1] == key(5)
        assert a.state_of("b") == "up"
        assert not a.texts("error")

    def test_of_a_copied_segment_that_has_written_less_than_a_peer_knows_is_replaced_by_a_higher_one(
        self, cable
    ):
        a, b = two(cable)
        a.write(key(1), key(2), key(3))
        cable.remove(a)
        cable.break_link(a, b)
        a = cable.node("a", ("a", "b"), {"shop": FakeStore(incarnation=1)})
        cable.run(3.0)
        assert "has applied namespace shop of this host, incarnation 1, up to 4" in a.texts("warning")
        assert not (a.isolated() or b.isolated())
        a.write(key(9))
        assert b.store.payloads()[-2:] == [PAYLOAD_ALL, key(9)]

    def test_that_both_draw_at_once_ends_with_both_linked(self, cable):
        a, b = two(cable)
        for node in (a, b):
            cable.remove(node)
        cable.break_link(a, b)
        for node in (a, b):
            born = FakeStore(incarnation=0)
            born.slots = node.store.slots  # whoever was known is known
            node.stores["shop"] = born
        a, b = (cable.node(node.name, ("a", "b"), node.stores) for node in (a, b))
        cable.run(4.0)
        assert not (a.isolated() or b.isolated())
        assert a.store.incarnation > 1 < b.store.incarnation


class TestANamespaceThatAPeerHasNoMore:
    def lost(self, cable):
        """b used it, and boots again without."""
        stores = {name: {"shop": FakeStore(), "jobs": FakeStore()} for name in "abc"}
        nodes = [cable.node(name, ("a", "b"), stores[name]) for name in ("a", "b")]
        cable.run(1.0)
        a, b = nodes
        b.write(key(1), namespace="jobs")
        a.stores["jobs"].applied.clear()
        cable.remove(b)
        cable.break_link(a, b)
        return a, cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=2)})

    def test_is_evicted_once_and_isolates_nobody(self, cable):
        a, _ = self.lost(cable)
        cable.run(10.0)
        assert not a.isolated("jobs")
        assert a.stores["jobs"].payloads().count(PAYLOAD_ALL) == 1
        assert "b has no namespace jobs any more: evicted all" in a.texts("info")
        assert "b" not in [name for name, *_ in a.stores["jobs"].table.values()]

    def test_and_makes_anew_is_followed_from_its_first_record(self, cable):
        a, b = self.lost(cable)
        cable.run(5.0)
        b.stores["jobs"] = FakeStore(incarnation=9)
        b.stores["jobs"].write(key(3))
        b.mesh.add_namespace("jobs", b.stores["jobs"], cable.now)
        cable.run(1.0)
        assert a.stores["jobs"].payloads()[-1] == key(3)
        assert a.stores["jobs"].payloads().count(PAYLOAD_ALL) == 1
        assert not a.isolated("jobs")

    def test_and_has_again_in_the_same_life_goes_on_where_it_was(self, cable):
        a, b = self.lost(cable)
        cable.run(5.0)
        b.stores["jobs"] = FakeStore(incarnation=1)
        b.stores["jobs"].write(b"", key(1), key(2))
        b.mesh.add_namespace("jobs", b.stores["jobs"], cable.now)
        cable.run(1.0)
        assert a.stores["jobs"].payloads()[-1] == key(2)
        assert not a.isolated("jobs")

    def test_is_still_waited_for_where_its_certificate_hides_it(self, cable):
        cable.identities["b"] = Identity({"b": None})
        a, _ = self.lost(cable)
        cable.identities["b"] = Identity({"b": frozenset({"shop"})})
        cable.run(5.0)
        assert a.isolated("jobs")
        assert PAYLOAD_ALL not in a.stores["jobs"].payloads()

    def test_is_told_to_a_link_that_was_not_up_when_it_was_made(self, cable):
        """Its STATE was sent before the namespace was found; else the peer would never hear of it."""
        a, b = (cable.node(name, ("a", "b")) for name in ("a", "b"))
        a.mesh.tick(cable.now)
        deaf = cable.deaf = {("b", "a")}
        cable.settle()
        b.stores["jobs"] = FakeStore()
        b.mesh.add_namespace("jobs", b.stores["jobs"], cable.now)
        deaf.clear()
        a.stores["jobs"] = FakeStore()
        a.mesh.add_namespace("jobs", a.stores["jobs"], cable.now)
        cable.run(3.0)
        b.write(key(6), namespace="jobs")
        assert a.stores["jobs"].payloads()[-1] == key(6)


class TestMoreNamespacesThanAMessageHolds:
    def test_are_all_followed(self, cable):
        names = ["shop", *(f"n{number:04}" for number in range(ROWS_MAX + 400))]
        a, b = (cable.node(name, ("a", "b"), {each: FakeStore() for each in names}) for name in ("a", "b"))
        cable.run(2.0)
        assert not any(a.isolated(each) for each in names)
        a.write(key(3), namespace=names[-1])
        assert b.stores[names[-1]].payloads()[-1] == key(3)
        a.mesh.leave(cable.now)
        cable.settle()
        cable.run(0.5)
        assert a.mesh.left()
        assert not b.mesh._session.namespaces.members[names[-1]].sources

    def test_are_none_of_those_that_one_has_and_the_other_has_not(self, cable):
        names = [f"n{number:04}" for number in range(ROWS_MAX)]
        a = cable.node("a", ("a", "b"))
        cable.node("b", ("a", "b"), {each: FakeStore() for each in ("shop", *names)})
        cable.run(2.0)
        assert not a.isolated()

    def test_and_more_than_a_peer_remembers_are_refused_alone(self, cable, monkeypatch):
        monkeypatch.setattr("cachee_bridge.protocol.meeting.NAMESPACES_MAX", 2)
        names = ["n1", "n2", "shop"]
        a, b = (cable.node(name, ("a", "b"), {each: FakeStore() for each in names}) for name in ("a", "b"))
        cable.run(3.0)
        assert [a.isolated(each) for each in names] == [False, False, True]
        assert "has more than 2 namespaces; shop and more are refused" in a.texts("error")
        assert a.state_of("b") == "up"
        b.write(key(1), namespace="n1")
        assert a.stores["n1"].payloads()[-1] == key(1)


class TestAnOwnAddress:
    def test_that_cannot_be_reached_from_inside_is_known_from_a_peer_that_was_answered_there(self, cable):
        cable.cut.add(frozenset("a"))
        a, b = two(cable)
        cable.run(3.0)
        assert not a.isolated()
        assert a.state_of("a") == "self"
        assert a.mesh.views.unmet() == []
        assert b.state_of("a") == "up"

    def test_is_waited_for_until_somebody_says_so(self, cable):
        cable.cut.add(frozenset("a"))
        a = cable.node("a", ("a", "b"))
        cable.run(3.0)
        assert a.isolated()
        a.mesh.found_self("a:1", cable.now)
        a.mesh.forget("b:1", cable.now)
        cable.run(12.0)
        assert not a.isolated()
        assert a.dialled.count("a:1") < 30

    def test_is_no_address_where_another_host_has_answered(self, cable):
        a, b = two(cable)
        a.mesh.found_self("b:1", cable.now)
        assert a.state_of("b") == "up"
        cable.remove(b)
        cable.break_link(a, b)
        cable.run(5.0)
        assert a.isolated()
        assert "b:1" in a.dialled[-3:]


class TestWhatManyNamespacesCost:
    @pytest.fixture
    def heard(self, monkeypatch):
        """Each time that a namespace is looked at."""
        looked_at = []
        extended = Horizon.extended

        def counted(self, now, hindered):
            looked_at.append(self.namespace)
            return extended(self, now, hindered)

        monkeypatch.setattr(Horizon, "extended", counted)
        return looked_at

    def many(self, cable, count):
        names = [f"n{number}" for number in range(count)]
        return [cable.node(name, ("a", "b"), {each: FakeStore() for each in names}) for name in "ab"]

    def test_a_packet_has_its_own_namespace_looked_at_and_no_other(self, cable, heard):
        a, b = self.many(cable, 50)
        cable.run(3.0)
        for node in (a, b):
            node.mesh.tick(cable.now)
        cable.settle()
        heard.clear()
        b.write(key(1), namespace="n7")
        assert a.mesh._session.namespaces.touched == {"n7"}
        a.mesh.tick(cable.now)
        assert heard == ["n7"]

    def test_those_that_are_calm_are_served_on_together(self, cable, heard, monkeypatch):
        """Three or four times a second, however often the mesh ticks; none is looked at by itself."""
        a, _ = self.many(cable, 20)
        cable.run(3.0)
        heard.clear()
        served_on, goes_on = [], Horizon.go_on

        def counted(self, now, until):
            served_on.append(self.namespace)
            return goes_on(self, now, until)

        monkeypatch.setattr(Horizon, "go_on", counted)
        cable.run(2.0)
        assert heard == []
        assert set(served_on) == set(a.stores)
        assert len(served_on) <= 2 * 20 * (2.0 / PERIOD_S + 1)
        assert not any(a.isolated(namespace) for namespace in a.stores)

    def test_people_read_how_fresh_a_calm_source_is(self, cable):
        a, _ = self.many(cable, 3)
        cable.run(10.0)
        for store in a.stores.values():
            [(reachable, fresh_ms)] = store.told.values()
            assert reachable
            assert fresh_ms > (cable.now - TELL_S - 1.0) * 1000

    def test_one_that_is_not_heard_of_is_isolated_all_the_same(self, cable):
        a, b = self.many(cable, 20)
        cable.run(3.0)
        cable.remove(b)
        cable.break_link(a, b)
        cable.run(3.0)
        assert all(a.isolated(f"n{number}") for number in range(20))
        assert a.texts("warning").count("is isolated: nothing fresh from b") == 20

    def test_a_write_is_sent_looked_for_and_told_in_its_own_namespace_alone(self, cable):
        """Between two calm beats: the outboxes that are asked, and the rows of the beats."""
        a, b = self.many(cable, 50)
        cable.run(3.0)
        asked = []
        for namespace, outbox in next(iter(a.mesh._links.up.values())).outboxes.items():
            outbox.next = lambda next=outbox.next, namespace=namespace: asked.append(namespace) or next()
        link = a.mesh._links.up["b"]
        link.beat_schedule.beaten(cable.now, 60.0, 0.1)
        cable.carried.clear()
        a.write(key(1), namespace="n7")
        for _ in range(4):
            cable.now += 0.1
            for node in (a, b):
                node.mesh.tick(cable.now)
            cable.settle()
        assert set(asked) == {"n7"}
        decoder = Decoder(FRAME_BYTES_MAX)
        sent = [message for data in cable.carried["a", "b"] for message in decoder.feed(data)]
        beats = [message for message in sent if isinstance(message, Beat)]
        assert {row.namespace for beat in beats for row in (*beat.heads, *beat.cursors)} <= {"n7"}
        assert b.stores["n7"].payloads()[-1] == key(1)
        assert link.acked["n7"] == a.stores["n7"].tail

    def test_one_that_this_host_lacks_holds_up_no_other(self, cable, heard):
        a, _ = self.many(cable, 3)
        cable.run(3.0)
        heard.clear()
        a.mesh._session.namespaces.touched |= {"absent", "n1"}  # a peer's beat named both
        a.mesh.tick(cable.now)
        assert "n1" in heard

    def test_one_that_is_calm_no_more_is_taken_out_of_those_that_are_served_on_together(
        self, cable, heard, monkeypatch
    ):
        a, _ = self.many(cable, 5)
        cable.run(3.0)
        served_on, goes_on = [], Horizon.go_on

        def counted(self, now, until):
            served_on.append(self.namespace)
            return goes_on(self, now, until)

        monkeypatch.setattr(Horizon, "go_on", counted)
        heard.clear()
        a.stores["n0"].announce(key(1))  # and no pump heals it
        cable.now += 2 * PERIOD_S
        a.mesh.tick(cable.now)
        assert sorted(served_on) == ["n1", "n2", "n3", "n4"]
        assert heard == ["n0"]

    def test_people_are_told_of_each_that_changes_and_of_no_other(self, cable):
        a, _ = self.many(cable, 3)
        cable.run(3.0)
        a.said.clear()
        namespaces = a.mesh._session.namespaces
        namespaces.members["n2"].refuse("web-9", Reason.HASH_KEY)
        namespaces.members["n2"].horizon.until = cable.now - 1.0
        namespaces.touched |= {"n0", "n1", "n2"}
        a.mesh.tick(cable.now)
        cable.settle()
        assert a.texts("warning") == "namespace n2 is isolated: nothing fresh from web-9"
