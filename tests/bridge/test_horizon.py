"""Until when a namespace may be served."""

import pytest

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.sources.members import Members
from cachee_bridge.wire.messages import PAYLOAD_ALL_KNOWN
from tests.bridge.meshes import FakeStore
from tests.bridge.test_members import fresh, members_of, met


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


class TestServing:
    def test_a_host_alone_may_serve_while_its_bridge_lives(self, store):
        assert members_of(store).horizon.extended(100.0, hindered=False) == 102.0

    def test_the_oldest_word_of_any_member_counts(self, store):
        met(store, "web-2", "web-3")
        members = members_of(store)
        fresh(members, "web-2", 99.0)
        assert members.horizon.extended(100.0, False) is None
        fresh(members, "web-3", 98.5)
        assert members.horizon.extended(100.0, False) == 100.5

    def test_members_met_in_a_former_life_of_the_bridge_count(self, store):
        met(store, "web-2")
        assert members_of(store).horizon.extended(100.0, False) is None

    def test_an_unanswered_address_hinders(self, store):
        assert members_of(store).horizon.extended(100.0, hindered=True) is None

    def test_a_refused_peer_isolates(self, store):
        members = members_of(store)
        members.refuse("web-2", Reason.HASH_KEY)
        assert members.horizon.extended(100.0, False) is None
        assert members.horizon.stale(100.0) == ["web-2"]

    def test_what_this_host_wrote_is_healed_before_it_counts(self, store):
        """While it goes on writing, the tail that was seen is healed later, and then counts as of then."""
        members = members_of(store)
        store.tail, store.pump_cursor = 5, 4
        assert members.horizon.extended(100.0, False) is None
        store.tail, store.pump_cursor = 9, 5
        assert members.horizon.extended(101.0, False) == 102.0

    def test_it_is_never_shortened_and_not_repeated(self, store):
        members = members_of(store)
        assert members.horizon.extended(100.0, False) == 102.0
        met(store, "web-2")
        members.meet("web-2", 1, 0, 100.0)
        assert members.horizon.extended(100.0, False) is None
        assert members.horizon.until == 102.0

    def test_time_alone_isolates_and_never_ends_it(self, store):
        met(store, "web-2")
        members = members_of(store)
        fresh(members, "web-2", 100.0)
        members.horizon.extended(100.0, False)
        assert not members.horizon.isolated(102.0)
        for now in (102.1, 1000.0, 1e9):
            assert members.horizon.extended(now, False) is None
            assert members.horizon.isolated(now)
            assert members.horizon.stale(now) == ["web-2"]


class TestPolicies:
    def cut_off_and_back(self, store: FakeStore) -> Members:
        met(store, "web-2")
        store.serve_until = 101_000
        members = members_of(store)
        fresh(members, "web-2", 100.0)
        members.horizon.extended(100.0, False)
        store.serve_until = 102_000
        members.horizon.look_for_gaps(105.0)
        fresh(members, "web-2", 105.0)
        assert members.horizon.extended(105.0, False) == 107.0
        return members

    def test_flush_evicts_all_before_isolation_ends_once(self, store):
        store.on_isolation = "flush"
        members = self.cut_off_and_back(store)
        assert store.applied == [(0, PAYLOAD_ALL_KNOWN)]
        fresh(members, "web-2", 106.0)
        members.horizon.extended(106.0, False)
        assert len(store.applied) == 1

    @pytest.mark.parametrize("policy", ["cap", "serve"])
    def test_no_other_policy_does(self, store, policy):
        store.on_isolation = policy
        self.cut_off_and_back(store)
        assert store.applied == []

    def test_flush_knows_from_the_segment_whether_readers_were_isolated_while_no_bridge_ran(self, store):
        store.on_isolation = "flush"
        store.serve_until = 101_000
        members_of(store, now=100.0).horizon.extended(100.0, False)
        assert store.applied == []
        members_of(store, now=200.0).horizon.extended(200.0, False)
        assert store.applied == [(0, PAYLOAD_ALL_KNOWN)]
