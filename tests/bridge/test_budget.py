"""The bucket of bytes that a peer may use."""

from cachee_bridge.wire.budget import BURST_S, DEBT_S, Budget


def test_a_burst_is_a_seconds_worth():
    budget = Budget(1000.0, 5.0)
    budget.owe(1000.0 * BURST_S - 1)
    assert not budget.spent(5.0)
    budget.owe(1)
    assert budget.spent(5.0)


def test_it_refills_with_time_and_not_beyond_a_burst():
    budget = Budget(1000.0, 5.0)
    budget.owe(1000.0 * BURST_S + 100)
    assert budget.spent(5.09)
    assert not budget.spent(5.11)
    assert not budget.spent(1000.0)
    budget.owe(1000.0 * BURST_S)
    assert budget.spent(1000.0)


def test_a_clock_that_steps_back_gives_nothing():
    budget = Budget(1000.0, 5.0)
    budget.owe(1000.0 * BURST_S)
    assert budget.spent(4.0)
    assert budget.spent(5.0)
    assert not budget.spent(5.1)


def test_a_debt_is_bounded():
    budget = Budget(1000.0, 5.0)
    budget.owe(1e9)
    assert budget.spent(5.0 + DEBT_S)
    assert not budget.spent(5.01 + DEBT_S)
