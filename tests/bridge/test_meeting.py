"""What follows when a peer names its namespaces: shared, refused, or gone."""

import pytest

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.protocol.meeting import NAMESPACES_MAX
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    ROWS_MAX,
    NamespaceState,
    Replay,
    State,
)
from tests.bridge.meshes import Cable, FakeStore, key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


@pytest.fixture
def cable() -> Cable:
    return Cable()


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


def test_a_source_is_asked_for_what_comes_after_its_cursor():
    assert Peer().heard[-1] == Replay("shop", "web-2", 4, 21)


def test_a_state_is_as_good_as_an_echo_of_the_hello(peer):
    assert not peer.node.isolated()


def test_a_peer_with_namespaces_without_end_is_not_remembered_whole(peer):
    link = peer.node.mesh._links.by_number[1]
    for number in range(2 * NAMESPACES_MAX // ROWS_MAX):
        rows = (NamespaceState(f"n{number}-{row}", 1, 0, 7) for row in range(ROWS_MAX))
        peer.say(State(tuple(rows)))
    assert len(link.theirs) == NAMESPACES_MAX
    assert peer.node.texts("error").count(f"more than {NAMESPACES_MAX} namespaces") == 1
    assert not peer.closed


def test_those_refused_under_ever_new_names_are_not_all_kept(peer, monkeypatch):
    monkeypatch.setattr("cachee_bridge.sources.members.REFUSED_MAX", 3)
    members = peer.node.mesh._session.namespaces.members["shop"]
    for number in range(9):
        members.refuse(f"n{number}", Reason.HASH_KEY)
    assert set(members.refused) == {"n0", "n1", "n2"}
