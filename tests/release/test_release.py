"""`make dist`: what a release is made of is built, audited, installed in a clean environment, and tried."""

import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs("tools of a release")
@pytest.mark.timeout(900)  # an environment is made, and a wheel compiled twice: minutes on a busy machine
def test_a_release_is_built_audited_installed_and_tried(tmp_path: Path) -> None:
    git = subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True)
    if git.returncode:
        machine.skip("tools of a release", "this is no checkout of git, of which the sdist is made")
    dist = tmp_path / "a b"
    done = subprocess.run(["make", "dist", f"DIST={dist}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "two hosts agree" in done.stdout
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert re.search(r"-cp3\d+-cp3\d+-manylinux_2_\d+_\w+\.whl$", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".c", ".h", ".pyc")) or "/tests/" in name]
    assert len([name for name in names if "/_core." in name and name.endswith(".so")]) == 1
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/release/installed.py", "cachee_shm/core/layout.h", "bridge/OPERATING.md"} <= inside


def test_wheels_of_a_release_are_made_for_every_version_that_is_promised() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    (built,) = re.findall(r'^build = "(.*)"$', text, re.M)
    assert [f"cp{version.replace('.', '')}-*" for version in promised] == built.split()
    assert 'archs = ["x86_64", "aarch64"]' in text
