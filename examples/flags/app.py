"""Feature flags that browsers see change at once: Starlette and SQLite, with Cachee between.

A flag may be flipped on any host. `cache.events` then yields on each host, and tells the browsers that are
connected there by server-sent events.
"""

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route

import cachee_shm
from cachee_shm.errors import Lapped

DATABASE = os.environ.get("FLAGS_DATABASE", "flags.sqlite3")
PAGE = Path(__file__).with_name("page.html")
KEY = "flags"

cache = cachee_shm.attach("shop")


async def flags() -> dict[str, bool]:
    return await cache.aget_or_load(KEY, run_in_threadpool, load_flags, ttl=3600)


def load_flags() -> dict[str, bool]:
    with closing(sqlite3.connect(DATABASE)) as database:
        return {name: bool(is_on) for name, is_on in database.execute("SELECT name, is_on FROM flags")}


def flip(name: str, is_on: bool) -> None:
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("INSERT OR REPLACE INTO flags VALUES (?, ?)", (name, is_on))
    cache.delete(KEY)  # after the commit


async def show(request: Request) -> JSONResponse:
    return JSONResponse(await flags())


async def change(request: Request) -> JSONResponse:
    await run_in_threadpool(flip, request.path_params["name"], (await request.json())["on"])
    return JSONResponse(await flags())


async def stream(request: Request) -> StreamingResponse:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nor may nginx hold it back
    return StreamingResponse(said(), media_type="text/event-stream", headers=headers)


async def said() -> AsyncIterator[str]:
    """The flags of now, and again after each change."""
    events = cache.events(keys=[KEY])  # before the first look, so that no change falls in between
    yield message(await flags())
    while True:
        with suppress(Lapped):  # some were missed: the flags of now are what counts
            await anext(events)
        yield message(await flags())


def message(values: dict[str, bool]) -> str:
    return f"data: {json.dumps(values)}\n\n"


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/flags", show),
        Route("/flags/{name}", change, methods=["PUT"]),
        Route("/events", stream),
    ]
)


def create() -> None:
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS flags (name TEXT PRIMARY KEY, is_on INTEGER)")
        database.execute("INSERT OR IGNORE INTO flags VALUES ('new-checkout', 0)")


if __name__ == "__main__":
    create()
