"""Other processes that attach: started with a few lines of Python, spoken to line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

PRELUDE = """
import json, os, signal, sys, time
import cachee_shm
arguments = json.loads(sys.argv[1])
def say(*words): print(*words, flush=True)
def wait(): return sys.stdin.readline()
def die(): os.kill(os.getpid(), signal.SIGKILL)
"""
MINUTE_S = 60.0  # no test asserts a time: this is when waiting for the inevitable ends
ATTACH = "cache = cachee_shm.attach(config=arguments['config'])\n"


class Child:
    """A Python process. ``say()`` in it is ``line()`` here; ``tell()`` here ends a ``wait()`` in it."""

    def __init__(
        self, code: str, *, under: tuple[str, ...] = (), python: str = sys.executable, **arguments: Any
    ) -> None:
        attach = ATTACH if "config" in arguments else ""
        self.process = subprocess.Popen(
            [*under, python, "-c", PRELUDE + attach + code, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"it ended without a word, status {self.process.wait()}"
        return line.rstrip("\n")

    def tell(self, words: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def died(self) -> None:
        """Wait for a process that kills itself."""
        assert self.process.wait() == -signal.SIGKILL

    def end(self) -> list[str]:
        """Wait for a good end; what it said last."""
        said, _ = self.process.communicate()
        assert self.process.returncode == 0
        return said.splitlines()


@contextmanager
def children(code: str, count: int = 1, **arguments: Any) -> Iterator[list[Child]]:
    """So many processes of this code; whatever is left of them at the end is killed."""
    started = [Child(code, number=number, **arguments) for number in range(count)]
    try:
        yield started
    finally:
        for child in started:
            child.kill()
            for stream in (child.process.stdin, child.process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()


@contextmanager
def child(code: str, **arguments: Any) -> Iterator[Child]:
    with children(code, **arguments) as (one,):
        yield one


def until(condition: Callable[[], Any]) -> Any:
    """Wait for the inevitable; what it is then."""
    deadline = time.monotonic() + MINUTE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


def forked(function: Callable[[], object]) -> int:
    """The pid of a forked child that runs this and exits 0, or 1 with the traceback on stderr."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def in_fork(function: Callable[[], object]) -> None:
    """Run it in a forked child; fails as it fails."""
    assert os.waitstatus_to_exitcode(os.waitpid(forked(function), 0)[1]) == 0
