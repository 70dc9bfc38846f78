"""How many entries there are: exact while they are few, else by a sample."""

import pytest

import cachee_shm
from cachee_shm.testing import frozen_clock

LOOKS_MAX = 4096  # as CENSUS_LOOKS_MAX in core/census.h


def private(memory):
    return cachee_shm.attach("a", config={"namespaces": {"a": {"memory": memory}}}, private=True)


@pytest.mark.parametrize("memory", ["2MiB", "256MiB"])
@pytest.mark.parametrize("keys", [0, 1, 2, 100])
def test_a_few_keys_are_counted_exactly_in_a_segment_of_any_size(memory, keys):
    with private(memory) as cache:
        for number in range(keys):
            cache.set(f"key {number}", number)
        assert len(cache) == cache.stats()["entries"] == keys


def test_what_cannot_be_read_is_not_counted():
    with private("64MiB") as cache, frozen_clock(cache) as clock:
        for number in range(20):
            cache.set(
                f"key {number}", number, ttl=10 if number < 5 else None, tags=["t"] if number >= 15 else []
            )
        cache.set("key 19", 19)  # its older entry is dead, and so is that of a key that was deleted
        cache.delete("key 18")
        assert len(cache) == 19
        clock.tick(11)
        assert len(cache) == 14
        cache.delete_tags("t")
        assert len(cache) == 11
        cache.set("large", b"x" * 200_000)  # one value in several pieces
        assert len(cache) == 12
        cache.clear()
        assert len(cache) == 0


def test_many_are_estimated():
    with private("64MiB") as cache:
        for number in range(3 * LOOKS_MAX):
            cache.set(f"key {number}", number)
        assert 0.8 < len(cache) / (3 * LOOKS_MAX) < 1.2


def test_many_in_an_index_that_is_looked_through_whole_are_counted_exactly():
    with private("4MiB") as cache:
        for number in range(LOOKS_MAX + 10):
            cache.set(f"key {number}", number)
        assert len(cache) == LOOKS_MAX + 10
