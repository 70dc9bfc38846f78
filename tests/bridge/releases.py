"""The release before this one, as it was: its code out of git's history, compiled once, and its workers."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import machine
from tests.bridge.hosts import Host
from tests.cachee_shm.processes import child

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "4373f6b"
"""Wire 2, layout 2."""
SERVE = """
for line in sys.stdin:
    say(json.dumps(eval(line)))
"""


def release_before() -> Path:
    """The folder of wire 2 and layout 2, made at its first use. Skips where git's history is not there."""
    folder = ROOT / "build" / "releases" / f"{COMMIT}-{sysconfig.get_config_var('SOABI')}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    git = subprocess.run(["git", "archive", "--format=tar", COMMIT], cwd=ROOT, capture_output=True)
    if git.returncode:
        machine.skip("release before", f"git has no commit {COMMIT} here (git fetch --unshallow)")
    shutil.rmtree(folder, ignore_errors=True)  # what another run has left half made
    with tarfile.open(fileobj=io.BytesIO(git.stdout)) as archive:
        archive.extractall(folder, filter="data") if sys.version_info >= (3, 12) else archive.extractall(
            folder
        )
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["meson", "setup", "compiled"], cwd=folder, env=tools, check=True, capture_output=True)
    subprocess.run(["ninja", "-C", "compiled"], cwd=folder, env=tools, check=True, capture_output=True)
    for library in (folder / "compiled").glob("_core.*.so"):
        library.rename(folder / "cachee_shm" / library.name)
    (folder / "made").touch()


class Worker:
    """A process that attaches to a host's segment and does what it is told."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __call__(self, expression: str) -> Any:
        """The value of a Python expression about `cache`, where it runs."""
        self._process.tell(expression)
        return json.loads(self._process.line())

    def begin(self, expression: str) -> None:
        """Let it begin something that says "begun" when the test may go on, and ends by `end`."""
        self._process.tell(expression)
        assert self._process.line() == "begun"

    def end(self) -> Any:
        """The value of what was begun."""
        return json.loads(self._process.line())

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def worker(host: Host, release: Path | None = None) -> Iterator[Worker]:
    """One of this release, or of another."""
    config = str(host.config_for(release))
    under = ()
    if release is not None:
        under = ("env", f"--chdir={release}", f"PYTHONPATH={release}:{release / 'bridge'}")
    with child(f"cache = cachee_shm.attach('shop', config={config!r})\n{SERVE}", under=under) as process:
        yield Worker(process)
