"""Every bench runs, prints its tables, and leaves its figures where it is told and nothing elsewhere."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = sorted(BENCH.glob("bench_*.py"))
VERDICTS = {"met", "missed", "not measured"}
TABLES = {"bench_get_set": 8, "bench_propagation": 3, "bench_hit_ratio": 2}  # besides the targets'
RIVALS = ["dict", "cachebox", "theine", "warp_cache", "LMDB", "diskcache", "pylibmc", "redis-py"]


def run(script: Path, *options: str) -> str:
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of_a_bench() -> set[str]:
    """What benches leave in shared memory while they run."""
    return {name for name in os.listdir("/dev/shm") if "bench" in name}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A script's text and figures, of one quick run."""

    @functools.cache
    def once(script: Path) -> tuple[str, dict[str, Any]]:
        out = tmp_path_factory.mktemp(script.stem)
        text = run(script, "--quick", "--out", str(out))
        return text, json.loads((out / f"{script.stem.removeprefix('bench_')}.json").read_text())

    return once


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_bench_prints_its_tables_and_writes_its_figures(script, quick):
    before = of_a_bench()
    text, result = quick(script)
    assert len(re.findall("^-[- ]+$", text, re.MULTILINE)) == TABLES[script.stem] + 1
    assert "\nTargets\n" in text
    assert result["machine"]["cores"] == os.cpu_count()
    assert result["targets"]
    assert {target["verdict"] for target in result["targets"]} <= VERDICTS
    assert of_a_bench() <= before


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_stands_in_the_tables_or_is_said_to_be_left_out_and_why(rival, quick):
    text, result = quick(BENCH / "bench_get_set.py")
    left_out = re.search(rf"^{rival} is left out: .+ \((pip|apt-get) install .+\)$", text, re.MULTILINE)
    singles = [samples for title, samples in result["ns_per_operation"].items() if "_many" not in title]
    assert [rival in samples for samples in singles] == [left_out is None] * 6


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_bench_says_what_it_measures_and_how(script):
    text = run(script, "--help")
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
