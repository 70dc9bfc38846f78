"""The two Makefiles: they build again what is incomplete, damaged, or from another compiler.

The real Makefile is run, over a small extension instead of the core, with this checkout's .venv.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = """
project('small', 'c', default_options: ['warning_level=2'])
import('python').find_installation(pure: false).extension_module('_core', 'core.c', link_args: '-s')
"""
SOURCE = '__attribute__((visibility("default"))) int answer(void) { return 42; }\n'
KILLED_COMPILER = """#!/bin/sh
for word; do
  if [ "$before" = -o ]; then echo half >"$word"; fi
  before=$word
done
kill -9 $PPID
"""


def make(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkout with a space in its path, whose extension is one function."""
    folder = tmp_path / "a b"
    (folder / "cachee_shm").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "meson.build").write_text(PROJECT)
    (folder / "core.c").write_text(SOURCE)
    return folder


def build(folder: Path, **environ: str) -> Path:
    """The extension beside its sources, after `make build`; what is in .venv is taken for made."""
    done = make(folder, "-o", ".venv/.tools", "-o", ".venv/.installed", "build", **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (extension,) = (folder / "cachee_shm").iterdir()
    return extension


def answer(extension: Path) -> int:
    """Asked of a copy: this process keeps what it has loaded by its name."""
    copy = extension.with_name(f"copy-{os.urandom(4).hex()}")
    shutil.copy(extension, copy)
    try:
        return int(ctypes.CDLL(str(copy)).answer())
    finally:
        copy.unlink()


def test_whatever_is_missing_or_half_made_is_made_anew(small: Path) -> None:
    extension, folder = build(small), small / "build" / "editable"
    assert answer(extension) == 42
    for damage in (
        lambda: os.truncate(extension, 100),  # by a copy that was killed: it is newer than its source
        lambda: shutil.rmtree(small / "build"),
        lambda: shutil.rmtree(folder / "meson-private"),
        lambda: os.truncate(folder / "build.ninja", 100),
        lambda: (folder / "meson-private" / "coredata.dat").write_bytes(b""),
    ):
        damage()
        assert answer(build(small)) == 42


def test_another_compiler_makes_all_anew_and_the_same_one_nothing(small: Path, tmp_path: Path) -> None:
    build(small)
    made = (small / "build" / "editable" / "made_by").stat().st_mtime_ns
    build(small)
    assert (small / "build" / "editable" / "made_by").stat().st_mtime_ns == made
    compiler = tmp_path / "another"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo another\nexec cc "$@"\n')
    compiler.chmod(0o755)
    assert answer(build(small, CC=str(compiler))) == 42
    assert (small / "build" / "editable" / "made_by").read_text().startswith("another\n")


def test_a_mistake_in_a_source_fails_and_is_shown(small: Path) -> None:
    build(small)
    (small / "core.c").write_text("int answer(void) { return nothing; }\n")
    done = make(small, "-o", ".venv/.tools", "-o", ".venv/.installed", "build")
    assert done.returncode != 0
    assert "nothing" in done.stdout + done.stderr
    (small / "core.c").write_text(SOURCE)
    assert answer(build(small)) == 42


@pytest.mark.parametrize("fails", ["", "check", "-m pytest", "-m tests.mutants"])
def test_the_tests_fail_if_any_part_fails_and_each_part_is_run_and_shown(small: Path, fails: str) -> None:
    (small / "tests" / "core").mkdir(parents=True)
    (small / "tests" / "core" / "Makefile").write_text("programs:\ncheck programs:\n\t@$(PART) $@\n")
    part = small / "part"
    part.write_text('#!/bin/sh\necho "part: $*"\ncase "$*" in "$FAILS"*) exit 3;; esac\n')
    part.chmod(0o755)
    environ = {"PART": "../../part", "FAILS": fails or "none"}
    done = make(small, "-o", "lint", "PY=./part", "WORKERS=2", "test", **environ)
    assert (done.returncode == 0) is (fails == ""), done.stdout + done.stderr
    assert "part: -m pytest -n 2" in done.stdout and "part: check" in done.stdout


def test_a_torture_program_of_a_compiler_that_was_killed_is_no_program(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = -std=gnu11 ] && exec "$REAL" "$@"\nexec cc "$@"\n')
    killed = tmp_path / "killed"
    killed.write_text(KILLED_COMPILER)
    for script in (compiler, killed):
        script.chmod(0o755)
    target = f"{tmp_path}/made/plain/torture.o"
    asked = ("-C", str(ROOT / "tests" / "core"), f"CC={compiler}", f"BUILD={tmp_path}/made", target)
    assert make(tmp_path, *asked, REAL=str(killed)).returncode != 0
    assert list(Path(target).parent.iterdir())
    assert make(tmp_path, *asked, REAL="cc").returncode == 0
    assert Path(target).read_bytes().startswith(b"\x7fELF")
