"""Which keys of users the checker samples, and which values of them a peer may hold."""

from __future__ import annotations

import random

import pytest

import cachee_shm
from cachee_bridge.checker.samples import SAMPLES_MAX, Sample, digest_bits, is_older, samples_of
from cachee_bridge.wire.messages import ABSENT, LOCAL, SHARED, Holding
from tests.bridge.hosts import hosts


@pytest.fixture
def cache(tmp_path):
    """Of a host with a [bridge], which does not run: without, records have no digests."""
    with hosts(tmp_path, 1) as (host,):
        yield host.attach()


def sampled(cache: cachee_shm.Cache, after: int) -> dict[int, Sample]:
    return {one.hash: one for one in samples_of(cache, after, random.Random(1))}


class TestChoice:
    def test_a_key_is_sampled_with_its_last_write(self, cache):
        cache.set("k", 1)
        cache.set("k", 2)
        hashed = cache._hash("k")
        (one,) = sampled(cache, 0).values()
        assert (one.hash, one.position) == (hashed, cache.tail)
        assert one.digest == digest_bits(cache.holding(hashed)[4])
        cache.delete("k")
        (one,) = sampled(cache, 0).values()
        assert (one.position, one.digest) == (cache.tail, 0)

    def test_what_was_written_before_is_not(self, cache):
        cache.set("k", 1)
        after = cache.tail
        assert sampled(cache, after) == {}
        cache.set("j", 1)
        assert list(sampled(cache, after)) == [cache._hash("j")]

    def test_nor_are_local_keys_tags_clears_canaries_lines_and_what_peers_wrote(self, cache):
        cache.bridge_acquire()
        source = cache.source_open("web-2")
        cache.set("mine", 1, local=True)
        cache.delete_tags("t")
        cache.clear()
        cache.canary_set(cache.canary_hash(1), b"a 1")
        cache.draw_line()
        cache.apply(source, b"\1" + cache._hash("theirs").to_bytes(8, "little"))
        assert sampled(cache, 0) == {}

    def test_there_are_few_of_many(self, cache):
        for number in range(2000):
            cache.set(f"k{number}", 1)
        assert len(sampled(cache, 0)) == SAMPLES_MAX

    def test_nor_is_a_value_without_a_digest(self, cache):
        cache.set("k", 1)
        cache.set("large", bytes(100_000))
        assert list(sampled(cache, 0)) == [cache._hash("k")]

    def test_a_ring_that_was_overwritten_or_is_anothers_gives_none(self, cache):
        cache.set("k", 1)
        assert sampled(cache, cache.tail + 10) == {}


class TestAge:
    WRITTEN_AT, NOW = 100.0, 110.0

    def older(self, held: int = SHARED, age_s: float = 30.0, theirs: int = 0x50001, digest: int = 0) -> bool:
        holding = Holding(5, held, 4, 4, int(age_s * 1000), theirs, b"")
        return is_older(holding, digest, self.WRITTEN_AT, self.NOW)

    def test_what_was_there_before_the_write_is_older(self):
        assert self.older(age_s=10.2)

    def test_what_may_have_come_after_it_is_not(self):
        assert not self.older(age_s=9.9)
        assert not self.older(age_s=10.1)  # an eighth of a second is in doubt

    def test_nothing_and_a_local_value_are_not(self):
        assert not self.older(held=ABSENT)
        assert not self.older(held=LOCAL)

    def test_a_value_of_the_announced_bytes_may_stay(self):
        assert not self.older(theirs=0x51234, digest=0x1234)
        assert self.older(theirs=0x51235, digest=0x1234)
        assert not self.older(theirs=0x50000, digest=1)  # as write.h has it
        assert self.older(theirs=0x51234, digest=0)
