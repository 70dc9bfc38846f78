"""The caches with which examples/shop is measured beside ours, written by hand as in real services.

Each has those verbs of ``cachee_shm.Cache`` that the shop uses.

  OnRedis        redis-py with hiredis: asyncio where the shop awaits, threads elsewhere. Values are msgpack,
                 many rows are one MGET, a tag is a set of keys
  InEachWorker   a dict in each worker (cachebox.TTLCache). Whoever writes a key publishes it on a channel of
                 Redis; a thread of each worker listens, and drops what it hears. What was loaded while
                 something was dropped is not kept: without that, one read of 50 was stale, for as long as a
                 minute. Without a channel, its lifetime alone bounds how old an entry may be
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cachebox
import msgpack
import redis
import redis.asyncio

ENTRIES = 100_000
CHANNEL = "invalid"
MISSING = object()
Loader = Callable[..., Any]


class Write:
    """What a ``writing`` block hands over."""

    value: Any = MISSING

    def set(self, value: Any, ttl: float) -> None:
        self.value, self.ttl = value, ttl


class ByHand(ABC):
    """The verbs of the shop that are the same on every cache."""

    @contextmanager
    def writing(self, key: str) -> Iterator[Write]:
        write = Write()
        try:
            yield write
        finally:
            if write.value is MISSING:
                self.delete_many([key])
            else:
                self.wrote(key, write.value, write.ttl)

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def wait_synced(self, timeout: float) -> bool:
        return True

    @abstractmethod
    def wrote(self, key: str, value: Any, ttl: float) -> None:
        """The origin has been written: store the value, or drop it everywhere."""

    @abstractmethod
    def delete_many(self, keys: Iterable[str]) -> None: ...


class OnRedis(ByHand):
    """Clients are made at first use: in a worker, after the fork."""

    def __init__(self, path: str) -> None:
        self.client = redis.Redis(unix_socket_path=path)
        self.aclient = redis.asyncio.Redis(unix_socket_path=path)

    def get_or_load(self, key: str, load: Loader, *args: Any, ttl: float) -> Any:
        packed = self.client.get(key)
        if packed is not None:
            return msgpack.unpackb(packed)
        value = load(*args)
        self.client.set(key, msgpack.packb(value), ex=ttl)
        return value

    async def aget_or_load(
        self, key: str, load: Callable[..., Awaitable[Any]], *args: Any, ttl: float, tags: Sequence[str] = ()
    ) -> Any:
        packed = await self.aclient.get(key)
        if packed is not None:
            return msgpack.unpackb(packed)
        value = await load(*args)
        pipeline = self.aclient.pipeline(transaction=False)
        pipeline.set(key, msgpack.packb(value), ex=ttl)
        for tag in tags:
            pipeline.sadd(tag, key)
        await pipeline.execute()
        return value

    def get_or_load_many(self, keys: list[str], load_many: Loader, *, ttl: float) -> dict[str, Any]:
        packed = dict(zip(keys, self.client.mget(keys), strict=True))
        found = {key: msgpack.unpackb(one) for key, one in packed.items() if one is not None}
        missing = [key for key in keys if key not in found]
        if missing:
            loaded = load_many(missing)
            pipeline = self.client.pipeline(transaction=False)
            for key, value in loaded.items():
                pipeline.set(key, msgpack.packb(value), ex=ttl)
            pipeline.execute()
            found.update(loaded)
        return {key: found.get(key) for key in keys}

    def wrote(self, key: str, value: Any, ttl: float) -> None:
        self.client.set(key, msgpack.packb(value), ex=ttl)

    def delete_many(self, keys: Iterable[str]) -> None:
        self.client.delete(*keys)

    def delete_tags(self, tag: str) -> None:
        keys = self.client.smembers(tag)
        self.client.delete(tag, *keys)


class InEachWorker(ByHand):
    """A dict of this process. ``path``: of the Redis with the channel; None: without one."""

    def __init__(self, ttl_s: float, path: str | None) -> None:
        self.held = cachebox.TTLCache(ENTRIES, ttl_s)
        self.tagged: defaultdict[str, set[str]] = defaultdict(set)
        self.lock, self.drops = threading.Lock(), 0
        self.channel = redis.Redis(unix_socket_path=path) if path else None
        if self.channel is not None:
            self.listen()
            os.register_at_fork(after_in_child=self.listen)

    def listen(self) -> None:
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self) -> None:
        assert self.channel is not None
        heard = self.channel.pubsub(ignore_subscribe_messages=True)
        heard.subscribe(CHANNEL)
        for message in heard.listen():
            self.drop(message["data"].decode().split())

    def drop(self, names: Iterable[str]) -> None:
        with self.lock:
            self.drops += 1
            for name in names:
                self.held.pop(name, None)
                for key in self.tagged.pop(name, ()):
                    self.held.pop(key, None)

    def keep(self, loaded: Mapping[str, Any], drops: int, tags: Sequence[str] = ()) -> None:
        """What was loaded, unless something was dropped meanwhile: it may be older than that."""
        with self.lock:
            if self.drops == drops:
                self.held.update(loaded)
                for tag in tags:
                    self.tagged[tag].update(loaded)

    def invalidate(self, names: list[str]) -> None:
        self.drop(names)
        if self.channel is not None:
            self.channel.publish(CHANNEL, " ".join(names))

    def get_or_load(self, key: str, load: Loader, *args: Any, ttl: float) -> Any:
        value = self.held.get(key, MISSING)
        if value is MISSING:
            drops = self.drops
            value = load(*args)
            self.keep({key: value}, drops)
        return value

    async def aget_or_load(
        self, key: str, load: Callable[..., Awaitable[Any]], *args: Any, ttl: float, tags: Sequence[str] = ()
    ) -> Any:
        value = self.held.get(key, MISSING)
        if value is MISSING:
            drops = self.drops
            value = await load(*args)
            self.keep({key: value}, drops, tags)
        return value

    def get_or_load_many(self, keys: list[str], load_many: Loader, *, ttl: float) -> dict[str, Any]:
        found = {key: self.held.get(key) for key in keys}
        missing = [key for key, value in found.items() if value is None]
        if missing:
            drops = self.drops
            loaded = load_many(missing)
            self.keep(loaded, drops)
            found.update(loaded)
        return found

    def wrote(self, key: str, value: Any, ttl: float) -> None:
        self.invalidate([key])  # the channel tells this worker as well: what it kept now would be dropped

    def delete_many(self, keys: Iterable[str]) -> None:
        self.invalidate(list(keys))

    def delete_tags(self, tag: str) -> None:
        self.invalidate([tag])
