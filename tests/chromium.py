"""A real Chromium without a window, controlled by the DevTools protocol over a pipe: no library, no port."""

from __future__ import annotations

import base64
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
    "--hide-scrollbars",
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
        self._piece = bytearray()
        self._events: list[dict[str, Any]] = []

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
        """The value of an expression of JavaScript, or of its promise; None where there is none yet.

        AssertionError for an expression that throws.
        """
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def looks(self, width: int, height: int, dark: bool = False, is_phone: bool = False) -> None:
        """The size of the page in CSS pixels, and which colours its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        preferred = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._ask("Emulation.setEmulatedMedia", features=preferred)

    def press(self, key: str, code: int, text: str = "") -> None:
        """One key, down and up; `code` is the one that Windows gives it."""
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed
            )

    def picture(self, whole: bool = True) -> bytes:
        """The page as a PNG; `whole`: also what lies below the window's end."""
        taken = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])

    def heard(self, *methods: str) -> list[dict[str, Any]]:
        """The events of these names since the last call; the domain must have been enabled by `enable`."""
        self.evaluate("0")
        found = [event for event in self._events if event["method"] in methods]
        self._events.clear()
        return found

    def enable(self, *domains: str) -> None:
        """Have Chromium tell the events of these domains: "Runtime", "Log", "Network"."""
        for domain in domains:
            self._ask(f"{domain}.enable")

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._next())
            if "method" in answer:
                self._events.append(answer)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> bytes:
        """One message; they end with a zero byte each."""
        while b"\0" not in self._piece:
            came = os.read(self._in.fileno(), 1 << 16)
            assert came, "Chromium has ended"
            self._piece += came
        message, _, rest = bytes(self._piece).partition(b"\0")
        self._piece = bytearray(rest)
        return message
