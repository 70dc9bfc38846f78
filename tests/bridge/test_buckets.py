"""Maps of buckets on their way: cut, deflated, put together again or not at all."""

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachee_shm
from cachee_bridge.streams import buckets
from cachee_bridge.streams.buckets import (
    BUCKETS,
    BUCKETS_KNOWN,
    EVICT_WORDS,
    HEADER,
    MAP_BYTES_MAX,
    PIECE_BYTES,
    Arriving,
    MapApplication,
    Taken,
    is_piece,
    pieces_of,
    read_piece,
)
from cachee_bridge.wire.frames import PAYLOAD_BYTES_MAX
from cachee_bridge.wire.messages import PAYLOADS_ALL
from tests.bridge.meshes import FakeStore, key

RANGE = (21, 90)


def store_of(map_: bytes) -> FakeStore:
    store = FakeStore()
    store.map = map_
    return store


def payloads(map_: bytes) -> list[bytes]:
    """All that a source sends for a map."""
    return [read_piece(store_of(map_), 20, number) for number in range(1, pieces_of(len(map_)) + 1)]


def piece(number: int, pieces: int, data: bytes) -> bytes:
    return HEADER.pack(6, number, pieces) + zlib.compress(data)


@pytest.mark.fuzz
@given(st.binary(min_size=1, max_size=60), st.integers(1, 60))
def test_a_map_comes_out_as_it_went_in_however_it_is_cut(map_, piece_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "PIECE_BYTES", piece_bytes)
        sent, arriving = payloads(map_), Arriving()
        took = [arriving.take(*RANGE, payload) for payload in sent]
    assert all(map(is_piece, sent))
    assert took == [Taken.MORE] * (len(sent) - 1) + [Taken.WHOLE]
    assert bytes(arriving.map) == map_


def test_a_payload_of_records_is_no_piece():
    assert not is_piece(b"")
    assert not any(map(is_piece, PAYLOADS_ALL))
    assert not is_piece(key(6))


def test_a_piece_says_whether_writes_of_unknown_outcome_may_be_among_what_it_stands_for():
    store = FakeStore()
    store.unknown_ttl_ms = 1000
    assert read_piece(store, 0, 1)[0] == BUCKETS  # of a new segment: its predecessor's may be lost with it
    store._freeze(1000)
    assert read_piece(store, 0, 1)[0] == BUCKETS_KNOWN
    store.delete_unknown(1)
    assert read_piece(store, 0, 1)[0] == BUCKETS
    store._freeze(2000)
    assert read_piece(store, 0, 1)[0] == BUCKETS_KNOWN


def test_no_piece_is_too_large_for_a_frame_even_if_nothing_can_be_deflated():
    sent = payloads(os.urandom(MAP_BYTES_MAX))
    assert max(map(len, sent)) < PIECE_BYTES + 1024 < PAYLOAD_BYTES_MAX
    assert len(sent) <= 255


def test_a_map_that_lists_little_is_little_to_send():
    map_ = bytearray(MAP_BYTES_MAX)
    map_[5], map_[-1] = 1, 1
    assert sum(map(len, payloads(bytes(map_)))) < 10_000


def test_the_map_of_a_segment_is_as_large_as_it_says(tmp_path):
    with cachee_shm.attach("shop", private=True) as cache:
        assert len(cache.map_piece(0, 0, 1 << 30)) == cache.map_bytes <= MAP_BYTES_MAX
        assert cache.map_piece(0, cache.map_bytes, 100) == b""


class TestArriving:
    def test_a_piece_that_comes_twice_counts_once(self):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 3, b"a"))
        arriving.take(*RANGE, piece(2, 3, b"b"))
        assert arriving.take(*RANGE, piece(2, 3, b"b")) is Taken.REPEATED
        assert arriving.take(*RANGE, piece(3, 3, b"c")) is Taken.WHOLE
        assert arriving.map == b"abc"

    @pytest.mark.parametrize("number", [2, 3])
    def test_without_the_piece_before_it_a_piece_is_not_taken(self, number):
        assert Arriving().take(*RANGE, piece(number, 3, b"x")) is Taken.TORN

    def test_a_piece_that_is_left_out_is_noticed(self):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 3, b"a"))
        assert arriving.take(*RANGE, piece(3, 3, b"c")) is Taken.TORN

    @pytest.mark.parametrize(
        ("first", "last", "pieces"), [(20, 90, 3), (21, 91, 3), (21, 90, 4)], ids=["first", "last", "pieces"]
    )
    def test_pieces_of_two_maps_are_not_put_together(self, first, last, pieces):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 3, b"a"))
        assert arriving.take(first, last, piece(2, pieces, b"b")) is Taken.TORN

    def test_a_first_piece_begins_anew(self):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 2, b"a"))
        assert arriving.take(21, 95, piece(1, 2, b"c")) is Taken.MORE
        assert arriving.take(21, 95, piece(2, 2, b"d")) is Taken.WHOLE
        assert arriving.map == b"cd"

    def test_what_was_dropped_is_not_gone_on_with(self):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 2, b"a"))
        arriving.drop()
        assert arriving.take(*RANGE, piece(2, 2, b"b")) is Taken.TORN

    @pytest.mark.parametrize(
        "payload",
        [
            b"\x06",
            b"\x06\x01",
            HEADER.pack(6, 0, 1) + zlib.compress(b"x"),
            HEADER.pack(6, 2, 1) + zlib.compress(b"x"),
            HEADER.pack(6, 1, 1),
            HEADER.pack(6, 1, 1) + b"x" * 20,
            HEADER.pack(6, 1, 1) + zlib.compress(b"x" * 100)[:-1],
            HEADER.pack(6, 1, 1) + zlib.compress(b"x") + b"y",
        ],
        ids=repr,
    )
    def test_what_is_no_piece_is_refused(self, payload):
        with pytest.raises(ValueError, match="piece"):
            Arriving().take(*RANGE, payload)

    def test_a_piece_that_swells_beyond_any_map_is_refused_before_it_does(self):
        bomb = piece(1, 1, bytes(20 * MAP_BYTES_MAX))
        assert len(bomb) < 50_000
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="more than"):
                Arriving().take(*RANGE, bomb)
            assert tracemalloc.get_traced_memory()[1] < 4 * MAP_BYTES_MAX
        finally:
            tracemalloc.stop()

    def test_pieces_that_are_too_much_together_are_refused(self):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 2, bytes(MAP_BYTES_MAX)))
        with pytest.raises(ValueError, match="more than"):
            arriving.take(*RANGE, piece(2, 2, b"x"))

    def test_a_map_is_known_if_each_of_its_pieces_is(self):
        for kinds in ((9, 9), (9, 6), (6, 9), (6, 6)):
            arriving = Arriving()
            for number, kind in enumerate(kinds, 1):
                arriving.take(*RANGE, bytes((kind,)) + piece(number, 2, b"x")[1:])
            assert arriving.known is (kinds == (9, 9))

    def test_what_was_in_doubt_of_the_map_before_says_nothing_of_the_next(self):
        arriving = Arriving()
        arriving.take(*RANGE, piece(1, 2, b"a"))
        arriving.take(*RANGE, bytes((9,)) + piece(1, 1, b"b")[1:])
        assert arriving.known


class TestMending:
    @pytest.mark.parametrize("known", [True, False])
    def test_puts_all_keys_in_doubt_unless_no_outcome_is_unknown(self, known):
        store = FakeStore()
        store.unknown_ttl_ms = 1000
        store._freeze(5000)
        MapApplication(store, 3, 90, store.map, known)
        assert store.doubted_until(1) == (0 if known else 6000)

    def test_fences_come_first_and_evictions_a_part_at_a_time(self):
        store = FakeStore()
        store.words = 2 * EVICT_WORDS + 5
        store.write(key(1))
        store.hold(1, EVICT_WORDS + 1, 2 * EVICT_WORDS + 1)
        mending = MapApplication(store, 3, 90, store.map, False)
        assert (store.mended, mending.evicted) == ([(3, store.map)], 0)
        assert [mending.go_on() for _ in range(4)] == [False, False, False, True]  # fences again, then words
        assert (mending.evicted, store.entries) == (3, {})

    def test_what_is_no_map_is_refused(self):
        with pytest.raises(ValueError):
            MapApplication(FakeStore(), 3, 90, b"\xff", False)
