"""Starlette and FastAPI: lifespan, dependency and health."""

import contextlib
import os
import uuid
from typing import Annotated

import pytest

from cachee_shm import Cache

pytestmark = pytest.mark.needs("frameworks")


@pytest.fixture
def config():
    host = f"starlette-{uuid.uuid4().hex[:8]}"
    yield {"host": {"name": host}, "namespaces": {"test": {"memory": "4MiB"}}}
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"cachee.{host}."):
            os.unlink(f"/dev/shm/{name}")


def fastapi_app(lifespan):
    from fastapi import Depends, FastAPI, Request, WebSocket

    from cachee_shm import starlette

    app = FastAPI(lifespan=lifespan)
    app.state.calls = []
    shop = Annotated[Cache, Depends(starlette.cache_of)]

    @app.get("/users/{uid}")
    async def user(uid: int, cache: shop):
        async def load():
            app.state.calls.append(uid)
            return {"id": uid}

        return await cache.aget_or_load(f"user:{uid}", load, ttl=60)

    @app.get("/health")
    def health(request: Request):
        return starlette.health(request)

    @app.websocket("/live")
    async def live(socket: WebSocket, cache: shop):
        await socket.accept()
        await socket.send_json(cache.get("user:1"))

    return app


def test_a_handler_gets_the_applications_cache(config):
    from fastapi.testclient import TestClient

    from cachee_shm import starlette

    app = fastapi_app(starlette.lifespan("test", config=config))
    with TestClient(app) as client:
        assert client.get("/users/1").json() == client.get("/users/1").json() == {"id": 1}
        assert app.state.calls == [1]
        assert client.get("/health").status_code == 200
        with client.websocket_connect("/live") as socket:
            assert socket.receive_json() == {"id": 1}
        cache = app.state.cachee_shm.cache
    assert cache.closed


def test_the_applications_own_lifespan_runs_within(config):
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from cachee_shm import starlette

    said = []

    @contextlib.asynccontextmanager
    async def own(app):
        said.append(app.state.cachee_shm.cache.closed)
        yield {"name": "own"}
        said.append(app.state.cachee_shm.cache.closed)

    async def name(request):
        return JSONResponse([request.state.name, starlette.cache_of(request).namespace])

    routes = [Route("/", name)]
    with TestClient(
        Starlette(routes=routes, lifespan=starlette.lifespan("test", config=config, inner=own))
    ) as c:
        assert c.get("/").json() == ["own", "test"]
    assert said == [False, False]


def test_a_mounted_application_has_the_cache_of_the_one_that_it_is_mounted_in(config):
    from fastapi.testclient import TestClient
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from cachee_shm import starlette

    inner = fastapi_app(None)
    between = Starlette(routes=[Mount("/inner", app=inner)])
    app = fastapi_app(starlette.lifespan("test", config=config))
    app.mount("/between", between)
    with TestClient(app) as client:
        assert client.get("/between/inner/users/1").json() == client.get("/users/1").json() == {"id": 1}
        assert inner.state.calls == [1] and app.state.calls == []


def test_a_server_without_a_state_of_the_lifespan_starts_the_application(config):
    import asyncio

    from cachee_shm import starlette

    received = iter(["lifespan.startup", "lifespan.shutdown"])
    sent = []

    async def receive():
        return {"type": next(received)}

    async def send(message):
        sent.append(message["type"])

    app = fastapi_app(starlette.lifespan("test", config=config))
    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_no_page_fails_without_a_cache(config):
    from fastapi.testclient import TestClient

    from cachee_shm import starlette

    app = fastapi_app(starlette.lifespan("elsewhere", config=config))
    with TestClient(app) as client:
        assert [client.get("/users/1").status_code for _ in range(2)] == [200, 200]
        assert app.state.calls == [1, 1]
        health = client.get("/health")
        assert health.status_code == 503
        assert "elsewhere" in health.json()["error"]


def test_an_application_without_the_lifespan_is_told_so():
    from fastapi.testclient import TestClient

    with pytest.raises(RuntimeError, match=r"lifespan=cachee_shm\.starlette\.lifespan"):
        TestClient(fastapi_app(None)).get("/users/1")
