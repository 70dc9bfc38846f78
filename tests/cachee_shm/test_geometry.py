"""How a segment's memory is divided, by its size and by the size of a typical entry (core/geometry.c)."""

import logging

import pytest

import cachee_shm

KIB, MIB = 1 << 10, 1 << 20
MEMORIES = ("2MiB", "7000001B", "32MiB", "128MiB")
ENTRY_SIZES = ("32B", "128B", "512B", "1KiB", "64KiB")


def attached(config, memory, entry_size):
    config["namespaces"]["shop"] |= {"memory": memory, "entry_size": entry_size}
    return cachee_shm.attach("shop", config=config)


def value_share(config, memory, entry_size):
    with attached(config, memory, entry_size) as cache:
        stats = cache.stats()
        return stats["value_bytes"] / stats["memory_bytes"]


def readable(config, memory, entry_size, value_bytes):
    """How many entries can be read back, after three times as much was written as there is room for."""
    with attached(config, memory, entry_size) as cache:
        value = bytes(value_bytes)
        count = 3 * cache.stats()["memory_bytes"] // (value_bytes + 40)
        for n in range(count):
            cache.set(f"{n:08}", value)
        keys = [f"{n:08}" for n in range(count)]
        return sum(len(cache.get_many(keys[n : n + 1000])) for n in range(0, count, 1000))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("entry_size", ENTRY_SIZES)
def test_values_of_any_size_are_kept_whatever_the_tables_are_made_for(config, memory, entry_size):
    with attached(config, memory, entry_size) as cache:
        values = {f"key-{size}": bytes([size % 251]) * size for size in (0, 1, 100, 1 << 10, 50 << 10)}
        assert cache.set_many(values) == []
        assert cache.get_many(values) == values
        assert cache.stats()["value_bytes"] <= cache.stats()["memory_bytes"]


def test_no_memory_is_left_over_but_less_than_a_page_and_its_tables(config):
    for memory in (2 * MIB, 7 * MIB + 1, 32 * MIB, 100 * MIB):
        with attached(config, f"{memory}B", "128B") as one, attached_twin(config, memory + 24 * KIB) as more:
            assert one.stats()["value_bytes"] < more.stats()["value_bytes"]


def attached_twin(config, memory):
    config["namespaces"]["twin"] = {"memory": f"{memory}B"}
    return cachee_shm.attach("twin", config=config)


def test_tables_for_large_entries_leave_more_memory_to_values(config):
    shares = [value_share(config, "32MiB", size) for size in ("32B", "128B", "512B", "1KiB", "16KiB")]
    assert shares == sorted(shares)
    assert shares[0] < 0.8 < 0.86 < shares[1] < 0.94 < shares[3]


def test_more_entries_of_a_size_fit_where_the_tables_are_made_for_them(config):
    assert readable(config, "8MiB", "1KiB", 1000) > 1.05 * readable(config, "8MiB", "128B", 1000)


def test_entries_smaller_than_the_tables_are_made_for_are_evicted_early_and_read_right(config):
    with attached(config, "2MiB", "64KiB") as cache:
        for n in range(5000):
            cache.set(f"key-{n}", n)
        found = cache.get_many(f"key-{n}" for n in range(5000))
        assert 0 < len(found) < 2500
        assert all(found[key] == int(key[4:]) for key in found)
        assert cache.set("last", 1)
        assert cache.get("last") == 1


def test_an_existing_segment_made_for_other_entries_wins_with_a_warning_until_all_have_left(config, caplog):
    with attached(config, "4MiB", "128B") as first:
        first.set("a", 1)
        made = first.stats()["value_bytes"]
        with caplog.at_level(logging.WARNING), attached(config, "4MiB", "1KiB") as second:
            assert second.get("a") == 1
            assert second.stats()["value_bytes"] == made
    assert "made for entries of 128 bytes, not the configured 1024" in caplog.text
    with attached(config, "4MiB", "1KiB") as third:
        assert third.get("a") is None
        assert third.stats()["value_bytes"] > made


def test_without_a_configuration_the_tables_are_made_for_small_entries(config):
    with cachee_shm.attach(private=True) as cache, attached(config, "32MiB", "128B") as configured:
        assert cache.stats()["value_bytes"] == configured.stats()["value_bytes"]
