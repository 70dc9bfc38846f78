"""Maps of buckets: what a lapped peer is told, and what it evicts, between two real segments."""

import random
import struct

import pytest

import cachee_shm

NOTHING, WIRE_CLEAR, WIRE_ALL, WIRE_BUCKETS = b"", b"\x04", b"\x08", b"\x09"
ALL_IN_DOUBT, BUCKETS_IN_DOUBT = b"\x05", b"\x06"
MINUTE_MS = 60_000
WHOLE = 1 << 30
SIZES = [("4MiB", "4MiB"), ("4MiB", "64MiB"), ("64MiB", "4MiB")]
"""Of the source and of the reader: as many buckets, more, fewer."""


@pytest.fixture
def pair():
    """Segments of two hosts of one namespace, of any sizes."""
    made = []

    def attach(*sizes):
        for memory in sizes:
            config = {"defaults": {"memory": memory, "default_ttl": "1h", "unknown_ttl": "0s"}}
            made.append(cachee_shm.attach("shop", private=True, config=config))
        return made[-len(sizes) :]

    yield attach
    for cache in made:
        cache.close()


def map_of(source, cursor=0):
    assert source.missed(cursor) == WIRE_BUCKETS
    return source.map_piece(cursor, 0, WHOLE)


def fence(reader, map_, index=1, steps=1000):
    """The version for `evict_map`."""
    version = at = 0
    while True:
        version, at = reader.fence_map(index, map_, version, at, steps)
        if not at:
            return version


def mend(reader, map_, words=1000):
    """As the bridge applies it; how many entries were evicted."""
    index = reader.source_open("peer")
    version, at, evicted = fence(reader, map_, index, words), 0, 0
    while True:
        at, some = reader.evict_map(index, map_, version, at, words)
        evicted += some
        if not at:
            return evicted


def fill(cache, keys, value="loaded", **options):
    for key in keys:
        assert cache.get_or_load(key, lambda: value, **options) == value


def test_nothing_is_owed_where_nothing_was_announced(pair):
    (source,) = pair("4MiB")
    source.set("draft", 1, local=True)
    source.apply(source.source_open("peer"), struct.pack("<BQ", 1, source._hash("heard")))
    assert source.missed(0) == NOTHING


def test_records_that_were_only_applied_from_peers_are_not_in_the_map(pair):
    source, other = pair("4MiB", "4MiB")
    other.set("own", 1)
    source.set("own", 1)
    map_ = map_of(other)
    for number in range(200):
        source.apply(source.source_open("peer"), struct.pack("<BQ", 1, source._hash(f"heard{number}")))
    assert map_of(source) == map_


def test_a_clear_stands_for_all_that_came_before_it(pair):
    (source,) = pair("4MiB")
    source.set("a", 1)
    source.clear()
    assert source.missed(1) == WIRE_CLEAR
    source.set("a", 1)
    assert source.missed(2) == WIRE_BUCKETS


@pytest.fixture
def unsure():
    """Some write that it announces may have an unknown outcome. It was born a minute ago."""
    config = {"defaults": {"memory": "4MiB", "unknown_ttl": "30s"}}
    with cachee_shm.attach("shop", private=True, config=config) as cache:
        assert cache.in_doubt  # a new one, whose predecessor may have announced something
        cache._freeze(cache.now_ms() + MINUTE_MS)
        yield cache


def told(source, cursor=0):
    return source.missed(cursor), source.missed(1 << 40), source.in_doubt


def test_a_lapped_peer_is_told_whether_writes_of_unknown_outcome_may_be_among_what_it_missed(unsure):
    unsure.set("a", 1)
    assert told(unsure) == (WIRE_BUCKETS, WIRE_ALL, False)
    unsure._delete_unknown(0, b"a")
    assert told(unsure) == (BUCKETS_IN_DOUBT, ALL_IN_DOUBT, True)
    unsure._freeze(unsure.now_ms() + 29_999)
    assert told(unsure) == (BUCKETS_IN_DOUBT, ALL_IN_DOUBT, True)
    unsure._freeze(unsure.now_ms() + 1)
    assert told(unsure) == (WIRE_BUCKETS, WIRE_ALL, False)


def test_a_clear_does_not_hide_writes_of_unknown_outcome(unsure):
    """A peer that is told of the clear alone would cap no fill."""
    unsure.clear()
    assert unsure.missed(0) == WIRE_CLEAR
    unsure._delete_unknown(0, b"a")
    assert unsure.missed(0) == ALL_IN_DOUBT


@pytest.mark.parametrize("kind", [1, 2], ids=["a tag", "a clear"])
def test_a_tag_or_clear_may_be_a_write_of_unknown_outcome(unsure, kind):
    unsure._delete_unknown(kind, b"team")
    assert unsure.in_doubt


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("what", ["a map", "everything"])
def test_loads_are_capped_only_if_a_missed_write_may_have_an_unknown_outcome(unsure, pair, known, what):
    (source,) = pair("4MiB")
    source.set("other", 1)
    if what == "a map":
        unsure.fence_map(unsure.source_open("peer"), map_of(source), 0, 0, WHOLE, known)
    else:
        unsure.apply(unsure.source_open("peer"), WIRE_ALL if known else ALL_IN_DOUBT)
    fill(unsure, ["a"], ttl=3600)
    unsure._freeze(unsure.now_ms() + MINUTE_MS)
    assert ("a" in unsure) is known


def test_a_cursor_that_the_ring_never_reached_is_answered_by_all(pair):
    (source,) = pair("4MiB")
    assert source.missed(1) == WIRE_ALL


@pytest.mark.parametrize("sizes", SIZES, ids="-".join)
def test_what_was_written_after_the_cursor_is_evicted_and_little_else(pair, sizes):
    source, reader = pair(*sizes)
    held = [f"k{number}" for number in range(2000)]
    fill(reader, held)
    source.set("before", 1)
    cursor = source.tail
    written = held[::100]
    for _ in range(2):
        source.set_many(dict.fromkeys(written, "new"))
    evicted = mend(reader, map_of(source, cursor))
    left = reader.get_many(held)
    assert not left.keys() & set(written)
    assert len(left) == len(held) - evicted >= len(held) - len(written) - 20


@pytest.mark.parametrize("sizes", SIZES, ids="-".join)
def test_after_a_whole_ring_of_writes_at_most_a_sixteenth_of_the_other_entries_is_evicted(pair, sizes):
    source, reader = pair(*sizes)
    held = [f"k{number}" for number in range(5000)]
    fill(reader, held)
    for number in range(source.ring_slots):
        source.delete(f"other{number}")
    assert mend(reader, map_of(source)) <= len(held) * 0.08


@pytest.mark.parametrize("sizes", SIZES, ids="-".join)
def test_a_load_that_began_before_is_refused_and_one_that_began_after_is_not(pair, sizes):
    source, reader = pair(*sizes)
    token = reader._token()
    source.delete("a")
    mend(reader, map_of(source))
    assert not reader._fill("a", "old", *token, 60, 0, (), False)
    assert reader._fill("b", "other", *token, 60, 0, (), False)
    assert reader._fill("a", "new", *reader._token(), 60, 0, (), False)
    assert reader.get_many(["a", "b"]) == {"a": "new", "b": "other"}


def test_a_load_is_refused_as_soon_as_the_fences_are_up(pair):
    source, reader = pair("4MiB", "4MiB")
    token = reader._token()
    source.delete("a")
    fence(reader, map_of(source))
    assert not reader._fill("a", "old", *token, 60, 0, (), False)


def test_a_writing_block_that_was_open_stores_nothing(pair):
    source, reader = pair("4MiB", "4MiB")
    with reader.writing("a") as block:
        source.delete("a")
        mend(reader, map_of(source))
        block.set("mine")
    assert reader.get("a") is None


@pytest.mark.parametrize("sizes", SIZES, ids="-".join)
def test_the_map_has_tags_too(pair, sizes):
    source, reader = pair(*sizes)
    fill(reader, ["a"], tags=["team:7"])
    fill(reader, ["b"], tags=["team:8"])
    token = reader._token()
    source.delete_tags("team:7")
    assert mend(reader, map_of(source)) == 0
    assert reader.get_many(["a", "b"]) == {"b": "loaded"}
    assert not reader._fill("c", "old", *token, 60, 0, ("team:7",), False)


def test_local_values_are_spared(pair):
    source, reader = pair("4MiB", "4MiB")
    reader.set("mine", 1, local=True)
    source.delete("mine")
    assert mend(reader, map_of(source)) == 0
    assert reader.get("mine") == 1


def test_values_of_spans_are_evicted(pair):
    source, reader = pair("4MiB", "4MiB")
    fill(reader, ["large"], value=b"x" * 50_000)
    source.delete("large")
    assert mend(reader, map_of(source)) == 1
    assert reader.get("large") is None


def test_a_value_that_was_stored_after_the_fences_were_raised_is_kept(pair):
    source, reader = pair("4MiB", "4MiB")
    source.delete("a")
    map_ = map_of(source)
    version = fence(reader, map_)
    fill(reader, ["a"])
    assert reader.evict_map(1, map_, version, 0, WHOLE) == (0, 0)
    assert reader.get("a") == "loaded"


def test_nothing_that_was_applied_is_announced(pair):
    source, reader = pair("4MiB", "4MiB")
    source.delete("a")
    mend(reader, map_of(source))
    assert reader.missed(0) == NOTHING
    assert reader.pack(0, 100, 1000) == (reader.tail, b"")


def test_pieces_that_are_read_while_the_source_writes_on_miss_nothing(pair):
    source, reader = pair("4MiB", "4MiB")
    keys = [f"k{number}" for number in range(500)]
    fill(reader, keys)
    source.delete_many(keys[:250])
    pieces, at = [], 0
    while piece := source.map_piece(0, at, 100):
        source.delete(random.choice(keys[250:]))
        pieces.append(piece)
        at += len(piece)
    mend(reader, b"".join(pieces))
    assert not reader.get_many(keys[:250])


@pytest.mark.parametrize("sizes", SIZES, ids="-".join)
@pytest.mark.parametrize("steps", [1 << 9, 1 << 30])
def test_a_map_goes_up_in_bounded_calls_and_none_of_its_fences_is_left_out(pair, sizes, steps):
    source, reader = pair(*sizes)
    keys = [f"key-{n}" for n in range(300)]
    token = reader._token()
    for key in keys:
        source.delete(key)
    map_, calls, version, at = map_of(source), 0, 0, 0
    before = reader.tail
    while True:
        version, at = reader.fence_map(1, map_, version, at, steps)
        calls += 1
        if not at:
            break
        reader.draw_line()  # others go on meanwhile
    assert calls >= 2
    assert version >> 1 <= reader.tail
    assert reader.tail == before + 2 + calls - 1
    assert not any(reader._fill(key, "old", *token, 60, 0, (), False) for key in keys)


def test_a_map_whose_passes_are_mixed_up_begins_anew(pair):
    source, reader = pair("4MiB", "4MiB")
    source.delete("a")
    map_ = map_of(source)
    tail = reader.tail
    version, at = reader.fence_map(1, map_, 0, 1 << 63, 1 << 30)
    assert (version, reader.tail) == (tail + 1, tail + 1)
    assert at
