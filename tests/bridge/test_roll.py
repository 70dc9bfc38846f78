"""Who is a member where is kept, and not looked for: what a tick visits does not grow with the namespaces."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from cachee_bridge import exchange
from cachee_bridge.members import Members
from cachee_bridge.roll import Listed, Roll
from tests.bridge.meshes import Cable, FakeStore, key


def test_a_name_is_in_the_index_while_it_is_in_any_namespace():
    roll = Roll()
    shop, news = Listed("shop", roll.members, [("a", 1)]), Listed("news", roll.members)
    news["a"] = news["b"] = 2
    assert roll.members == {"a": {"shop", "news"}, "b": {"news"}}
    assert (shop.take("a"), shop.take("a")) == (1, None)
    assert roll.members == {"a": {"news"}, "b": {"news"}}
    del news["a"]
    assert roll.members == {"b": {"news"}}


def hosts_of(cable, count, **settings):
    names = [f"n{number}" for number in range(count - 1)] + ["shop"]
    hosts = [cable.node(name, ("a", "b"), {each: FakeStore() for each in names}, **settings) for name in "ab"]
    cable.run(3.0)
    return hosts


def agrees_with_the_namespaces(node):
    known = node.mesh._exchange
    for index, held in ((known.roll.members, "inboxes"), (known.roll.refused, "refused")):
        there = {}
        for namespace, members in known.members.items():
            for name in getattr(members, held):
                there.setdefault(name, set()).add(namespace)
        assert index == there
    removing = {name for name, members in known.members.items() if members.removal.under_way}
    assert known.roll.removing == removing


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
    assert a.mesh._exchange.roll.removing == set(a.mesh._exchange.members)
    agrees_with_the_namespaces(a)
    cable.run(15.0)
    agrees_with_the_namespaces(a)
    assert not a.mesh._exchange.roll.members


def test_a_member_of_one_more_namespace_is_not_fresh_there_by_what_it_said_before():
    cable = Cable()
    a, _ = hosts_of(cable, 3)
    held = a.mesh._exchange
    assert held.is_fresh("b", cable.now - 1.0)
    word = held.roll.word("b").fresh_at
    assert word > cable.now - 1.0
    held.members["shop"]._changed("b")
    assert held.roll.word("b").fresh_at < word
    held.members["shop"].inboxes["b"].freshness.at = float("-inf")
    held.members["shop"]._entered_at = float("-inf")
    assert not held.is_fresh("b", cable.now - 1.0)


def test_of_equal_sums_the_positions_are_added_up_once():
    cable = Cable()
    a, _ = hosts_of(cable, 20)
    calls = []
    adds = exchange.sums_here

    def counted(*arguments):
        calls.append(arguments)
        return adds(*arguments)

    with patch.object(exchange, "sums_here", counted):
        cable.run(3.0)
        assert calls == []
        a.write(key(1))
        cable.run(3.0)
        assert 1 <= len(calls) <= 8
