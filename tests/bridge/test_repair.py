"""The repair ladder: which rung is taken for what is known of a source, and how often it is asked again."""

from itertools import pairwise

import pytest

from cachee_bridge.streams.repair import FRUITLESS_MAX, Ask, Asker, Rung, contact


def test_the_same_incarnation_goes_on_from_the_cursor():
    assert contact((4, 17), 4, 20, not_cut_off=False) == (Rung.GO_ON, 17)


def test_a_tail_below_the_cursor_goes_on_because_another_link_may_have_been_faster():
    assert contact((4, 17), 4, 12, not_cut_off=False) == (Rung.GO_ON, 17)


@pytest.mark.parametrize("not_cut_off", [True, False])
def test_a_higher_incarnation_flushes_and_begins_at_its_tail(not_cut_off):
    assert contact((4, 17), 5, 3, not_cut_off) == (Rung.FLUSH, 3)


def test_a_lower_incarnation_cannot_be_followed():
    assert contact((4, 17), 3, 100, not_cut_off=True).rung is Rung.IMPOSSIBLE


def test_a_host_never_met_flushes():
    assert contact(None, 5, 90, not_cut_off=False) == (Rung.FLUSH, 90)


def test_a_host_never_met_flushes_although_it_has_written_nothing():
    assert contact(None, 5, 0, not_cut_off=False) == (Rung.FLUSH, 0)


def test_a_host_that_joined_while_nothing_was_cut_off_is_followed_from_its_birth():
    assert contact(None, 5, 90, not_cut_off=True) == (Rung.FROM_BIRTH, 0)


def test_a_gap_is_asked_for_once_however_many_frames_follow_it():
    asker = Asker(pace_s=0.2)
    assert asker.behind(10, now=1.0) is Ask.REPLAY
    assert [asker.behind(10, now=1.0 + frame / 100) for frame in range(10)] == [Ask.WAIT] * 10


def test_an_answer_that_does_not_come_is_asked_for_again_ever_more_slowly_and_not_for_ever():
    asker, asked_at, now = Asker(pace_s=0.2), [], 0.0
    while (ask := asker.behind(10, now)) is not Ask.HOPELESS:
        asked_at += [now] if ask is Ask.REPLAY else []
        now += 0.1
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert len(asked_at) == FRUITLESS_MAX
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]


def test_progress_makes_asking_fruitful():
    asker = Asker(pace_s=0.2)
    for cursor in range(50):
        assert asker.behind(cursor, now=float(cursor)) is Ask.REPLAY


def test_a_new_link_forgets_what_was_asked_on_the_old_one():
    asker = Asker(pace_s=0.2)
    asker.behind(10, now=1.0)
    asker.forget()
    assert asker.behind(10, now=1.0) is Ask.REPLAY
