"""The demo's processes: started, watched, asked to end, and ended.

Each process leads a session of its own. So Ctrl-C only reaches the demo, which ends the others in order, and
a process can be ended with its workers. There are two kinds. *Servers* (gunicorn, the bridge) end by SIGTERM.
*Helpers* (the demo's own scripts) end when their standard input does, so that none outlives the demo, and
write lines of JSON to their standard output.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachee_shm.cli.demo.hosts import Host, readable

SERVER_END_S = 8.0  # gunicorn lets its workers finish; a bridge says goodbye
HELPER_END_S = 10.0  # a helper writes its journal's end

Message = dict[str, Any]


class DemoError(Exception):
    """The demo cannot go on; the message says why, with the end of the log of the process at fault."""


class Ended(Exception):
    """The demo was asked to end, by Ctrl-C or SIGTERM: the signal's number."""


@dataclass
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Crew:
    """All processes of one demo; when its block is left it ends them, and the janitor takes the rest away."""

    def __init__(self, folder: Path, *, keep_folder: bool) -> None:
        self._folder = folder
        self._children: list[Child] = []
        self._partial: dict[int, bytes] = {}
        self._asked_to_end = 0
        self._handlers = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        self._selector = selectors.DefaultSelector()
        self._janitor = subprocess.Popen(
            [sys.executable, "-m", "cachee_shm.cli.demo.janitor"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        if not keep_folder:
            self._tell("folder", folder)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        """Newest first: load before servers, servers before bridges. A second Ctrl-C changes nothing."""
        for child in reversed(self._children):
            self.end(child)
        self._selector.close()
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        self._janitor.wait()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def own(self, host: Host) -> None:
        """Tells the janitor to remove what this host leaves in the system."""
        self._tell("host", host.name)

    def server(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self._add(Child(name, process, log))

    def helper(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        log = self._folder / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", f"cachee_shm.cli.demo.{module}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        child = self._add(Child(name, process, log))
        self._selector.register(process.stdout, selectors.EVENT_READ, child)
        return child

    def messages(self, timeout_s: float) -> Iterator[tuple[Child, Message]]:
        """What helpers have reported, after waiting for it at most so long; fails if a process died."""
        for key, _ in self._selector.select(timeout_s):
            yield from self._read(key.data, key.fileobj)
        self.check()

    def check(self) -> None:
        """`Ended` if the demo was asked to end, `DemoError` if a process has failed."""
        if self._asked_to_end:
            raise Ended(self._asked_to_end)
        for child in self._children:
            code = child.process.poll()
            if code:
                raise DemoError(f"{child.name} ended with code {code}:\n{readable(child.log)}")

    def finish(self, child: Child) -> list[Message]:
        """Ends a helper in order; its last messages."""
        assert child.process.stdin is not None
        with suppress(BrokenPipeError):
            child.process.stdin.close()
        try:
            child.process.wait(HELPER_END_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{child.name} did not end:\n{readable(child.log)}") from None
        assert child.process.stdout is not None
        found = [message for _, message in self._read(child, child.process.stdout)]
        self.check()
        self.end(child)
        return found

    def end(self, child: Child) -> None:
        """Ends a process and its group, whatever state it is in. A second call does nothing."""
        if child not in self._children:
            return
        self._children.remove(child)
        if child.process.stdout is not None:
            with suppress(KeyError):
                self._selector.unregister(child.process.stdout)
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(SERVER_END_S)
        child.signal(signal.SIGKILL)
        child.process.wait()
        self._tell("ended", child.process.pid)

    def _ask(self, number: int, _: object) -> None:
        """Only notes the signal. An exception here could come after a process was started and before it is in
        the list of processes."""
        self._asked_to_end = number

    def _add(self, child: Child) -> Child:
        self._children.append(child)
        self._tell("group", child.process.pid)
        return child

    def _tell(self, what: str, value: object) -> None:
        assert self._janitor.stdin is not None
        with suppress(BrokenPipeError):
            self._janitor.stdin.write(f"{what} {value}\n".encode())
            self._janitor.stdin.flush()

    def _read(self, child: Child, stream: Any) -> Iterator[tuple[Child, Message]]:
        data = stream.read()
        if data == b"":
            with suppress(KeyError):
                self._selector.unregister(stream)
        *lines, rest = (self._partial.pop(child.process.pid, b"") + (data or b"")).split(b"\n")
        self._partial[child.process.pid] = rest
        for line in lines:
            yield child, json.loads(line)
