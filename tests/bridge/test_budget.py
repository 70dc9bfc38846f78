"""The budget: a token bucket of the bytes that a peer may use."""

from hypothesis import given
from hypothesis import strategies as st

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


@given(
    rate=st.integers(1, 20_000), owed=st.integers(0, 30_000), later=st.floats(0, 3), times=st.integers(1, 64)
)
def test_it_lasts_as_often_as_it_is_found_unspent_and_once_more(
    rate: int, owed: int, later: float, times: int
) -> None:
    asked, taken = Budget(rate, 100.0), Budget(rate, 100.0)
    asked.owe(owed), taken.owe(owed)
    now, count = 100.0 + later, 1
    taken.owe(1024)
    while not taken.spent(now) and count < times:
        taken.owe(1024)
        count += 1
    assert asked.lasts(1024, times, now) == count
