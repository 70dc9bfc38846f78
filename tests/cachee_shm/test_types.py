"""The types of the face, as its users' checkers see them: ``typed.py``."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TYPED = ROOT / "tests" / "cachee_shm" / "typed.py"


def test_mypy_agrees_with_each_type_and_each_error():
    command = [sys.executable, "-m", "mypy", "--strict", str(TYPED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_pyright_agrees_with_each_type_and_each_error():
    options = ["--level", "error", "--pythonpath", sys.executable]
    command = [sys.executable, "-m", "basedpyright", *options, str(TYPED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
