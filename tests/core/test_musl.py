"""The core compiled against musl, the C library of Alpine, and tortured there.

This shows that the core needs nothing of glibc. It shows nothing of the binding, which needs a Python that is
built with musl: cibuildwheel makes those wheels on Alpine, and tries them there (pyproject.toml).
"""

import subprocess
from pathlib import Path

import pytest

COMPILER = "musl-gcc"
CORE_TESTS = Path(__file__).parent
PROGRAMS = ("ring", "index", "relay")

pytestmark = pytest.mark.needs("musl")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("musl")
    targets = [f"{folder}/plain/torture_{program}" for program in PROGRAMS]
    make = ["make", "-C", CORE_TESTS, f"CC={COMPILER}", f"BUILD={folder}", *targets]
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "plain"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_core_withstands_its_torture_with_musl(program, built):
    done = subprocess.run([built / f"torture_{program}", "1"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_and_no_glibc_is_linked(program, built):
    assert b"GLIBC_" not in (built / f"torture_{program}").read_bytes()
