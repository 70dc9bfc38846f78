"""Hosts on this machine: each a real bridge process, real segments and a port of its own."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc

import cachee_shm
from cachee_shm import Cache
from cachee_shm.ports import free_ports

WAIT_S = 60.0  # for what takes milliseconds: only a failure waits as long


def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits for `condition`, whose truth is what the test is about."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.001)


class Host:
    """One host of the test's mesh. Names are unique, so that tests can run at the same time.

    Values outlast isolation here: a test that waits for an eviction shall not be content with less.
    """

    def __init__(
        self, folder: Path, name: str, port: int, peers: list[int], bridge: str = "", memory: str = "4MiB"
    ) -> None:
        self.name = name
        self.port = port
        self.folder = folder / name
        self.folder.mkdir()
        self.config = self.folder / "cachee.toml"
        self._caches: list[Cache] = []
        self.release: Path | None = None
        """Where its bridge's code is; None: this tree."""
        self.process: subprocess.Popen[bytes] | None = None
        if "drain" not in bridge:
            bridge = f'drain = "0s"\n{bridge}'  # tests stop bridges under their workers
        if "check_every" not in bridge:
            bridge = f'check_every = "0s"\n{bridge}'  # tests count records
        addresses = ", ".join(f'"127.0.0.1:{peer}"' for peer in peers)
        self.config.write_text(
            f'[host]\nname = "{name}"\n[defaults]\nmemory = "{memory}"\nisolation_ttl = "1h"\n'
            f'[namespaces.shop]\n[bridge]\nlisten = "127.0.0.1:{port}"\npeers = [{addresses}]\n{bridge}\n'
        )

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def log(self) -> str:
        """All that the bridges of this host have said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def start(self, before: str = "pass") -> Host:
        """Runs the bridge, Python `before` it; returns when it says READY=1."""
        ready = self.folder / f"notify-{uuid.uuid4().hex[:8]}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(ready))
            manager.settimeout(WAIT_S)
            self.process = self.run(before, NOTIFY_SOCKET=str(ready))
            while b"READY=1" not in manager.recv(4096):
                pass
        return self

    def run(self, before: str = "pass", **environ: str) -> subprocess.Popen[bytes]:
        """Another bridge process with this host's configuration, its words in `log`; Python `before` it."""
        script = f"{before}\nimport sys, cachee_bridge.__main__ as command\nsys.exit(command.main())"
        command = [sys.executable, "-c", script, "--config", str(self.config_for(self.release))]
        if self.release is not None:
            environ["PYTHONPATH"] = f"{self.release}:{self.release / 'bridge'}"
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(command, stderr=log, env={**os.environ, **environ}, cwd=self.release)

    def config_for(self, release: Path | None) -> Path:
        """The configuration's file, without what the release before does not know."""
        if release is None:
            return self.config
        lines = self.config.read_text().splitlines(keepends=True)
        path = self.folder / "before.toml"
        path.write_text("".join(line for line in lines if not line.startswith(("drain", "check_every"))))
        return path

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As the kernel kills: no last word."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(WAIT_S)

    def stop(self) -> int:
        """As systemd stops; the exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def attach(self, namespace: str = "shop") -> Cache:
        cache = cachee_shm.attach(namespace, config=str(self.config))
        self._caches.append(cache)
        return cache

    def detach(self) -> None:
        for cache in self._caches:
            cache.close()
        self._caches.clear()

    def clean_up(self) -> None:
        self.detach()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for path in glob.glob(f"/dev/shm/cachee.{self.name}.*"):
            os.unlink(path)
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_message_queue(f"/cachee.{self.name}")


@contextlib.contextmanager
def hosts(folder: Path, number: int = 2, bridge: str = "", memory: str = "4MiB") -> Iterator[list[Host]]:
    """Hosts a, b, c, ...: each names all of them as peers, itself too, and none is started."""
    run = uuid.uuid4().hex[:8]
    ports = free_ports(number)
    made = [
        Host(folder, f"{chr(ord('a') + i)}-{run}", ports[i], ports, bridge, memory) for i in range(number)
    ]
    try:
        yield made
    finally:
        for host in made:
            host.clean_up()
