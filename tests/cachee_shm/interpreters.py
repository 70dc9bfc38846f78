"""Other versions of Python on this machine, and this package for one of them.

The other one is that which $CACHEE_SECOND_PYTHON names, or whatever CPython is found with its headers, on the
PATH or among pyenv's.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Interpreter", "another", "build"]

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 10)
ABOUT = """
import json, os, sys, sysconfig
include = sysconfig.get_path("include")
suffix = sysconfig.get_config_var("EXT_SUFFIX")
headers = os.path.exists(include + "/Python.h")
print(json.dumps([sys.version_info[:2], sys.implementation.name, include, suffix, headers]))
"""


class Interpreter(NamedTuple):
    """`include`: where its headers are; `suffix`: of its extensions."""

    python: str
    version: tuple[int, int]
    include: str
    suffix: str


def another(oldest: tuple[int, int] = OLDEST) -> Interpreter | None:
    """A CPython of another version than this one, at least `oldest`, with its headers."""
    for python in _names():
        found = _about(python)
        if found is not None and found.version >= oldest and found.version != sys.version_info[:2]:
            return found
    return None


def _names() -> Iterator[str]:
    names = [f"python3.{minor}" for minor in range(OLDEST[1], 20)]
    yield from filter(None, [os.environ.get("CACHEE_SECOND_PYTHON"), *map(shutil.which, names)])
    for name in names:
        yield from sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/*/bin/{name}")))


def _about(python: str) -> Interpreter | None:
    try:
        said = subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, check=True, timeout=60)
        (major, minor), implementation, include, suffix, has_headers = json.loads(said.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation != "cpython" or not has_headers:
        return None
    return Interpreter(python, (major, minor), include, suffix)


def build(interpreter: Interpreter, folder: Path) -> None:
    """The package and its extension, compiled for that Python: a folder for its path."""
    package = folder / "cachee_shm"
    shutil.copytree(
        ROOT / "cachee_shm", package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "core", "cli")
    )
    compiler = os.environ.get("CC", "gcc").split()
    wide = ["-mcx16"] if os.uname().machine == "x86_64" else []
    subprocess.run(
        [
            *(*compiler, "-shared", "-fPIC", "-O1", "-std=gnu11", "-D_GNU_SOURCE", *wide),
            f"-I{interpreter.include}",
            *map(str, (ROOT / "cachee_shm/core").glob("*.c")),
            *("-lrt", "-o", str(package / f"_core{interpreter.suffix}")),
        ],
        check=True,
    )
