"""Which hosts are members of a namespace, and until when the namespace may be served."""

import pytest

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.sources import departures
from cachee_bridge.sources.members import Members
from cachee_bridge.sources.register import Register
from cachee_bridge.streams.repair import Rung
from cachee_bridge.wire.messages import PAYLOAD_ALL, FinalHead, Frame
from tests.bridge.meshes import FakeStore, key

LOST_AFTER = 2.0


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def members_of(store: FakeStore, now: float = 100.0) -> Members:
    return Members("shop", store, LOST_AFTER, 0.2, now, Register())


def fresh(members: Members, name: str, stamp: float) -> None:
    inbox = members.sources[name]
    inbox.head_heard(inbox.cursor, stamp)


def met(store: FakeStore, *names: str, cursor: int = 5) -> None:
    for name in names:
        store.source_store(store.source_open(name), 1, cursor)


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

    def test_a_namespace_is_new_until_something_is_written_or_somebody_met(self, store):
        assert members_of(store).is_new
        met(store, "web-2")
        assert not members_of(store).is_new

    def test_a_namespace_in_which_this_host_has_written_once_is_not_new(self, store):
        store.announce(key(1))
        assert not members_of(store).is_new

    def test_a_source_that_joins_a_host_that_was_never_cut_off_empties_nothing(self, store):
        members = members_of(store)
        members.horizon.extended(100.0, False)
        members.horizon.look_for_gaps(101.0)
        assert members.meet("web-2", 1, 9, 101.0) == (Rung.FROM_BIRTH, 0)
        assert store.applied == []

    def test_after_one_isolation_it_does_because_somebody_unknown_may_have_come_and_gone(self, store):
        members = members_of(store)
        members.horizon.extended(100.0, False)
        members.horizon.look_for_gaps(102.5)
        members.horizon.extended(102.5, False)
        assert members.meet("web-2", 1, 9, 102.6).rung is Rung.FLUSH

    def test_a_flush_makes_good_what_may_have_been_missed(self, store):
        members = members_of(store)
        members.horizon.extended(100.0, False)
        members.horizon.look_for_gaps(102.5)
        members.meet("web-2", 1, 9, 102.5)
        fresh(members, "web-2", 102.5)
        members.horizon.extended(102.5, False)
        members.horizon.look_for_gaps(102.7)
        assert members.meet("web-3", 1, 9, 102.7).rung is Rung.FROM_BIRTH

    def test_a_bridge_that_starts_on_a_used_segment_does_not_know_what_happened_before(self, store):
        store.write(b"\x01" * 9)
        members = members_of(store)
        members.horizon.extended(100.0, False)
        assert members.meet("web-2", 1, 9, 101.0).rung is Rung.FLUSH

    def test_a_new_incarnation_flushes_even_then(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        fresh(members, "web-2", 100.0)
        members.horizon.extended(100.0, False)
        assert members.meet("web-2", 2, 0, 100.0) == (Rung.FLUSH, 0)
        assert store.payloads() == [PAYLOAD_ALL]

    def test_a_lower_incarnation_is_not_followed_and_changes_nothing(self, store):
        store.source_store(store.source_open("web-2"), 7, 5)
        members = members_of(store)
        assert members.meet("web-2", 6, 99, 100.0).rung is Rung.IMPOSSIBLE
        assert (members.sources["web-2"].incarnation, store.applied) == (7, [])

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
        assert members.sources == {}
        assert store.sources() == []
        assert members.horizon.extended(100.0, False) == 102.0

    def test_but_only_when_all_it_wrote_is_applied(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=7)
        assert members.horizon.extended(100.0, False) is None
        members.sources["web-2"].receive(Frame("shop", "web-2", 1, 6, 7, b""))
        assert members.settle("web-2")
        assert store.sources() == []

    def test_leaving_in_another_incarnation_is_not_leaving(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=0, incarnation=2)
        assert "web-2" in members.sources

    def test_who_returns_with_its_segment_goes_on_where_it_left(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=5)
        assert members.cursor("web-2") == (1, 5)
        assert members.meet("web-2", 1, 8, 100.0) == (Rung.GO_ON, 5)
        assert (store.applied, store.cursor_of("web-2")) == ([], 5)

    def test_who_returns_with_a_new_one_empties_nothing_when_nobody_was_cut_off_meanwhile(self, store):
        members = members_of(store)
        members.horizon.extended(100.0, False)
        members.meet("web-2", 1, 0, 100.0)
        self.leave(members, head=0)
        members.horizon.extended(100.1, False)
        assert members.meet("web-2", 2, 8, 100.2) == (Rung.FROM_BIRTH, 0)
        assert store.applied == []

    def test_and_all_when_somebody_was(self, store):
        met(store, "web-2", cursor=5)
        members = members_of(store)
        self.leave(members, head=5)
        assert members.meet("web-2", 2, 8, 100.2).rung is Rung.FLUSH


@pytest.fixture
def members(store: FakeStore) -> Members:
    """web-2 was met and is silent since 100.0; web-3 is heard all the time."""
    met(store, "web-2", "web-3")
    members = members_of(store)
    for name in ("web-2", "web-3"):
        fresh(members, name, 100.0)
    assert members.horizon.extended(100.0, False) == 102.0
    return members


def pass_time(members: Members, start: float, end: float, heard: str = "web-3") -> None:
    """By ticks of a second, the last one at `end`."""
    for now in [*(start + step for step in range(int(end - start))), end]:
        members.horizon.look_for_gaps(now)
        if heard:
            fresh(members, heard, now)
        members.removed(now)
        members.horizon.extended(now, False)


def remove(members: Members, now: float = 103.0) -> None:
    pass_time(members, 100.0, now)
    assert members.remove("web-2", now)
    members.horizon.extended(now, False)


class TestRemoving:
    def test_does_not_begin_before_a_member_is_lost(self, members):
        fresh(members, "web-2", 101.0)
        assert not members.remove("web-2", 102.9)
        assert members.remove("web-2", 103.1)

    def test_does_not_begin_in_the_first_moments_of_a_bridge_which_has_linked_nobody_yet(self, store):
        met(store, "web-2")
        members = members_of(store, now=100.0)
        assert not members.remove("web-2", 101.9)
        assert members.remove("web-2", 102.1)

    def test_keeps_what_was_capped_so_until_nothing_of_it_is_served(self, members, store):
        remove(members, 103.0)
        line = store.tail
        pass_time(members, 103.0, 112.9)
        assert members.horizon.isolated(112.9)
        assert (store.evicted_before, store.applied) == ([], [])
        pass_time(members, 103.0, 113.0)
        assert not members.horizon.isolated(113.0)
        assert store.evicted_before == [line]

    def test_forgets_the_member_and_remembers_where_it_was(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 113.0)
        assert "web-2" not in members.sources
        assert members.cursor("web-2") == (1, 5)
        assert [row[1:] for row in store.forgotten()] == [("web-2", 1, 5)]
        assert members.horizon.stale(113.0) == []

    @pytest.mark.parametrize("policy", ["flush", "serve"])
    def test_has_nothing_to_wait_for_where_nothing_is_capped(self, members, store, policy):
        store.on_isolation = policy
        remove(members, 103.0)
        line = store.tail
        pass_time(members, 103.0, 103.1)
        assert not members.horizon.isolated(103.1)
        assert store.evicted_before == [line]

    def test_is_off_when_the_member_comes_back_and_nothing_is_evicted(self, members, store):
        remove(members, 103.0)
        assert members.meet("web-2", 1, 5, 104.0) == (Rung.GO_ON, 5)
        fresh(members, "web-2", 104.0)
        pass_time(members, 103.0, 104.1)
        assert not members.horizon.isolated(104.1)
        fresh(members, "web-2", 120.0)
        pass_time(members, 103.0, 120.0)
        assert (store.evicted_before, store.applied) == ([], [])

    def test_who_comes_back_in_the_midst_of_it_counts_before_anything_is_served(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 106.0)
        members.meet("web-2", 1, 9, 106.0)
        fresh(members, "web-3", 106.0)
        assert members.horizon.extended(106.0, False) is None  # what web-3 said until now is not enough
        assert members.horizon.isolated(106.0)
        members.sources["web-2"].receive(Frame("shop", "web-2", 1, 6, 9, key(1)))
        fresh(members, "web-2", 106.5)
        assert members.horizon.extended(106.6, False) == 108.0

    def test_an_unanswered_address_hinders_at_its_end_too(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 112.9)
        fresh(members, "web-3", 113.0)
        assert members.removed(113.0) == {"web-2"}
        assert members.horizon.extended(113.0, hindered=True) is None

    def test_is_off_when_the_member_comes_back_and_cannot_be_followed(self, members, store):
        members.refuse("web-9", Reason.HASH_KEY)
        pass_time(members, 100.0, 103.0)
        assert members.remove("web-9", 103.0)
        members.refuse("web-9", Reason.HASH_KEY)
        for now in (103.1, 113.0, 120.0):
            fresh(members, "web-2", now)
            fresh(members, "web-3", now)
            members.removed(now)
            assert members.horizon.extended(now, False) is None
        assert members.horizon.stale(120.0) == ["web-9"]

    def test_of_a_peer_that_cannot_be_followed_ends_what_that_isolates(self, members, store):
        fresh(members, "web-2", 103.0)
        members.refuse("web-9", Reason.HASH_KEY)
        pass_time(members, 100.0, 103.0)
        assert members.remove("web-9", 103.0)
        fresh(members, "web-2", 113.0)
        pass_time(members, 103.0, 113.0)
        assert not members.horizon.isolated(113.0)
        assert members.refused == {}

    def test_one_does_not_end_isolation_from_another(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 113.0, heard="")
        assert "web-2" not in members.sources
        assert members.horizon.isolated(113.0)

    def test_of_an_address_where_nobody_answered_is_got_over_alike(self, members, store):
        for name in ("web-2", "web-3"):
            fresh(members, name, 103.0)
        members.horizon.look_for_gaps(103.0)
        assert members.horizon.extended(103.0, hindered=True) is None
        assert members.expect_no_more("web-9:1", 103.0)
        line = store.tail
        fresh(members, "web-2", 113.0)
        pass_time(members, 103.0, 113.0)
        assert store.evicted_before == [line]
        assert not members.horizon.isolated(113.0)

    def test_of_an_address_that_has_isolated_nobody_yet_is_nothing(self, members, store):
        assert not members.expect_no_more("web-9:1", 101.0)
        assert store.tail == 0


class TestComingBackAfterARemoval:
    @pytest.fixture
    def members(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 113.0)
        store.applied.clear()
        return members

    def test_in_the_same_life_goes_on_where_it_was(self, members, store):
        assert members.meet("web-2", 1, 9, 114.0) == (Rung.GO_ON, 5)
        assert (store.applied, store.forgotten()) == ([], [])
        assert store.cursor_of("web-2") == 5

    def test_in_another_evicts_all_though_nobody_was_cut_off_since(self, members, store):
        assert members.meet("web-9", 1, 0, 114.0).rung is Rung.FROM_BIRTH
        assert members.meet("web-2", 2, 9, 114.0) == (Rung.FLUSH, 9)
        assert store.payloads() == [PAYLOAD_ALL]

    def test_in_a_lower_incarnation_is_met_anew_and_not_refused_for_ever(self, members, store):
        assert members.meet("web-2", 0, 9, 114.0) == (Rung.FLUSH, 9)

    @pytest.mark.parametrize("restarted", [False, True])
    def test_and_was_never_followed_before_evicts_all(self, members, store, restarted):
        members.refuse("web-9", Reason.HASH_KEY)
        assert members.remove("web-9", 114.0)
        for name in members.sources:
            fresh(members, name, 125.0)
        assert members.removed(125.0) == {"web-9"}
        if restarted:
            members = members_of(store, now=125.0)
        members.horizon.make_whole(126.0)
        members.horizon.until = 200.0
        assert members.meet("web-8", 1, 3, 126.0).rung is Rung.FROM_BIRTH
        assert members.meet("web-9", 7, 9, 126.0) == (Rung.FLUSH, 9)

    def test_is_known_to_the_next_bridge_too(self, members, store):
        again = members_of(store, now=114.0)
        assert "web-2" not in again.sources
        assert again.meet("web-2", 1, 9, 114.0) == (Rung.GO_ON, 5)


class TestBirthsAfterARemoval:
    def test_are_believed_while_it_lasts_if_nobody_else_was_lost(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 104.0)
        assert members.meet("web-9", 1, 3, 104.0) == (Rung.FROM_BIRTH, 0)
        assert store.applied == []

    def test_are_not_when_somebody_was(self, members, store):
        remove(members, 103.0)
        pass_time(members, 104.0, 107.0, heard="")
        assert members.meet("web-9", 1, 3, 107.0).rung is Rung.FLUSH

    def test_are_believed_after_it_so_that_who_replaces_a_dead_host_empties_no_cache(self, members, store):
        remove(members, 103.0)
        pass_time(members, 103.0, 114.0)
        assert members.meet("web-9", 1, 3, 114.0) == (Rung.FROM_BIRTH, 0)
        assert store.applied == []

    def test_are_not_while_somebody_is_lost_and_not_removed(self, members, store):
        pass_time(members, 100.0, 103.0)
        assert members.meet("web-9", 1, 3, 103.0).rung is Rung.FLUSH

    def test_are_not_once_somebody_is_forgotten_by_name_too(self, members, store, monkeypatch):
        monkeypatch.setattr(departures, "DEPARTED_MAX", 1)
        remove(members, 103.0)
        pass_time(members, 103.0, 113.0)
        assert members.meet("web-8", 1, 3, 113.0).rung is Rung.FROM_BIRTH
        assert members.remove("web-3", 125.0)
        members.removed(135.0)
        assert (set(members.departures.removed), members.cursor("web-2")) == ({"web-3"}, None)
        assert not members.departures.removed_is_complete
        members.horizon.whole = True
        fresh(members, "web-8", 135.0)
        members.horizon.extended(135.0, False)
        assert members.meet("web-9", 1, 3, 135.0).rung is Rung.FLUSH

    def test_are_not_where_the_segment_had_no_room_for_one_that_was_forgotten(self, members, store):
        store.source_set_aside(0)
        again = members_of(store, now=114.0)
        again.horizon.whole = True
        again.horizon.extended(114.0, False)
        assert again.meet("web-9", 1, 3, 114.0).rung is Rung.FLUSH
