"""What `cachee doctor` says, as a program reads it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest

from cachee_shm.cli.main import main

Findings = list[dict[str, str]]
Doctor = Callable[..., Findings]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Its findings, of one check; its exit code fits them. Notes of segments that other tests have left, and
    of this machine's clock, are not of the test's making."""

    def examined(config: object, check: str = "") -> Findings:
        capsys.readouterr()
        code = main(["doctor", "--json", "--config", str(config)])
        return of_check(code, capsys.readouterr().out, check)

    return examined


def of_check(code: int, told: str, check: str) -> Findings:
    found = json.loads(told)
    levels = {each["level"] for each in found["findings"]}
    assert code == (1 if "problem" in levels else 3 if "unknown" in levels else 0)
    assert found["ok"] == (code == 0)
    for each in found["findings"]:
        assert each["check"] in found["checks"]
        assert each["what"] and each["state"] and each["mend"]
    return [each for each in found["findings"] if check in ("", each["check"])]


def apart(config: object, script: str, check: str, unshare: str = "--mount", after: str = "true") -> Findings:
    """The findings in namespaces of their own, after `script` (of a shell) has made the trouble."""
    command = (
        f"{shlex.quote(sys.executable)} -m cachee_shm.cli doctor --json --config {shlex.quote(str(config))}"
    )
    shell = f"set -e; {script}\nset +e; {command}; code=$?; {after}; exit $code"
    done = subprocess.run(["unshare", *unshare.split(), "sh", "-c", shell], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return of_check(done.returncode, done.stdout, check)
