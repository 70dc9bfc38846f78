"""An application that answers as a test says, behind both faces of the cache, without a server."""

from __future__ import annotations

import asyncio
import io
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

import cachee_shm.http.asgi
import cachee_shm.http.wsgi

START_S = 60.0
HOST = "shop.example"
FRESH = {"cache-control": "max-age=60"}


@dataclass
class Reply:
    """What the application says. `chunks`: it streams them. `work`: is given the scope or the environment."""

    fields: Any = field(default_factory=lambda: dict(FRESH))
    body: bytes = b"page"
    status: int = 200
    chunks: list[bytes] | None = None
    length: int | None = None
    work: Callable[[Any], object] = lambda where: None

    def pairs(self) -> list[tuple[str, str]]:
        pairs = list(self.fields.items()) if isinstance(self.fields, dict) else list(self.fields)
        return pairs if self.length is None else [*pairs, ("content-length", str(self.length))]


@dataclass
class Got:
    status: int
    pairs: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        values = [value for each, value in self.pairs if each.lower() == name]
        return ", ".join(values) if values else None

    @property
    def is_hit(self) -> bool:
        return "hit" in (self["cache-status"] or "")


class Site:
    """`replies`: path -> Reply, or what makes one of the request's fields. `asked`: what came through."""

    def __init__(self, face: str, cache: Any, **options: Any) -> None:
        self.replies: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        options = {"hosts": [HOST], **options}
        if face == "asgi":
            self.app: Any = cachee_shm.http.asgi.CacheeMiddleware(self._asgi, cache, **options)
        else:
            self.app = cachee_shm.http.wsgi.CacheeMiddleware(self._wsgi, cache, **options)
        self.get = self._get_asgi if face == "asgi" else self._get_wsgi

    @property
    def loads(self) -> int:
        return len(self.asked)

    def _reply(self, method: str, path: str, fields: dict[str, str]) -> Reply:
        self.asked.append((method, path, fields))
        reply = self.replies.get(path, Reply())
        return reply(fields) if callable(reply) else reply

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        reply = self._reply(scope["method"], scope["path"], fields)
        reply.work(scope)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.pairs()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for chunk in reply.chunks or ():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if reply.chunks else reply.body})

    def _wsgi(self, environ: Any, start_response: Any) -> Any:
        fields = {
            name[5:].lower().replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        reply = self._reply(environ["REQUEST_METHOD"], environ["PATH_INFO"], fields)
        reply.work(environ)
        start_response(f"{reply.status} Status", reply.pairs())
        return iter(reply.chunks) if reply.chunks else [reply.body]

    def _get_asgi(self, path: str = "/", method: str = "GET", host: str = HOST, **fields: str) -> Got:
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in _named(host, fields)],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        start, *bodies = sent
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        assert not bodies[-1].get("more_body"), "the response has an end"
        return Got(start["status"], pairs, b"".join(each.get("body", b"") for each in bodies))

    def _get_wsgi(self, path: str = "/", method: str = "GET", host: str = HOST, **fields: str) -> Got:
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "wsgi.url_scheme": "http",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(),
        }
        for name, value in _named(host, fields):
            environ[
                "CONTENT_LENGTH" if name == "content-length" else f"HTTP_{name.upper().replace('-', '_')}"
            ] = value
        started: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            started[:] = [int(status[:3]), list(headers)]
            return lambda data: None

        body = self.app(environ, start_response)
        whole = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        return Got(started[0], started[1], whole)


def _named(host: str, fields: dict[str, str]) -> list[tuple[str, str]]:
    return [("host", host), *((_dashed(name), value) for name, value in fields.items())]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def until_serving(client: Any, path: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server answers with anything."""
    end = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < end:
        try:
            client.options(path)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")
