"""When discovery is asked, and which answers are believed."""

import random

import pytest

from cachee_bridge.membership.discovery import ABSENCES, HURRY_S, TTL_S_MAX, TTL_S_MIN, Discovery


@pytest.fixture
def discovery() -> Discovery:
    return Discovery("dns:mesh:1", random.Random(1), now=100.0)


def answer(discovery: Discovery, named: int = 3, ttl_s: float = 10.0, now: float = 100.0) -> bool:
    discovery.due(float("inf"))
    return discovery.answered(named, ttl_s, now)


def waits(ttl_s: float) -> list[float]:
    found = []
    for seed in range(200):
        one = Discovery("dns:mesh:1", random.Random(seed), now=100.0)
        answer(one, ttl_s=ttl_s)
        found.append(one.next_due() - 100.0)
    return found


def test_it_is_asked_at_once_and_not_while_an_answer_is_awaited(discovery):
    assert discovery.due(100.0)
    assert not discovery.due(1e9)
    assert discovery.next_due() == float("inf")


def test_hosts_that_were_told_at_one_instant_ask_again_at_many_within_the_ttl():
    spread = waits(ttl_s=10.0)
    assert 5.0 <= min(spread) < 5.5
    assert 9.5 < max(spread) <= 10.0


@pytest.mark.parametrize(("ttl_s", "bound"), [(0.0, TTL_S_MIN), (86400.0, TTL_S_MAX)])
def test_a_ttl_that_is_too_short_or_too_long_is_not_followed(ttl_s, bound):
    assert bound / 2 <= min(waits(ttl_s)) <= max(waits(ttl_s)) <= bound


def test_a_lost_link_is_asked_about_soon(discovery):
    answer(discovery, ttl_s=30.0)
    discovery.hurry(101.0)
    assert 101.0 <= discovery.next_due() <= 101.0 + HURRY_S


def test_a_failure_is_repeated_after_waits_that_grow_to_a_bound(discovery):
    due = []
    for failures in range(12):
        discovery.due(float("inf"))
        assert discovery.failed("no server", 100.0) == failures + 1
        due.append(discovery.next_due() - 100.0)
    assert due[0] <= TTL_S_MIN
    assert TTL_S_MAX / 2 <= due[-1] <= TTL_S_MAX


def test_an_answer_ends_a_row_of_failures(discovery):
    discovery.failed("no server", 100.0)
    answer(discovery)
    assert (discovery.failures, discovery.failure) == (0, "")
    assert discovery.failed("no server", 100.0) == 1


def test_the_first_answer_may_name_no_host(discovery):
    assert answer(discovery, named=0)
    assert discovery.answers == 1


def test_an_answer_without_hosts_is_no_answer_after_one_with_hosts(discovery):
    assert answer(discovery, named=3)
    assert not answer(discovery, named=0)
    assert discovery.named == 3
    assert answer(discovery, named=1)


def test_only_answers_that_name_some_host_show_which_hosts_are_no_longer_named(discovery):
    for _ in range(5):
        answer(discovery, named=0)
    assert not discovery.settled
    for _ in range(ABSENCES - 1):
        answer(discovery, named=1)
    assert not discovery.settled
    answer(discovery, named=1)
    assert discovery.settled
