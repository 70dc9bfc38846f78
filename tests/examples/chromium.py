"""A real Chromium without a window, driven by its own protocol over a pipe: no library, no port."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-extensions"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server"),
)


def program() -> str | None:
    return next((found for found in map(shutil.which, NAMES) if found), None)


class Chromium:
    """One browser with one page. The pipe is what `--remote-debugging-pipe` reads as 3 and writes as 4."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._session = ""

    def __enter__(self) -> Chromium:
        read, self._out = os.pipe()
        into, write = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={self._folder}/profile"]
        if os.getuid() == 0:
            flags.append("--no-sandbox")  # root needs it; the test's own page alone is opened
        # The shell gives the pipe the numbers that Chromium wants, whichever it has here.
        command = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, str(program()), *flags, "about:blank"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read), os.close(write)
        self._in = os.fdopen(into, "rb")
        pages = self._ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in pages if target["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        return self

    def __exit__(self, *error: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its own group: the browser and its helpers
        self._process.wait()
        os.close(self._out)
        self._in.close()

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; None where there is none yet."""
        return self._ask("Runtime.evaluate", expression=expression)["result"].get("value")

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._next())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> bytes:
        piece = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            piece += byte
        return bytes(piece)
