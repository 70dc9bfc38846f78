"""The guide for those who move: each of its blocks is run, with a real Redis where it asks for one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachee_shm.cli.demo.janitor import unlink
from cachee_shm.ports import free_ports
from tests.examples.stories import EXAMPLES, run, until

pytestmark = pytest.mark.needs("what is migrated from")

SECTION = re.compile(r"^## From (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```python (before|after)\n(.*?)```", re.DOTALL)
GUIDE = (EXAMPLES / "migrating" / "README.md").read_text()
BLOCKS = {
    f"{name}: {when}": code for name, text in SECTION.findall(GUIDE) for when, code in BLOCK.findall(text)
}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("redis")
    command = [str(shutil.which("redis-server")), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            ping = [str(shutil.which("redis-cli")), "-p", str(port), "ping"]
            until(lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n")
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()


def test_the_guide_has_seven_pairs() -> None:
    assert len(BLOCKS) == 14
    assert GUIDE.count("```python") == 14


@pytest.mark.parametrize("code", BLOCKS.values(), ids=BLOCKS)
def test_a_block_of_the_guide_runs(code: str, redis: str, tmp_path: Path) -> None:
    host = f"test-migrating-{os.getpid()}"
    config = tmp_path / "cachee.toml"
    config.write_text(f'[host]\nname = "{host}"\n[defaults]\nmemory = "4MiB"\n')
    environment = {"MIGRATING_DATABASE": str(tmp_path / "users.sqlite3"), "REDIS_URL": redis}
    environment |= {"CACHEE_CONFIG": str(config), "PYTHONPATH": str(EXAMPLES / "migrating")}
    try:
        run("migrating", "origin.py", **environment)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        unlink(host)
