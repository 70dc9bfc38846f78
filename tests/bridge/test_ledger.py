"""What a calm heartbeat says of namespaces in which nothing moved, and when that is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.links.ledger import SUM_MAX, part_of, sum_of
from cachee_bridge.links.stamps import microseconds
from cachee_bridge.links.versions import OFFER, RANDOM_BYTES
from cachee_bridge.protocol.beats_heard import COMPARED_BYTES
from cachee_bridge.wire.budget import MESSAGE_BYTES
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder, encode
from cachee_bridge.wire.messages import (
    HOPS_MAX,
    Beat,
    Calm,
    Cursor,
    FinalHead,
    Frame,
    Head,
    Hello,
    Leave,
    NamespaceState,
    State,
    Sync,
)
from tests.bridge.meshes import Cable, FakeStore, Node, key
from tests.bridge.peers import Peer

NAMESPACES = ("shop", "news", "jobs")

positions = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 9), st.integers(0, 9)))


@given(positions, positions)
def test_sums_are_equal_where_all_positions_are_in_any_order(one, other):
    assert sum_of(reversed(one.items())) == sum_of(one.items()) <= SUM_MAX
    assert (sum_of(one.items()) == sum_of(other.items())) == (one == other)


def test_what_was_never_met_adds_nothing():
    assert sum_of([("shop", None), ("news", (1, 2))]) == part_of("news", (1, 2))


def said(cable, source, target, seconds):
    """Messages of one host to another in so long."""
    cable.carried.clear()
    cable.run(seconds)
    decoder = Decoder(FRAME_BYTES_MAX)
    return [message for data in cable.carried[source, target] for message in decoder.feed(data)]


def rows(messages):
    return sum(len(each.heads) + len(each.cursors) for each in messages if isinstance(each, Beat | Calm))


def hosts_of(cable, count, **settings):
    names = [f"n{number}" for number in range(count - 1)] + ["shop"]
    hosts = [
        cable.node(name, ("a", "b"), {each: FakeStore() for each in names}, **more)
        for name, more in (("a", {}), ("b", settings))
    ]
    cable.run(3.0)
    return hosts


class TestTwoHosts:
    @pytest.mark.parametrize("count", [1, 50])
    def test_at_rest_say_no_row_however_many_namespaces_they_have(self, count):
        cable = Cable()
        hosts = hosts_of(cable, count)
        messages = said(cable, "a", "b", 3.0)
        assert {type(each) for each in messages} == {Calm}
        assert rows(messages) == 0
        for host in hosts:
            assert not any(host.isolated(namespace) for namespace in host.stores)

    def test_say_rows_of_what_moved_alone(self):
        cable = Cable()
        a, b = hosts_of(cable, 50)
        a.write(key(1), namespace="n7")
        messages = said(cable, "a", "b", 3.0)
        told = [each for each in messages if isinstance(each, Beat | Calm)]
        assert {head.namespace for each in told for head in each.heads} == {"n7"}
        assert not any(isinstance(each, Sync) for each in said(cable, "b", "a", 1.0))
        assert b.stores["n7"].cursor_of("a") == a.stores["n7"].tail

    def test_say_rows_of_all_where_one_speaks_wire_2(self):
        cable = Cable()
        hosts_of(cable, 5, newest_wire=2)
        for messages in (said(cable, "a", "b", 3.0), said(cable, "b", "a", 3.0)):
            assert {type(each) for each in messages} == {Beat}
            assert rows(messages) == 2 * 5 * len(messages)

    def test_cover_what_a_writer_has_written_that_could_not_ring(self):
        cable = Cable()
        a, b = hosts_of(cable, 5)
        a.stores["n3"].announce(key(1))  # and no pump has seen it
        told = [each for each in said(cable, "a", "b", 1.0) if isinstance(each, Beat | Calm)]
        heads = [head for each in told for head in each.heads]
        assert {(head.namespace, head.head) for head in heads} == {("n3", a.stores["n3"].tail)}
        cable.run(3.0)
        assert b.isolated("n3") and not b.isolated("n2")

    def test_ask_for_rows_when_what_they_heard_was_lost(self):
        cable = Cable()
        a, b = hosts_of(cable, 5)
        cable.deaf = {("a", "b")}
        a.write(key(1), namespace="n3")
        cable.run(0.5)
        cable.deaf = set()
        cable.run(1.0)
        assert b.stores["n3"].cursor_of("a") == a.stores["n3"].tail
        assert not b.isolated("n3")


class Calmer(Peer):
    """A peer of wire 3 with three namespaces, each with incarnation 4 and tail 20."""

    def __init__(self) -> None:
        self.cable = Cable()
        self.stores = {namespace: FakeStore(incarnation=7) for namespace in NAMESPACES}
        self.store = self.stores["shop"]
        self.node = Node(self.cable, "web-1", self.stores)
        self.cable.nodes["web-1"] = self.node
        self.decoder = Decoder(FRAME_BYTES_MAX)
        self.node.mesh.link_opened(1, None, self.cable.now, "10.0.0.9")
        nonce = bytes(RANDOM_BYTES) + OFFER + b"\3"
        self.say(Hello("cachee", 2, "web-2", 5, nonce, "none", "", ""))
        self.say(State(tuple(NamespaceState(namespace, 4, 20, 7) for namespace in NAMESPACES)))
        self.acknowledged: dict[str, tuple[int, int]] = {}

    def calm(self, heads=(), cursors=(), **tails):
        """All is applied up to 20 there, or to what `tails` say."""
        self.cable.now += 0.5
        self.node.mesh.tick(self.cable.now)
        self.hear()
        named = {head.namespace for head in heads}
        rest = [(namespace, (4, tails.get(namespace, 20))) for namespace in NAMESPACES]
        sums = [
            sum_of((namespace, at) for namespace, at in known if namespace not in named)
            for known in (rest, self.acknowledged.items())
        ]
        stamp = microseconds(self.cable.now)
        return self.say(Calm(1, stamp, tuple(heads), tuple(cursors), *sums))

    def fresh(self):
        members = self.node.mesh._session.namespaces.members
        return {
            name for name in NAMESPACES if members[name].sources["web-2"].freshness.at > self.cable.now - 0.1
        }


@pytest.fixture
def peer() -> Calmer:
    return Calmer()


ASKS = [Sync("", HOPS_MAX)]


def test_a_sum_that_is_this_hosts_own_makes_all_of_the_rest_fresh(peer):
    assert peer.calm() == []
    assert peer.fresh() == set(NAMESPACES)


@pytest.mark.parametrize("tail", [19, 21])
def test_a_sum_over_another_head_makes_nothing_fresh_and_is_asked_about(peer, tail):
    assert peer.calm(news=tail) == ASKS
    assert peer.fresh() == set()


def test_a_cursor_that_is_behind_in_one_namespace_holds_back_the_rest_until_rows_come(peer):
    assert peer.calm(news=21) == ASKS
    stamp = microseconds(peer.cable.now)
    heads = [Head(name, "web-2", 4, 21 if name == "news" else 20, 0, 0) for name in NAMESPACES]
    peer.say(Beat(1, stamp, tuple(heads), ()))
    assert peer.fresh() == {"shop", "jobs"}


def test_rows_count_though_the_sums_differ(peer):
    row = Head("shop", "web-2", 4, 20, 0, 0)
    assert peer.calm(heads=(row,), news=21) == ASKS
    assert peer.fresh() == {"shop"}


def test_what_a_row_is_about_is_not_in_the_sum(peer):
    assert peer.calm(heads=(Head("shop", "web-2", 4, 21, 0, 0),)) == []
    assert peer.fresh() == {"news", "jobs"}


def test_rows_about_others_take_nothing_out_of_the_sum(peer):
    peer.node.mesh._session.following.follow(peer.node.mesh._links.by_number[1], "web-3")
    peer.calm(heads=(Head("news", "web-3", 4, 9, 0, 2),), news=21)
    assert "news" not in peer.fresh()


def test_what_is_acknowledged_there_is_compared_as_well(peer):
    peer.say(Beat(1, 0, (), (Cursor("news", "web-1", 7, 0, "web-2"),)))
    assert peer.calm() == ASKS
    peer.acknowledged["news"] = 7, 0
    assert peer.calm() == []


def test_what_has_come_since_the_last_time_is_compared(peer):
    assert peer.calm() == []
    peer.say(Frame("news", "web-2", 4, 21, 21, key(1)))
    assert peer.calm() == ASKS
    assert peer.calm(news=21) == []
    assert peer.fresh() == set(NAMESPACES)


def test_one_who_has_left_is_in_no_sum(peer):
    assert peer.calm() == []
    peer.say(Leave("leaves", (FinalHead("news", 4, 20),)))
    assert peer.calm() == ASKS


def test_it_is_asked_for_rows_once_in_a_heartbeat(peer):
    assert peer.calm(news=21) == ASKS
    calm = Calm(1, 0, (), (), 1, 1)
    assert peer.say(calm, calm) == []
    peer.cable.now += 0.2
    assert [each for each in peer.say(calm, calm) if type(each) is Sync] == ASKS  # beside a beat that was due


def test_a_sum_without_an_echo_makes_nothing_fresh(peer):
    peer.calm()
    peer.cable.now += 1.0
    peer.say(Calm(2, 0, (), (), sum_of((name, (4, 20)) for name in NAMESPACES), 0))
    assert peer.fresh() == set()


def test_it_is_charged_for_what_is_added_up(peer):
    link = peer.node.mesh._links.by_number[1]
    before = link.throttle.budget.owed
    peer.say(Calm(2, 0, (), (), 1, 1))
    owed = link.throttle.budget.owed - before
    assert owed == len(encode(Calm(2, 0, (), (), 1, 1))) + MESSAGE_BYTES + COMPARED_BYTES * len(NAMESPACES)


def test_on_another_link_it_covers_what_is_shared_there_and_nothing_else(peer):
    assert peer.calm() == []
    assert peer.fresh() == set(NAMESPACES)
    peer.decoder = Decoder(FRAME_BYTES_MAX)
    mesh = peer.node.mesh
    mesh.link_opened(2, None, peer.cable.now, "10.0.0.9")
    nonce = bytes(RANDOM_BYTES) + OFFER + b"\3"
    hello = Hello("cachee", 2, "web-2", 5, nonce, "none", "", "")
    for message in (hello, State(tuple(NamespaceState(name, 4, 20, 7) for name in ("shop", "news")))):
        mesh.received(2, encode(message), peer.cable.now)
    assert mesh._links.up["web-2"].number == 2
    assert mesh._session.namespaces.register.word("web-2").covered == set()
