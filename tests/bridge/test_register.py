"""An index of members and their namespaces is kept, so that the cost of a tick does not grow with the
namespaces."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from cachee_bridge.links import ledger as calm
from cachee_bridge.links.ledger import NOTHING, expected_of, sum_of
from cachee_bridge.sources.horizon import Horizon
from cachee_bridge.sources.members import Members
from cachee_bridge.sources.peer_status import PeerStatus
from cachee_bridge.sources.register import Listed, Register
from tests.bridge.meshes import Cable, FakeStore, key


def test_a_name_is_in_the_index_while_it_is_in_any_namespace():
    register = Register()
    shop, news = Listed("shop", register.members, [("a", 1)]), Listed("news", register.members)
    news["a"] = news["b"] = 2
    assert register.members == {"a": {"shop", "news"}, "b": {"news"}}
    assert (shop.take("a"), shop.take("a")) == (1, None)
    assert register.members == {"a": {"news"}, "b": {"news"}}
    del news["a"]
    assert register.members == {"b": {"news"}}


def hosts_of(cable, count, **settings):
    names = [f"n{number}" for number in range(count - 1)] + ["shop"]
    hosts = [cable.node(name, ("a", "b"), {each: FakeStore() for each in names}, **settings) for name in "ab"]
    cable.run(3.0)
    return hosts


def agrees_with_the_namespaces(node):
    known = node.mesh._session.namespaces
    for index, held in ((known.register.members, "sources"), (known.register.refused, "refused")):
        there = {}
        for namespace, members in known.members.items():
            for name in getattr(members, held):
                there.setdefault(name, set()).add(namespace)
        assert index == there
    removing = {name for name, members in known.members.items() if members.removal.under_way}
    assert known.register.removing == removing


@pytest.mark.parametrize("asked", ["heard_at", "removed"])
def test_at_rest_a_tick_asks_no_namespace_how_its_members_are(asked):
    cable = Cable()
    hosts_of(cable, 20)
    ask = getattr(Members, asked)
    calls = []

    def counted(self, *arguments):
        calls.append(arguments)
        return ask(self, *arguments)

    with patch.object(Members, asked, counted):
        cable.run(3.0)
    assert calls == []


def test_the_index_is_right_while_members_come_go_and_are_removed():
    cable = Cable()
    a, b = hosts_of(cable, 3)
    agrees_with_the_namespaces(a)
    a.mesh.add_namespace("new", FakeStore(), cable.now)
    agrees_with_the_namespaces(a)
    b.mesh.add_namespace("new", FakeStore(), cable.now)
    cable.run(1.0)
    agrees_with_the_namespaces(a)
    a.mesh.add_namespace("new", FakeStore(incarnation=2), cable.now)
    cable.run(1.0)
    agrees_with_the_namespaces(a)
    cable.remove(b)
    cable.break_link(a, b)
    cable.run(3.0)
    a.mesh.forget("b", cable.now)
    cable.run(1.0)
    assert a.mesh._session.namespaces.register.removing == set(a.mesh._session.namespaces.members)
    agrees_with_the_namespaces(a)
    cable.run(15.0)
    agrees_with_the_namespaces(a)
    assert not a.mesh._session.namespaces.register.members


def test_a_member_of_one_more_namespace_is_not_fresh_there_by_what_it_said_before():
    cable = Cable()
    a, _ = hosts_of(cable, 3)
    held = a.mesh._session.namespaces
    assert held.is_fresh("b", cable.now - 1.0)
    held.members["shop"]._changed("b")
    held.members["shop"].sources["b"].freshness.at = float("-inf")
    held.members["shop"]._entered_at = float("-inf")
    assert not held.is_fresh("b", cable.now - 1.0)


def counted(calls, what, method):
    """A patch that notes each call."""
    asked = getattr(what, method)

    def noting(*arguments, **more):
        calls.append(arguments)
        return asked(*arguments, **more)

    return patch.object(what, method, noting)


@pytest.mark.parametrize("count", [3, 60])
def test_a_write_adds_up_what_it_moved_however_many_namespaces_there_are(count):
    cable = Cable()
    a, b = hosts_of(cable, count)
    calls = []
    with counted(calls, calm, "expected_of"), counted(calls, Members, "cursor"):
        cable.run(3.0)
        assert calls == []
        a.write(key(1))
        cable.run(3.0)
        assert 1 <= len(calls) <= 20
    assert b.stores["shop"].cursor_of("a") == a.stores["shop"].tail


@pytest.mark.parametrize("count", [3, 60])
def test_a_write_has_one_namespace_looked_at_for_isolation_however_many_there_are(count):
    cable = Cable()
    a, b = hosts_of(cable, count)
    calls = []
    with counted(calls, Horizon, "extended"), counted(calls, PeerStatus, "tell"):
        cable.run(3.0)
        assert calls == []
        a.write(key(1))
        cable.run(3.0)
        assert 1 <= len(calls) <= 30
    assert not any(node.isolated(namespace) for node in (a, b) for namespace in node.stores)


def test_what_is_calm_is_isolated_when_its_source_is_silent_and_comes_back_when_it_speaks():
    cable = Cable()
    a, _ = hosts_of(cable, 5)
    cable.deaf = {("b", "a"), ("a", "b")}
    cable.run(1.2)
    assert not any(a.isolated(namespace) for namespace in a.stores)
    cable.run(1.0)
    assert all(a.isolated(namespace) for namespace in a.stores)
    cable.deaf = set()
    cable.run(10.0)
    assert not any(a.isolated(namespace) for namespace in a.stores)


def test_what_this_host_has_not_healed_at_home_is_isolated_alone():
    cable = Cable()
    a, _ = hosts_of(cable, 5)
    a.stores["n1"].announce(key(1))  # and no pump heals it
    cable.run(3.0)
    assert [namespace for namespace in a.stores if a.isolated(namespace)] == ["n1"]


def sums_are_right(node):
    """What is kept of each link is what a count of everything gives."""
    known = node.mesh._session.namespaces
    for link in node.mesh._links.up.values():
        ledger = known.ledger_of(link)
        ledger.expect(known.members, link.name, link)
        pairs = {
            namespace: expected_of(known.members[namespace], link.name, link.acked.get(namespace))
            for namespace in link.shared
        }
        assert {namespace: ledger.expected.pairs.get(namespace, NOTHING) for namespace in pairs} == pairs
        for sums in (ledger.told, ledger.expected):
            assert sums.pairs.keys() <= link.shared
            counted = [sum_of((ns, pair[end]) for ns, pair in sums.pairs.items()) for end in (0, 1)]
            assert sums.without(()) == tuple(counted)
        word = known.register.word(link.name)
        assert word.covered | word.apart == known.register.members.get(link.name, set())
        assert not word.covered & word.apart
        assert word.covered <= link.shared
    for namespace, members in known.members.items():
        assert members.apart == {
            name for name in members.sources if namespace in known.register.word(name).apart
        }


def test_what_is_kept_is_right_while_namespaces_and_members_come_and_go():
    cable = Cable()
    a, b = hosts_of(cable, 4)

    def happens(what):
        what()
        for _ in range(10):
            cable.run(0.1)
            for node in cable.nodes.values():
                sums_are_right(node)

    happens(lambda: a.write(key(1), key(2), namespace="n1"))
    happens(lambda: b.write(key(1), namespace="n1"))
    happens(lambda: a.mesh.add_namespace("n1", FakeStore(incarnation=9), cable.now))
    happens(lambda: a.mesh.add_namespace("new", FakeStore(), cable.now))
    happens(lambda: b.mesh.add_namespace("new", FakeStore(), cable.now))
    happens(lambda: cable.break_link(a, b))
    other = FakeStore()
    other.hash_key_fingerprint = 5
    happens(lambda: b.mesh.add_namespace("n2", other, cable.now))
    happens(lambda: b.mesh.leave(cable.now))
    happens(lambda: cable.remove(b))


def test_what_is_kept_for_others_is_looked_at_when_there_are_other_hosts_than_before():
    cable = Cable()
    a, b = hosts_of(cable, 5)
    b.write(key(1))
    relaying = a.mesh._session.relaying
    kept = relaying._logs
    assert ("shop", "b") in kept
    cable.run(3.0)
    assert relaying._logs is kept
    cable.remove(b)
    cable.break_link(a, b)
    cable.run(3.0)
    a.mesh.forget("b", cable.now)
    cable.run(15.0)
    assert relaying._logs == {}
    assert a.mesh._session.following._lives == {}
