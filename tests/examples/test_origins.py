"""The guide of origins: each of its blocks is run, on real PostgreSQL, HTTP and Redis servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cachee_shm.cli.demo.janitor import unlink
from tests.examples.stories import EXAMPLES
from tests.examples.test_migrating import redis

__all__ = ["redis"]

pytestmark = [pytest.mark.needs("what is migrated from"), pytest.mark.needs("PostgreSQL")]

GUIDE = (EXAMPLES / "origins" / "README.md").read_text(encoding="utf-8")
BLOCKS = [text.split("```")[0] for text in GUIDE.split("```python\n")[1:]]


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"price": 700}).encode()
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_guide_has_three_origins() -> None:
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("number", range(3), ids=["SQLAlchemy", "httpx", "Redis"])
def test_a_block_of_the_guide_runs(number: int, redis: str, api: str, postgres: dict, tmp_path: Path) -> None:
    host = f"test-origins-{os.getpid()}"
    config = tmp_path / "cachee.toml"
    config.write_text(f'[host]\nname = "{host}"\n[defaults]\nmemory = "4MiB"\n')
    environment = {"CACHEE_CONFIG": str(config), "REDIS_URL": redis, "API_URL": api}
    place = "{user}@{host}:{port}/{database}".format(**postgres)
    environment["DATABASE_URL"] = f"postgresql+psycopg://{place}"
    command = [sys.executable, "-c", BLOCKS[number]]
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        unlink(f"cachee.{host}")
