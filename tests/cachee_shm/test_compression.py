"""Large values are compressed where the namespace says so, and what they unpack to is bounded."""

import logging
import struct
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import cachee_shm
from cachee_shm import compression
from cachee_shm.codec import ZSTD, Codec, Labelled, decode, encode
from cachee_shm.errors import Undecodable
from tests.cachee_shm import kept

CONFIG = {"host": {"name": "zipped"}, "namespaces": {"n": {"memory": "8MiB", "compress": "1KiB"}}}
TEXT = "a long text, of which there is much, " * 100
VALUES = {
    "a str": TEXT,
    "a str beyond ASCII": "ü" * 2000,
    "bytes": b"\0" * 5000,
    "a dict": {"rows": [{"id": n, "name": "Ada"} for n in range(200)]},
    "objects": [kept.Point(1, 2)] * 200,
    "a model": kept.Model(x=TEXT),
    "a long int": 1 << 20_000,
}


def frame(size, data=bytes(5000), tag=0, **more):
    return struct.pack("<BI", tag, size) + zstandard.ZstdCompressor(**more).compress(data)


@pytest.mark.parametrize("name", VALUES)
def test_a_large_value_is_compressed_and_comes_back(name):
    codec, value = Codec("n", compress_bytes=1024), VALUES[name]
    tag, data = codec.encode(value)
    assert tag == ZSTD and len(data) < len(encode(value)[1])
    assert codec.decode(tag, data) == value
    assert decode(tag, data) == value  # by a namespace that compresses nothing, too


def test_what_is_small_or_would_not_be_smaller_is_stored_as_it_is():
    codec = Codec("n", compress_bytes=1024)
    noise = bytes(hash((i, "x")) % 256 for i in range(2000))
    assert codec.encode("a" * 1023) == encode("a" * 1023)
    assert codec.encode("a" * 1024)[0] == ZSTD
    assert codec.encode(noise)[0] in (0, ZSTD) and codec.decode(*codec.encode(noise)) == noise
    assert codec.encode(zstandard.compress(noise * 2))[0] == 0


def test_through_the_segment_with_and_without_the_threshold():
    with (
        cachee_shm.attach(config=CONFIG, private=True) as cache,
        cachee_shm.attach(private=True) as other,
    ):
        for store in (cache, other):
            for name, value in VALUES.items():
                store.set(name, value)
                assert store.get(name) == value
                assert store.get_many([name]) == {name: value}
        assert cache._stored("a str")[1] == ZSTD and cache._stored("bytes")[1] == ZSTD
        assert other._stored("a str")[1] == 1
        assert cache.set("small", "x") and cache._stored("small")[1] == 1


def test_a_value_with_an_etag_is_compressed_behind_it():
    codec = Codec("n", compress_bytes=1024)
    tag, data = codec.encode(Labelled("v1", TEXT))
    assert (tag, data[:4], data[4]) == (13, b"\x02\0v1", ZSTD)
    assert codec.decode(tag, data) == TEXT and decode(tag, data) == TEXT


@pytest.mark.parametrize(
    "data",
    [
        frame(4999),
        frame(5001),
        frame(0),
        frame((64 << 20) + 1, bytes((64 << 20) + 1)),
        frame(5000)[:-3],
        frame(5000) + b"x",
        frame(5000) + frame(5000)[5:],
        frame(5000, write_content_size=False),
        frame(5000, tag=13),
        frame(5000, tag=ZSTD),
        frame(5000, tag=12),
        frame(5000, tag=9),
        frame(5000, tag=200),
        b"",
        b"\0" * 5,
        b"\0" * 50,
    ],
)
def test_what_it_may_unpack_to_is_bounded_and_all_else_is_undecodable(data):
    with pytest.raises(Undecodable):
        decode(ZSTD, data)


def test_a_frame_that_states_a_huge_size_takes_no_memory_for_it():
    program = (
        "import resource, struct, sys, zstandard\n"
        "from cachee_shm.codec import decode; from cachee_shm.errors import Undecodable\n"
        "head = b'\\x28\\xb5\\x2f\\xfd\\xe0' + struct.pack('<Q', 1 << 50) + b'\\x01\\x00\\x00'\n"
        "frames = [struct.pack('<BI', 0, size) + head for size in (0, 5, 64 << 20, (1 << 32) - 1)]\n"
        "window = b'\\x28\\xb5\\x2f\\xfd\\x80\\xf8' + struct.pack('<I', 5) + b'\\x01\\x00\\x00'\n"
        "frames.append(struct.pack('<BI', 0, 5) + window)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for each in frames:\n"
        "    try: decode(14, each)\n"
        "    except Undecodable: continue\n"
        "    sys.exit(2)\n"
        "sys.exit(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > 8 << 10)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.fuzz
@given(st.binary(max_size=80), st.integers(0, 3), st.integers(0, 255), st.integers(0, 60))
def test_damaged_frames_decode_to_some_value_or_are_undecodable(noise, kind, byte, at):
    data = bytearray((frame(5000), frame(36, noise[:36].ljust(36)), frame(5, b"\x93abc", 9), noise)[kind])
    if data:
        data[at % len(data)] = byte
    try:
        value = decode(ZSTD, bytes(data))
    except Undecodable:
        return
    assert len(repr(value)) < 100_000


def test_a_process_without_zstandard_stores_as_it_is_misses_and_says_so_once(monkeypatch, caplog):
    with cachee_shm.attach(config=CONFIG, private=True) as cache:
        cache.set("compressed", TEXT)
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with caplog.at_level(logging.WARNING, "cachee_shm"):
            for _ in range(3):
                assert cache.get("compressed", "missed") == "missed"
                cache.set("plain", TEXT)
                assert cache.get("plain") == TEXT
        assert cache.stats()["undecodable"] == 3
        assert cache._stored("plain")[1] == 1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "namespace n" in said[0] and "Install cachee-shm[zstd]" in said[0]


def test_more_than_may_be_unpacked_is_stored_as_it_is(monkeypatch):
    monkeypatch.setattr(compression, "UNPACKED_BYTES_MAX", 4000)
    codec = Codec("n", compress_bytes=1024)
    assert codec.encode("a" * 4000)[0] == ZSTD
    assert codec.encode("a" * 4001)[0] == 1
