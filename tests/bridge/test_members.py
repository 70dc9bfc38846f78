"""Who counts in a namespace, and until when it may be served."""

import pytest

from cachee_bridge.frames import PAYLOAD_ALL, FinalHead, Frame
from cachee_bridge.members import Members
from cachee_bridge.repair import Rung
from tests.bridge.meshes import FakeStore

LOST_AFTER = 2.0


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def members_of(store: FakeStore, now: float = 100.0) -> Members:
    return Members("shop", store, LOST_AFTER, 0.2, now)


def fresh(members: Members, name: str, stamp: float) -> None:
    inbox = members.inboxes[name]
    inbox.told(inbox.cursor, stamp)


def met(store: FakeStore, *names: str, cursor: int = 5) -> None:
    for name in names:
        store.source_store(store.source_open(name), 1, cursor)


class TestServing:
    def test_a_host_alone_may_serve_while_its_bridge_lives(self, store):
        assert members_of(store).extended(100.0, hindered=False) == 102.0

    def test_the_oldest_word_of_any_member_counts(self, store):
        met(store, "web-2", "web-3")
        members = members_of(store)
        fresh(members, "web-2", 99.0)
        assert members.extended(100.0, False) is None
        fresh(members, "web-3", 98.5)
        assert members.extended(100.0, False) == 100.5

    def test_members_met_in_a_former_life_of_the_bridge_count(self, store):
        met(store, "web-2")
        assert members_of(store).extended(100.0, False) is None

    def test_an_unanswered_address_hinders(self, store):
        assert members_of(store).extended(100.0, hindered=True) is None

    def test_a_refused_peer_isolates(self, store):
        members = members_of(store)
        members.refused.add("web-2")
        assert members.extended(100.0, False) is None
        assert members.stale(100.0) == ["web-2"]

    def test_it_is_never_shortened_and_not_repeated(self, store):
        members = members_of(store)
        assert members.extended(100.0, False) == 102.0
        met(store, "web-2")
        members.meet("web-2", 1, 0, 100.0)
        assert members.extended(100.0, False) is None
        assert members.until == 102.0

    def test_time_alone_isolates_and_never_ends_it(self, store):
        met(store, "web-2")
        members = members_of(store)
        fresh(members, "web-2", 100.0)
        members.extended(100.0, False)
        assert not members.isolated(102.0)
        for now in (102.1, 1000.0, 1e9):
            assert members.extended(now, False) is None
            assert members.isolated(now)
            assert members.stale(now) == ["web-2"]


class TestMeeting:
    def test_a_source_of_a_former_life_goes_on_from_its_cursor(self, store):
        met(store, "web-2", cursor=5)
        assert members_of(store).meet("web-2", 1, 9, 100.0) == (Rung.GO_ON, 5)
        assert store.applied == []

    def test_a_source_never_met_flushes_while_this_host_is_isolated(self, store):
        members = members_of(store)
        assert members.meet("web-2", 1, 9, 100.0) == (Rung.FLUSH, 9)
        assert store.payloads() == [PAYLOAD_ALL]
        assert store.cursor_of("web-2") == 9

    def test_a_source_that_joins_a_host_that_was_never_cut_off_empties_nothing(self, store):
        members = members_of(store)
        members.extended(100.0, False)
        members.judge(101.0)
        assert members.meet("web-2", 1, 9, 101.0) == (Rung.FROM_BIRTH, 0)
        assert store.applied == []

    def test_after_one_isolation_it_does_because_somebody_unknown_may_have_come_and_gone(self, store):
        members = members_of(store)
        members.extended(100.0, False)
        members.judge(102.5)
        members.extended(102.5, False)
        assert members.meet("web-2", 1, 9, 102.6).rung is Rung.FLUSH

    def test_a_flush_makes_good_what_may_have_been_missed(self, store):
        members = members_of(store)
        members.extended(100.0, False)
        members.judge(102.5)
        members.meet("web-2", 1, 9, 102.5)
        fresh(members, "web-2", 102.5)
        members.extended(102.6, False)
        members.judge(102.7)
        assert members.meet("web-3", 1, 9, 102.7).rung is Rung.FROM_BIRTH

    def test_a_bridge_that_starts_on_a_used_segment_does_not_know_what_happened_before(self, store):
        store.write(b"\x01" * 9)
        members = members_of(store)
        members.extended(100.0, False)
        assert members.meet("web-2", 1, 9, 101.0).rung is Rung.FLUSH

    def test_a_new_incarnation_flushes_even_then(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        fresh(members, "web-2", 100.0)
        members.extended(100.0, False)
        assert members.meet("web-2", 2, 0, 100.0) == (Rung.FLUSH, 0)
        assert store.payloads() == [PAYLOAD_ALL]

    def test_a_lower_incarnation_is_not_followed_and_changes_nothing(self, store):
        store.source_store(store.source_open("web-2"), 7, 5)
        members = members_of(store)
        assert members.meet("web-2", 6, 99, 100.0).rung is Rung.IMPOSSIBLE
        assert (members.inboxes["web-2"].incarnation, store.applied) == (7, [])

    def test_a_slot_that_was_opened_and_never_kept_is_met_anew(self, store):
        store.source_open("web-2")
        assert members_of(store).meet("web-2", 1, 9, 100.0).rung is Rung.FLUSH


class TestLeaving:
    def leave(self, members: Members, head: int, incarnation: int = 1) -> None:
        members.leaving("web-2", FinalHead("shop", incarnation, head))

    def test_who_has_left_counts_no_longer(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=5)
        assert members.inboxes == {}
        assert store.sources() == []
        assert members.extended(100.0, False) == 102.0

    def test_but_only_when_all_it_wrote_is_applied(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=7)
        assert members.extended(100.0, False) is None
        members.inboxes["web-2"].receive(Frame("shop", "web-2", 1, 6, 7, b""))
        assert members.settle("web-2")
        assert store.sources() == []

    def test_leaving_in_another_incarnation_is_not_leaving(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=0, incarnation=2)
        assert "web-2" in members.inboxes

    def test_who_returns_with_its_segment_goes_on_where_it_left(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=5)
        assert members.cursor("web-2") == (1, 5)
        assert members.meet("web-2", 1, 8, 100.0) == (Rung.GO_ON, 5)
        assert (store.applied, store.cursor_of("web-2")) == ([], 5)

    def test_who_returns_with_a_new_one_empties_nothing_when_nobody_was_cut_off_meanwhile(self, store):
        members = members_of(store)
        members.extended(100.0, False)
        members.meet("web-2", 1, 0, 100.0)
        self.leave(members, head=0)
        members.extended(100.1, False)
        assert members.meet("web-2", 2, 8, 100.2) == (Rung.FROM_BIRTH, 0)
        assert store.applied == []

    def test_and_all_when_somebody_was(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=5)
        assert members.meet("web-2", 2, 8, 100.2).rung is Rung.FLUSH
