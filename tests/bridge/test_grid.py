"""The grid of the wall clock on which all hosts tick."""

import itertools

import pytest

from cachee_bridge.shell.grid import Grid


def test_ticks_of_all_hosts_fall_on_one_grid_of_the_wall_clock() -> None:
    early, late = Grid(0.1, 1000.0), Grid(0.1, 1234.56)
    assert early.next(5.03) == pytest.approx(5.1)
    assert late.next(5.03) + 1234.56 == pytest.approx(1239.6)


def test_what_is_due_does_not_wait_for_a_slow_heartbeat() -> None:
    grid = Grid(60.0, 0.0)
    assert grid.next(7.03) == pytest.approx(7.1)
    assert grid.next(60.0) == pytest.approx(60.0)


def test_a_tick_counts_as_if_it_were_on_time() -> None:
    grid = Grid(0.1, 0.0)
    assert grid.settle(7.003) == pytest.approx(7.0)
    assert grid.next(7.1) == pytest.approx(7.1)


def test_a_beat_due_on_the_grid_is_not_a_rounding_error_too_early() -> None:
    grid = Grid(0.1, 1795402233.123)
    now, ticks = 86_400.0, []
    for _ in range(1000):
        wake = grid.next(now + 0.1)
        now = grid.settle(wake + 0.001)
        ticks.append(now)
    assert [round(after - before, 6) for before, after in itertools.pairwise(ticks)] == [0.1] * 999


def test_a_tick_that_comes_far_too_late_is_told_the_truth() -> None:
    grid = Grid(0.1, 0.0)
    grid.next(7.0)
    assert grid.settle(9.05) == 9.05
