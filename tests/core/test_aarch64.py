"""The core compiled for aarch64 and tortured there, under emulation.

An emulator on x86-64 does not reorder memory accesses as such a machine may. So this shows that the code
compiles there, that its 16-byte compare-and-swap works, and that nothing rests on x86-64. That the memory
orders suffice is argued in core/atomics.h, not tested.
"""

import os
import subprocess
from pathlib import Path

import pytest

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"
CORE_TESTS = Path(__file__).parent
PROGRAMS = ("ring", "index", "relay")

pytestmark = pytest.mark.needs("aarch64")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aarch64")
    targets = [f"{folder}/plain/torture_{program}" for program in PROGRAMS]
    make = ["make", "-C", CORE_TESTS, f"CC={COMPILER}", f"BUILD={folder}", *targets]
    if os.uname().machine != "x86_64":
        make.remove(f"CC={COMPILER}")
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "plain"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_core_withstands_its_torture_on_aarch64(program, built):
    command = [built / f"torture_{program}", "1"]
    if os.uname().machine == "x86_64":
        command = [EMULATOR, "-L", LIBRARIES, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
