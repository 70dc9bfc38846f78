"""A terminal for a command under test: what it writes there, and keys that are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

WAIT_S = 60.0


class Terminal:
    """A command on a pseudo terminal of its own."""

    def __init__(self, command: Sequence[str], columns: int = 80, lines: int = 24, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._theirs = theirs
        self.modes = termios.tcgetattr(theirs)
        env = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")
        }
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**env, "TERM": "xterm", **environ},
        )
        self.seen = ""

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, pattern: str) -> str:
        """What was written since, up to where it matches."""
        end = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < end and self._read(), f"{pattern} in vain: {self.seen!r}"
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def ended(self) -> tuple[int, str]:
        """The exit code, and all that was written since."""
        end = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < end
            self._read()
        while self._read():
            pass
        return self.process.returncode, self.seen

    def has_its_modes(self) -> bool:
        """As they were before the command."""
        return termios.tcgetattr(self._theirs) == self.modes

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        os.close(self._ours)
        os.close(self._theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], 0.1)[0]:
            return self.process.poll() is None
        self.seen += os.read(self._ours, 1 << 16).decode(errors="surrogateescape")
        return True


def on_a_terminal(command: Sequence[str], columns: int = 80, **environ: str) -> str:
    """All that it writes there until it ends."""
    with Terminal(command, columns, **environ) as terminal:
        return terminal.ended()[1]
