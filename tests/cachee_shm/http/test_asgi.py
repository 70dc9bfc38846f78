"""The face of ASGI: one load a host, streams, deaths of a request, and a real uvicorn."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio

from cachee_shm.http.asgi import CacheeMiddleware
from cachee_shm.ports import free_ports
from tests.cachee_shm.http.faces import HOST, until_serving

Application = Callable[[Any, Any, Any], Awaitable[None]]
FRESH = [(b"cache-control", b"max-age=60")]


async def answer(send: Any, body: bytes = b"page", headers: Any = FRESH, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def ask(app: Application, path: str = "/", sent: list[Any] | None = None, **scope: Any) -> list[Any]:
    """The messages of the response, as they come."""
    messages: list[Any] = [] if sent is None else sent

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    headers = [(b"host", HOST.encode())]
    whole = {"type": "http", "method": "GET", "scheme": "http", "path": path, "headers": headers, **scope}
    await app(whole, receive, send)
    return messages


def body_of(messages: list[Any]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def site(app: Application, cache: Any, **options: Any) -> CacheeMiddleware:
    return CacheeMiddleware(app, cache, hosts=[HOST], **options)


def test_a_hundred_requests_at_once_are_one_load(shm_cache) -> None:
    loads = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loads.append(1)
        await asyncio.sleep(0.05)
        await answer(send)

    async def herd() -> list[Any]:
        front = site(app, shm_cache)
        return await asyncio.gather(*(ask(front) for _ in range(100)))

    assert {body_of(each) for each in asyncio.run(herd())} == {b"page"}
    assert len(loads) == 1


def test_a_page_that_was_made_of_a_body_without_a_length_is_not_stored(shm_cache) -> None:
    """HTTP/2 announces no body by a field. Whether it is read before or after the response began."""

    def reading(is_early: bool) -> Application:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            start = {"type": "http.response.start", "status": 200, "headers": FRESH}
            read = (await receive())["body"] if is_early else b""
            await send(start)
            await send({"type": "http.response.body", "body": read or (await receive())["body"] or b"page"})

        return app

    async def ask_with(front: CacheeMiddleware, path: str, body: bytes) -> bytes:
        scope = {"type": "http", "method": "GET", "scheme": "http", "path": path}
        messages: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        await front({**scope, "headers": [(b"host", HOST.encode())]}, receive, send)
        return body_of(messages)

    async def asks() -> None:
        for is_early in (True, False):
            front, path = site(reading(is_early), shm_cache), f"/{is_early}"
            assert await ask_with(front, path, b"poison") == b"poison"
            assert await ask_with(front, path, b"") == b"page"
            assert await ask_with(front, path, b"poison") == b"page"

    asyncio.run(asks())


def test_a_request_that_waits_for_a_page_that_is_not_stored_goes_on_at_once(shm_cache) -> None:
    """A stream without an end does not hold up the next one."""
    began = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [*FRESH, (b"content-type", b"text/event-stream")]
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        began.append(1)
        await asyncio.Event().wait()

    async def streams() -> None:
        front = site(app, shm_cache)
        tasks = [asyncio.ensure_future(ask(front)) for _ in range(20)]
        while len(began) < 20:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()

    asyncio.run(asyncio.wait_for(streams(), 60))


def test_what_is_too_large_is_sent_as_it_comes(shm_cache) -> None:
    sent: list[Any] = []
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [*FRESH, (b"content-length", b"4000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for n in range(4):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": n < 3})
            seen.append(len(body_of(sent)))

    asyncio.run(ask(site(app, shm_cache, body_bytes_max=3999), sent=sent))
    assert seen == [1000, 2000, 3000, 4000]


def test_an_error_of_the_application_is_its_own_and_the_next_request_loads(shm_cache) -> None:
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(1)
        await asyncio.sleep(0.01)
        if len(calls) == 1:
            raise KeyError("mine")
        await answer(send)

    async def both() -> list[Any]:
        front = site(app, shm_cache)
        return await asyncio.gather(ask(front), ask(front), return_exceptions=True)

    first, second = asyncio.run(both())
    assert isinstance(first, KeyError) and body_of(second) == b"page"


def test_a_cancelled_request_leaves_the_load_to_those_who_wait(shm_cache) -> None:
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        await answer(send)

    async def all_of_them() -> set[bytes]:
        front = site(app, shm_cache)
        first = asyncio.ensure_future(ask(front))
        while not calls:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(ask(front)) for _ in range(10)]
        await asyncio.sleep(0.02)
        first.cancel()
        return {body_of(each) for each in await asyncio.gather(*others)}

    assert asyncio.run(asyncio.wait_for(all_of_them(), 60)) == {b"page"}
    assert len(calls) == 2


def test_a_request_after_an_invalidation_is_not_served_what_was_read_before(shm_cache) -> None:
    """The load that is under way has read the older row; its page is for those alone who asked before."""
    row, reading = ["old"], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        read = row[0]
        reading.append(read)
        await asyncio.sleep(0.05)
        await answer(send, read.encode(), [*FRESH, (b"cachee-tags", b"row")])

    async def story() -> list[bytes]:
        front = site(app, shm_cache)
        before = asyncio.ensure_future(ask(front))
        while not reading:
            await asyncio.sleep(0.001)
        row[0] = "new"
        shm_cache.delete_tags("row")
        after = [asyncio.ensure_future(ask(front)) for _ in range(5)]
        return [body_of(await before), *[body_of(await each) for each in after], body_of(await ask(front))]

    assert asyncio.run(story()) == [b"old", *[b"new"] * 6]


def test_trio_is_served_without_waiting_for_each_other(shm_cache) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(0)
        await answer(send)

    async def story() -> list[bytes]:
        front = site(app, shm_cache)
        return [body_of(await ask(front)) for _ in range(2)]

    assert trio.run(story) == [b"page", b"page"]


def test_what_is_no_http_request_passes(shm_cache) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(site(app, shm_cache)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_the_scope_that_is_seen_outside_is_the_applications(shm_cache) -> None:
    """Routers put what outer middleware reads into it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = "/"
        await answer(send)

    scopes: list[Any] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await site(app, shm_cache)(scope, receive, send)

    asyncio.run(ask(outer))
    assert scopes[0]["route"] == "/"


def test_a_second_commit_after_the_response_is_announced_too(shm_cache) -> None:
    """What a dependency commits once the response has been sent is read by nobody's older page."""
    front: Any = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)
        if scope["method"] == "POST":
            fills = [await ask(front), await ask(front)]  # in between, for somebody
            assert b"hit" in dict(fills[1][0]["headers"])[b"cache-status"]

    front = site(app, shm_cache)

    async def story() -> Any:
        await ask(front, method="POST")
        return (await ask(front))[0]["headers"]

    assert (b"cache-status", b"cachee; fwd=miss; stored") in asyncio.run(story())


APP = """
import os, cachee_shm
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from cachee_shm.http import tag
from cachee_shm.http.asgi import CacheeMiddleware

app = FastAPI()
app.add_middleware(CacheeMiddleware, cache=cachee_shm.attach(private=True), hosts=[os.environ["SITE"]])
count = 0

@app.get("/page")
def page(request: Request):
    global count
    count += 1
    tag(request.scope, "page")
    return JSONResponse({"count": count}, headers={"cache-control": "max-age=60"})

@app.post("/page")
def write():
    return {}

@app.get("/stream")
def stream():
    return StreamingResponse(iter(["a", "b"]), headers={"cache-control": "max-age=60"})
"""


def test_a_real_uvicorn_with_fastapi(tmp_path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "served.py").write_text(APP)
    command = [sys.executable, "-m", "uvicorn", "served:app", "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "SITE": f"127.0.0.1:{port}"}) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                until_serving(client, "/page", server)
                first, second = client.get("/page"), client.get("/page")
                assert (first.json(), second.json()) == ({"count": 1}, {"count": 1})
                assert "hit" in second.headers["cache-status"]
                assert (
                    client.get("/page", headers={"if-none-match": second.headers["etag"]}).status_code == 304
                )
                assert client.head("/page").headers["content-length"] == second.headers["content-length"]
                assert client.post("/page").status_code == 200
                assert client.get("/page").json() == {"count": 2}
                assert [client.get("/stream").text for _ in range(2)] == ["ab", "ab"]
        finally:
            server.terminate()


# Frameworks


@pytest.mark.needs("frameworks")
def test_a_script_of_another_site_may_read_a_page_whichever_request_came_first(shm_cache) -> None:
    """Litestar says ``Vary: Origin`` only to the origins that may read it."""
    from litestar import Litestar, get
    from litestar.config.cors import CORSConfig
    from litestar.datastructures import CacheControlHeader

    @get("/", cache_control=CacheControlHeader(max_age=60))
    async def page() -> str:
        return "page"

    sites = [f"https://{name}.example" for name in "ab"]
    app = Litestar([page], cors_config=CORSConfig(allow_origins=sites), logging_config=None)
    cached = CacheeMiddleware(app, shm_cache, hosts=[HOST])

    async def story() -> None:
        transport = httpx.ASGITransport(cached)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            for name in (None, "https://evil.example", *sites, *sites):
                got = await client.get("/", headers={"origin": name} if name else {})
                allowed = got.headers.get("access-control-allow-origin")
                assert allowed == (name if name in sites else None)
            assert "hit" in got.headers["cache-status"]
            await client.get("/")  # what was stored before a response named Origin is hidden
            assert "hit" in (await client.get("/")).headers["cache-status"]

    asyncio.run(story())
