"""When a beat is sent on a link."""

import pytest

from cachee_bridge.links.beat_schedule import BeatSchedule, calm_heartbeats
from cachee_bridge.wire.frames import NUMBERS, PREFIX, encode
from cachee_bridge.wire.messages import Beat, Calm, Sync
from tests.bridge.meshes import Cable, key

HEARTBEAT = 0.1
CALM = 3


class Clock:
    """A pace, asked at every heartbeat."""

    def __init__(self) -> None:
        self.beat_schedule, self.beats = BeatSchedule(), 0
        self.heartbeat(confirmed=True)

    def heartbeat(self, confirmed: bool) -> bool:
        now = HEARTBEAT * self.beats
        self.beats += 1
        due = self.beat_schedule.due(now, confirmed)
        if due:
            self.beat_schedule.beaten(now, now + (CALM - 0.5) * HEARTBEAT)
        return due

    def heartbeats(self, number: int, confirmed: bool = True) -> list[bool]:
        return [self.heartbeat(confirmed) for _ in range(number)]


@pytest.fixture
def clock():
    return Clock()


def test_a_link_on_which_nothing_is_open_is_beaten_on_at_the_calm_pace(clock):
    assert clock.heartbeats(7) == [False, False, True, False, False, True, False]


def test_while_the_peer_has_not_confirmed_what_it_was_sent_each_heartbeat_has_a_beat(clock):
    clock.beat_schedule.sent()
    assert clock.heartbeats(5, confirmed=False) == [False, True, True, True, True]


def test_what_was_received_is_acknowledged_once_when_no_more_comes(clock):
    clock.beat_schedule.came()
    assert clock.heartbeats(4) == [False, True, False, False]


def test_frames_in_both_directions_take_the_place_of_most_beats(clock):
    due = []
    for _ in range(9):
        clock.beat_schedule.sent()
        clock.beat_schedule.came()
        due += clock.heartbeats(1, confirmed=False)
    assert due == [False, False, True] * 3


def test_a_beat_that_was_asked_for_takes_the_place_of_the_next_calm_one(clock):
    clock.heartbeats(1)
    clock.beat_schedule.beaten(HEARTBEAT, (CALM + 0.5) * HEARTBEAT)
    assert clock.heartbeats(4) == [False, False, True, False]


def test_the_end_that_was_dialled_answers_at_once(clock):
    assert clock.beat_schedule.answers(0.06, HEARTBEAT)


def test_what_comes_soon_after_a_beat_of_this_end_is_answered_at_the_next_heartbeat(clock):
    assert not clock.beat_schedule.answers(0.001, HEARTBEAT)
    assert not clock.beat_schedule.answers(0.04, HEARTBEAT)
    assert clock.heartbeats(2) == [True, False]


def test_what_is_not_answered_at_once_makes_a_calm_beat_due_half_a_heartbeat_later(clock):
    clock.beat_schedule.beaten(10.0, 10.0 + 20 * HEARTBEAT)
    assert not clock.beat_schedule.answers(10.0 + 0.1 * HEARTBEAT, HEARTBEAT)
    assert not clock.beat_schedule.is_calm(10.0 + 0.55 * HEARTBEAT)
    assert clock.beat_schedule.is_calm(10.0 + 0.65 * HEARTBEAT)


def test_a_link_is_quiet_when_all_that_was_sent_and_has_come_is_confirmed(clock):
    schedule = clock.beat_schedule
    assert schedule.is_quiet(confirmed=True) and not schedule.is_quiet(confirmed=False)
    for stirs in (schedule.sent, schedule.came):
        stirs()
        assert not schedule.is_quiet(confirmed=True)
        clock.heartbeats(4)
        assert schedule.is_quiet(confirmed=True)


@pytest.mark.parametrize(
    ("heartbeat_s", "lost_after_s", "heartbeats"),
    [(0.1, 2.0, 3), (0.1, 60.0, 3), (0.1, 1.0, 2), (0.1, 0.4, 1), (0.05, 0.5, 2), (1.0, 4.0, 1)],
)
def test_calm_is_a_fifth_of_lost_after_at_the_most_and_never_less_than_a_heartbeat(
    heartbeat_s, lost_after_s, heartbeats
):
    assert calm_heartbeats(heartbeat_s, lost_after_s) == heartbeats


class TestTwoHosts:
    @pytest.fixture
    def cable(self):
        return Cable()

    @pytest.fixture
    def hosts(self, cable):
        hosts = [cable.node(name, ("a", "b"), secrets=()) for name in ("a", "b")]
        cable.run(2.0)
        return hosts

    @staticmethod
    def sent(cable, source, target, seconds):
        cable.carried.clear()
        cable.run(seconds)
        return TestTwoHosts.beats(cable, source, target)

    @staticmethod
    def beats(cable, source, target):
        kinds = NUMBERS[Beat], NUMBERS[Calm]
        return sum(data[PREFIX.size - 1] in kinds for data in cable.carried[source, target])

    def test_with_nothing_to_say_beat_a_third_as_often_as_with_something(self, cable, hosts):
        assert self.sent(cable, "a", "b", 3.0) == self.sent(cable, "b", "a", 3.0) == 10

    def test_are_never_more_than_two_calm_beats_old_to_each_other(self, cable, hosts):
        step, calm_beat = 0.05, 0.3
        for _ in range(40):
            cable.run(step)
            for host in hosts:
                assert host.serve_until["shop"] - cable.now >= 2.0 - 2 * calm_beat - step - 1e-6

    def test_find_out_soon_that_the_last_frame_was_lost(self, cable, hosts):
        a, b = hosts
        cable.deaf = {("a", "b")}
        a.write(key(1))
        cable.deaf = set()
        cable.run(0.7)
        assert b.store.cursor_of("a") == a.store.tail

    def test_are_told_soon_that_all_has_arrived_and_then_are_calm(self, cable, hosts):
        a, _ = hosts
        a.write(key(1))
        cable.run(0.25)
        assert a.store.workers_know("b") == (a.store.tail, True)
        cable.run(1.0)
        assert self.sent(cable, "b", "a", 3.0) == 10

    def test_do_not_beat_between_frames_that_follow_each_other(self, cable, hosts):
        a, _ = hosts
        cable.carried.clear()
        for number in range(30):
            a.write(key(number))
            cable.run(0.1)
        assert self.beats(cable, "a", "b") <= 11
        assert self.beats(cable, "b", "a") <= 11

    def test_do_not_confirm_what_is_not_the_hosts_own(self, cable, hosts):
        a, b = hosts
        cable.carried.clear()
        for _ in range(10):
            a.write(b"")
            cable.run(0.3)
        assert self.beats(cable, "b", "a") <= 11
        assert b.store.cursor_of("a") >= a.store.tail - 1

    def test_answer_at_once_who_asks(self, cable, hosts):
        a, _ = hosts
        _, there = next(end for end in cable.ends.values() if end[0] is a)
        cable.carried.clear()
        a.mesh.received(there, encode(Sync()), cable.now)
        cable.settle()
        assert self.beats(cable, "a", "b") == 1
