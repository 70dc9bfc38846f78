"""A source is fresh as of the time when this host sent a stamp, once the source has echoed the stamp with its
head, and this host has applied everything up to that head."""

from hypothesis import given
from hypothesis import strategies as st

from cachee_bridge.streams.freshness import WAITING_MAX, Freshness


def test_nothing_heard_is_not_fresh():
    assert Freshness().at == float("-inf")


def test_a_head_that_is_applied_counts_from_the_sending_of_the_stamp():
    freshness = Freshness()
    freshness.head_heard(stamp=5.0, head=10, cursor=10)
    assert freshness.at == 5.0


def test_a_head_that_is_not_applied_yet_counts_when_it_is():
    freshness = Freshness()
    freshness.head_heard(5.0, head=10, cursor=9)
    assert freshness.at == float("-inf")
    freshness.applied(10)
    assert freshness.at == 5.0


def test_a_beat_that_lay_in_a_link_makes_nothing_fresher_than_its_stamp():
    freshness = Freshness()
    freshness.head_heard(50.0, head=10, cursor=10)
    freshness.head_heard(5.0, head=8, cursor=10)
    assert freshness.at == 50.0


def test_heads_of_a_former_incarnation_do_not_count():
    freshness = Freshness()
    freshness.head_heard(5.0, head=10, cursor=0)
    freshness.restarted()
    freshness.applied(10)
    assert freshness.at == float("-inf")


def test_a_source_that_writes_without_end_still_becomes_fresh_bit_by_bit():
    freshness = Freshness()
    for beat in range(10 * WAITING_MAX):
        freshness.head_heard(float(beat), head=beat * 10 + 10, cursor=0)
    freshness.applied(10)
    assert freshness.at == 0.0
    freshness.applied(10 * 10 * WAITING_MAX)
    assert freshness.at == 10 * WAITING_MAX - 1


def test_heads_that_wait_are_bounded_however_long_nothing_is_applied():
    freshness = Freshness()
    for beat in range(3 * WAITING_MAX):
        freshness.head_heard(float(beat), head=beat + 1, cursor=0)
    assert len(freshness._waiting) == WAITING_MAX


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=200))
def test_it_is_never_fresher_than_what_was_applied(steps):
    """Every word is true when it is made: at stamp t the source's tail was t."""
    freshness, tail, cursor = Freshness(), 0, 0
    for is_word, amount in steps:
        if is_word:
            tail += amount
            freshness.head_heard(float(tail), tail, cursor)
        else:
            cursor = min(tail, cursor + amount)
            freshness.applied(cursor)
        assert freshness.at <= cursor
