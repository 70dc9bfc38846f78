"""How isolation begins and ends: a namespace that is refused, gone, or one of very many."""

import pytest

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.protocol.isolation import PERIOD_S, TELL_S
from cachee_bridge.sources.horizon import Horizon
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder
from cachee_bridge.wire.messages import Beat
from tests.bridge.meshes import Cable, FakeStore, key, two


@pytest.fixture
def cable() -> Cable:
    return Cable()


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

    @pytest.fixture
    def served_on(self, monkeypatch):
        """Each time that a calm namespace is extended."""
        extended, goes_on = [], Horizon.go_on

        def counted(self, now, until):
            extended.append(self.namespace)
            return goes_on(self, now, until)

        monkeypatch.setattr(Horizon, "go_on", counted)
        return extended

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

    def test_those_that_are_calm_are_served_on_together(self, cable, heard, served_on):
        """Three or four times a second, however often the mesh ticks; none is looked at by itself."""
        a, _ = self.many(cable, 20)
        cable.run(3.0)
        heard.clear()
        served_on.clear()
        cable.run(2.0)
        assert heard == []
        assert set(served_on) == set(a.stores)
        assert len(served_on) <= 2 * 20 * (2.0 / PERIOD_S + 1)
        assert not any(a.isolated(namespace) for namespace in a.stores)

    def test_ticks_between_two_reports_write_nothing_anew_for_half_of_lost_after(self, cable, served_on):
        """Idle bridges paid for each namespace at each tick, though no peer had reported since."""
        a, _ = self.many(cable, 20)
        cable.run(3.0)
        lost_after_s = a.mesh._isolation._lost_after_s
        a.mesh.tick(cable.now)
        until, vouched, served_at = a.serve_until["n7"], a.stores["n7"].vouched_until_ms, cable.now
        served_on.clear()
        while cable.now < served_at + 0.8 * lost_after_s:
            cable.now += 1.1 * PERIOD_S
            a.mesh.tick(cable.now)
            if served_on:
                break
        assert cable.now - served_at >= 0.3 * lost_after_s
        assert set(served_on) == set(a.stores)
        assert a.serve_until["n7"] == until
        assert a.stores["n7"].vouched_until_ms > vouched

    def test_one_that_becomes_calm_later_is_extended_as_far_as_the_others(self, cable):
        a, _ = self.many(cable, 3)
        cable.run(3.0)
        namespaces = a.mesh._session.namespaces
        namespaces.members["n1"].horizon.until -= 0.2
        calm = next(iter(a.mesh._isolation._calm.values()))
        calm.add("n1", calm.namespaces.pop("n1"))
        a.mesh.tick(cable.now + PERIOD_S)
        assert len({namespaces.members[name].horizon.until for name in a.stores}) == 1

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
        link.beat_schedule.beaten(cable.now, cable.now + 60.0)
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
        self, cable, heard, served_on
    ):
        a, _ = self.many(cable, 5)
        cable.run(3.0)
        served_on.clear()
        served_on.clear()
        heard.clear()
        a.stores["n0"].announce(key(1))  # and no pump heals it
        cable.now += a.mesh._isolation._lost_after_s / 2
        a.mesh.tick(cable.now)
        assert sorted(served_on) == ["n1", "n2", "n3", "n4"]
        assert heard == ["n0"]

    def one_has_reported(self, cable):
        """And what the other one answers is lost; until when may be served by now."""
        _, c = cable.node("b"), cable.node("c")
        a = cable.node("a", ("b", "c"))  # it dials, so the others answer
        cable.run(3.0)
        cable.deaf = {("c", "a")}
        cable.now += 0.3
        a.mesh.tick(cable.now)
        cable.settle()
        word = a.mesh._session.namespaces.register.word
        assert word("b").fresh_at > word("c").fresh_at
        cable.deaf = set()
        cable.now += 0.4
        return a, c, a.serve_until["shop"]

    def test_the_last_of_the_members_that_reports_has_them_served_on_and_no_tick_is_waited_for(self, cable):
        a, c, until = self.one_has_reported(cable)
        c.mesh.tick(cable.now)
        cable.settle()
        assert a.serve_until["shop"] > until

    def test_a_member_that_is_gone_when_the_last_one_reports_is_not_asked_for(self, cable):
        a, c, until = self.one_has_reported(cable)
        a.mesh._session.namespaces.members["shop"].drop_absent("b", cable.now)
        for calm in a.mesh._isolation._calm.values():
            calm.tell_at = cable.now
        c.mesh.tick(cable.now)
        cable.settle()
        assert a.serve_until["shop"] > until

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
