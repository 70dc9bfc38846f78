"""The application of examples/shop on the cache that $SHOP_CACHE names: gunicorn loads ``shop_on:app``.

The shop's own code is the same on all of them. Each call of the database adds a byte to the file $SHOP_LOADS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import database
from shop_caches import InEachWorker, OnRedis

import cachee_shm

CALLS = ("product", "price", "user", "category", "products", "prices")

ours = cachee_shm.attach
path = os.environ.get("SHOP_REDIS", "")
CACHES: dict[str, Callable[[], Any]] = {
    "cachee": lambda: ours("bench"),
    "redis-py": lambda: OnRedis(path),
    "pub/sub": lambda: InEachWorker(60, path),
    "TTL 1 s": lambda: InEachWorker(1, None),
}
made = CACHES[os.environ["SHOP_CACHE"]]
file = os.open(os.environ["SHOP_LOADS"], os.O_WRONLY | os.O_APPEND)


def counted(call: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*args: Any) -> Any:
        os.write(file, b".")
        return call(*args)

    return counting


for name in CALLS:
    setattr(database, name, counted(getattr(database, name)))
cachee_shm.attach = lambda namespace: made()  # type: ignore[assignment,misc]

from app import app  # noqa: E402

__all__ = ["app"]
