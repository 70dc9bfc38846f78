"""A copy of the checkout in which mutants are built and tried, one at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import mirrors, operators_python
from tests.mutants.mutant import Mutant

__all__ = ["Unsound", "Workshop"]

TEST_S = 60  # of one test
PROGRAM_MORE_S = 240  # of a torture program, beyond the seconds that it is given
COMMAND_S = 600  # of any other command, which may be the tests of a whole file
HANGS_BEYOND = 3  # a time-out counts where the unchanged code takes less than this part of it, on the spot
WATCHDOG = ("-o", f"faulthandler_timeout={2 * TEST_S}", "-o", "faulthandler_exit_on_timeout=true")
"""Where C code holds the interpreter's lock for ever, pytest-timeout cannot end a test."""
TRIES = 3  # until the unchanged code passes
EXTENSION = "cachee_shm/_core.*.so"
TIMED_OUT = -1000  # no signal's number
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+\.py(?:::.*?)?)(?: - .*)?$", re.MULTILINE)
LATE = re.compile(r"Timeout \(?[>0-9]")  # of pytest-timeout, or of the watchdog below
NO_TESTS = 5  # pytest's exit status where every test of a file was skipped or left out
ALONE = ("unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Shared memory, queues and processes of their own: what a mutant leaves behind goes with them."""


class Unsound(Exception):
    """A test that fails although nothing was changed: it says nothing about a mutant."""


class Refused(Exception):
    """The compiler refuses a mutant."""


BUILT = ("build", "dist", "__pycache__", "results")


def sources(root: Path) -> list[str]:
    """The files of a checkout, without what was built. One from an archive has no git that could be asked."""
    if (root / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=root, capture_output=True)
        if listed.returncode == 0:  # git refuses a checkout that belongs to another user
            return listed.stdout.decode().split("\0")
    found = []
    for folder, inside, names in os.walk(root):
        inside[:] = [name for name in inside if name == ".ci" or not name.startswith((".", *BUILT))]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return found


class Workshop:
    """``root`` is the checkout; ``place`` an empty directory for two copies and all that is built of them.

    Mutants are made in ``tree``. ``unchanged`` stays as the checkout is. A mutant is killed by a test that
    fails in ``tree`` and passes in ``unchanged`` right afterwards, so a busy machine kills no mutant.
    """

    def __init__(self, root: Path, place: Path) -> None:
        self.root = root
        self.tree = place / "tree"
        self.unchanged = place / "unchanged"
        self._told = place / "log"
        self._compiled: dict[str, bytes] = {}  # what the unchanged file is compiled to
        self._alone = self._can_be_alone()
        for tree in (self.tree, self.unchanged):
            self._copy(tree)
            self._make_environment(tree)
            (tree / "build").mkdir()
            (tree / "build/releases").symlink_to(root / "build/releases")  # built out of git's history

    def try_mutant(self, mutant: Mutant) -> str | None:
        """The test that killed the mutant; "" if it survived.

        None if the mutant does not compile, or compiles to the same instructions. Raises ``Unsound`` if
        a test fails with the mutant and without it.
        """
        path = self.tree / mutant.path
        source = path.read_bytes()
        path.write_bytes(mutant.applied_to(source))
        try:
            if not self._differs(mutant, source):
                return None
            return self._killer(mutant.path)
        except Refused:
            return None
        finally:
            path.write_bytes(source)  # and is newer now than what was built of the mutant
            self._put_back_the_extension()

    def _copy(self, tree: Path) -> None:
        built = [str(path.relative_to(self.root)) for path in self.root.glob(EXTENSION)]
        for name in [*sources(self.root), *built]:
            if name and (self.root / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.root / name, tree / name)

    def _put_back_the_extension(self) -> None:
        """A Python file's mutants are tried with the extension of the checkout."""
        for path in self.unchanged.glob(EXTENSION):
            shutil.copy2(path, self.tree / "cachee_shm" / f"{path.name}.new")
            (self.tree / "cachee_shm" / f"{path.name}.new").rename(self.tree / "cachee_shm" / path.name)

    def _make_environment(self, tree: Path) -> None:
        """A Python that imports this copy first, then what the checkout's own environment has installed."""
        base = Path(sys.prefix)
        self._run([sys.executable, "-m", "venv", "--without-pip", ".venv"], tree=tree, check=True)
        packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        lines = [tree, tree / "bridge", base / packages]
        (tree / ".venv" / packages / "workshop.pth").write_text("".join(f"{line}\n" for line in lines))
        for script in (base / "bin").iterdir():
            target = tree / ".venv" / "bin" / script.name
            if script.is_file() and not target.exists():
                here = str(tree / ".venv").encode()
                target.write_bytes(script.read_bytes().replace(str(base).encode(), here))
                shutil.copymode(script, target)

    def _differs(self, mutant: Mutant, source: bytes) -> bool:
        """Is anything compiled to other instructions? False as well if the compiler refuses the mutant."""
        if mutant.path.endswith(".py"):
            try:
                return not operators_python.same_code(source, mutant.applied_to(source))
            except SyntaxError:
                return False
        every = [str(path.relative_to(self.tree)) for path in sorted((self.tree / mirrors.CORE).glob("*.c"))]
        for name in [mutant.path] if mutant.path.endswith(".c") else every:
            if name not in self._compiled:
                self._compiled[name] = self._object(self.unchanged, name)
            changed = self._object(self.tree, name)
            if changed != self._compiled[name]:
                return changed != b""
        return False

    def _object(self, tree: Path, name: str) -> bytes:
        """What the compiler makes of a file; empty if it is refused."""
        flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-w", f"-I{sysconfig.get_path('include')}"]
        flags += ["-mcx16"] if os.uname().machine == "x86_64" else []
        if self._run(["gcc", *flags, "-c", name, "-o", "build/probe.o"], tree=tree) != 0:
            return b""
        return hashlib.sha256((tree / "build/probe.o").read_bytes()).digest()

    def _build(self, tree: Path, test: str) -> None:
        """Build what the test runs. ``Refused``: the compiler refuses a file that includes the mutant."""
        try:
            if test.startswith("torture_"):
                target = f"{tree}/build/torture/{mirrors.program_file(test.removeprefix('torture_'))}"
                make = ["make", "-j2", "-C", "tests/core", "WERROR=", f"BUILD={tree}/build/torture", target]
                self._run(make, tree=tree, check=True)
            elif tree == self.tree:
                self._build_extension()
        except RuntimeError as error:
            raise Refused(str(error)) from error

    def _build_extension(self) -> None:
        if not (self.tree / "build/extension/build.ninja").exists():
            setup = ["meson", "setup", "build/extension", "-Dbuildtype=release", "-Db_lto=false"]
            self._run(setup, check=True)
        self._run(["ninja", "-C", "build/extension", "--quiet"], check=True)
        for built in (self.tree / "build/extension").glob("_core.*.so"):
            target = self.tree / "cachee_shm" / built.name
            target.unlink(missing_ok=True)
            shutil.copy2(built, target)

    def _killer(self, path: str) -> str:
        for test in mirrors.in_order(self.tree, path):
            if not path.endswith(".py"):
                self._build(self.tree, test)
            if self.kills(test):
                return test
        return ""

    def kills(self, test: str) -> bool:
        """Does the test fail because of the mutant?

        It must fail twice, and the unchanged code must pass in between. A test that fails once alone is left
        out, and the other tests of its file run again. A torture program's failure and a hang count at once.
        """
        left_out: list[str] = []
        while (result := self._try(self.tree, test, left_out)) != 0:
            told = self._told.read_text(errors="replace")
            failed = FAILED.search(told)
            where = failed[1] if failed else test
            hung = result == TIMED_OUT or LATE.search(told) is not None
            limit = (TEST_S if failed else self._limit(test)) / HANGS_BEYOND if hung else float("inf")
            if not any(self._passes_unchanged(where, limit) for _ in range(TRIES)):
                raise Unsound(f"{where} fails, or is late, without any mutant as well:\n{told}")
            if hung or not failed or self._try(self.tree, where) != 0:
                return True
            left_out.append(where)
        return False

    def _passes_unchanged(self, where: str, limit: float) -> bool:
        if where.startswith("torture_"):
            self._build(self.unchanged, where)
        began = time.monotonic()
        return self._try(self.unchanged, where) == 0 and time.monotonic() - began < limit

    def _try(self, tree: Path, test: str, left_out: Sequence[str] = ()) -> int:
        """The exit status of a torture program, or of pytest with this test or file."""
        if test.startswith("torture_"):
            program = test.removeprefix("torture_")
            seconds = mirrors.program_seconds(program)
            command = [f"build/torture/{mirrors.program_file(program)}", str(seconds)]
        else:
            command = [str(tree / ".venv/bin/python"), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
            command += [
                f"--timeout={TEST_S}",
                *WATCHDOG,
                *(f"--deselect={where}" for where in left_out),
                test,
            ]
        result = self._run(command, tree=tree, limit=self._limit(test), alone=True)
        return 0 if result == NO_TESTS else result

    @staticmethod
    def _limit(test: str) -> float:
        if test.startswith("torture_"):
            return mirrors.program_seconds(test.removeprefix("torture_")) + PROGRAM_MORE_S
        return COMMAND_S

    @staticmethod
    def _can_be_alone() -> bool:
        return os.geteuid() == 0 and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0

    def _run(
        self,
        command: Sequence[str],
        tree: Path | None = None,
        limit: float = COMMAND_S,
        check: bool = False,
        alone: bool = False,
    ) -> int:
        """The exit status of a command that runs in the tree; ``TIMED_OUT`` if it had to be killed."""
        tree = tree or self.tree
        if alone and self._alone:
            command = [*ALONE, "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh", *command]
        path = f"{tree}/.venv/bin:{os.environ['PATH']}"
        with self._told.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=tree,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            try:
                result = process.wait(limit)
            except subprocess.TimeoutExpired:
                result = TIMED_OUT
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if check and result != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{self._told.read_text(errors='replace')}")
        return result
