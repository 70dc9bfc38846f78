"""The face of WSGI: one load a host, streams, applications of every shape, and a real gunicorn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from cachee_shm.http.wsgi import CacheeMiddleware
from cachee_shm.ports import free_ports
from cachee_shm.testing import frozen_clock
from tests.cachee_shm.http.faces import HOST, until_serving

FRESH = [("cache-control", "max-age=60")]


def ask(app: Any, path: str = "/", method: str = "GET") -> tuple[str, bytes]:
    started: list[str] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append(status)
        return written.append

    environ = {"REQUEST_METHOD": method, "wsgi.url_scheme": "http", "HTTP_HOST": HOST, "PATH_INFO": path}
    body = app(environ, start_response)
    try:
        whole = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return started[-1], b"".join(written) + whole


def site(app: Any, cache: Any, **options: Any) -> CacheeMiddleware:
    return CacheeMiddleware(app, cache, hosts=[HOST], **options)


def test_many_threads_at_once_are_one_load(shm_cache) -> None:
    loads, all_came = [], threading.Barrier(8, timeout=60)

    def app(environ: Any, start_response: Any) -> Any:
        loads.append(1)
        threading.Event().wait(0.1)
        start_response("200 OK", FRESH)
        return [b"page"]

    front = site(app, shm_cache)

    def one(_: int) -> tuple[str, bytes]:
        all_came.wait()
        return ask(front)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(one, range(8))) == {("200 OK", b"page")}
    assert len(loads) == 1


def test_a_request_that_waits_for_a_page_that_is_not_stored_goes_on_at_once(shm_cache) -> None:
    """All eight streams are open at one time."""
    all_stream = threading.Barrier(8, timeout=60)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [*FRESH, ("content-type", "text/event-stream")])
        yield b"data: 1\n\n"
        all_stream.wait()

    front = site(app, shm_cache)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: ask(front)[1], range(8))) == [b"data: 1\n\n"] * 8


def test_what_is_too_large_is_sent_as_it_comes(shm_cache) -> None:
    made = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [*FRESH, ("content-length", "4000")])
        for _ in range(4):
            made.append(1)
            yield b"x" * 1000

    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "HTTP_HOST": HOST, "PATH_INFO": "/"}
    body = iter(site(app, shm_cache, body_bytes_max=3999)(environ, lambda *_: None))
    assert [(len(next(body)), len(made)) for _ in range(4)] == [(1000, n) for n in (1, 2, 3, 4)]


class Closing:
    """A body with an end that somebody has to be told of."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks, self.closed = iter(chunks), 0

    def __iter__(self) -> Any:
        return self.chunks

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    "headers", [FRESH, [*FRESH, ("content-length", "6")], []], ids=["stream", "stored", "not"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_body_is_closed_once(shm_cache, headers: Any, method: str) -> None:
    bodies = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        bodies.append(Closing([b"abc", b"def"]))
        return bodies[-1]

    assert ask(site(app, shm_cache), method=method)[1] == b"abcdef"
    assert [body.closed for body in bodies] == [1]


def test_write_is_passed_on(shm_cache) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [*FRESH, ("content-length", "6")])
        write(b"abc")
        return [b"def"]

    front = site(app, shm_cache)
    assert [ask(front) for _ in range(2)] == [("200 OK", b"abcdef")] * 2


def test_an_application_that_changes_its_mind_is_heard(shm_cache) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", FRESH)
        try:
            raise KeyError
        except KeyError:
            start_response("500 Broken", [], sys.exc_info())
        return [b"broken"]

    front = site(app, shm_cache)
    assert [ask(front) for _ in range(2)] == [("500 Broken", b"broken")] * 2


def test_an_error_of_the_application_is_its_own(shm_cache) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ask(site(app, shm_cache))


def test_an_application_that_says_nothing_is_an_error(shm_cache) -> None:
    with pytest.raises(RuntimeError, match="start_response"):
        ask(site(lambda environ, start_response: [b"page"], shm_cache))


def test_a_stale_page_takes_the_place_of_what_the_application_raises(shm_cache) -> None:
    raises: list[bool] = []

    def app(environ: Any, start_response: Any) -> Any:
        if raises:
            raise KeyError("mine")
        start_response("200 OK", [("cache-control", "max-age=10, stale-if-error=60")])
        return [b"page"]

    with frozen_clock(shm_cache) as clock:
        front = site(app, shm_cache)
        ask(front)
        clock.tick(20)
        raises.append(True)
        assert ask(front) == ("200 OK", b"page")
        clock.tick(100)
        with pytest.raises(KeyError):
            ask(front)


APP = """
import os, threading, cachee_shm
from cachee_shm.http.wsgi import CacheeMiddleware

host = os.environ["SITE"]

def plain(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Length", str(len(body)))])
    return [body]

app = CacheeMiddleware(plain, cachee_shm.attach("pages"), hosts=[host])
"""


def test_a_real_gunicorn_whose_workers_share_their_pages(tmp_path) -> None:
    (port,) = free_ports(1)
    host = f"test-http-{os.getpid()}"
    (tmp_path / "served.py").write_text(APP)
    (tmp_path / "cachee.toml").write_text(f'[host]\nname = "{host}"\n[namespaces.pages]\nmemory = "4MiB"\n')
    environment = {**os.environ, "SITE": f"127.0.0.1:{port}", "CACHEE_CONFIG": str(tmp_path / "cachee.toml")}
    command = [sys.executable, "-m", "gunicorn", "served:app", "-b", f"127.0.0.1:{port}", "-w", "2"]
    with subprocess.Popen([*command, "--log-level", "warning"], cwd=tmp_path, env=environment) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                until_serving(client, "/", server)
                first = client.get("/page")
                for _ in range(20):
                    again = httpx.get(f"http://127.0.0.1:{port}/page")
                    assert again.text == first.text and "hit" in again.headers["cache-status"]
                assert client.head("/page").headers["content-length"] == str(len(first.text))
                etag = {"if-none-match": again.headers["etag"]}
                assert client.get("/page", headers=etag).status_code == 304
        finally:
            server.terminate()
            server.wait()
            for entry in os.listdir("/dev/shm"):
                if entry.startswith(f"cachee.{host}."):
                    os.unlink(f"/dev/shm/{entry}")
