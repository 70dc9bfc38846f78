"""Memory written full: what is written, what is found again, and what is counted as failed."""

import os
import random

import pytest

from tests import machine
from tests.bench.test_bench import BENCH

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture
def write(cache):
    """Writes a load, so many bytes of it, into a cache of 4 MiB."""
    from filling import Writer

    def write(load, budget):
        return Writer(0, load, cache.set, cache.__contains__).write(budget)

    return write


def test_what_was_written_is_found_and_nothing_else(cache, write):
    from filling import Load, name, names, sizes_held

    count = write(Load("", 100, 100), 50_000)
    assert (count.sets, count.failed) == (count.keys, 0)
    cache.set("another", b"")
    cache.delete(name(0, 7))
    assert list(sizes_held(cache.get_many, names([count]))) == [100] * (count.keys - 1)


def test_an_overwrite_writes_a_key_that_is_there(cache, write):
    from filling import Load

    count = write(Load("", 100, 100, 0.5), 50_000)
    assert 0.4 * count.sets < count.keys < 0.6 * count.sets
    assert len(cache) == count.keys


def test_a_set_that_raises_is_a_failed_one(write):
    from filling import Load

    count = write(Load("", 4 * MIB, 4 * MIB), 1)
    assert (count.sets, count.failed) == (1, 1)


def test_a_mixture_has_as_many_values_in_each_power_of_two():
    from filling import Load

    draw, load = random.Random(1), Load("", 64, MIB)
    sizes = [load.size(draw) for _ in range(14_000)]
    assert min(sizes) >= 64
    assert max(sizes) < MIB
    assert all(800 < sum(1 << p <= size < 2 << p for size in sizes) < 1200 for p in range(6, 20))
    assert load.upto(1000).most == 1000


@pytest.mark.parametrize("writers", [1, 2])
def test_a_segment_that_was_written_full_is_full_and_no_larger(writers):
    from filling import Load, fill_cachee
    from room import entry_bytes, layout_numbers

    held = fill_cachee(Load("", 1024, 1024), 2 * MIB, writers)
    entry = entry_bytes(1024, 16 << 10, layout_numbers())
    assert held.failed == 0
    assert held.sets * entry > 2 * held.room
    assert held.entries * entry == held.with_headers
    assert 0.7 < held.live < held.live_with_headers <= 1
    assert held.file == held.memory == 2 * MIB


def test_chunks_of_memcached_are_counted_where_they_are_used():
    from filling_rivals import chunk_bytes

    slabs = {
        "1:chunk_size": 96,
        "1:used_chunks": 3,
        "1:free_chunks": 9,
        "4:chunk_size": 200,
        "4:used_chunks": 2,
    }
    assert chunk_bytes({**slabs, "active_slabs": 2, "total_malloced": 2 * MIB}) == 3 * 96 + 2 * 200


@pytest.mark.parametrize("rival", ["memcached", "warp_cache"])
def test_what_a_rival_holds_is_found_again(rival, tmp_path):
    from filling import Load
    from filling_rivals import fill_memcached, fill_warp_cache
    from measuring import Apart
    from rivals import Absent

    cores = frozenset(os.sched_getaffinity(0))
    load, memory = Load("", 100, 100), 2 * MIB
    try:
        if rival == "memcached":
            held = fill_memcached(load, memory, tmp_path, Apart(cores, cores))
        else:
            held = fill_warp_cache(load, memory)
    except Absent as reason:
        machine.skip("rival", str(reason))
    assert held.failed == 0
    assert 0 < held.entries * 108 == held.key_value < held.memory
