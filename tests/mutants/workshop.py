"""A copy of the checkout in which mutants are built and tried, one at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import mirrors, operators_python
from tests.mutants.mutant import Mutant

__all__ = ["Unsound", "Workshop"]

PROGRAM_S = 2  # what `make check` gives each torture program
TIMEOUT_S = 240  # of one command: a mutant that makes its tests hang is killed, too
NO_TESTS = 5  # pytest's exit status where every test of a file was skipped or left out
ALONE = ("unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Shared memory, queues and processes of their own: what a mutant leaves behind goes with them."""


class Unsound(Exception):
    """A test that fails although nothing was changed: it says nothing about a mutant."""


class Workshop:
    """``root`` is the checkout; ``place`` an empty directory for its copy and all that is built of it."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root = root
        self.place = place
        self.tree = place / "tree"
        self.python = self.tree / ".venv" / "bin" / "python"
        self._told = place / "log"
        self._sound: set[str] = set()  # tests that were seen to pass without a mutant
        self._alone = self._can_be_alone()
        self._copy()
        (self.tree / "build").mkdir()
        self._make_environment()
        self._run(["meson", "setup", "build/extension", "-Dbuildtype=release"], check=True)
        self._build_extension()
        self._run(self._make("all"), check=True)

    def try_mutant(self, mutant: Mutant) -> str | None:
        """The test that killed the mutant; "" if it survived.

        None if the mutant does not compile, or compiles to the same instructions. Raises ``Unsound`` if
        the test fails without the mutant as well.
        """
        path = self.tree / mutant.path
        source = path.read_bytes()
        compiled = b"" if mutant.path.endswith(".py") else self._objects(mutant.path)
        path.write_bytes(mutant.applied_to(source))
        try:
            killer = self._killed_by(mutant.path) if self._differs(mutant, source, compiled) else None
        finally:
            path.write_bytes(source)  # and is newer now than what was built of the mutant
        if killer and killer not in self._sound:
            if self._fails(killer, mutant.path):
                told = self._told.read_text(errors="replace")
                raise Unsound(f"{killer} fails without any mutant:\n{told}")
            self._sound.add(killer)
        return killer

    def _copy(self) -> None:
        command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=self.root, check=True, capture_output=True)
        for name in listed.stdout.decode().split("\0"):
            if name and (self.root / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.root / name, self.tree / name)

    def _make_environment(self) -> None:
        """A Python that imports the copy first, then what the checkout's own environment has installed."""
        base = Path(sys.prefix)
        self._run([sys.executable, "-m", "venv", "--without-pip", ".venv"], check=True)
        packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        lines = [self.tree, self.tree / "bridge", base / packages]
        (self.tree / ".venv" / packages / "workshop.pth").write_text("".join(f"{line}\n" for line in lines))
        for script in (base / "bin").iterdir():
            target = self.tree / ".venv" / "bin" / script.name
            if script.is_file() and not target.exists():
                here = str(self.tree / ".venv").encode()
                target.write_bytes(script.read_bytes().replace(str(base).encode(), here))
                shutil.copymode(script, target)

    def _differs(self, mutant: Mutant, source: bytes, compiled: bytes) -> bool:
        if mutant.path.endswith(".py"):
            try:
                return not operators_python.same_code(source, mutant.applied_to(source))
            except SyntaxError:
                return False
        changed = self._objects(mutant.path)
        return changed not in (b"", compiled)

    def _objects(self, path: str) -> bytes:
        """What the compiler makes of a file, or of every file that may include it; empty if it is refused."""
        core = self.tree / mirrors.CORE
        names = [self.tree / path] if path.endswith(".c") else sorted(core.glob("*.c"))
        flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-w", f"-I{sysconfig.get_path('include')}"]
        flags += ["-mcx16"] if os.uname().machine == "x86_64" else []
        digest = hashlib.sha256()
        for name in names:
            if self._run(["gcc", *flags, "-c", str(name), "-o", "build/probe.o"]) != 0:
                return b""
            digest.update((self.tree / "build/probe.o").read_bytes())
        return digest.digest()

    def _make(self, *targets: str) -> list[str]:
        return ["make", "-C", "tests/core", "WERROR=", f"BUILD={self.tree}/build/torture", *targets]

    def _build_extension(self) -> None:
        self._run(["ninja", "-C", "build/extension", "--quiet"], check=True)
        for built in (self.tree / "build/extension").glob("_core.*.so"):
            target = self.tree / "cachee_shm" / built.name
            target.unlink(missing_ok=True)
            shutil.copy2(built, target)

    def _killed_by(self, path: str) -> str:
        programs = [f"torture_{name}" for name in mirrors.programs(path)]
        for test in [*programs, *mirrors.tests(self.tree, path)]:
            if self._fails(test, path):
                return test
        return ""

    def _fails(self, test: str, path: str) -> bool:
        """Builds what the test runs, and runs it."""
        if test.startswith("torture_"):
            binary = f"build/torture/plain/{test}"
            self._run(self._make(f"{self.tree}/{binary}"), check=True)
            return self._run([binary, str(PROGRAM_S)], alone=True) != 0
        if not path.endswith(".py"):
            self._build_extension()
        pytest = [str(self.python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=60"]
        return self._run([*pytest, test], alone=True) not in (0, NO_TESTS)

    @staticmethod
    def _can_be_alone() -> bool:
        return os.geteuid() == 0 and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0

    def _run(self, command: Sequence[str], check: bool = False, alone: bool = False) -> int:
        if alone and self._alone:
            command = [*ALONE, "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh", *command]
        path = f"{self.tree}/.venv/bin:{os.environ['PATH']}"
        with self._told.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.tree,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            try:
                result = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                result = -1
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if check and result != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{self._told.read_text(errors='replace')}")
        return result
