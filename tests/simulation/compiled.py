"""The simulator and the protocol core compiled by mypyc: a seed of a campaign takes half the time.

    made()    the directory of the compiled modules; compiles, if the sources have changed
    use()     from now on, what is imported comes from there

They are the same sources, and the same worlds: of each campaign some seeds are run interpreted as well, and
must end in the same state (campaign.py). A compiled class cannot be patched. So where a rule is switched off,
and in the tests, everything is interpreted.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "build" / "simulation.compiled"
PROTOCOL = ("links", "membership", "ports", "protocol", "routing", "sources", "streams", "wire")
"""The bridge's packages without input or output."""
SIMULATION = ("host", "leases", "loading", "network", "truth", "watched", "world", "zombies")
STAND_IN = ("entries", "ring", "segment", "sources", "wire")
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
GROUP_END = "__mypyc"
"""How the name of the module ends that holds the code of all others."""
FLAGS = ["--config-file=", "--explicit-package-bases", "--follow-imports=silent", "--ignore-missing-imports"]


class NotCompiled(Exception):
    """Why not. Nothing has changed: what is imported is interpreted."""


def sources() -> list[Path]:
    """What is compiled, relative to ROOT."""
    bridge, tests = Path("bridge/cachee_bridge"), Path("tests")
    found = [each.relative_to(ROOT) for name in PROTOCOL for each in (ROOT / bridge / name).glob("*.py")]
    found += [tests / "simulation" / f"{name}.py" for name in SIMULATION]
    found += [tests / "stand_in" / f"{name}.py" for name in STAND_IN]
    return sorted(path for path in found if path.name != "__init__.py")


def version() -> str:
    """Of what is compiled, and by what."""
    digest = hashlib.sha256(f"{SUFFIX} {importlib.metadata.version('mypy')}".encode())
    for path in (*sources(), Path(__file__).relative_to(ROOT)):
        digest.update(str(path).encode() + (ROOT / path).read_bytes())
    return digest.hexdigest()[:12]


def made() -> Path:
    """NotCompiled if that cannot be done here. It takes two minutes of a processor."""
    try:
        directory = DIRECTORY / version()
    except importlib.metadata.PackageNotFoundError as error:
        raise NotCompiled(str(error)) from error
    if not directory.exists():
        _make(directory)
    return directory


def _make(directory: Path) -> None:
    """In a copy of the sources, which nobody changes meanwhile. It gets its name when all is done."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    copy = DIRECTORY / f"{os.getpid()}"
    for path in sources():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    environ = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, (copy, copy / "bridge", ROOT)))}
    command = [sys.executable, str(Path(__file__).resolve()), *FLAGS, *map(str, sources())]
    done = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True)
    if done.returncode == 0:
        (copy / "made").rename(directory)
    shutil.rmtree(copy)
    if done.returncode:
        raise NotCompiled(f"mypyc has failed\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


class Finder(MetaPathFinder):
    """Finds the compiled modules."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not (fullname.startswith(("tests.", "cachee_bridge.")) or fullname.endswith(GROUP_END)):
            return None
        file = self._directory / (fullname.replace(".", "/") + SUFFIX)
        return importlib.util.spec_from_file_location(fullname, file) if file.exists() else None


def use() -> None:
    """To be called before any of them is imported. NotCompiled: see made()."""
    sys.meta_path.insert(0, Finder(made()))


def in_use() -> bool:
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


def source_of(file: Path) -> Path:
    """Of a module's file: itself, if it is not one of the compiled."""
    if not file.is_relative_to(DIRECTORY):
        return file
    name = Path(*file.relative_to(DIRECTORY).parts[1:])
    name = name.with_name(name.name.removesuffix(SUFFIX) + ".py")
    return ROOT / "bridge" / name if name.parts[0] == "cachee_bridge" else ROOT / name


def main() -> None:
    """In the copy: compile the files that are named."""
    from mypyc.build import mypycify  # it is slow to import, and not everywhere
    from setuptools import setup

    modules = mypycify(sys.argv[1:], opt_level="1", debug_level="0", target_dir="c")
    setup(
        name="simulation",
        ext_modules=modules,
        script_args=["build_ext", "--build-lib", "made", "--build-temp", "o"],
    )


if __name__ == "__main__":
    main()
