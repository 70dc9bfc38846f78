"""A peer that is over its budget is not read until the budget holds something again."""

from cachee_bridge.links.throttle import Throttle
from cachee_bridge.wire.budget import MESSAGE_BYTES, ROW_BYTES, Budget
from cachee_bridge.wire.messages import PeerAddress, Peers, Sync

RATE = 1e6


def test_a_message_costs_something_whatever_is_in_it_and_more_for_each_of_its_rows():
    throttle = Throttle(Budget(RATE, 100.0))
    throttle.charge(Sync(), 100.0)
    assert throttle.budget.owed == MESSAGE_BYTES
    throttle.charge(Peers((PeerAddress("a", "a:1"), PeerAddress("b", "b:1"))), 100.0)
    assert throttle.budget.owed == 2 * MESSAGE_BYTES + 2 * ROW_BYTES


def test_the_message_that_empties_the_budget_says_so():
    throttle = Throttle(Budget(RATE, 100.0))
    throttle.budget.owe(RATE - MESSAGE_BYTES - 1)
    assert not throttle.charge(Sync(), 100.0)
    assert throttle.charge(Sync(), 100.0)


def test_a_peer_is_held_until_its_budget_holds_something_and_the_times_are_counted():
    throttle = Throttle(Budget(RATE, 100.0))
    throttle.budget.owe(RATE * 1.25)
    throttle.hold(100.0)
    assert not throttle.release(100.2)
    assert (throttle.held_since, throttle.times_held) == (100.0, 1)
    assert throttle.release(100.3)
    assert (throttle.held_since, throttle.released_at, throttle.times_held) == (None, 100.3, 1)


def test_a_peer_that_is_not_held_is_not_released():
    throttle = Throttle(Budget(RATE, 100.0))
    assert not throttle.release(200.0)
    assert throttle.released_at == float("-inf")
