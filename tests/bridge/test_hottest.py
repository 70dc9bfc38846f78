"""The keys that are invalidated most, counted from real rings."""

from __future__ import annotations

import pytest

from cachee_bridge.http.hottest import HASHES_MAX, RECORD, SHOWN, WINDOW_S, Hottest
from cachee_shm import Cache, attach


@pytest.fixture
def cache() -> Cache:
    return attach(private=True)


def hot(cache: Cache, hottest: Hottest) -> dict[str, int]:
    """What was counted, by key."""
    names = {f"{cache._hash(f'key:{n}'):016x}": f"key:{n}" for n in range(10)}
    return {names.get(row["hash"], row["hash"]): row["count"] for row in hottest.shown()}


@pytest.fixture
def hottest(cache: Cache) -> Hottest:
    return Hottest(cache.tail, 0.0)


def test_writes_and_deletes_are_counted_by_key_the_hottest_first(cache: Cache, hottest: Hottest) -> None:
    for number, times in ((1, 2), (2, 5), (3, 1)):
        for _ in range(times):
            cache.set(f"key:{number}", number)
    cache.delete("key:3")
    cache.delete("key:3")
    hottest.look(cache, 1.0)
    assert list(hot(cache, hottest).items()) == [("key:2", 5), ("key:3", 3), ("key:1", 2)]


def test_fills_local_keys_tags_and_whole_clears_are_not_invalidations_of_a_key(
    cache: Cache, hottest: Hottest
) -> None:
    cache.get_or_load("key:1", lambda: 1)
    cache.set("key:2", 1, local=True)
    cache.delete_tags("key:3")
    cache.clear()
    hottest.look(cache, 1.0)
    assert hot(cache, hottest) == {}


def test_what_was_counted_is_forgotten_after_two_windows(cache: Cache, hottest: Hottest) -> None:
    cache.delete("key:1")
    hottest.look(cache, 1.0)
    hottest.look(cache, WINDOW_S)
    assert hot(cache, hottest) == {"key:1": 1}
    hottest.look(cache, 2 * WINDOW_S)
    assert hot(cache, hottest) == {}


def test_a_look_reads_the_newest_records_and_no_record_twice(cache: Cache, hottest: Hottest) -> None:
    for _ in range(1000):
        cache.delete("key:1")
    for _ in range(3):
        cache.delete("key:2")
    hottest.look(cache, 1.0)
    hottest.look(cache, 2.0)
    assert hot(cache, hottest) == {"key:1": 125, "key:2": 3}


def test_what_is_kept_is_bounded_and_the_hottest_stay(cache: Cache, hottest: Hottest) -> None:
    for number in range(3 * HASHES_MAX):
        cache.delete(f"other:{number}")
        if not number % 10:
            cache.delete("key:1")
        if not number % 100:
            hottest.look(cache, 1.0)
    assert len(hottest._counts) <= HASHES_MAX
    assert next(iter(hot(cache, hottest))) == "key:1"
    assert len(hottest.shown()) == SHOWN


def test_canaries_and_records_about_many_keys_are_left_out() -> None:
    rows = [(1, 5 << 54, 2, 1, 0, 0), (2, 9, 1, 1, 0, 2), (3, 0, 1, 1, 0, 0), (4, 77, 2, 0, 3, 9)]

    class Ring:
        tail = 4

        def read_ring(self, cursor: int, records_max: int) -> tuple[int, bytes]:
            return 4, b"".join(RECORD.pack(*row) for row in rows)

    hottest = Hottest(0, 0.0)
    hottest.look(Ring(), 1.0)
    assert hottest.shown() == [{"hash": f"{77:016x}", "count": 1}]


def test_a_ring_whose_records_are_lost_meanwhile_counts_nothing() -> None:
    class Lapped:
        tail = 1000

        def read_ring(self, cursor: int, records_max: int) -> None:
            return None

    hottest = Hottest(0, 0.0)
    hottest.look(Lapped(), 1.0)
    assert hottest.shown() == []
