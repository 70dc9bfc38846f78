"""A test whose need the machine lacks is skipped by name. That is a failure only if the need could be
installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import machine
from tests.machine import NEEDS, Kind

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_QUEUES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
os.execv(sys.executable, sys.argv[1:])
"""
SOME = ("tests/bridge/test_doorbell.py", "-k", "two_rings or no_queue")


@pytest.mark.parametrize(
    ("may_be_skipped", "workers", "status"),
    [("", "0", 0), ("rights", "0", 0), ("none", "0", 1), ("none", "2", 1)],
)
def test_where_there_are_no_message_queues_a_line_says_so_and_the_run_passes_unless_none_may_be_skipped(
    may_be_skipped, workers, status
):
    asked = [sys.executable, "-m", "pytest", "-q", "-n", workers, *SOME]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_QUEUES, *asked],
        cwd=ROOT,
        env={**os.environ, "CACHEE_SKIPS": may_be_skipped},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout
    assert "\nskipped here: doorbell (no message queues)\n" in done.stdout
    assert done.stdout.count("skipped here:") == 1
    assert "3 passed, 1 skipped" in done.stdout


def test_each_need_is_found_out_without_an_error_and_a_skip_has_its_kind():
    for name, need in NEEDS.items():
        assert machine.why_missing(name).partition(":")[0] in ("", f"no {name}")
        assert machine.kind_of(f"no {name}: for some reason") is need.kind
    assert machine.kind_of("whatever else") is None


def test_several_processes_that_ask_at_once_are_told_the_same():
    """Test processes do so. A probe that makes a thing of a fixed name fails while another has it."""
    missing = "[name for name, need in NEEDS.items() if need.kind is Kind.RIGHT and need.why_missing()]"
    ask = f"from tests.machine import NEEDS, Kind; print({missing})"
    command = [sys.executable, "-c", ask]
    together = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(12)]
    assert len({process.communicate()[0] for process in together}) == 1


def test_ci_brings_what_is_a_package():
    script = (ROOT / ".ci" / "run").read_text()
    of_python = {"rival", "released source", "long benches", "Django", "SQLAlchemy", "frameworks"}
    of_python |= {"opentelemetry", "schemas of Kubernetes", "tools of a release"}
    named = {name for name, need in NEEDS.items() if need.kind is Kind.PACKAGE} - of_python
    brought = {
        "C compiler": "gcc",
        "Chromium": "chromium",
        "MariaDB": "mariadbd",
        "OpenSSL 3": "openssl",
        "PostgreSQL": "pg_config",
        "Prometheus": "promtool",
        "aarch64": "qemu-aarch64",
        "musl": "musl-gcc",
        "axe-core": "npm",
        "systemd": "systemd-analyze",
        "what is migrated from": "redis-server",
    }
    assert [name for name in named if not re.search(rf"^need {brought.get(name, name)} ", script, re.M)] == []
    assert "CACHEE_BENCHES=all" in script and "EXTRAS=test,demo,bench" in script


def test_no_test_is_skipped_but_by_the_table():
    others = re.compile(r"pytest\.skip|mark\.skip|importorskip|skipif")
    here = {"machine.py", "conftest.py", Path(__file__).name}
    sources = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in here]
    assert [str(path) for path in sources if others.search(path.read_text())] == []
