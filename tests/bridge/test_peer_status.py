"""What a host's workers read about its peers: from one peer status, and from meshes joined in memory."""

import pytest

from cachee_bridge.sources.peer_status import PeerStatus
from cachee_bridge.streams.stream import Inbox
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import Sync
from tests.bridge.meshes import Cable, FakeStore, key

LOST_AFTER = 2.0
SYNC = encode(Sync())


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def inboxes_of(store, *names):
    return {name: Inbox(store, store.source_open(name), 1, 0, 0.2) for name in names}


class TestReach:
    def test_one_that_was_just_met_is_given_lost_after_to_become_fresh(self, store):
        sources, bulletin = inboxes_of(store, "web-2"), PeerStatus(store, LOST_AFTER, 100.0)
        told = []
        for now in (100.0, 102.0, 102.1):
            bulletin.tell(sources, now, False)
            told.append(store.workers_know("web-2"))
        assert told == [(None, True), (None, True), (None, False)]

    def test_one_that_is_fresh_can_be_reached_for_lost_after_from_then(self, store):
        sources, bulletin = inboxes_of(store, "web-2"), PeerStatus(store, LOST_AFTER, 100.0)
        sources["web-2"].head_heard(0, 150.25)
        bulletin.tell(sources, 103.0, False)
        assert store.told == {1: (True, 150_250)}
        bulletin.tell(sources, 152.3, False)
        assert store.told == {1: (False, 150_250)}

    def test_one_that_comes_later_is_given_as_much(self, store):
        bulletin = PeerStatus(store, LOST_AFTER, 100.0)
        bulletin.tell({}, 100.0, False)
        sources = inboxes_of(store, "web-2")
        bulletin.tell(sources, 200.0, False)
        bulletin.tell(sources, 202.0, False)
        assert store.workers_know("web-2") == (None, True)

    def test_one_that_left_and_comes_back_is_given_it_again(self, store):
        sources, bulletin = inboxes_of(store, "web-2"), PeerStatus(store, LOST_AFTER, 100.0)
        for now, known in ((100.0, sources), (150.0, {}), (200.0, sources), (202.0, sources)):
            bulletin.tell(known, now, False)
        assert store.workers_know("web-2") == (None, True)


class TestHowLongItCounts:
    def test_it_counts_for_lost_after(self, store):
        PeerStatus(store, LOST_AFTER, 100.0).tell({}, 101.5, False)
        assert store.vouched_until_ms == 103_500

    def test_nothing_counts_while_addresses_are_unanswered_at_the_start(self, store):
        bulletin = PeerStatus(store, LOST_AFTER, 100.0)
        bulletin.tell({}, 102.0, True)
        assert store.vouched_until_ms == 0
        bulletin.tell({}, 102.1, True)
        assert store.vouched_until_ms == 104_100

    def test_members_come_before_the_word_that_they_count(self, store):
        order = []
        store.source_tell = lambda *word: order.append(word)
        store.bridge_vouch = order.append
        PeerStatus(store, LOST_AFTER, 100.0).tell(inboxes_of(store, "web-2"), 100.0, False)
        assert order == [(1, True, 0), 102_000]


class TestMeshes:
    @pytest.fixture
    def cable(self) -> Cable:
        return Cable()

    @pytest.fixture
    def two(self, cable):
        nodes = [cable.node(name, ("a", "b"), lost_after_s=LOST_AFTER) for name in ("a", "b")]
        cable.run(1.0)
        return nodes

    def test_a_peer_is_told_as_soon_as_it_is_met(self, cable):
        a = cable.node("a")
        cable.node("b", ("a",))
        cable.run(0.05)
        assert a.store.workers_know("b")[1]

    def test_with_the_next_beat_it_is_known_that_a_peer_has_applied(self, cable, two):
        a, _ = two
        a.write(key(7))
        assert a.store.workers_know("b") == (a.store.tail - 1, True)
        cable.run(0.2)
        assert a.store.workers_know("b") == (a.store.tail, True)

    def test_it_is_known_at_once_where_a_worker_waits(self, cable, two):
        a, _ = two
        a.store.wanted = a.store.tail + 1
        a.write(key(7))
        assert a.store.workers_know("b") == (a.store.tail, True)

    def test_also_where_it_waits_after_all_was_sent(self, cable, two):
        a, _ = two
        a.write(key(7))
        a.store.wanted = a.store.tail
        a.mesh.ring_moved("shop", cable.now)
        cable.settle()
        assert a.store.workers_know("b") == (a.store.tail, True)

    def test_a_peer_is_asked_once_for_one_wait_and_never_without(self, cable, two):
        a, _ = two
        cable.deaf.add(("b", "a"))
        cable.carried.clear()
        a.write(key(7))
        asked = []
        for _ in range(3):
            a.mesh.ring_moved("shop", cable.now)
            cable.settle()
            asked.append(_syncs(cable))
            a.store.wanted = a.store.tail
        assert asked == [0, 1, 1]

    def test_it_is_not_asked_before_all_is_sent_that_is_waited_for(self, cable, two):
        a, _ = two
        cable.carried.clear()
        a.store.announce(key(7))  # not healed yet, so not sent
        a.store.wanted = a.store.tail
        a.mesh.ring_moved("shop", cable.now)
        cable.settle()
        assert _syncs(cable) == 0
        a.write()
        assert _syncs(cable) == 1

    def test_a_peer_that_is_cut_off_cannot_be_reached_after_lost_after(self, cable, two):
        a, _ = two
        cable.cut.add(frozenset("ab"))
        cable.run(LOST_AFTER / 2)
        assert a.store.workers_know("b")[1]
        cable.run(LOST_AFTER)
        assert not a.store.workers_know("b")[1]
        assert a.store.vouched_until_ms > cable.now * 1000
        cable.cut.clear()
        cable.run(10.0)
        assert a.store.workers_know("b") == (a.store.tail, True)

    def test_a_peer_that_left_is_not_spoken_of(self, cable, two):
        a, b = two
        b.mesh.leave(cable.now)
        cable.run(1.0)
        a.store.told.clear()
        cable.run(1.0)
        assert a.store.told == {}

    def test_a_word_about_another_life_of_the_ring_is_not_believed(self, cable, two):
        a, _ = two
        a.write(key(7))
        cable.run(0.2)
        cable.deaf.add(("a", "b"))  # who would adopt it
        a.store.incarnation += 1
        a.store.acked.clear()
        cable.run(0.2)
        assert a.store.acked == {}
        cable.deaf.clear()
        cable.run(0.2)
        assert a.store.workers_know("b") == (a.store.tail, True)


def _syncs(cable):
    return sum(data == SYNC for data in cable.carried["a", "b"])
