"""Canaries: they go the way of every value, and are left out of all that people count."""

import pytest

import cachee_shm
from tests.cachee_shm.bridged import with_bridge

HASHES = 1 << 20


@pytest.fixture
def cache(config):
    with cachee_shm.attach(config=with_bridge({**config, "namespaces": {"shop": {"memory": "8MiB"}}})) as it:
        assert it.bridge_acquire()
        yield it


def wire_key(hashed):
    return b"\1" + hashed.to_bytes(8, "little")


def test_a_canary_is_held_by_its_hash_with_its_value_and_the_position_of_its_write(cache):
    hashed = cache.canary_hash(7)
    assert cache.canary_set(hashed, b"web-1 1")
    held, version, fence, age_ms, digest, value = cache.holding(hashed)
    assert (held, version, fence, value) == (1, cache.tail << 1, cache.tail, b"web-1 1")
    assert age_ms <= 1000 and digest


def test_a_peers_event_evicts_a_canary_and_moves_its_fence(cache):
    hashed, source = cache.canary_hash(7), cache.source_open("web-2")
    assert cache.canary_fill(hashed, b"web-2 1", cache.tail)
    assert cache.holding(hashed)[0] == 1
    cache.apply(source, wire_key(hashed))
    assert cache.holding(hashed)[:3] == (0, 0, cache.tail)


def test_a_fill_is_refused_when_its_fence_moved_after_its_token(cache):
    hashed, source = cache.canary_hash(7), cache.source_open("web-2")
    token = cache.tail
    cache.apply(source, wire_key(hashed))
    assert not cache.canary_fill(hashed, b"web-2 1", token)
    assert cache.holding(hashed)[0] == 0
    assert cache.canary_fill(hashed, b"web-2 2", cache.tail)


def test_canaries_are_not_in_len_nor_in_any_statistic_nor_in_events(cache):
    source, events = cache.source_open("web-2"), cache.events()
    cache.set("k", 1)
    events.poll()
    before, held = cache.stats(), len(cache)
    for number in range(50):
        hashed = cache.canary_hash(number)
        assert cache.canary_set(hashed, b"web-1 1")
        cache.apply(source, wire_key(hashed) + b"\2" + hashed.to_bytes(8, "little") + bytes(8))
        assert cache.canary_fill(hashed, b"web-2 1", cache.tail)
        assert not cache.canary_fill(hashed, b"web-2 1", 0)
        cache.holding(hashed)
    after = cache.stats()
    names = (
        *("hits", "misses", "sets", "sets_lost", "sets_guarded", "fills", "fills_refused", "deletes"),
        *("invalidated", "applied_kept", "no_room", "expired"),
    )
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    assert len(cache) == held == 1
    assert events.poll() == []
    cache.set("k", 2)
    assert [event.kind for event in events.poll()] == ["set"]


def test_no_key_of_a_user_is_a_canary_and_no_canary_is_a_key(cache):
    reserved = {cache.canary_hash(number) for number in range(HASHES)}
    assert len(reserved) == HASHES - 1 and 0 not in reserved
    assert reserved.isdisjoint(cache._hash(f"k{number}") for number in range(100_000))
    for verb in (lambda h: cache.canary_set(h, b""), lambda h: cache.canary_fill(h, b"", 0)):
        for hashed in (0, 1, cache._hash("k"), cache.canary_hash(1) | 1):
            with pytest.raises(ValueError, match="no canary"):
                verb(hashed)


def test_a_canary_has_at_most_96_bytes(cache):
    assert cache.canary_set(cache.canary_hash(1), bytes(96))
    with pytest.raises(ValueError, match="96 bytes"):
        cache.canary_set(cache.canary_hash(1), bytes(97))


class TestHolding:
    def test_of_a_users_key_is_told_that_it_is_there_and_not_what(self, cache):
        cache.set("k", b"secret")
        held, version, fence, _, digest, value = cache.holding(cache._hash("k"))
        assert (held, version, fence, value) == (1, cache.tail << 1, cache.tail, b"")
        cache.set("k", b"another")
        assert cache.holding(cache._hash("k"))[4] != digest
        cache.set("k", b"secret")
        assert cache.holding(cache._hash("k"))[4] == digest

    def test_of_a_local_key_and_of_none(self, cache):
        cache.set("mine", 1, local=True)
        assert cache.holding(cache._hash("mine"))[0] == 2
        assert cache.holding(cache._hash("none"))[:2] == (0, 0)
        cache.delete("mine")
        assert cache.holding(cache._hash("mine"))[:3] == (0, 0, cache.tail)

    def test_what_a_clear_or_a_lifetime_has_ended_is_not_held(self, cache):
        now = cache.now_ms()
        cache._freeze(now)
        cache.set("k", 1, ttl=1)
        assert cache.holding(cache._hash("k"))[0] == 1
        cache._freeze(now + 1001)
        assert cache.holding(cache._hash("k"))[0] == 0
        cache.set("k", 1)
        cache.clear()
        assert cache.holding(cache._hash("k"))[0] == 0

    def test_a_value_in_spans_has_no_digest(self, cache):
        cache.set("k", bytes(100_000))
        assert cache.holding(cache._hash("k"))[4] == 0

    def test_its_age_counts_from_the_load_and_is_at_most_an_eighth_of_a_second_too_much(self, cache):
        now = cache.now_ms()
        cache._freeze(now)
        cache.set("k", 1)
        for later in (0, 30, 500, 10_000):
            cache._freeze(now + later)
            assert later <= cache.holding(cache._hash("k"))[3] <= later + 125
