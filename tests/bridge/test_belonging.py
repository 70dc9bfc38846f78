"""Which hosts belong to the mesh, and how one is removed: by discovery, by an operator, or after a time."""

import pytest

from cachee_bridge.membership.discovery import ABSENCES
from cachee_bridge.protocol.namespaces import OWN_CERTIFICATE
from cachee_shm.errors import NotForgotten
from tests.bridge.meshes import Cable, FakeStore, Node, key

HOLD = 10.0  # isolation_ttl of a FakeStore


@pytest.fixture
def cable() -> Cable:
    return Cable()


def discovered(cable: Cable, *names: str, **settings) -> list[Node]:
    """Hosts that found each other by discovery."""
    cable.dns = list(names)
    nodes = [cable.node(name, discovers=True, **settings) for name in names]
    cable.run(3.0)
    assert not any(node.isolated() for node in nodes)
    forget_what_was_done(nodes)
    return nodes


def configured(cable: Cable, *names: str, **settings) -> list[Node]:
    nodes = [cable.node(name, names, **settings) for name in names]
    cable.run(3.0)
    forget_what_was_done(nodes)
    return nodes


def forget_what_was_done(nodes: list[Node]) -> None:
    for node in nodes:
        node.store.applied.clear()
        node.said.clear()


def die(cable: Cable, node: Node) -> None:
    """Without a word."""
    cable.remove(node)
    for other in list(cable.nodes.values()):
        cable.break_link(other, node)


def members(node: Node) -> set[str]:
    return {name for _, name, _, _ in node.store.sources()}


class TestDiscovery:
    def test_hosts_that_it_names_meet(self, cable):
        a, b, c = discovered(cable, "a", "b", "c")
        a.write(key(7))
        assert b.store.payloads() == c.store.payloads() == [key(7)]

    def test_a_host_is_isolated_until_it_has_answered_once(self, cable):
        cable.dns = None
        a = cable.node("a", discovers=True)
        cable.run(5.0)
        assert a.isolated()
        assert "nothing fresh from dns:mesh:1" in a.texts("info", "warning")
        cable.dns = ["a"]
        cable.run(30.0)
        assert not a.isolated()

    def test_a_first_host_may_be_told_that_there_is_nobody(self, cable):
        a = cable.node("a", discovers=True)
        cable.run(1.0)
        assert not a.isolated()

    def test_its_failure_changes_nothing_and_is_told_once(self, cable):
        a, b = discovered(cable, "a", "b")
        cable.dns = None
        cable.run(60.0)
        assert not a.isolated()
        assert a.texts("warning").count("no answer from dns:mesh:1: no server answers; known hosts stay") == 1
        a.write(key(7))
        assert b.store.payloads() == [key(7)]
        cable.dns = ["a", "b"]
        cable.run(60.0)
        assert "dns:mesh:1 names 2 addresses" in a.texts("info")

    def test_a_host_that_it_names_and_that_never_answers_isolates(self, cable):
        a, _ = discovered(cable, "a", "b")
        cable.dns = ["a", "b", "c"]
        cable.run(10.0)
        assert a.isolated()
        assert "c:1" in a.texts("warning")

    def test_a_name_more_is_dialled_without_a_restart(self, cable):
        a, _ = discovered(cable, "a", "b")
        cable.node("c", discovers=True)
        cable.dns = ["a", "b", "c"]
        cable.run(3.0)
        assert a.state_of("c") == "up"
        assert not a.isolated()

    def test_a_lost_link_makes_it_be_asked_soon(self, cable):
        a, b = discovered(cable, "a", "b")
        answered = a.mesh._belonging.discovery
        answered._due = cable.now + 1000.0
        die(cable, b)
        asked = a.asked
        cable.run(1.1)
        assert a.asked > asked


class TestAHostThatDiesForGood:
    def test_isolates_the_others_while_it_is_named(self, cable):
        a, _, c = discovered(cable, "a", "b", "c")
        die(cable, c)
        cable.run(60.0)
        assert a.isolated()
        assert members(a) == {"b", "c"}

    def test_is_forgotten_by_all_once_it_is_not_named_and_nothing_is_evicted_at_once(self, cable):
        a, b, c = discovered(cable, "a", "b", "c")
        die(cable, c)
        cable.run(5.0)
        cable.dns = ["a", "b"]
        cable.run(5.0)
        assert a.isolated()
        assert "c is no longer a member: discovery does not name it any more" in a.texts("warning")
        cable.run(HOLD)
        for node in (a, b):
            assert not node.isolated()
            assert members(node) == {"a", "b"} - {node.name}
            assert node.store.applied == []
            assert len(node.store.evicted_before) == 1

    def test_values_loaded_since_its_removal_outlive_it(self, cable):
        a, _, c = discovered(cable, "a", "b", "c")
        die(cable, c)
        cable.dns = ["a", "b"]
        cable.run(6.0)
        token = a.store.tail
        assert a.isolated()
        cable.run(HOLD)
        assert not a.isolated()
        assert a.store.evicted_before[0] <= token

    def test_its_replacement_is_met_without_emptying_a_cache(self, cable):
        a, b, c = discovered(cable, "a", "b", "c")
        die(cable, c)
        cable.dns = ["a", "b"]
        cable.run(6.0)
        cable.node("d", discovers=True)
        cable.dns = ["a", "b", "d"]
        cable.run(2 * HOLD)
        assert (a.state_of("d"), b.state_of("d")) == ("up", "up")
        assert a.store.applied == b.store.applied == []
        assert not a.isolated()

    def test_is_forgotten_after_a_restart_of_the_bridge_too(self, cable):
        a, _, c = discovered(cable, "a", "b", "c")
        die(cable, c)
        die(cable, a)
        cable.dns = ["a", "b"]
        a = cable.node("a", stores=a.stores, discovers=True)
        cable.run(6.0 + HOLD)
        assert members(a) == {"b"}
        assert not a.isolated()

    def test_two_at_once_are_two_removals(self, cable):
        a, _, c, d = discovered(cable, "a", "b", "c", "d")
        die(cable, c), die(cable, d)
        cable.dns = ["a", "b"]
        cable.run(6.0 + HOLD)
        assert members(a) == {"b"}
        assert not a.isolated()

    def test_that_was_named_and_never_met_is_got_over_as_well(self, cable):
        a, _ = discovered(cable, "a", "b")
        cable.dns = ["a", "b", "c"]
        cable.run(10.0)
        assert a.isolated()
        cable.dns = ["a", "b"]
        cable.run(5.0 + HOLD)
        assert not a.isolated()
        assert (len(a.store.evicted_before), a.store.applied) == (1, [])


class TestAHostThatIsNotNamed:
    def test_and_is_linked_stays(self, cable):
        a, b = discovered(cable, "a", "b")
        cable.dns = ["a"]
        cable.run(60.0)
        assert (a.state_of("b"), members(a), members(b)) == ("up", {"b"}, {"a"})

    def test_and_only_cannot_be_reached_goes_on_where_it_was_when_it_can(self, cable):
        a, b = discovered(cable, "a", "b")
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        cable.dns = ["a"]
        cable.run(8.0 + HOLD)
        assert members(a) == set()
        b.write(key(7))
        cable.cut.clear()
        cable.run(10.0)
        assert a.store.payloads() == [key(7)]
        assert members(a) == {"b"}

    def test_may_be_where_nobody_has_answered_yet_and_is_waited_for(self, cable):
        a, b = discovered(cable, "a", "b")
        die(cable, b)
        cable.dns = ["a", "c"]
        cable.run(2 * HOLD)
        assert members(a) == {"b"}
        cable.node("c", discovers=True)
        cable.run(6.0 + HOLD)
        assert members(a) == {"c"}

    def test_is_not_removed_by_an_answer_that_names_nobody(self, cable):
        a, b = discovered(cable, "a", "b")
        die(cable, b)
        cable.dns = []
        cable.run(2 * HOLD)
        assert members(a) == {"b"}
        assert "the answer has no addresses, and an earlier one had 2" in a.texts("warning")

    def test_and_has_left_is_forgotten_as_one_that_left(self, cable):
        a, b = discovered(cable, "a", "b")
        b.mesh.leave(cable.now)
        cable.settle()
        b.mesh.stop(cable.now)
        cable.settle()
        cable.remove(b)
        cable.run(10.0)
        assert not a.isolated()
        assert a.store.evicted_before == []
        assert a.store.forgotten() == []


class TestTheOperator:
    def test_ends_the_wait_for_a_dead_host(self, cable):
        a, _, c = configured(cable, "a", "b", "c")
        die(cable, c)
        cable.run(30.0)
        assert a.isolated()
        assert "c is removed" in a.mesh.forget("c", cable.now)
        cable.run(1.0 + HOLD)
        assert not a.isolated()
        assert members(a) == {"b"}
        assert (a.store.applied, len(a.store.evicted_before)) == ([], 1)

    def test_speaks_for_one_host_only(self, cable):
        a, b, c = configured(cable, "a", "b", "c")
        die(cable, c)
        a.mesh.forget("c", cable.now)
        cable.run(5.0 + HOLD)
        assert b.isolated()

    def test_cannot_forget_who_is_linked(self, cable):
        a, _ = configured(cable, "a", "b")
        with pytest.raises(NotForgotten, match="b is linked; nothing was changed"):
            a.mesh.forget("b", cable.now)
        cable.run(HOLD)
        assert members(a) == {"b"}

    def test_is_told_of_a_name_that_nobody_knows(self, cable):
        a, _ = configured(cable, "a", "b")
        with pytest.raises(NotForgotten, match="no peer z is waited for; nothing was changed"):
            a.mesh.forget("z", cable.now)

    def test_is_taken_at_his_word_only_once_the_host_has_been_silent_for_long_enough(self, cable):
        a, b = configured(cable, "a", "b")
        die(cable, b)
        cable.run(0.5)
        a.mesh.forget("b", cable.now)
        cable.run(1.0)
        assert "no longer a member" not in a.texts()
        cable.run(1.0)
        assert "b is no longer a member: the operator says so" in a.texts("warning")

    def test_a_link_that_is_made_anew_is_no_silence_whatever_was_not_heard_on_it(self, cable):
        a, b = configured(cable, "a", "b")
        b.store.announce(key(1))  # written, and never healed
        cable.run(30.0)
        cable.break_link(a, b)
        a.mesh.forget("b", cable.now)
        a.mesh.tick(cable.now)
        cable.run(5.0)
        assert "no longer a member" not in a.texts()
        assert a.isolated()

    def test_who_comes_back_before_that_stays(self, cable):
        a, b = configured(cable, "a", "b")
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        a.mesh.forget("b", cable.now)
        cable.cut.clear()
        cable.run(2 * HOLD)
        assert members(a) == {"b"}
        assert a.store.evicted_before == []

    def test_who_comes_back_in_the_midst_of_it_stays(self, cable):
        a, b = configured(cable, "a", "b")
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        a.mesh.forget("b", cable.now)
        cable.run(5.0)
        b.write(key(7))
        cable.cut.clear()
        cable.run(2.0)
        assert not a.isolated()
        cable.run(2 * HOLD)
        assert (members(a), a.store.payloads(), a.store.evicted_before) == ({"b"}, [key(7)], [])

    def test_nothing_old_is_served_for_the_return_of_who_wrote_meanwhile(self, cable):
        a, b, c = configured(cable, "a", "b", "c")
        cable.cut |= {frozenset("ab"), frozenset("bc")}
        cable.break_link(a, b)
        cable.break_link(c, b)
        a.mesh.forget("b", cable.now)
        cable.run(5.0)
        b.store.announce(key(7))  # and has not healed it: nothing of it can be sent yet
        cable.cut.clear()
        cable.run(1.0)
        assert (a.state_of("b"), a.store.payloads()) == ("up", [])
        assert a.isolated()

    def test_who_was_forgotten_and_comes_back_is_met_and_misses_nothing(self, cable):
        a, b = configured(cable, "a", "b")
        cable.cut.add(frozenset("ab"))
        cable.break_link(a, b)
        a.mesh.forget("b", cable.now)
        cable.run(5.0 + HOLD)
        assert not a.isolated()
        a.write(key(1))
        b.write(key(7))
        cable.cut.clear()
        cable.run(6.0)
        assert (a.store.payloads(), b.store.payloads()) == ([key(7)], [key(1)])
        assert not a.isolated()
        assert not b.isolated()

    def test_who_was_forgotten_and_comes_back_in_another_life_evicts_all(self, cable):
        a, b = configured(cable, "a", "b")
        die(cable, b)
        a.mesh.forget("b", cable.now)
        cable.run(5.0 + HOLD)
        cable.node("b", ("a", "b"), {"shop": FakeStore(incarnation=2)})
        cable.run(6.0)
        assert a.store.payloads() == [b"\x08"]

    def test_ends_the_wait_at_an_address_where_nobody_ever_answered(self, cable):
        a = cable.node("a", ("a", "b"))
        cable.run(10.0)
        assert a.isolated()
        assert a.mesh.forget("b:1", cable.now) == "nobody is waited for at b:1 any more"
        cable.run(1.0 + HOLD)
        assert not a.isolated()
        b = cable.node("b", ("a", "b"))
        cable.run(6.0)
        assert (a.state_of("b"), b.state_of("a")) == ("up", "up")

    def test_of_a_namespace_with_another_hash_key_ends_what_that_isolates(self, cable):
        a = cable.node("a", ("a", "b"))
        other = FakeStore()
        other.hash_key_fingerprint = 8
        b = cable.node("b", ("a", "b"), {"shop": other})
        cable.run(3.0)
        assert a.isolated()
        die(cable, b)
        a.mesh.forget("b", cable.now)
        cable.run(5.0 + HOLD)
        assert not a.isolated()


class TestAFloodOfNames:
    def test_leaves_nothing_behind_once_all_have_left(self, cable):
        (a,) = configured(cable, "a")
        for number in range(30):
            b = cable.node(f"b{number}", ("a",))
            cable.run(0.5)
            b.mesh.leave(cable.now), cable.settle()
            b.mesh.stop(cable.now), cable.settle()
            cable.remove(b)
        cable.run(20.0)
        assert len(a.mesh._presence._since) == 0
        assert [peer.name for peer in a.mesh.views.peers() if peer.state != "self"] == []

    def test_by_the_dns_is_dialled_and_dropped_with_the_next_answers(self, cable):
        a, _ = discovered(cable, "a", "b")
        for number in range(30):
            cable.dns = ["a", "b", *(f"c{number}-{each}" for each in range(20))]
            cable.run(1.0)
        assert len(a.mesh.views.peers()) <= 2 + 20 * (ABSENCES + 1)
        cable.dns = ["a", "b"]
        cable.run(20.0)
        assert len(a.mesh.views.peers()) == 2


class TestANamespaceThatIsNotInThisHostsOwnCertificate:
    @pytest.mark.parametrize("settings", [{}, {"forget_after_s": 5.0}])
    def test_stays_isolated_whoever_is_named_and_forgotten(self, cable, settings):
        cable.dns = ["a"]
        a = cable.node("a", discovers=True, namespaces=frozenset({"other"}), **settings)
        cable.run(30.0 + HOLD)
        assert a.isolated()
        with pytest.raises(NotForgotten):
            a.mesh.forget(OWN_CERTIFICATE, cable.now)


class TestForgetAfter:
    def test_is_off_unless_somebody_asked_for_it(self, cable):
        a, b = configured(cable, "a", "b")
        die(cable, b)
        cable.run(120.0)
        assert a.isolated()

    def test_forgets_a_host_that_was_silent_for_so_long_and_not_before(self, cable):
        a, b = configured(cable, "a", "b", forget_after_s=20.0)
        die(cable, b)
        cable.run(19.0)
        assert "no longer a member" not in a.texts()
        cable.run(2.0 + HOLD)
        assert "b is no longer a member: forget_after has passed" in a.texts("warning")
        assert not a.isolated()

    def test_counts_from_the_start_for_who_was_not_heard_since(self, cable):
        a, b = configured(cable, "a", "b", forget_after_s=20.0)
        die(cable, b), die(cable, a)
        a = cable.node("a", ("a", "b"), a.stores, forget_after_s=20.0)
        cable.run(19.0)
        assert members(a) == {"b"}
        cable.run(2.0 + HOLD)
        assert members(a) == set()
        assert not a.isolated()

    def test_does_not_touch_who_is_linked_and_silent_in_one_namespace(self, cable):
        a, b = configured(cable, "a", "b", forget_after_s=20.0)
        b.store.announce(key(1))  # written, and never healed
        cable.run(60.0)
        assert a.isolated()
        assert "no longer a member" not in a.texts()


class TestIsolation:
    def test_a_peer_reachable_only_through_others_does_not_isolate_while_one_of_them_hears_it(self, cable):
        a, b, c = configured(cable, "a", "b", "c")
        cable.cut.add(frozenset("ac"))
        cable.break_link(a, c)
        cable.run(30.0)
        c.write(key(7))
        assert not (a.isolated() or b.isolated() or c.isolated())
        assert a.store.payloads() == b.store.payloads() == [key(7)]
        assert a.state_of("c") == "relayed"
        cable.deaf.add(("c", "b"))
        cable.run(4.0)
        assert (a.isolated(), b.isolated(), c.isolated()) == (True, True, True)
        assert "nothing fresh from c" in a.texts("warning")
        cable.cut.clear()
        cable.deaf.clear()
        cable.run(6.0)
        assert not (a.isolated() or b.isolated() or c.isolated())

    def test_a_peer_heard_of_through_others_and_never_met_lets_no_newcomer_be_believed(self, cable):
        b = cable.node("b")
        cable.cut.add(frozenset("ac"))
        a, c = cable.node("a", ("b",)), cable.node("c", ("b",))
        cable.run(5.0)
        assert (a.state_of("b"), c.state_of("b")) == ("up", "up")
        assert not a.isolated()  # a writer that nobody configured and that was never met
        cable.cut.clear()
        cable.run(10.0)
        assert a.state_of("c") == "up"
        assert b"\x08" in a.store.payloads()
        assert not b.isolated()

    def test_it_is_of_the_source_that_is_silent_and_is_told_by_its_name(self, cable):
        a, _, _ = configured(cable, "a", "b", "c")
        cable.deaf = {("c", "a"), ("c", "b")}
        cable.run(3.0)
        assert "nothing fresh from c" in a.texts("warning")
        assert "from b" not in a.texts("warning")

    def test_a_machine_that_slept_while_its_clock_ran_is_isolated_as_it_wakes(self, cable):
        a, b = configured(cable, "a", "b")
        b.write(key(7))
        cable.now += 3600.0
        assert a.isolated()
        a.mesh.tick(cable.now)
        a.mesh.effects()
        assert a.isolated()
