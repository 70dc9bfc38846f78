"""Every bench runs, prints its tables, and leaves its figures where it is told and nothing elsewhere."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import machine

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = sorted(BENCH.glob("bench_*.py"))
VERDICTS = {"met", "missed", "not measured"}
TABLES = {  # besides the targets'
    "bench_attach": 1,
    "bench_bridge": 2,
    "bench_django": 1,
    "bench_equal_sets": 1,
    "bench_fanout": 2,
    "bench_flood": 1,
    "bench_frameworks": 4,
    "bench_get_set": 9,
    "bench_herd": 2,
    "bench_hit_ratio": 2,
    "bench_host_death": 1,
    "bench_memory": 3,
    "bench_observability": 2,
    "bench_prewarm": 1,
    "bench_prewarm_model": 1,
    "bench_propagation": 3,
    "bench_proof_cost": 1,
    "bench_regions": 1,
    "bench_repair": 1,
    "bench_restart": 1,
    "bench_scaling": 1,
    "bench_scrape": 1,
    "bench_shop": 2,
    "bench_stranger": 1,
    "bench_stopped_writer": 1 + (importlib.util.find_spec("warp_cache") is not None),  # one for each subject
    "bench_visible": 2,
    "bench_wait_synced": 2,
    "bench_warm_shop": 1,
    "bench_write_cost": 3,
}
ALL = os.environ.get("CACHEE_BENCHES") == "all"
LONG = {
    "bench_bridge",
    "bench_fanout",
    "bench_flood",
    "bench_host_death",
    "bench_observability",
    "bench_proof_cost",
    "bench_regions",
}
LONG |= {
    "bench_equal_sets",
    "bench_herd",
    "bench_repair",
    "bench_restart",
    "bench_scrape",
    "bench_shop",
    "bench_stranger",
    "bench_visible",
    "bench_wait_synced",
    "bench_warm_shop",
}
"""Real meshes that take some seconds each to meet: two minutes in all, which `make test` has not."""
SHORTER = {"bench_fanout": ("--only", "model")}  # many real hosts are in tests/bridge/test_relayed_hosts.py
CHANNELS = ["Redis pub/sub", "Redis tracking", "NATS core", "Zenoh"]
RIVALS = ["dict", "cachebox", "theine", "warp_cache", "LMDB", "diskcache", "pylibmc", "redis-py"]


@dataclass(frozen=True)
class Run:
    """A script that has ended: its process, its text, its figures."""

    pid: int
    text: str
    result: dict[str, Any]


def run(script: Path, *options: str) -> tuple[int, str]:
    with subprocess.Popen(
        [sys.executable, script, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        text, errors = process.communicate(timeout=240)
    assert process.returncode == 0, text + errors
    return process.pid, text


def left_by(pid: int) -> list[str]:
    """All that benches make on the machine has their process's number in its name."""
    named = re.compile(rf"(?<!\d){pid}(?!\d)")
    folders = [
        folder for folder in ("/dev/shm", "/dev/mqueue", tempfile.gettempdir()) if os.path.isdir(folder)
    ]
    return [
        name for folder in folders for name in os.listdir(folder) if "bench" in name and named.search(name)
    ]


@pytest.fixture(scope="module")
def quick(tmp_path_factory, request):
    """One quick run of a script.

    Two scripts run at a time: most of them wait most of the time, and no test asserts a figure. The scripts
    of all chosen tests are announced before the first begins.
    """
    pool = ThreadPoolExecutor(2)

    def made(script: Path, out: Path) -> Run:
        pid, text = run(script, "--quick", *SHORTER.get(script.stem, ()), "--out", str(out))
        return Run(pid, text, json.loads((out / f"{script.stem.removeprefix('bench_')}.json").read_text()))

    @functools.cache
    def begun(script: Path) -> Future[Run]:
        return pool.submit(made, script, tmp_path_factory.mktemp(script.stem))

    for item in request.session.items:
        if item.path == request.path and {"quick", "script"} <= {*item.fixturenames}:
            script = item.callspec.params["script"]
            if is_tried(script):
                begun(script)
    yield lambda script: begun(script).result()
    pool.shutdown(cancel_futures=True)


def is_tried(script: Path) -> bool:
    return script.stem not in LONG or not machine.why_missing("long benches")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_bench_prints_its_tables_and_writes_its_figures(script, quick):
    if not is_tried(script):
        machine.require("long benches")
    done = quick(script)
    assert len(re.findall("^-[- ]+$", done.text, re.MULTILINE)) == TABLES[script.stem] + 1
    assert "\nTargets\n" in done.text
    result = done.result
    assert result["machine"]["cores"] == os.cpu_count()
    assert result["targets"]
    assert {target["verdict"] for target in result["targets"]} <= VERDICTS
    assert left_by(done.pid) == []


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_stands_in_the_tables_or_is_said_to_be_left_out_and_why(rival, quick):
    done = quick(BENCH / "bench_get_set.py")
    left_out = re.search(rf"^{rival} is left out: .+ \((pip|apt-get) install .+\)$", done.text, re.MULTILINE)
    singles = [samples for title, samples in done.result["ns_per_operation"].items() if "_many" not in title]
    assert [rival in samples for samples in singles] == [left_out is None] * 6
    assert left_out is None or not ALL


@pytest.mark.parametrize("rival", CHANNELS)
def test_a_channel_stands_in_the_tables_or_is_said_to_be_left_out_and_why(rival, quick):
    done = quick(BENCH / "bench_propagation.py")
    left_out = re.search(rf"^{rival} is left out: .+ \((pip|apt-get) install .+\)$", done.text, re.MULTILINE)
    tables = [*done.result["one_way_ns"].values(), done.result["steady_ns"]]
    assert [rival in samples for samples in tables] == [left_out is None] * 3
    assert left_out is None or not ALL


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_bench_says_what_it_measures_and_how(script):
    _, text = run(script, "--help")
    assert "(target" in text
    assert "--quick" in text


def test_a_write_that_never_arrives_is_counted_as_lost(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import two_hosts

    monkeypatch.setattr(two_hosts, "JOIN_S", 0.05)
    monkeypatch.setattr(two_hosts, "LOST_AFTER_S", 0.05)
    assert two_hosts._watch({"stays": 1}, ["gone", "stays"], None)[1] == two_hosts.LOST  # type: ignore[arg-type]


def test_a_ratio_is_taken_within_each_repeat(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import measuring

    assert measuring.ratio([1.0, 20.0, 300.0], [2.0, 10.0, 600.0]) == 0.5
    assert measuring.Target("X", "a rival that is missing", None, 1).verdict == "not measured"


def test_a_target_is_a_ceiling_or_a_floor(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from measuring import Target

    assert [Target("X", "", found, 2).verdict for found in (1.9, 2.0, 2.1)] == ["met", "met", "missed"]
    floor = [Target("X", "", found, 2, is_floor=True) for found in (1.9, 2.0, 2.1)]
    assert [target.verdict for target in floor] == ["missed", "met", "met"]
    assert floor[0].row[3] == ">= 2"


def test_a_reader_tells_a_torn_value_from_a_missing_one(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import bench_stopped_writer as bench

    held = {"whole": bench.VALUES[0], "torn": b"a" * 50 + b"b" * 50}
    found = bench.timed(held.get, ["whole", "torn", "gone", "torn"])
    assert (len(found.took_ns), found.misses, found.torn) == (4, 1, 2)
