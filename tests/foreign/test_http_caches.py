"""The public tests of HTTP caches (http-cache-tests, of npm) against ``cachee_shm.http``, behind both faces.

The suite brings an origin and a client. Between them stands http_relay.py: an application that passes each
request on to the origin, with the middleware in front of it. The suite has three kinds of tests. A "required"
test tries what the RFC demands. An "optimal" test tries whether a cache stores what it is allowed to store. A
"check" only reports what a cache does, and is not counted here.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cachee_shm.processes import until
from tests.foreign import suites

VERSION = "0.4.5"
AGAIN = 3
"""So often what has failed is asked again: it has to pass once."""
SHA512 = "DjuwN9nUZXLTW+wav1LRESCZNVxl8SshwOy4z1pxuWbWt5/ay6sM9QQ1lebBaDO6P1IMBoK6mdf+PuVP/QNL8A=="
KINDS = """
import tests from './tests/index.mjs'
const of = test => [test.id, test.kind || 'required']
console.log(JSON.stringify(Object.fromEntries(tests.flatMap(suite => suite.tests.map(of)))))
"""
LEFT_OUT = {
    "a 304 is asked of nobody: what is stale is made anew by the application": (
        "304-.*|cc-resp-must-revalidate-stale|conditional-etag-vary-headers"
    ),
    "RFC 9111, 5.1: of several ages the first one counts; these tests are older": (
        "age-parse-dup-0|age-parse-dup-0-twoline|age-parse-dup-old|age-parse-prefix-twoline"
    ),
    "they look into a stored response that is not stored here": (
        "headers-store-(Content-Range|Set-Cookie2?)|partial-use-headers"
    ),
    "the relay's own library refuses the response": "headers-store-Transfer-Encoding",
    "they count only where a cache serves what is stale when its origin is gone": "stale-close-.*",
    "Surrogate-Control is none of HTTP's fields": "surrogate-.*",
}
LEFT_OUT_OF_WSGI = {
    "PEP 3333 lets no application send Connection": "headers-omit-headers-listed-in-Connection"
}


@pytest.mark.needs("frameworks")
@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_what_is_required_of_an_http_cache(face: str, tmp_path: Path) -> None:
    package = suites.package_of("http-cache-tests", VERSION, SHA512, "node-fetch@2.7.0")
    kinds: dict[str, str] = json.loads(node(package, "--input-type=module", "-e", KINDS))
    with origin(package, tmp_path) as at, relay(face, at) as base:
        results = asked(package, base)
        for _ in range(AGAIN):  # tags share buckets: one page's invalidation may drop another
            if failed_of(face, kinds, results):
                results |= {name: True for name, result in asked(package, base).items() if result is True}
    passed = {name for name, result in results.items() if result is True}
    assert not failed_of(face, kinds, results)
    assert sum(kinds.get(name) == "required" for name in passed) >= 120
    assert sum(kinds.get(name) == "optimal" for name in passed) >= 40, "it stores, too"


def asked(package: Path, base: str) -> dict[str, Any]:
    """What came of each test: True, or why it has failed."""
    return dict(json.loads(node(package, "cli.mjs", npm_config_base=base)))


def failed_of(face: str, kinds: dict[str, str], results: dict[str, Any]) -> dict[str, Any]:
    reasons = {**LEFT_OUT, **(LEFT_OUT_OF_WSGI if face == "wsgi" else {})}
    left_out = re.compile("|".join(reasons.values()))
    return {
        name: result
        for name, result in results.items()
        if result is not True and kinds.get(name) == "required" and not left_out.fullmatch(name)
    }


def node(package: Path, *arguments: str, **environment: str) -> str:
    given = {**os.environ, "npm_config_id": "", "npm_package_config_id": "", **environment}
    command = ["node", "--no-warnings", *arguments]
    done = subprocess.run(
        command, cwd=package, env=given, capture_output=True, text=True, timeout=suites.RUN_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def origin(package: Path, folder: Path) -> Iterator[str]:
    """Where it listens. Whatever it says later is of no use: it says much."""
    options = {"npm_config_protocol": "http", "npm_config_port": "0", "npm_config_pidfile": f"{folder}/pid"}
    with (folder / "origin").open("w") as said:
        server = subprocess.Popen(
            ["node", "server/server.mjs"], cwd=package, env={**os.environ, **options}, stdout=said
        )
        try:
            yield f"http://127.0.0.1:{port_of(server, folder / 'origin')}"
        finally:
            server.kill()
            server.wait()


@contextmanager
def relay(face: str, at: str) -> Iterator[str]:
    environment = {**os.environ, "ORIGIN": at, "PYTHONPATH": str(suites.ROOT)}
    program = [sys.executable, str(Path(__file__).with_name("http_relay.py")), face]
    with subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def port_of(server: "subprocess.Popen[bytes]", said: Path) -> int:
    found: list[str] = []

    def listens() -> bool:
        assert server.poll() is None, said.read_text()
        found[:] = re.findall(r"Listening on .*:(\d+)/", said.read_text())
        return bool(found)

    until(listens)
    return int(found[0])
