"""Other projects' own tests: their released sources, fetched once, and run in a process of their own.

    FOLDER = suites.source_of("cachelib")  # of the installed version; skips by name where pip has none
    said = suites.run(["-m", "pytest", "-q", "tests"], cwd=FOLDER)

What is fetched stays in ``build/foreign``. Nothing in it is changed: what leaves a test out stands in a table
of the test module here, each with its reason.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import machine

__all__ = ["ROOT", "count_of", "environment_of", "package_of", "run", "source_of"]

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / "build" / "foreign"
FETCH_S = 240
RUN_S = 240
LINES_SHOWN = 80


def source_of(project: str, *, wheel: bool = False, python: str = sys.executable, version: str = "") -> Path:
    """The folder of a project's released source, of this version, or of the one that ``python`` has.

    ``wheel``: its wheel instead, for a project whose wheel contains its tests. Skips the calling test where
    the project is not installed, or where pip cannot fetch it.
    """
    version = version or _version_of(project, python)
    folder = FETCHED / f"{project.lower()}-{version}-{'wheel' if wheel else 'sdist'}"
    FETCHED.mkdir(parents=True, exist_ok=True)
    with (FETCHED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(project, version, folder, wheel, python)
    inside = [entry for entry in folder.iterdir() if entry.is_dir()]
    return folder if wheel else inside[0]


def _version_of(project: str, python: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({project!r}))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if asked.returncode:
        machine.skip("released source", f"{project} is not installed (pip install {project})")
    return asked.stdout.strip()


def environment_of(base: str, name: str, packages: Sequence[str]) -> str:
    """The Python of an environment with these packages, made of the Python ``base`` once; it is kept.

    Skips the calling test where pip cannot install them.
    """
    FETCHED.mkdir(parents=True, exist_ok=True)
    folder = FETCHED / name
    whole = folder / "whole"  # made last: what was interrupted is made anew
    made = f"{base} {' '.join(packages)}"
    with (FETCHED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists() or whole.read_text() != made:
            subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
            install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
            done = subprocess.run(install, capture_output=True, text=True, timeout=FETCH_S)
            if done.returncode:
                machine.skip("released source", f"pip cannot install {name}: {_last(done.stderr)}")
            whole.write_text(made)
    return str(folder / "bin" / "python")


def package_of(project: str, version: str, sha512: str, *needed: str) -> Path:
    """The folder of a package of npm, of one version that has this digest, where node finds what it needs.

    ``needed``: other packages with their versions. Skips the calling test where npm cannot fetch them.
    """
    folder = FETCHED / f"{project}-{version}-npm"
    FETCHED.mkdir(parents=True, exist_ok=True)
    with (FETCHED / "lock-npm").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=FETCHED) as path:
                _npm("pack", "--silent", f"{project}@{version}", cwd=path)
                (archive,) = Path(path).glob("*.tgz")
                found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
                assert found == sha512, f"{archive.name} is not {project} {version}: its digest is {found}"
                with tarfile.open(archive) as opened:
                    opened.extractall(Path(path) / "unpacked")
                (Path(path) / "unpacked" / "package.json").write_text("{}")
                _npm("install", "--silent", "--ignore-scripts", *needed, cwd=f"{path}/unpacked")
                shutil.move(Path(path) / "unpacked", folder)
    return folder / "package"


def _npm(*arguments: str, cwd: str) -> None:
    try:
        done = subprocess.run(["npm", *arguments], capture_output=True, text=True, timeout=FETCH_S, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        machine.skip("released source", f"npm cannot fetch it: {error}")
    if done.returncode:
        machine.skip("released source", f"npm cannot fetch it: {_last(done.stderr)}")


def _fetch(project: str, version: str, folder: Path, wheel: bool, python: str) -> None:
    """By a rename at the end: a fetch that is interrupted leaves nothing that looks whole."""
    with tempfile.TemporaryDirectory(dir=FETCHED) as path:
        form = ["--only-binary", project] if wheel else ["--no-binary", project]
        command = [python, "-m", "pip", "download", "--quiet", "--no-deps", *form]
        done = subprocess.run(
            [*command, "--dest", path, f"{project}=={version}"],
            capture_output=True,
            text=True,
            timeout=FETCH_S,
        )
        if done.returncode:
            machine.skip("released source", f"pip cannot fetch {project} {version}: {_last(done.stderr)}")
        (archive,) = Path(path).iterdir()
        unpacked = Path(path) / "unpacked"
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(unpacked)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(unpacked)
        shutil.move(unpacked, folder)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    seconds: int = RUN_S,
    python: str = sys.executable,
) -> str:
    """Run ``python`` with these arguments and return what it said.

    A run that fails is an assertion that fails, with its last lines.

    The run does not see $CI. Others' suites expect the servers of their own CI where it is set:
    Flask-Caching's then wants a Redis on port 6360, and starts one itself where it is not.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env={**inherited, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-LINES_SHOWN:])
    return done.stdout


def count_of(said: str) -> int:
    """How many tests a run of unittest or pytest has passed."""
    ran = re.search(r"^Ran (\d+) tests? in", said, re.MULTILINE)
    if ran:
        skipped = re.search(r"^OK \(.*?skipped=(\d+)", said, re.MULTILINE)
        return int(ran[1]) - int(skipped[1] if skipped else 0)
    passed = re.search(r"(\d+) passed", said)
    return int(passed[1]) if passed else 0


def _last(text: str) -> str:
    return text.strip().rpartition("\n")[2]
