"""Starlette and FastAPI: a cache that is attached as the application starts, and a dependency that has it.

from cachee_shm.starlette import cache_of, lifespan

app = FastAPI(lifespan=lifespan("shop"))
Shop = Annotated[Cache, Depends(cache_of)]

@app.get("/users/{uid}")
async def user(uid: int, cache: Shop):
    return await cache.aget_or_load(f"user:{uid}", load_user, uid, ttl=60)

@app.get("/health")
def health(request: Request): return cachee_shm.starlette.health(request)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from cachee_shm.backing import Backing
from cachee_shm.cache import Cache

if TYPE_CHECKING:
    from cachee_shm.backing import Source

__all__ = ["cache_of", "health", "lifespan"]

STATE = "cachee_shm"

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    namespace: str | None = None, *, config: Source = None, inner: Lifespan | None = None
) -> Lifespan:
    """A lifespan that attaches before the first request and detaches after the last.

    ``namespace``, ``config``: as of ``cachee_shm.attach``. ``inner``: the application's own lifespan, which
    runs within this one; what it yields is kept. Applications that are mounted in this one have its cache.

    Where the namespace cannot be attached, the application starts all the same, with a cache that misses.
    """

    @asynccontextmanager
    async def spans(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        backing = Backing(namespace, config)
        for each in _with_mounted(app):
            setattr(each.state, STATE, backing)
        _ = backing.cache  # attached before the first request
        try:
            if inner is None:
                yield None  # a state would need a server that supports one
            else:
                async with inner(app) as state:
                    yield state
        finally:
            backing.close()

    return spans


def _with_mounted(app: Any) -> list[Any]:
    """The application, and those that are mounted in it at any depth: Starlette runs the lifespan of none."""
    found = [app]
    for each in found:
        mounted = (getattr(route, "app", None) for route in getattr(each, "routes", ()))
        found += [one for one in mounted if hasattr(one, "state") and one not in found]
    return found


def cache_of(request: HTTPConnection) -> Cache:
    """The application's cache: for ``Depends(cache_of)``, and for handlers of Starlette as
    ``cache_of(request)``.

    It takes requests and websockets. Raises ``RuntimeError`` where the application has no ``lifespan()``.
    """
    return _backing_of(request).cache


def health(request: HTTPConnection) -> JSONResponse:
    """A response with ``Cache.health()``: status 200 if all is well, else 503."""
    found = _backing_of(request).health()
    body = {**found._asdict(), "peers": [peer._asdict() for peer in found.peers]}
    return JSONResponse(body, 200 if found.ok else 503)


def _backing_of(request: HTTPConnection) -> Backing:
    backing = getattr(request.app.state, STATE, None)
    if isinstance(backing, Backing):
        return backing
    raise RuntimeError(
        "This application has no cache. Give it lifespan=cachee_shm.starlette.lifespan(); a test "
        "client runs it in a `with` block."
    )
