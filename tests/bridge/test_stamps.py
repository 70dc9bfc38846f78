"""Stamps of two clocks: what an echo says of this host's, and how old a relay's word is by the peer's."""

import pytest

from cachee_bridge.links.stamps import HEARD_MAX, HEARD_S, Stamps
from cachee_bridge.wire.messages import AGE_UNKNOWN, Beat
from cachee_shm.errors import FrameError


class TestEchoes:
    def beat(self, stamp=0, echo=0):
        return Beat(stamp, echo, (), ())

    def test_an_echo_says_when_the_stamp_was_sent(self):
        stamps = Stamps(100.0)
        stamp = stamps.next(101.5)
        assert stamps.take(self.beat(echo=stamp), now=109.0) == 101.5

    def test_no_echo_says_nothing(self):
        assert Stamps(100.0).take(self.beat(stamp=5), now=101.0) is None

    def test_a_beat_that_was_asked_for_may_be_echoed_after_a_tick_that_was_due_before_it(self):
        stamps = Stamps(100.0)
        asked_for = stamps.next(101.503)
        stamps.next(101.5)  # a late tick's own time
        assert stamps.take(self.beat(echo=asked_for), now=101.504) == 101.503

    def test_the_first_beat_of_a_link_that_is_younger_than_the_tick_may_be_echoed(self):
        stamps = Stamps(100.0)
        stamp = stamps.next(99.99)
        assert stamps.take(self.beat(echo=stamp), now=100.1) == 100.0

    def test_the_newest_stamp_is_the_one_to_echo(self):
        stamps = Stamps(100.0)
        for stamp in (5, 9, 7):
            stamps.take(self.beat(stamp=stamp), now=101.0)
        assert stamps.newest_heard == 9

    @pytest.mark.parametrize("echo", [1, 99_000_000, 101_000_001, 2**64 - 1])
    def test_a_stamp_that_was_never_sent_on_this_link_is_refused(self, echo):
        stamps = Stamps(100.0)
        stamps.next(101.0)
        with pytest.raises(FrameError, match="never sent"):
            stamps.take(self.beat(echo=echo), now=102.0)


class TestAges:
    """How old a relay's word is, by the clock of the peer that is told it: its own newest stamp, less the
    newest stamp of its that had come when the word was current."""

    def heard(self, *beats):
        stamps = Stamps(100.0)
        for now, stamp in beats:
            stamps.take(Beat(stamp, 0, (), ()), now)
        return stamps

    def test_a_word_that_was_current_at_the_newest_stamp_has_no_age(self):
        assert self.heard((100.0, 1000), (100.0 + HEARD_S, 2000)).age_of(100.0 + HEARD_S) == 0

    def test_a_word_is_as_old_as_the_newest_stamp_that_had_come_by_then(self):
        stamps = self.heard((100.0, 1000), (101.0, 2000), (102.0, 5000))
        assert [stamps.age_of(at) for at in (100.0, 100.9, 101.0, 101.9, 102.0)] == [
            4000,
            4000,
            3000,
            3000,
            0,
        ]

    def test_of_what_was_current_before_any_stamp_came_the_age_is_unknown(self):
        assert Stamps(100.0).age_of(100.0) == AGE_UNKNOWN
        assert self.heard((100.0, 1000)).age_of(99.9) == AGE_UNKNOWN

    def test_of_stamps_that_come_close_together_the_first_stands_for_all_and_words_seem_older(self):
        stamps = self.heard((100.0, 1000), (100.0 + HEARD_S / 2, 2000))
        assert stamps.age_of(100.0 + HEARD_S / 2) == 1000

    def test_a_stamp_that_goes_back_is_not_remembered(self):
        assert self.heard((100.0, 1000), (101.0, 900)).age_of(101.0) == 0

    def test_a_bounded_number_of_stamps_is_remembered(self):
        stamps = self.heard(*((100.0 + i, 1000 + i) for i in range(HEARD_MAX + 1)))
        assert stamps.age_of(100.0) == AGE_UNKNOWN
        assert stamps.age_of(101.0) == HEARD_MAX - 1
