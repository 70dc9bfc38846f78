"""The frames of a source that a relay keeps, and which of them it has passed on."""

from cachee_bridge.streams.relay_log import FRAME_COST, Log, RelayOutbox
from cachee_bridge.wire.frames import encode
from cachee_bridge.wire.messages import PAYLOAD_ALL, Frame
from cachee_bridge.wire.seal import SEAL_BYTES
from tests.bridge.meshes import key

MAX = 1 << 20


def frame(first, last, payload=b"\x01" + bytes(8), incarnation=4):
    return Frame("shop", "web-1", incarnation, first, last, payload)


def log_of(*frames, cursor=10):
    log = Log(4, cursor)
    for each in frames:
        log.add(each, MAX)
    return log


def outbox(log, first=11, incarnation=4):
    made = RelayOutbox("shop", "web-1", log)
    made.ask(incarnation, first)
    return made


def ranges(box):
    frames = []
    while (one := box.next()) is not None:
        frames.append((one.first, one.last, one.payload))
    return frames


def undecoded(*frames, sealed=False):
    data = b"".join(encode(each) + bytes(SEAL_BYTES if sealed else 0) for each in frames)
    return data, sealed, len(frames), frames[-1].last


class TestWhatIsLoggedUndecoded:
    def test_is_sent_as_if_it_had_been_logged_frame_by_frame(self):
        for sealed in (False, True):
            log = log_of(frame(11, 12, key(1)))
            log.add_undecoded(4, 12, undecoded(frame(13, 13, b""), frame(14, 20, key(2)), sealed=sealed), MAX)
            log.add(frame(21, 21, key(3)), MAX)
            log.add_undecoded(4, 21, undecoded(frame(22, 22, key(4)), sealed=sealed), MAX)
            known = [(11, 12, key(1)), (13, 20, key(2)), (21, 21, key(3)), (22, 22, key(4))]
            assert ranges(outbox(log)) == known
            assert log.bytes_after(20) == 2 * (FRAME_COST + len(key(1)))

    def test_goes_when_there_is_no_room_the_oldest_first(self):
        log, room = log_of(), 4 * (FRAME_COST + 60)
        for at in range(11, 31, 2):
            log.add_undecoded(4, at - 1, undecoded(frame(at, at), frame(at + 1, at + 1)), room)
        assert (log.start, log.end) == (26, 30)
        assert not outbox(log, 26).serves
        assert [one[0] for one in ranges(outbox(log, 27))] == [27, 28, 29, 30]
        log.add(frame(31, 31), 2 * FRAME_COST + 20)
        assert [one[0] for one in ranges(outbox(log, 30))] == [30, 31]

    def test_which_is_larger_than_all_room_leaves_its_newest_frame(self):
        log = log_of()
        log.add_undecoded(4, 10, undecoded(*[frame(at, at) for at in range(11, 21)]), FRAME_COST + 10)
        assert (log.start, log.end) == (19, 20)

    def test_behind_a_jump_or_of_another_life_begins_the_log_anew(self):
        for incarnation, cursor in ((4, 12), (5, 11)):
            log = log_of(frame(11, 11))
            log.add_undecoded(incarnation, cursor, undecoded(frame(13, 13, incarnation=incarnation)), MAX)
            assert (log.incarnation, log.start, log.end) == (incarnation, 13, 13)


class TestWhoAsks:
    def test_is_sent_what_follows_in_the_positions_of_the_source(self):
        log = log_of(frame(11, 12, key(1)), frame(13, 20, key(2)))
        assert ranges(outbox(log)) == [(11, 12, key(1)), (13, 20, key(2))]
        assert ranges(outbox(log, 13)) == [(13, 20, key(2))]

    def test_is_sent_what_comes_later(self):
        log = log_of()
        box = outbox(log)
        assert box.next() is None and box.serves
        log.add(frame(11, 11, key(1)), MAX)
        assert ranges(box) == [(11, 11, key(1))]

    def test_from_the_middle_of_a_frame_is_sent_all_of_it(self):
        assert ranges(outbox(log_of(frame(11, 20, key(1))), 15)) == [(11, 20, key(1))]

    def test_for_what_is_not_there_any_more_is_not_served(self):
        log = log_of(frame(11, 12))
        assert not outbox(log, 10).serves
        assert ranges(outbox(log, 10)) == []

    def test_for_another_life_of_the_source_is_not_served(self):
        assert not outbox(log_of(), incarnation=5).serves
        assert not outbox(log_of(), incarnation=3).serves

    def test_ahead_of_the_relay_waits_for_it(self):
        log = log_of()
        box = outbox(log, 14)
        assert box.serves
        log.add(frame(11, 13, key(1)), MAX)
        log.add(frame(14, 14, key(2)), MAX)
        assert ranges(box)[-1] == (14, 14, key(2))

    def test_and_is_slow_is_served_no_more_once_the_log_has_lost_what_it_lacks(self):
        log = log_of()
        box = outbox(log)
        for position in (11, 12, 13):
            log.add(frame(position, position), 2 * (FRAME_COST + 9))
        assert not box.serves and box.next() is None


class TestRangesWithoutPayload:
    def test_ride_in_the_next_frame(self):
        log = log_of(frame(11, 13, b""), frame(14, 14, key(1)))
        assert ranges(outbox(log)) == [(11, 14, key(1))]

    def test_are_sent_alone_when_they_are_asked_for(self):
        box = outbox(log_of(frame(11, 13, b""), frame(14, 15, b"")))
        assert box.empty() is None
        assert ranges(box) == []
        assert box.empty() == frame(11, 15, b"")
        assert box.empty() is None


class TestTheLog:
    def test_begins_anew_behind_a_jump_of_this_host(self):
        log = log_of(frame(11, 12))
        box = outbox(log, 13)
        log.add(frame(20, 21), MAX)
        assert (log.start, log.end) == (21, 21)
        assert not box.serves

    def test_begins_anew_behind_what_stands_for_what_this_host_has_missed(self):
        for payload in (PAYLOAD_ALL, b"\x06\x01\x01"):
            log = log_of(frame(11, 12), frame(13, 20, payload))
            assert log.start == 20
            assert not outbox(log, 13).serves

    def test_begins_anew_with_another_life_of_the_source(self):
        log = log_of(frame(11, 12))
        log.add(frame(1, 2, incarnation=5), MAX)
        assert (log.incarnation, log.start) == (5, 2)

    def test_keeps_its_newest_frames_within_its_bytes(self):
        log = log_of()
        for position in range(11, 111):
            log.add(frame(position, position), 10 * (FRAME_COST + 9))
        assert (log.start, log.end) == (100, 110)
        assert len(ranges(outbox(log, 101))) == 10

    def test_keeps_the_last_frame_however_large(self):
        log = log_of()
        log.add(frame(11, 12, bytes(MAX)), 100)
        assert outbox(log).serves
