"""Outbox and Inbox: what a link is sent of a ring, and what a receiver does with it."""

import pytest

from cachee_bridge.streams import buckets, stream
from cachee_bridge.streams.buckets import EVICT_WORDS, read_piece
from cachee_bridge.streams.stream import Inbox, Outbox, Packer, Verdict
from cachee_bridge.wire.messages import PAYLOAD_ALL, Frame
from cachee_shm.errors import FrameError
from tests.bridge.meshes import FakeStore, key


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(incarnation=4, ring_slots=8)


@pytest.fixture
def small(store, monkeypatch):
    """A map takes two pieces."""
    monkeypatch.setattr(buckets, "PIECE_BYTES", 2)


def outbox_of(store: FakeStore) -> Outbox:
    return Outbox("shop", "web-1", store, Packer(store, "shop", "web-1"))


def asked(store: FakeStore, first: int = 1) -> Outbox:
    outbox = outbox_of(store)
    outbox.ask(first)
    return outbox


def inbox_of(store: FakeStore, cursor: int = 0, incarnation: int = 4) -> Inbox:
    inbox = Inbox(store, store.source_open("web-1"), 0, 0, pace_s=0.2)
    inbox.begin(incarnation, cursor, flush=False)
    store.stored.clear()
    return inbox


def frame(first: int, last: int, payload: bytes = b"", incarnation: int = 4) -> Frame:
    return Frame("shop", "web-1", incarnation, first, last, payload)


class TestOutbox:
    def test_a_peer_that_has_not_asked_is_sent_nothing(self, store):
        store.write(key(1))
        assert outbox_of(store).next() is None

    def test_a_frame_covers_the_range_from_the_cursor_to_what_was_packed(self, store):
        store.write(key(1), key(2))
        outbox = asked(store)
        assert outbox.next() == frame(1, 2, key(1) + key(2))
        assert outbox.next() is None

    def test_the_next_frame_begins_where_the_last_ended(self, store):
        outbox = asked(store)
        store.write(key(1))
        outbox.next()
        store.write(key(2))
        assert outbox.next() == frame(2, 2, key(2))

    def test_nothing_is_sent_that_is_not_healed_at_home(self, store):
        store.write(key(1), key(2), key(3))
        store.pump_cursor = 2
        assert asked(store).next() == frame(1, 2, key(1) + key(2))

    def test_records_of_others_cost_no_frame_and_ride_in_the_next_one(self, store):
        outbox = asked(store)
        store.write(b"", b"")
        assert outbox.next() is None
        store.write(key(1))
        assert outbox.next() == frame(1, 3, key(1))

    def test_an_empty_range_can_be_sent_so_that_the_peers_cursor_reaches_the_head(self, store):
        outbox = asked(store)
        store.write(b"", b"")
        outbox.next()
        assert outbox.empty() == frame(1, 2)
        assert outbox.empty() is None

    def test_a_lapped_peer_is_sent_a_map_and_streamed_on(self, store):
        outbox = asked(store)
        store.write(*[key(number) for number in range(15)])
        assert outbox.next() == frame(1, 15, read_piece(store, 0, 1))
        store.write(key(99))
        assert outbox.next() == frame(16, 16, key(99))
        assert outbox.lapped == 1

    def test_where_one_record_stands_for_all_that_is_sent(self, store):
        outbox = asked(store)
        clear = b"\x04"
        store.write(clear, *[key(number) for number in range(15)])
        assert outbox.next() == frame(1, 16, clear)

    def test_all_pieces_of_a_map_stand_for_one_range_and_the_stream_goes_on_behind_it(self, store, small):
        outbox = asked(store)
        store.write(*[key(number) for number in range(15)])
        sent = [outbox.next()]
        store.write(key(99))
        sent += [outbox.next(), outbox.next()]
        assert sent[:2] == [frame(1, 15, read_piece(store, 0, number)) for number in (1, 2)]
        assert sent[2] == frame(16, 16, key(99))

    def test_between_two_pieces_there_is_nothing_else(self, store, small):
        outbox = asked(store)
        store.write(b"")
        outbox.next()
        store.write(*[key(number) for number in range(15)])
        outbox.next()
        assert outbox.empty() is None
        assert outbox.next() == frame(1, 16, read_piece(store, 1, 2))

    def test_a_request_between_two_pieces_begins_the_map_anew(self, store, small):
        outbox = asked(store)
        store.write(*[key(number) for number in range(15)])
        outbox.next()
        store.write(key(99))
        outbox.ask(1)
        assert outbox.next() == frame(1, 16, read_piece(store, 0, 1))

    def test_links_that_were_lapped_alike_share_each_piece(self, store, small):
        read, packer = [], Packer(store, "shop", "web-1")
        map_piece = store.map_piece
        store.map_piece = lambda *arguments: read.append(arguments) or map_piece(*arguments)
        store.write(*[key(number) for number in range(15)])
        links = [Outbox("shop", "web-1", store, packer) for _ in range(5)]
        for link in links:
            link.ask(1)
        for _ in range(2):
            assert len({link.next() for link in links}) == 1
        assert len(read) == 2

    def test_a_piece_that_was_read_for_an_older_range_is_not_sent_for_a_newer_one(self, store):
        packer = Packer(store, "shop", "web-1")
        links = [Outbox("shop", "web-1", store, packer) for _ in range(2)]
        store.write(*[key(number) for number in range(15)])
        links[0].ask(1)
        links[0].next()
        store.write(key(1 << 61))  # in another bucket
        links[1].ask(1)
        assert links[1].next() == frame(1, 16, read_piece(store, 0, 1))

    def test_a_peer_lapped_behind_records_of_others_is_sent_all_from_its_own_cursor(self, store):
        outbox = asked(store)
        store.write(b"", b"")
        outbox.next()
        store.write(*[key(number) for number in range(15)])
        assert outbox.next() == frame(1, 17, read_piece(store, 2, 1))

    def test_a_peer_that_lost_nothing_of_ours_is_sent_an_empty_range(self, store):
        outbox = asked(store)
        store.write(*[b""] * 15)
        assert outbox.next() is None
        assert outbox.empty() == frame(1, 15)
        assert outbox.lapped == 1

    def test_what_it_was_sent_before_it_was_lapped_is_not_sent_again(self, store):
        outbox = asked(store)
        store.write(key(1))
        outbox.next()
        store.write(*[b""] * 15)
        assert outbox.next() is None
        store.write(key(2))
        assert outbox.next() == frame(2, 17, key(2))

    def test_a_request_moves_it_back(self, store):
        store.write(key(1), key(2), key(3))
        outbox = asked(store)
        outbox.next()
        outbox.ask(2)
        assert outbox.next() == frame(2, 3, key(2) + key(3))

    def test_a_long_backlog_is_cut_into_frames(self, store, monkeypatch):
        monkeypatch.setattr(stream, "PACK_RECORDS", 2)
        store.write(*[key(number) for number in range(5)])
        outbox, ranges = asked(store), []
        while (sent := outbox.next()) is not None:
            ranges.append((sent.first, sent.last))
        assert ranges == [(1, 2), (3, 4), (5, 5)]

    def test_links_at_one_cursor_share_one_pack(self, store):
        calls = []
        packer = Packer(store, "shop", "web-1")
        pack = store.pack
        store.write(key(1))
        store.pack = lambda *arguments: calls.append(arguments) or pack(*arguments)
        links = [Outbox("shop", "web-1", store, packer) for _ in range(5)]
        for link in links:
            link.ask(1)
        assert {link.next() for link in links} == {frame(1, 1, key(1))}
        assert len(calls) == 1

    def test_an_empty_range_announces_nothing(self, store):
        packer = Packer(store, "shop", "web-1")
        links = [Outbox("shop", "web-1", store, packer) for _ in range(2)]
        store.commit(key(1))
        packer.heal(100)
        store.commit(b"", b"")
        packer.heal(100)
        links[0].ask(2)
        assert links[0].next() is None
        assert links[0].empty() == frame(2, 3)
        assert packer.announced() == 1
        store.commit(key(2), b"")
        assert packer.announced() == 5  # not healed yet
        packer.heal(100)
        assert packer.announced() == 5

    def test_a_range_after_records_that_the_packer_has_not_seen_counts_as_announced(self, store):
        packer = Packer(store, "shop", "web-1")
        store.write(key(1), b"")
        outbox = Outbox("shop", "web-1", store, packer)
        outbox.ask(2)
        assert outbox.next() is None
        assert outbox.empty() == frame(2, 2)
        assert packer.announced() == 2


class TestInbox:
    @pytest.mark.parametrize(
        ("sent", "verdict"),
        [
            (frame(11, 12), Verdict.APPLIED),
            (frame(5, 12), Verdict.APPLIED),
            (frame(12, 12), Verdict.GAP),
            (frame(9, 10), Verdict.DUPLICATE),
            (frame(11, 12, incarnation=3), Verdict.OLD_INCARNATION),
            (frame(11, 12, incarnation=5), Verdict.NEW_INCARNATION),
        ],
    )
    def test_a_frame_is_judged_by_incarnation_and_range(self, store, sent, verdict):
        assert inbox_of(store, cursor=10).verdict_of(sent) is verdict

    def test_what_is_applied_is_evicted_first_and_only_then_is_the_cursor_kept(self, store):
        inbox = inbox_of(store, cursor=10)
        order = []
        store.apply = lambda source, payload: order.append(payload) or 1
        store.source_store = lambda *slot: order.append(slot)
        inbox.receive(frame(11, 12, key(7)))
        assert order == [key(7), (inbox.index, 4, 12)]

    def test_a_death_between_the_two_leaves_the_cursor_where_it_was(self, store):
        inbox = inbox_of(store, cursor=10)

        def dies(*slot):
            raise KeyboardInterrupt

        store.source_store = dies
        with pytest.raises(KeyboardInterrupt):
            inbox.receive(frame(11, 12, key(7)))
        assert inbox.cursor == 10
        assert store.cursor_of("web-1") == 10

    def test_a_malformed_payload_changes_nothing(self, store):
        inbox = inbox_of(store, cursor=10)
        with pytest.raises(FrameError):
            inbox.receive(frame(11, 12, b"\xff"))
        assert (inbox.cursor, store.stored, store.applied) == (10, [], [])

    def test_an_empty_payload_moves_the_cursor_and_evicts_nothing(self, store):
        inbox = inbox_of(store, cursor=10)
        assert inbox.receive(frame(11, 30)) is Verdict.APPLIED
        assert (inbox.cursor, store.cursor_of("web-1"), store.applied) == (30, 30, [])

    @pytest.mark.parametrize("sent", [frame(12, 12, key(1)), frame(9, 10, key(1)), frame(11, 12, key(1), 3)])
    def test_what_is_not_applied_moves_nothing(self, store, sent):
        inbox = inbox_of(store, cursor=10)
        inbox.receive(sent)
        assert (inbox.cursor, store.applied, store.stored) == (10, [], [])

    def test_a_map_is_fenced_and_evicted_before_the_cursor_is_kept(self, store):
        inbox = inbox_of(store, cursor=10)
        store.words = 2 * EVICT_WORDS
        store.write(key(1))
        store.hold(1, EVICT_WORDS + 1)
        assert inbox.receive(frame(11, 30, read_piece(store, 0, 1))) is Verdict.MAP
        assert (inbox.cursor, store.stored, store.mended) == (10, [], [(inbox.index, store.map)])
        for _ in range(2):
            assert inbox.apply_map() is None
            assert (inbox.cursor, store.stored) == (10, [])
        assert inbox.apply_map().evicted == 2
        assert (inbox.cursor, store.cursor_of("web-1"), inbox.repairs.maps) == (30, 30, 1)

    def test_pieces_are_kept_and_nothing_is_done_until_the_last(self, store, small):
        inbox = inbox_of(store, cursor=10)
        assert inbox.receive(frame(11, 30, read_piece(store, 0, 1))) is Verdict.KEPT
        assert (inbox.cursor, store.stored, store.mended) == (10, [], [])
        assert inbox.receive(frame(11, 30, read_piece(store, 0, 2))) is Verdict.MAP
        assert store.mended == [(inbox.index, store.map)]

    def test_a_piece_whose_predecessor_was_lost_is_a_gap(self, store, small):
        inbox = inbox_of(store, cursor=10)
        assert inbox.receive(frame(11, 30, read_piece(store, 0, 2))) is Verdict.GAP
        assert inbox.cursor == 10

    def test_what_comes_while_a_map_is_applied_waits_and_is_remembered(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.receive(frame(11, 30, read_piece(store, 0, 1)))
        assert not inbox.held_back
        assert inbox.receive(frame(31, 32, key(1))) is Verdict.WAITS
        assert inbox.held_back
        while inbox.apply_map() is None:
            assert inbox.cursor == 10
        assert inbox.cursor == 30
        assert store.applied == []

    def test_another_incarnation_ends_a_map_that_is_being_applied(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.receive(frame(11, 30, read_piece(store, 0, 1)))
        inbox.begin(5, 3, flush=True)
        assert inbox.apply_map() is None
        assert (inbox.cursor, store.cursor_of("web-1")) == (3, 3)

    def test_and_pieces_that_came_before_it(self, store, small):
        inbox = inbox_of(store, cursor=10)
        inbox.receive(frame(11, 30, read_piece(store, 0, 1)))
        inbox.begin(5, 10, flush=True)
        assert inbox.receive(frame(11, 30, read_piece(store, 0, 2), 5)) is Verdict.GAP

    def test_pieces_that_came_on_a_former_link_are_not_gone_on_with(self, store, small):
        inbox = inbox_of(store, cursor=10)
        inbox.receive(frame(11, 30, read_piece(store, 0, 1)))
        inbox.linked()
        assert inbox.receive(frame(11, 30, read_piece(store, 0, 2))) is Verdict.GAP

    def test_a_map_that_is_none_changes_nothing(self, store):
        inbox = inbox_of(store, cursor=10)
        store.map = b"\xff"
        with pytest.raises(FrameError):
            inbox.receive(frame(11, 30, read_piece(store, 0, 1)))
        assert (inbox.cursor, store.stored, inbox.applying) == (10, [], None)

    def test_a_map_that_arrives_or_is_applied_is_progress(self, store, small):
        inbox = inbox_of(store, cursor=10)
        store.words = 40 * EVICT_WORDS
        for _ in range(2 * stream.STUCK_BEATS):
            assert not inbox.head_heard(40, None)
            inbox.receive(frame(11, 30, read_piece(store, 0, 1)))
        inbox.receive(frame(11, 30, read_piece(store, 0, 2)))
        assert not any(inbox.head_heard(40, None) for _ in range(2 * stream.STUCK_BEATS))

    def test_each_rung_is_counted(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.receive(frame(11, 12, PAYLOAD_ALL))
        inbox.begin(5, 3, flush=True)
        assert (inbox.repairs.flushes, inbox.repairs.incarnations, inbox.repairs.maps) == (2, 1, 0)

    def test_a_flush_evicts_before_the_cursor_is_kept(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.begin(5, 3, flush=True)
        assert store.payloads() == [PAYLOAD_ALL]
        assert (inbox.incarnation, inbox.cursor, store.table[inbox.index]) == (5, 3, ("web-1", 5, 3))

    def test_being_behind_is_traffic_and_without_progress_for_some_beats_it_is_a_loss(self, store):
        inbox = inbox_of(store, cursor=10)
        for last in range(11, 30):
            assert not inbox.head_heard(40, None)
            inbox.receive(frame(last, last))
        assert [inbox.head_heard(40, None) for _ in range(6)] == [False, False, False, False, True, True]

    def test_a_head_that_is_already_passed_makes_nothing_fresh(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.head_heard(9, stamp=5.0)
        assert inbox.freshness.at == float("-inf")

    def test_leaving_counts_when_the_cursor_has_reached_the_final_head(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.final = 12
        assert not inbox.departed()
        inbox.receive(frame(11, 12))
        assert inbox.departed()

    def test_who_writes_after_leaving_has_not_left(self, store):
        inbox = inbox_of(store, cursor=10)
        inbox.final = 12
        inbox.head_heard(13, None)
        inbox.receive(frame(11, 13))
        assert not inbox.departed()
