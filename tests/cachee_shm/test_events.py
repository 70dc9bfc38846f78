"""A cursor over the ring: what was written, by whom, in the ring's order."""

import asyncio
import itertools
import os
import struct
import threading
import time

import pytest

import cachee_shm
from cachee_shm.errors import Closed, KeyTooLong, Lapped
from tests.cachee_shm.processes import child


def kinds(events):
    return [event.kind for event in events.poll()]


def test_every_kind_of_write_is_an_event_in_the_order_it_happened(cache):
    events = cache.events()
    cache.set("a", 1)
    cache.add("b", 1)
    cache.delete("a")
    cache.set("c", 1, local=True)
    cache.delete_tags("t")
    cache.clear()
    with cache.writing("a") as w:
        w.set(2)
    seen = events.poll()
    assert [event.kind for event in seen] == ["set", "add", "delete", "local", "tag", "clear", "set"]
    assert [event.sequence for event in seen] == list(range(1, 8))
    assert [event.hash for event in seen[:4]] == [cache._hash(key) for key in "abac"]
    assert {event.source for event in seen} == {cache.spec.host}
    assert {event.key for event in seen} == {None}
    assert events.poll() == []


def test_reads_and_loads_are_no_events(cache):
    events = cache.events()
    cache.get("a")
    cache.get_or_load("a", lambda: 1)
    cache.touch("a", ttl=5)
    assert events.poll() == []


def test_events_begin_with_what_comes_after(cache):
    cache.set("a", 1)
    events = cache.events()
    cache.delete("a")
    assert kinds(events) == ["delete"]


def test_events_of_named_keys_are_theirs_and_whatever_evicts_all(cache):
    events = cache.events(keys=["flag", b"bytes"])
    cache.set("flag", 1)
    cache.set("other", 1)
    cache.delete_tags("flag")
    cache.delete("bytes")
    cache.clear()
    assert [(event.key, event.kind) for event in events.poll()] == [
        ("flag", "set"),
        (b"bytes", "delete"),
        (None, "clear"),
    ]


def test_a_key_that_cannot_be_one_is_refused_at_once(cache):
    with pytest.raises(KeyTooLong):
        cache.events(keys=["x" * 2000])


def test_a_peer_s_records_bear_its_name(cache):
    one, two = cache.source_open("web-1"), cache.source_open("web-2")
    events = cache.events(keys=["a"])
    hash_ = cache._hash("a")
    cache.apply(one, struct.pack("<BQ", 1, hash_))
    cache.apply(two, struct.pack("<BQQ", 2, hash_, 5) + struct.pack("<B", 4) + struct.pack("<B", 5))
    assert [(event.source, event.kind) for event in events.poll()] == [
        ("web-1", "delete"),
        ("web-2", "set"),
        ("web-2", "clear"),
        ("web-2", "flush"),
    ]


def test_a_map_of_buckets_is_one_flush_when_all_of_it_is_evicted(cache):
    source = cache.source_open("web-1")
    every = b"\x03\x03\xff\xff"
    events = cache.events(keys=["a"])
    version, at = cache.fence_map(source, every, 0, 0, 1 << 30)
    version, at = cache.fence_map(source, every, version, at, 1 << 30)
    assert (at, events.poll()) == (0, [])
    cache.evict_map(source, every, version, 0, 1 << 30)
    assert [(event.source, event.kind, event.key) for event in events.poll()] == [("web-1", "flush", None)]


def test_events_cross_processes(cache, config):
    code = """
events = cache.events(keys=['a'])
say('ready')
for event in events:
    say(event.kind, event.key, event.sequence)
    if event.kind == 'delete': break
"""
    with child(code, config=config) as listener:
        listener.line()
        cache.set("b", 1)
        cache.set("a", 1)
        cache.delete("a")
        assert listener.end() == ["set a 2", "delete a 3"]


def test_a_loop_waits_for_what_comes(cache):
    events = cache.events()
    writer = threading.Timer(0.02, cache.set, ("a", 1))
    writer.start()
    assert next(iter(events)).kind == "set"
    writer.join()


def test_an_async_loop_waits_without_blocking(cache):
    async def main():
        events = cache.events()
        asyncio.get_running_loop().call_later(0.02, cache.set_many, {"a": 1, "b": 2})
        seen = []
        async for event in events:
            seen.append(event.hash)
            if len(seen) == 2:
                return seen

    assert asyncio.run(main()) == [cache._hash("a"), cache._hash("b")]


def test_a_reader_that_fell_behind_is_told_once_what_it_lost_and_goes_on(cache):
    events = cache.events()
    cache.set("a", 1)
    for _ in range(cache.ring_slots):
        cache.delete("b")
    with pytest.raises(Lapped) as lapped:
        next(iter(events))
    assert (lapped.value.lost_from, lapped.value.lost_to) == (1, cache.ring_slots + 1)
    assert events.poll() == []
    cache.set("a", 2)
    assert next(iter(events)).sequence == cache.ring_slots + 2


def test_a_whole_ring_can_be_read_and_no_more(cache):
    events = cache.events()
    for _ in range(cache.ring_slots):
        cache.delete("b")
    read = list(itertools.chain.from_iterable(iter(events.poll, [])))
    assert [event.sequence for event in read] == list(range(1, cache.ring_slots + 1))


@pytest.mark.parametrize("keys", [None, ["a"]])
def test_when_the_segment_was_replaced_the_reader_is_lapped_and_follows(namespace, keys):
    with cachee_shm.attach(namespace) as cache:
        events = cache.events(keys=keys)
        cache.set("a", 1)
        cache.retire()
        cache.set("a", 2)
        with pytest.raises(Lapped):
            events.poll()
        cache.set("a", 3)
        assert [(event.kind, event.key) for event in events.poll()] == [("set", keys and "a")]


def test_events_of_a_closed_cache_say_so(config):
    cache = cachee_shm.attach(config=config)
    events = cache.events()
    cache.close()
    with pytest.raises(Closed):
        events.poll()


def heard(cache, name):
    """A record of that host; its slot is given up again."""
    index = cache.source_open(name)
    cache.apply(index, bytes([1]) + struct.pack("<Q", cache._hash("k")))
    cache.source_forget(index)
    return index


def test_an_event_names_the_host_where_it_began_though_its_slot_is_another_s_by_now(cache):
    events = cache.events()
    first = heard(cache, "web-a")
    fillers = []
    while not fillers or fillers[-1] != first:  # all others, then its own
        fillers.append(cache.source_open(f"other-{len(fillers)}"))
    cache.source_forget(first)
    assert heard(cache, "web-b") == first
    assert [event.source for event in events.poll()] == ["", "web-b"]  # two others had the slot since


def test_an_event_does_not_bear_the_name_of_a_host_that_got_the_slot_later(cache):
    events = cache.events()
    first = heard(cache, "web-a")
    fillers = []
    while not fillers or fillers[-1] != first:
        fillers.append(cache.source_open(f"other-{len(fillers)}"))
    cache.apply(first, bytes([4]))
    assert [event.source for event in events.poll()] == ["web-a", f"other-{len(fillers) - 1}"]


def test_a_slot_that_has_just_been_given_up_is_the_last_to_be_given_away(cache):
    assert heard(cache, "web-a") != heard(cache, "web-b")
    assert heard(cache, "web-a") != heard(cache, "web-b")


def test_a_segment_that_is_replaced_between_two_looks_is_reported_as_a_gap(config):
    class Replaced(cachee_shm.Cache):
        replaced = False

        def read_ring(self, cursor, count):
            if not self.replaced:
                self.replaced = True
                os.unlink(f"/dev/shm{self.name}")
                time.sleep(0.02)  # another tick of the coarse clock
                for key in ("a", "b", "c"):
                    self.set(key, 1)
            return super().read_ring(cursor, count)

    with cachee_shm.attach(config=config) as before:
        cache = Replaced(before.spec)
        cache.set("a", 1)
        events = cache.events()
        with pytest.raises(Lapped):
            events.poll()
        cache.set("d", 1)
        assert kinds(events) == ["set"]
        cache.close()
