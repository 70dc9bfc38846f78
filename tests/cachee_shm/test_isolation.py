"""What a host that is cut off from a source serves, by policy; and lines, by which that ends for good."""

import pytest

import cachee_shm

FOR_EVER = 2**63
TTL_MS = 10_000
STAMP_MS = 125  # the resolution of an entry's age, both ways


@pytest.fixture
def host(config):
    """host(policy): a cache whose bridge does not run; its clock stands, and it is not cut off yet."""
    caches = []

    def attached(policy):
        config["bridge"] = {"listen": "127.0.0.1:7946"}
        config["namespaces"]["shop"].update(on_isolation=policy, isolation_ttl=f"{TTL_MS}ms")
        cache = cachee_shm.attach(config=config)
        caches.append(cache)
        cache._freeze(cache.now_ms() // 1000 * 1000 + 1_000_000)
        cache.set_serve_until(FOR_EVER)
        return cache

    yield attached
    for cache in caches:
        cache.close()


def cut_off(cache, at_ms):
    """From `at_ms` on."""
    cache.set_serve_until(at_ms)


def at(cache, ms):
    cache._freeze(ms)
    return ms


# Cap


def test_cap_serves_what_was_loaded_a_moment_ago_before_and_after_it_began(host):
    cache = host("cap")
    start = cache.now_ms()
    cache.set("before", 1)
    cut_off(cache, at(cache, start + 5_000))
    at(cache, start + 6_000)
    cache.set("since", 1)
    at(cache, start + TTL_MS - STAMP_MS)
    assert cache.get_many(["before", "since"]) == {"before": 1, "since": 1}
    at(cache, start + TTL_MS + STAMP_MS)
    assert cache.get_many(["before", "since"]) == {"since": 1}


@pytest.mark.parametrize("policy", ["cap", "flush"])
def test_what_a_writing_block_stores_is_as_old_as_the_block(host, policy):
    """Another host may have written the origin since, and cannot say so."""
    cache = host(policy)
    start = cache.now_ms()
    cut_off(cache, start + 1)
    with cache.writing("slow") as slow:
        at(cache, start + TTL_MS + STAMP_MS)
        slow.set(1)
    with cache.writing("quick") as quick:
        quick.set(1)
    assert slow.stored and quick.stored
    assert cache.get_many(["slow", "quick"]) == {"quick": 1}
    cut_off(cache, FOR_EVER)
    assert cache.get_many(["slow", "quick"]) == {"slow": 1, "quick": 1}


# Flush


def test_flush_serves_nothing_from_before_it_began_with_no_bridge_to_evict_it(host):
    cache = host("flush")
    start = cache.now_ms()
    cache.set("before", 1)
    cache.set("mine", 1, local=True)
    cut_off(cache, at(cache, start + 1_000))
    assert cache.get("before") == 1
    at(cache, start + 1_001)
    assert cache.get_many(["before", "mine"]) == {"mine": 1}
    assert "before" not in cache
    assert cache.stats()["isolated"] == 2


@pytest.mark.parametrize("later_ms", [STAMP_MS, 1_000, TTL_MS // 2, TTL_MS - 1_000, TTL_MS, 10 * TTL_MS])
def test_flush_serves_nothing_from_before_it_began_however_long_it_lasts(host, later_ms):
    cache = host("flush")
    start = cache.now_ms()
    cache.set("before", 1)
    cache.set("mine", 1, local=True)
    cut = at(cache, start + 500)
    cut_off(cache, cut)
    at(cache, cut + later_ms)
    cache.set("since", 1)
    assert cache.get_many(["before", "mine", "since"]) == {"mine": 1, "since": 1}


def test_flush_serves_what_was_loaded_since_for_a_while(host):
    cache = host("flush")
    began = cache.now_ms()
    cut_off(cache, began)
    stored = at(cache, began + 1_000)
    cache.set("since", 1)
    at(cache, stored + TTL_MS - STAMP_MS)
    assert cache.get("since") == 1
    at(cache, stored + TTL_MS + STAMP_MS)
    assert cache.get("since") is None


def test_flush_withholds_nothing_while_the_host_is_not_cut_off(host):
    cache = host("flush")
    start = cache.now_ms()
    cache.set("a", 1)
    at(cache, start + 10 * TTL_MS)
    assert cache.get("a") == 1
    assert cache.stats()["isolated"] == 0


# Serve


def test_serve_serves_everything_and_counts_what_cap_would_have_withheld(host):
    cache = host("serve")
    start = cache.now_ms()
    cache.set("a", 1, ttl=3600)
    cut_off(cache, start)
    at(cache, start + TTL_MS - STAMP_MS)
    assert (cache.get("a"), cache.stats()["isolated"]) == (1, 0)
    at(cache, start + TTL_MS + STAMP_MS)
    assert (cache.get("a"), cache.stats()["isolated"]) == (1, 1)


def test_serve_does_not_lengthen_a_lifetime(host):
    cache = host("serve")
    start = cache.now_ms()
    cache.set("a", 1, ttl=20)
    cut_off(cache, start)
    at(cache, start + 20_001)
    assert cache.get("a") is None


@pytest.mark.parametrize("policy", ["cap", "flush", "serve"])
def test_every_policy_holds_for_decoded_objects_of_the_near_cache_too(host, config, policy):
    config["namespaces"]["shop"] |= {"near_cache": "64KiB", "near_objects": True}
    cache = host(policy)
    start = cache.now_ms()
    cache.set("a", {"old": 1})
    assert cache.get("a") is cache.get("a")
    cut_off(cache, start)
    at(cache, start + TTL_MS + STAMP_MS)
    assert cache.get("a") == ({"old": 1} if policy == "serve" else None)


# Lines


def test_a_line_separates_what_was_loaded_before_it_from_what_was_loaded_after_it(cache):
    cache.set("before", 1)
    cache.set("mine", 1, local=True)
    line = cache.draw_line()
    cache.get_or_load("since", lambda: 1)
    cache.evict_before(line)
    assert cache.get_many(["before", "mine", "since"]) == {"mine": 1, "since": 1}


def test_a_load_that_began_before_the_line_is_refused_once_the_line_counts(cache):
    line = []

    def load():
        line.append(cache.draw_line())
        cache.evict_before(line[0])
        return 1

    assert cache.get_or_load("a", load) == 1
    assert cache.get("a") is None


def test_drawing_a_line_evicts_nothing_and_is_announced_to_nobody(cache):
    cache.set("a", 1)
    tail = cache.tail
    assert cache.draw_line() == tail + 1 == cache.tail
    assert cache.pack(tail, 1000, 65536) == (tail + 1, b"")
    assert cache.get("a") == 1


def test_an_older_line_does_not_bring_anything_back(cache):
    older = cache.draw_line()
    cache.set("a", 1)
    cache.evict_before(cache.draw_line())
    cache.evict_before(older)
    assert cache.get("a") is None


def test_a_line_that_has_not_been_drawn_is_refused_and_evicts_nothing(cache):
    cache.set("a", 1)
    with pytest.raises(ValueError, match="no record has sequence"):
        cache.evict_before(cache.tail + 1)
    assert cache.get("a") == 1


def in_bucket(cache, wanted):
    """A key whose fence is the one of that bucket, or of that key."""
    shift = 65 - (16 * cache.ring_slots).bit_length()
    bucket = wanted if isinstance(wanted, int) else cache._hash(wanted) >> shift
    return next(key for n in range(1 << 22) if cache._hash(key := f"key-{n}") >> shift == bucket)


def test_a_line_concerns_no_key(cache):
    beside = in_bucket(cache, "a")
    with cache.writing("a") as block:
        cache.draw_line()
        cache.set(beside, 1)  # their fence moves: the ring is asked whose events came before
        block.set(1)
    assert cache.get("a") == 1


def test_a_line_refuses_no_load(cache):
    first = in_bucket(cache, 0)  # of the hash that the line's record has
    token = cache._token()
    cache.draw_line()
    assert cache._fill(first, 3, *token, None, 0, (), False)
