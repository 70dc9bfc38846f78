"""Directly or by which relay each source is followed, in meshes of more hosts than a source sends to."""

from collections import Counter

import pytest

from cachee_bridge.protocol import paths
from cachee_bridge.routing import relaying
from cachee_bridge.wire.frames import PREFIX, decode, encode
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import Beat, Cursor, Follow, Frame, Head, Replay, Sync
from tests.bridge.meshes import Cable, FakeStore, key


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(paths, "LINGER_S", 0.5)
    monkeypatch.setattr(paths, "DISTRUST_S", 1.0)


@pytest.fixture
def cable() -> Cable:
    return Cable()


def mesh(cable, count=9, fanout=2, seconds=2.5, **settings):
    """Hosts a, b, c, ... that have found their ways."""
    names = [chr(ord("a") + number) for number in range(count)]
    nodes = [cable.node(name, tuple(names), fanout=fanout, **settings) for name in names]
    cable.run(seconds)
    assert not any(node.isolated() for node in nodes)
    for node in nodes:
        node.store.applied.clear()
        node.said.clear()
    cable.carried.clear()
    return nodes


def linked(node):
    return set(node.mesh._links.up)


def through(node):
    """Whom `node` hears by way of whom."""
    return {view.name: view.through for view in node.mesh.views.peers() if view.state == "relayed"}


def frames(cable):
    """By (from, to): sources of the frames with a payload that were sent."""
    sent = Counter()
    for way, messages in cable.carried.items():
        for data in messages:
            message = decode(data[4], data[PREFIX.size :])
            if isinstance(message, Frame) and message.payload:
                sent[(*way, message.source)] += 1
    return sent


class TestMoreHostsThanFanout:
    def test_are_linked_to_a_part_of_the_others(self, cable):
        nodes = mesh(cable, 9)
        assert all(len(linked(node)) == 6 for node in nodes)
        assert all(len(linked(node)) + len(through(node)) == 8 for node in nodes)

    def test_hear_every_write_of_everybody_once(self, cable):
        nodes = mesh(cable)
        for number, node in enumerate(nodes):
            node.write(key(number))
        for number, node in enumerate(nodes):
            expected = sorted(key(other) for other in range(len(nodes)) if other != number)
            assert sorted(node.store.payloads()) == expected
        assert set(frames(cable).values()) == {1}

    def test_are_fresh_though_they_are_not_linked(self, cable):
        nodes = mesh(cable)
        cable.run(5.0)
        for node in nodes:
            assert not node.isolated()
            assert node.serve_until["shop"] > cable.now + 1.0
            assert all(view.state in ("up", "relayed", "self") for view in node.mesh.views.peers())

    def test_close_the_links_that_nobody_needs_and_do_not_dial_again(self, cable):
        nodes = mesh(cable)
        before = [linked(node) for node in nodes]
        for node in nodes:
            node.dialled.clear()
        cable.run(6.0)
        assert [linked(node) for node in nodes] == before
        assert not any(node.dialled for node in nodes)

    def test_do_not_count_as_out_of_reach(self, cable):
        nodes = mesh(cable)
        cable.run(5.0)
        assert all(
            members.horizon.whole
            for node in nodes
            for members in node.mesh._session.namespaces.members.values()
        )

    def test_up_to_it_nothing_is_relayed(self, cable):
        nodes = mesh(cable, 3)
        assert all(len(linked(node)) == 2 and not through(node) for node in nodes)
        assert not any(Follow in kinds(cable, way) for way in cable.carried)

    def test_which_shrink_below_it_are_linked_to_all_again(self, cable):
        nodes = mesh(cable)
        for node in nodes[3:]:
            depart(cable, node)
        cable.run(5.0)
        assert all(len(linked(node)) == 2 and not through(node) for node in nodes[:3])
        assert not any(node.isolated() for node in nodes[:3])
        assert all(node.mesh._paths.wanted is None for node in nodes[:3])

    def test_a_newcomer_is_met_and_hears_all(self, cable):
        nodes = mesh(cable)
        new = cable.node("z", ("a",), fanout=2)
        cable.run(4.0)
        nodes[3].write(key(5))
        new.write(key(6))
        assert key(5) in new.store.payloads()
        assert all(key(6) in node.store.payloads() for node in nodes)
        assert not new.isolated()


def depart(cable, node):
    """For good; its linked peers have heard so."""
    node.mesh.leave(cable.now)
    cable.settle()
    cable.run(0.3)
    assert node.mesh.left()
    node.mesh.stop(cable.now)
    cable.settle()
    cable.remove(node)


def said(cable, way):
    return [decode(data[4], data[PREFIX.size :]) for data in cable.carried[way]]


def kinds(cable, way):
    return {type(message) for message in said(cable, way)}


def relayed_pair(nodes):
    """(source, relay, who hears of it by that relay)."""
    for node in nodes:
        for source, relay in through(node).items():
            by_name = {each.name: each for each in nodes}
            return by_name[source], by_name[relay], node
    raise AssertionError("nobody is relayed")


class TestARelay:
    def test_that_dies_costs_nothing_but_a_moment(self, cable):
        nodes = mesh(cable)
        source, relay, node = relayed_pair(nodes)
        cable.remove(relay)
        for other in list(cable.nodes.values()):
            cable.break_link(other, relay)
        source.write(key(9))
        cable.run(1.2)
        assert key(9) in node.store.payloads()

    def test_that_hangs_is_gone_around(self, cable):
        nodes = mesh(cable)
        source, relay, node = relayed_pair(nodes)
        cable.deaf |= {(relay.name, other.name) for other in nodes}
        source.write(key(9))
        assert key(9) not in node.store.payloads()
        cable.run(1.8)
        assert key(9) in node.store.payloads()
        assert cable.now < node.serve_until["shop"] + 0.1 or not node.isolated()

    def test_that_was_lapped_itself_sends_nobody_over_its_gap(self, cable):
        nodes = mesh(cable)
        source, relay, node = relayed_pair(nodes)
        cable.deaf |= {(source.name, relay.name)}
        source.write(*[key(number) for number in range(source.store.ring_slots + 5)])
        cable.run(0.2)
        cable.deaf.clear()
        cable.run(4.0)
        assert relay.store.mended  # it was sent a map
        assert node.store.mended or len(node.store.payloads()) > 100
        assert node.store.cursor_of(source.name) == source.store.tail

    def test_tells_the_source_how_far_its_followers_are(self, cable):
        nodes = mesh(cable)
        source, _, node = relayed_pair(nodes)
        source.write(key(3))
        cable.run(1.0)
        assert source.store.workers_know(node.name) == (source.store.tail, True)

    def test_is_asked_at_once_where_a_worker_waits(self, cable):
        nodes = mesh(cable)
        source, _, node = relayed_pair(nodes)
        source.store.wanted = source.store.tail + 1
        source.write(key(3))
        source.mesh.ring_moved("shop", cable.now)
        cable.settle()
        assert source.store.workers_know(node.name)[0] == source.store.tail

    def test_passes_on_that_the_source_has_left(self, cable):
        nodes = mesh(cable)
        source, _, node = relayed_pair(nodes)
        source.write(key(3))
        depart(cable, source)
        cable.run(5.0)
        assert node.store.cursor_of(source.name) is None
        assert not any(each.isolated() for each in nodes if each is not source)

    def test_that_lacks_a_namespace_leaves_it_to_the_source(self, cable):
        stores = {name: {"shop": FakeStore(), "news": FakeStore()} for name in "abcdefghi"}
        nodes = [
            cable.node(name, tuple("abcdefghi"), stores[name] if name in "aei" else None, fanout=2)
            for name in "abcdefghi"
        ]
        cable.run(4.0)
        by_name = {node.name: node for node in nodes}
        for name in "aei":
            stores[name]["news"].applied.clear()
        for source in "aei":
            by_name[source].write(key(ord(source)), namespace="news")
        cable.run(1.0)
        for name in "aei":
            expected = {key(ord(source)) for source in "aei" if source != name}
            assert set(stores[name]["news"].payloads()) == expected


class TestAHostThatCannotBeLinked:
    def test_is_heard_by_way_of_another(self, cable):
        a, b, _ = mesh(cable, 3)
        part(cable, a, b)
        cable.run(4.0)
        b.write(key(7))
        assert through(a) == {"b": "c"}
        assert a.store.payloads() == [key(7)]
        cable.run(10.0)
        assert not a.isolated() and not b.isolated()
        assert not any("evicted all" in text for text in (a.texts(), b.texts()))

    def test_is_heard_before_it_isolates(self, cable):
        a, b, _ = mesh(cable, 3)
        part(cable, a, b)
        for _ in range(80):
            cable.run(0.05)
            assert not a.isolated()
            assert not b.isolated()

    def test_is_linked_again_as_soon_as_it_can_be(self, cable):
        a, b, _ = mesh(cable, 3)
        part(cable, a, b)
        cable.run(4.0)
        cable.cut.clear()
        cable.run(3.0)
        assert not through(a) and linked(a) == {"b", "c"}
        assert all(link.follows == {name} for name, link in a.mesh._links.up.items())

    def test_and_has_died_is_heard_out(self, cable):
        a, b, c = mesh(cable, 3)
        cable.deaf.add(("b", "a"))
        b.write(key(7))
        cable.remove(b)
        for node in (a, c):
            cable.break_link(node, b)
        assert a.store.payloads() == []
        cable.run(4.0)
        assert a.store.payloads() == [key(7)]
        assert a.isolated() and c.isolated()

    def test_and_was_missed_for_longer_than_the_others_remember_costs_all_that_is_older(
        self, cable, monkeypatch
    ):
        monkeypatch.setattr(relaying, "LOG_BYTES", 400)
        a, b, _ = mesh(cable, 3)
        part(cable, a, b)
        b.write(*[key(number) for number in range(5)])
        for number in range(5, 20):
            b.write(key(number))
        cable.run(5.0)
        assert b"\x05" in a.store.payloads()
        assert "no peer that can be reached has its missing records; evicted all" in a.texts("warning")
        assert not a.isolated()
        b.write(key(99))
        assert a.store.payloads()[-1] == key(99)


def part(cable, one, other):
    """They hear each other no more, and cannot dial each other."""
    cable.cut.add(frozenset((one.name, other.name)))


class TestALifeOfTheSegment:
    def test_that_is_new_is_learned_from_the_source_itself(self, cable):
        nodes = mesh(cable)
        source, _, node = relayed_pair(nodes)
        source.stores["shop"] = FakeStore(incarnation=2)
        source.mesh.add_namespace("shop", source.store, cable.now)
        cable.run(3.0)
        source.write(key(8))
        cable.run(1.0)
        assert key(8) in node.store.payloads()
        assert b"\x08" in node.store.payloads()


class TestRegions:
    def test_each_write_crosses_once(self, cable):
        nodes = mesh_of_regions(cable)
        nodes["a"].write(key(4))
        crossings = [
            way for way in frames(cable) if {way[0], way[1]} & set("abc") and {way[0], way[1]} & set("xyz")
        ]
        assert len(crossings) == 1
        assert all(key(4) in node.store.payloads() for name, node in nodes.items() if name != "a")

    def test_only_gateways_are_linked_across(self, cable):
        nodes = mesh_of_regions(cable)
        assert linked(nodes["c"]) & set("xyz") <= {"x", "y"}
        assert linked(nodes["z"]) & set("abc") <= {"a", "b"}

    def test_a_gateway_that_dies_is_replaced(self, cable):
        nodes = mesh_of_regions(cable)
        gateway = through(nodes["z"])["c"]
        cable.remove(nodes[gateway])
        for other in list(cable.nodes.values()):
            cable.break_link(other, nodes[gateway])
        nodes["c"].write(key(4))
        cable.run(2.0)
        assert key(4) in nodes["z"].store.payloads()


def mesh_of_regions(cable):
    where = dict.fromkeys("abc", "eu") | dict.fromkeys("xyz", "us")
    nodes = {name: cable.node(name, tuple(where), region=region) for name, region in where.items()}
    cable.run(5.0)
    for node in nodes.values():
        node.store.applied.clear()
    cable.carried.clear()
    return nodes


class TestWhatARelayMaySay:
    def test_of_a_source_that_was_not_asked_of_it_ends_the_link(self, cable):
        a, b, _ = mesh(cable, 3)
        for message in (
            Frame("shop", "c", 1, 1, 2, key(1)),
            Beat(1, 0, (Head("shop", "c", 1, 5, 0, 0),), ()),
            Replay("shop", "c", 1, 1),
        ):
            number = next(
                n
                for n, (other, _) in cable.ends.items()
                if other is b and cable.ends[cable.ends[n][1]][0] is a
            )
            a.mesh.received(number, encode(message), cable.now)
            cable.settle()
            assert any("the link is closed" in reason or "asked of" in reason for reason in a.closed)
            a.closed.clear()
            cable.run(2.0)

    def test_a_sync_of_the_source_is_passed_to_its_followers(self, cable):
        nodes = mesh(cable)
        source, relay, node = relayed_pair(nodes)
        cable.carried.clear()
        number = relay.mesh._links.up[source.name].number
        relay.mesh.received(number, encode(Sync()), cable.now)
        cable.settle()
        assert Sync(source.name, 1) in said(cable, (relay.name, node.name))


class TestWhereEverybodyGoesAround:
    """After a moment in which nobody heard anybody, each may ask each other for a third."""

    def circle(self, cable):
        nodes = mesh(cable, 3)
        a, b, c = nodes
        for who, at, source in ((a, b, c), (b, c, a), (c, a, b)):
            who.mesh._session.following.follow(who.mesh._links.up[at.name], source.name)
            cable.settle()
        return nodes

    def test_a_sync_comes_to_an_end(self, cable):
        a, b, _ = self.circle(cable)
        cable.carried.clear()
        a.mesh.received(a.mesh._links.up[b.name].number, encode(Sync()), cable.now)
        cable.settle()
        assert sum(len(messages) for messages in cable.carried.values()) < 40

    def test_a_cursor_that_is_no_news_comes_to_an_end(self, cable):
        nodes = mesh(cable, 5, fanout=32)
        a, b, c, d, e = nodes
        for who, at in ((a, b), (b, c), (c, a)):
            who.mesh._session.following.follow(who.mesh._links.up[at.name], d.name)
            who.mesh.go_on(cable.now)  # what an input leaves to send is an effect at its end
            cable.settle()
        for node in (a, b, c):  # of whom the source has just asked
            node.mesh._session.acknowledgements._eager[d.name] = cable.now + 1.0
        cable.carried.clear()
        late, row = (Cursor("shop", d.name, d.store.incarnation, at, e.name) for at in (1, 2))
        for word in (row, late, row):  # the same, and an older one
            a.mesh.received(a.mesh._links.up[c.name].number, encode(Beat(1, 0, (), (word,))), cable.now)
        cable.settle()
        assert row in [each for beat in said(cable, ("a", "d")) for each in beat.cursors]
        assert sum(len(messages) for messages in cable.carried.values()) < 40


class TestWhatChangesAtOnce:
    def test_whom_others_wait_for_is_sent_to_first(self, cable):
        nodes = mesh(cable)
        sent = []
        carry = cable._carry
        cable._carry = lambda node, effect: (sent.append((node.name, effect)), carry(node, effect))
        nodes[0].write(key(1))
        first = [cable.ends[effect.link][0].name for name, effect in sent if name == "a"]
        relays = [name for name in "bcdefghi" if nodes[0].mesh._paths._fanout.relays(name)]
        assert relays == ["d", "g"]
        assert sorted(first[:2]) == relays

    def test_nobody_relays_where_beats_are_too_few_for_a_word_of_another(self, cable):
        names = tuple("abcdef")
        nodes = [cable.node(name, names, fanout=1, heartbeat_s=0.3) for name in names]
        cable.run(6.0)
        assert all(len(linked(node)) == 5 for node in nodes)

    def test_who_may_not_speak_of_all_namespaces_is_not_asked_for_others(self, cable):
        names = "abcdefghi"
        shop = frozenset({"shop"})
        cable.identities = {name: Identity({name: shop if name == "d" else None}) for name in names}
        nodes = []
        for name in names:
            stores = {"shop": FakeStore()} | ({"news": FakeStore()} if name != "d" else {})
            limits = shop if name == "d" else None
            nodes.append(cable.node(name, tuple(names), stores, fanout=2, namespaces=limits))
        cable.run(4.0)
        assert any(through(node) for node in nodes if node.name != "d")
        asked = [message for name in names for message in said(cable, (name, "d"))]
        assert {source for each in asked if isinstance(each, Follow) for source in each.sources} <= {"d"}
        assert not any(node.isolated() for node in nodes)

    def test_one_who_is_dead_for_long_keeps_no_link_open(self, cable):
        nodes = mesh(cable, 10)
        dead = nodes.pop()
        cable.remove(dead)
        for node in nodes:
            cable.break_link(node, dead)
        cable.run(6.0)
        assert all(len(linked(node)) < len(nodes) - 1 for node in nodes)

    def test_no_link_is_closed_soon_after_somebody_was_not_heard_any_more(self, cable, monkeypatch):
        monkeypatch.setattr(paths, "LINGER_S", 3.0)
        nodes = mesh(cable, 10, seconds=2.0)
        dead = nodes.pop()
        cable.remove(dead)
        for node in nodes:
            cable.break_link(node, dead)
        cable.run(3.5)  # late after 1.5
        assert all(len(linked(node)) == len(nodes) - 1 for node in nodes)
        cable.run(4.0)
        assert all(len(linked(node)) < len(nodes) - 1 for node in nodes)
