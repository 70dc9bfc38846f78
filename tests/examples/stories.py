"""A story on two hosts of this machine: each has a configuration, segments, a bridge and a server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import cachee_shm
from cachee_shm.cli.demo.hosts import make_hosts
from cachee_shm.cli.demo.janitor import unlink
from cachee_shm.config import Config, tomllib

EXAMPLES = Path(__file__).parents[2] / "examples"
START_S = 60.0
STOP_S = 10.0
SEEN_S = 30.0  # no test asserts a time: this is when waiting for the inevitable ends


@dataclass
class Site:
    """One host of a story. `cache`: its cache, as one more of its processes has it."""

    url: str
    cache: cachee_shm.Cache
    http: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def json(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()


def run(example: str, *arguments: str, **environment: str) -> None:
    """A program of the example, to its end."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=EXAMPLES / example, env={**os.environ, **environment}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@contextlib.contextmanager
def story(
    folder: Path,
    example: str,
    server: list[str],
    *,
    create: tuple[str, ...] = ("app.py",),
    **environment: str,
) -> Iterator[list[Site]]:
    """Both hosts of an example, its tables made, serving and linked. `server`: a module and its arguments.

    `create`: what Python is given to make the tables.
    """
    hosts = make_hosts(folder, None)
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.callback(unlink, host.name)
        run(example, *create, **environment, CACHEE_CONFIG=str(hosts[0].config))
        running: list[tuple[subprocess.Popen[bytes], Path]] = []
        stack.callback(_end, running)
        for host in hosts:
            whole = {**os.environ, **environment, "CACHEE_CONFIG": str(host.config)}
            command = [part.format(port=host.http_port) for part in server]
            for arguments in (["cachee_bridge", "--config", str(host.config)], command):
                running.append(_started(arguments, EXAMPLES / example, whole, folder / f"{host.label}.log"))
        sites = [_site(stack, host) for host in hosts]
        _wait_until(lambda: all(_serves(site) for site in sites), running)
        yield sites


def _started(
    arguments: list[str], folder: Path, environment: dict[str, str], log: Path
) -> tuple[subprocess.Popen[bytes], Path]:
    command = [sys.executable, "-m", *arguments]
    with open(log, "ab") as out:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out), log


def _end(running: list[tuple[subprocess.Popen[bytes], Path]]) -> None:
    for process, _ in running:
        process.terminate()
    for process, _ in running:
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _site(stack: contextlib.ExitStack, host: Any) -> Site:
    cache = stack.enter_context(cachee_shm.attach("shop", config=host.config))
    return Site(host.url, cache, stack.enter_context(httpx.Client(base_url=host.url, timeout=30)))


def _serves(site: Site) -> bool:
    health = site.cache.health()
    if not health.ok or len(health.peers) != 1 or health.unreachable:
        return False
    try:
        site.http.options("/")
    except httpx.TransportError:
        return False
    return True


def _wait_until(holds: Callable[[], bool], running: list[tuple[subprocess.Popen[bytes], Path]]) -> None:
    end = time.monotonic() + START_S
    while not holds():
        ended = [log for process, log in running if process.poll() is not None]
        assert not ended and time.monotonic() < end, "\n".join(log.read_text() for _, log in running)
        time.sleep(0.05)


def until(holds: Callable[[], bool]) -> None:
    """Waits for what is on its way."""
    end = time.monotonic() + SEEN_S
    while not holds():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.002)


def check_guide(example: str) -> None:
    """The configuration in the guide is accepted, and what it links to is there."""
    text = (EXAMPLES / example / "README.md").read_text()
    for block in text.split("```toml\n")[1:]:
        Config.parse(tomllib.loads(block.split("```")[0]))
    for name in ("app.py",):
        assert f"`{name}`" in text
