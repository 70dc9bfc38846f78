"""The replay of traces: what is read from a file, how much room a row gets, and what is counted."""

import gzip
import json
import lzma
import struct
from array import array

import pytest

import cachee_shm
from tests.bench.test_bench import BENCH, run

KEYS = [7, 8, 7, 9]
NUMBERS = [0, 1, 0, 2]


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


FILES = {
    "cache2k-x.trace.xz": lzma.compress(struct.pack("<4I", *KEYS)),
    "scarab-recs.trace.xz": lzma.compress(struct.pack("<4Q", *(key << 40 for key in KEYS))),
    "corda_vaultservice.gz": gzip.compress(struct.pack(">4Q", *KEYS)),
    "lirs-x.trace.gz": gzip.compress(b"7\n*\n 8\n7\n9 \n"),
    "arc-x.gz": gzip.compress(b"7 2 0 0\n7 1 0 1\n9 1 0 2\n"),
    "x.oracleGeneral.bin": b"".join(struct.pack("<IQIq", 5, key, 100, -1) for key in KEYS),
}


@pytest.mark.parametrize("name", FILES)
def test_a_trace_is_read_in_the_form_that_its_name_says(name, tmp_path):
    from traces import traces

    (tmp_path / name).write_bytes(FILES[name])
    (tmp_path / "README.md").write_text("not a trace")
    (trace,) = traces(tmp_path)
    assert (trace.name, list(trace.requests), trace.distinct) == (name.partition(".")[0], NUMBERS, 3)


def test_the_built_in_stream_is_the_same_at_every_run():
    from traces import zipf

    assert zipf(500, 100) == zipf(500, 100)


@pytest.mark.parametrize("pages", [1, 256])
@pytest.mark.parametrize("objects", [100, 2_500, 30_000])
def test_a_row_is_given_no_more_bytes_than_its_objects_take(objects, pages):
    from room import capacity_for, config_of

    room = capacity_for(objects, pages)
    assert 0.95 < room.filled <= 1
    assert room.pages >= pages
    with cachee_shm.attach(private=True, config=config_of(room.memory, "room")) as cache:
        assert cache.stats()["value_bytes"] == room.pages * room.page_bytes
        for number in range(2 * objects):
            cache.set(number.to_bytes(8, "little"), bytes(room.value_bytes))
        assert 0.7 * objects < len(cache) <= objects


@pytest.mark.parametrize("writers", [1, 3])
def test_where_everything_fits_each_key_is_missed_once(writers):
    from replay import replay
    from room import capacity_for
    from traces import Trace

    trace = Trace("x", array("I", [*range(500), *range(500)]), 500, ())
    outcome = replay(trace, capacity_for(2_000, 1), writers, 0.0)
    assert (outcome.miss, outcome.entries) == (0.5, 500)


def test_only_reads_are_counted_where_requests_delete_and_overwrite():
    from replay import replay
    from room import capacity_for
    from traces import Trace

    trace = Trace("x", array("I", [0] * 20_000), 1, ())
    miss = replay(trace, capacity_for(2_000, 1), 1, 0.4).miss
    assert 0.15 < miss < 0.25  # a read misses where a delete went right before it: 0.2


def test_a_folder_of_traces_is_replayed_by_several_writers(tmp_path):
    (tmp_path / "lirs-loop.trace.gz").write_bytes(
        gzip.compress(b"\n".join(b"%d" % (n % 1011) for n in range(3000)))
    )
    run(
        BENCH / "bench_hit_ratio.py",
        *("--quick", "--repeats", "1", "--traces", str(tmp_path), "--out", str(tmp_path)),
        *("--writers", "2", "--mutations", "0.1"),
    )
    result = json.loads((tmp_path / "hit_ratio.json").read_text())
    assert [(row["trace"], row["room"]["objects"]) for row in result["rows"]] == [
        ("lirs-loop", 500),
        ("lirs-loop", 750),
    ]
    assert {target["verdict"] for target in result["targets"]} == {"not measured"}
