"""What happens when a peer names its namespaces: each is shared, refused, or gone."""

import pytest

from cachee_bridge.links.versions import OFFER, RANDOM_BYTES
from cachee_bridge.ports.reasons import Reason
from cachee_bridge.protocol.meeting import NAMESPACES_MAX
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, Decoder
from cachee_bridge.wire.identity import Identity
from cachee_bridge.wire.messages import (
    PAYLOAD_ALL,
    PAYLOAD_ALL_KNOWN,
    ROWS_MAX,
    Doubt,
    Hello,
    NamespaceState,
    Replay,
    State,
)
from tests.bridge.meshes import Cable, FakeStore, Node, key
from tests.bridge.peers import Peer, linked_peer


@pytest.fixture
def peer() -> Peer:
    return linked_peer()


@pytest.fixture
def cable() -> Cable:
    return Cable()


class TestWritesOfUnknownOutcome:
    """Of what lies before the tail of a STATE. Whoever begins there has missed it."""

    def met(self, version, *said):
        """What is applied here of a peer that says this before its STATE, and what it was told."""
        peer = Peer.__new__(Peer)
        peer.cable, peer.store = Cable(), FakeStore(incarnation=7)
        peer.store.unknown_ttl_ms = 1000
        peer.store._freeze(5000)
        peer.node = peer.cable.nodes["web-1"] = Node(peer.cable, "web-1", {"shop": peer.store})
        peer.decoder = Decoder(FRAME_BYTES_MAX)
        peer.node.mesh.link_opened(1, None, peer.cable.now, "10.0.0.9")
        nonce = bytes(RANDOM_BYTES) + OFFER + bytes((version,))
        peer.say(Hello("cachee", 2, "web-2", 5, nonce, "none", "", ""))
        peer.say(*said, State((NamespaceState("shop", 4, 20, 7),)))
        return peer

    def test_that_a_peer_does_not_tell_of_there_are_none(self):
        peer = self.met(3)
        assert peer.store.payloads() == [PAYLOAD_ALL_KNOWN]
        assert not peer.store.doubted_until(1)

    def test_that_a_peer_tells_of_cap_what_is_loaded(self):
        peer = self.met(3, Doubt(("shop",)))
        assert peer.store.payloads() == [PAYLOAD_ALL]
        assert peer.store.doubted_until(1) == 6000

    def test_of_another_namespace_do_not(self):
        assert self.met(3, Doubt(("jobs",))).store.payloads() == [PAYLOAD_ALL_KNOWN]

    def test_may_be_among_what_a_peer_of_wire_2_wrote(self):
        assert self.met(2).store.payloads() == [PAYLOAD_ALL]

    def test_are_told_of_once(self):
        peer = self.met(3, Doubt(("shop",)))
        peer.say(State((NamespaceState("shop", 9, 30, 7),)))
        assert peer.store.payloads() == [PAYLOAD_ALL, PAYLOAD_ALL_KNOWN]

    @pytest.mark.parametrize("in_doubt", [True, False])
    def test_are_told_before_each_state(self, cable, in_doubt):
        stores = {"shop": FakeStore(), "jobs": FakeStore()}
        for store in stores.values():
            store.unknown_ttl_ms = 1000
            store._freeze(5000)
        if in_doubt:
            stores["jobs"].delete_unknown(1)
        cable.node("a", ("b",), stores)
        b = cable.node("b", ("a",), {"shop": FakeStore(), "jobs": FakeStore()})
        b.stores["jobs"].write(key(9))  # so that its first contact evicts
        cable.run(1.0)
        payloads = b.stores["jobs"].payloads() + b.stores["shop"].payloads()
        assert (PAYLOAD_ALL in payloads) == in_doubt
        assert PAYLOAD_ALL_KNOWN in payloads


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
        assert "b does not have namespace jobs, and may have had it before: evicted all" in a.texts("info")
        assert "b" not in [name for name, *_ in a.stores["jobs"].table.values()]

    @pytest.mark.parametrize("cut_s", [0.2, 10.0])
    def test_and_used_in_a_life_that_was_missed_is_evicted_if_it_was_isolated(self, cable, cut_s):
        """a was cut off from b since its start: b may have used it, and booted again."""
        stores = {"shop": FakeStore(), "jobs": FakeStore()}
        stores["jobs"].write(key(1))
        a = cable.node("a", ("b",), stores)
        stores["jobs"].serve_until = int((cable.now + 1.0) * 1000)  # as an earlier bridge said
        cable.run(cut_s)
        cable.node("b", ("a",), {"shop": FakeStore()})
        cable.run(3.0)
        assert not a.isolated("jobs")
        assert stores["jobs"].payloads().count(PAYLOAD_ALL) == (cut_s > 1.0)

    def missed(self, cable, boot, leaves=False):
        """a met b, which never had jobs, and meets it again in this boot, without jobs."""
        stores = {"shop": FakeStore(), "jobs": FakeStore()}
        a = cable.node("a", ("b",), stores)
        b = cable.node("b", ("a",), {"shop": FakeStore()}, boot=1)
        cable.run(1.0)
        stores["jobs"].applied.clear()
        if leaves:
            b.mesh.leave(cable.now)
            cable.run(0.5)
        cable.remove(b)
        cable.break_link(a, b)
        cable.run(0.5)
        return a, cable.node("b", ("a",), {"shop": FakeStore(incarnation=boot)}, boot=boot)

    def test_and_may_have_used_in_a_boot_that_was_missed_is_evicted_once(self, cable):
        a, b = self.missed(cable, boot=2)
        cable.run(1.0)
        assert a.stores["jobs"].payloads() == [PAYLOAD_ALL]
        assert "b does not have namespace jobs, and may have had it before: evicted all" in a.texts("info")
        cable.break_link(a, b)
        cable.run(1.0)
        assert a.stores["jobs"].payloads() == [PAYLOAD_ALL]

    def test_and_uses_first_after_such_a_boot_is_followed_from_its_first_record(self, cable):
        a, b = self.missed(cable, boot=2)
        cable.run(1.0)
        b.stores["jobs"] = FakeStore(incarnation=9)
        b.stores["jobs"].write(key(3))
        b.mesh.add_namespace("jobs", b.stores["jobs"], cable.now)
        cable.run(1.0)
        assert a.stores["jobs"].payloads() == [PAYLOAD_ALL, key(3)]

    @pytest.mark.parametrize(("boot", "leaves"), [(1, False), (2, True)])
    def test_is_not_evicted_if_only_its_bridge_began_again_or_it_had_left_for_good(self, cable, boot, leaves):
        a, _ = self.missed(cable, boot, leaves)
        cable.run(1.0)
        assert "b" in a.mesh._links.up
        assert a.stores["jobs"].payloads() == []

    def test_and_is_back_with_is_evicted_if_a_boot_was_missed(self, cable):
        """It may have used it in the boot before, and once more in this one, before the link was up."""
        a, b = self.missed(cable, boot=1)
        cable.remove(b)
        jobs = FakeStore(incarnation=9)
        jobs.write(key(3))
        cable.node("b", ("a",), {"shop": FakeStore(incarnation=2), "jobs": jobs}, boot=2)
        cable.run(3.0)
        assert a.stores["jobs"].payloads() == [PAYLOAD_ALL_KNOWN]

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
