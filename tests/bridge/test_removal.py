"""Removing a host: a line is drawn, and what was loaded before the line is evicted at the end."""

import pytest

from cachee_bridge.sources.removal import Removal
from tests.bridge.meshes import FakeStore, key


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def removal(store: FakeStore) -> Removal:
    return Removal(store)


def test_nothing_is_evicted_when_a_removal_begins(removal, store):
    assert removal.begin("web-2", 100.0)
    assert removal.under_way
    assert (store.tail, store.evicted_before, store.applied) == (1, [], [])


def test_beginning_twice_is_beginning_once(removal, store):
    removal.begin("web-2", 100.0)
    assert not removal.begin("web-2", 105.0)
    assert (store.tail, removal.ends_at()) == (1, 110.0)


def test_at_its_end_goes_what_lies_before_the_line_and_nothing_that_came_since(removal, store):
    removal.begin("web-2", 100.0)
    store.write(key(1), key(2))
    assert removal.end() == {"web-2"}
    assert store.evicted_before == [1]
    assert removal.ends_at() == float("inf")


def test_one_line_serves_all_removals_and_is_that_of_the_last(removal, store):
    removal.begin("web-2", 100.0)
    store.write(key(1))
    removal.begin("web-3", 105.0)
    assert removal.ends_at() == 115.0
    assert removal.end() == {"web-2", "web-3"}
    assert store.evicted_before == [3]


def test_a_host_that_comes_back_is_not_removed_and_nothing_is_evicted_for_it(removal):
    removal.begin("web-2", 100.0)
    removal.cancel("web-2")
    assert not removal.under_way
    assert not removal.covers_unknown_sources()
    assert removal.ends_at() == float("inf")


def test_a_line_because_of_which_a_birth_was_believed_is_kept_when_the_lost_host_comes_back(removal, store):
    removal.begin("web-2", 100.0)
    assert removal.covers_unknown_sources()
    removal.cancel("web-2")
    assert (removal.under_way, removal.ends_at()) == (True, 110.0)
    assert removal.end() == set()
    assert store.evicted_before == [1]
    assert not removal.under_way


def test_when_another_host_is_lost_too_no_birth_is_believed_until_another_line(removal):
    removal.begin("web-2", 100.0)
    removal.interrupt()
    assert not removal.covers_unknown_sources()
    removal.begin("web-3", 101.0)
    assert removal.covers_unknown_sources()
