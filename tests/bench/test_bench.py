"""Every bench runs, prints its tables, and leaves its figures where it is told and nothing elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = sorted(BENCH.glob("bench_*.py"))
VERDICTS = {"met", "missed", "not measured"}
TABLES = {"bench_get_set": 6, "bench_propagation": 3}  # besides the targets'


def run(script: Path, *options: str) -> str:
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_bench_prints_its_tables_and_writes_its_figures(script, tmp_path):
    before = set(os.listdir("/dev/shm"))
    text = run(script, "--quick", "--out", str(tmp_path))
    assert len(re.findall("^-[- ]+$", text, re.MULTILINE)) == TABLES[script.stem] + 1
    assert "\nTargets\n" in text

    result = json.loads((tmp_path / f"{script.stem.removeprefix('bench_')}.json").read_text())
    assert result["machine"]["cores"] == os.cpu_count()
    assert result["targets"]
    assert {target["verdict"] for target in result["targets"]} <= VERDICTS
    left = [name for name in set(os.listdir("/dev/shm")) - before if "bench" in name]
    assert left == []


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
