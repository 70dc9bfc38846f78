"""len() and bool(): how many entries can be read, by a look that is bounded."""

import cachee_shm


def test_a_cache_is_true_even_when_it_is_empty(cache):
    assert len(cache) == 0
    assert cache
    cache.close()
    assert cache


def test_len_counts_what_can_be_read(cache):
    cache.set_many({f"key-{n}": n for n in range(100)}, tags=["t"])
    assert len(cache) == cache.stats()["entries"] == 100
    cache.delete("key-0")
    assert len(cache) == 99
    cache.delete_tags("t")
    assert len(cache) == 0
    cache.set_many({f"key-{n}": n for n in range(50)})
    cache.clear()
    assert len(cache) == 0
    cache.set("again", 1)
    assert len(cache) == 1
    cache._freeze(1_000_000)
    cache.set("short", 1, ttl=1)
    assert len(cache) == 2
    cache._freeze(1_001_000)
    assert len(cache) == 1


def test_len_of_a_large_cache_is_an_estimate_that_is_small_after_clear():
    config = {"defaults": {"memory": "256MiB"}}
    with cachee_shm.attach(config=config, private=True) as large:
        large.set_many({f"key-{n}": n for n in range(100_000)})
        assert 90_000 < len(large) < 110_000
        large.clear()
        assert len(large) == 0
        large.set_many({f"key-{n}": n for n in range(1000)})
        assert len(large) < 10_000
