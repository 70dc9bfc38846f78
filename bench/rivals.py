"""The rivals: one small adapter each, all with the same face, and the servers that two of them need.

  rival        pip install   apt-get install                      what it is
  dict                                                            no lifetime, no bound, one process
  cachebox     cachebox                                           TTLCache, one process
  theine       theine                                             W-TinyLFU with lifetimes, one process
  warp_cache   warp-cache                                         backend="shared": all processes of a host
  LMDB         lmdb                                               sync=False, writemap=True, in /dev/shm
  diskcache    diskcache                                          SQLite and files, in /dev/shm
  pylibmc      pylibmc       memcached (libmemcached-dev to       memcached over a unix socket
                             compile pylibmc where it has no wheel)
  redis-py     redis         redis-server                         redis over a unix socket

The pip packages are the extra: pip install 'cachee-shm[bench]'. What is not installed is left out, and said.
The servers are started for the run, keep nothing, and listen on a unix socket in a directory of their own.
A value that is not bytes goes through msgpack to LMDB and redis; the others have a serializer of their own.
"""

from __future__ import annotations

import glob
import importlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgpack
from measuring import Apart

import cachee_shm

TTL_S = 3600
SERVER_START_S = 10.0
LMDB_BYTES = 1 << 30  # of addresses; its file has what was written
MEMCACHED_MIB = 256


class Absent(Exception):
    """A rival that cannot run here; the text says why and what would install it."""


@dataclass(frozen=True)
class Store:
    """One subject: its ways to read and to write. `put` and `fill` loop themselves, each in its best way."""

    get: Callable[[str], object]
    put: Callable[[Iterable[str], object], None]  # one call for each key
    fill: Callable[[Sequence[str], bytes], None]  # before anything is timed
    get_many: Callable[[Sequence[str]], object] | None = None
    set_many: Callable[[Mapping[str, bytes]], object] | None = None
    get_object: Callable[[str], object] | None = None  # where an object is read otherwise than bytes
    put_object: Callable[[str, object], object] | None = None


@dataclass(frozen=True)
class Room:
    """What an adapter is given: how many keys will come, a directory of its own, cores for its server."""

    keys: int
    folder: Path
    apart: Apart


def wanted(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{error} (pip install 'cachee-shm[bench]')") from None


def each(write: Callable[[str, Any], object]) -> Callable[[Iterable[str], object], None]:
    """`put` of a subject that is written by a call."""

    def put(keys: Iterable[str], value: object) -> None:
        for key in keys:
            write(key, value)

    return put


def items(target: Any) -> Callable[[Iterable[str], object], None]:
    """`put` of a subject that is written by item assignment."""

    def put(keys: Iterable[str], value: object) -> None:
        for key in keys:
            target[key] = value

    return put


def cachee(cache: cachee_shm.Cache) -> Store:
    put = each(cache.set)
    return Store(cache.get, put, put, cache.get_many, cache.set_many)


@contextmanager
def plain_dict(room: Room) -> Iterator[Store]:
    held: dict[str, object] = {}
    yield Store(held.get, items(held), items(held), set_many=held.update)


@contextmanager
def cachebox(room: Room) -> Iterator[Store]:
    box = wanted("cachebox").TTLCache(2 * room.keys, TTL_S)
    yield Store(box.get, items(box), items(box), set_many=box.update)


@contextmanager
def theine(room: Room) -> Iterator[Store]:
    """Its get returns (value, found)."""
    cache = wanted("theine").Cache(2 * room.keys)
    lifetime = timedelta(seconds=TTL_S)

    def put(keys: Iterable[str], value: object) -> None:
        store = cache.set
        for key in keys:
            store(key, value, lifetime)

    yield Store(cache.get, put, put)
    cache.close()


@contextmanager
def warp_cache(room: Room) -> Iterator[Store]:
    """Its memory is named after the function that it decorates; calling that is its faster way to read."""

    def load(key: str) -> object:
        return None

    load.__qualname__ = load.__name__ = f"bench_{os.getpid()}"
    cached = wanted("warp_cache").cache(
        max_size=2 * room.keys, ttl=TTL_S, backend="shared", max_key_size=64, max_value_size=256
    )(load)

    def put(keys: Iterable[str], value: object) -> None:
        store = cached.set
        for key in keys:
            store(value, key)

    try:
        yield Store(cached, put, put)
    finally:
        for path in glob.glob(f"/dev/shm/warp_cache_*bench_{os.getpid()}_*"):
            with suppress(OSError):
                os.unlink(path)


@contextmanager
def lmdb(room: Room) -> Iterator[Store]:
    """A transaction for each get and each set, as calls that know nothing of each other must."""
    environment = wanted("lmdb").open(
        str(room.folder / "lmdb"), map_size=LMDB_BYTES, sync=False, metasync=False, writemap=True
    )

    def get(key: str) -> object:
        with environment.begin() as transaction:
            return transaction.get(key.encode())

    def write(key: str, value: Any) -> None:
        with environment.begin(write=True) as transaction:
            transaction.put(key.encode(), value)

    def get_many(keys: Sequence[str]) -> object:
        with environment.begin() as transaction:
            return {key: transaction.get(key.encode()) for key in keys}

    def set_many(mapping: Mapping[str, bytes]) -> None:
        with environment.begin(write=True) as transaction:
            for key, value in mapping.items():
                transaction.put(key.encode(), value)

    yield Store(
        get,
        each(write),
        lambda keys, value: set_many(dict.fromkeys(keys, value)),
        get_many,
        set_many,
        lambda key: msgpack.unpackb(get(key)),
        lambda key, value: write(key, msgpack.packb(value)),
    )
    environment.close()


@contextmanager
def diskcache(room: Room) -> Iterator[Store]:
    cache = wanted("diskcache").Cache(str(room.folder / "diskcache"), size_limit=1 << 30)

    def set_many(mapping: Mapping[str, bytes]) -> None:
        with cache.transact():
            for key, value in mapping.items():
                cache.set(key, value, TTL_S)

    def get_many(keys: Sequence[str]) -> object:
        with cache.transact():
            return {key: cache.get(key) for key in keys}

    yield Store(
        cache.get,
        each(lambda key, value: cache.set(key, value, TTL_S)),
        lambda keys, value: set_many(dict.fromkeys(keys, value)),
        get_many,
        set_many,
    )
    cache.close()


@contextmanager
def pylibmc(room: Room) -> Iterator[Store]:
    module = wanted("pylibmc")
    path = room.folder / "memcached.sock"
    command = ["memcached", "-s", str(path), "-m", str(MEMCACHED_MIB), "-t", "1", "-u", "root"]
    with server(command, room):
        client = module.Client([str(path)])
        ready(lambda: client.set("up", b"1"), module.Error, "memcached")

        def fill(keys: Sequence[str], value: bytes) -> None:
            for at in range(0, len(keys), 1000):
                client.set_multi(dict.fromkeys(keys[at : at + 1000], value), TTL_S)

        yield Store(
            client.get,
            each(lambda key, value: client.set(key, value, TTL_S)),
            fill,
            client.get_multi,
            lambda mapping: client.set_multi(mapping, TTL_S),
        )


@contextmanager
def redis_server(room: Room) -> Iterator[str]:
    """The socket of a server that keeps nothing."""
    module, path = wanted("redis"), str(room.folder / "redis.sock")
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
    with server([*command, "--dir", str(room.folder)], room):
        client = module.Redis(unix_socket_path=path)
        ready(client.ping, module.RedisError, "redis-server")
        client.close()
        yield path


@contextmanager
def redis_py(room: Room) -> Iterator[Store]:
    with redis_server(room) as path:
        client = wanted("redis").Redis(unix_socket_path=path)

        def fill(keys: Sequence[str], value: bytes) -> None:
            for at in range(0, len(keys), 1000):
                client.mset(dict.fromkeys(keys[at : at + 1000], value))

        yield Store(
            client.get,
            each(lambda key, value: client.set(key, value, ex=TTL_S)),
            fill,
            client.mget,
            client.mset,
            lambda key: msgpack.unpackb(client.get(key)),
            lambda key, value: client.set(key, msgpack.packb(value)),
        )
        client.close()


RIVALS: dict[str, Callable[[Room], AbstractContextManager[Store]]] = {
    "dict": plain_dict,
    "cachebox": cachebox,
    "theine": theine,
    "warp_cache": warp_cache,
    "LMDB": lmdb,
    "diskcache": diskcache,
    "pylibmc": pylibmc,
    "redis-py": redis_py,
}


@contextmanager
def server(command: Sequence[str], room: Room) -> Iterator[None]:
    """A server process for as long as the block lasts."""
    if shutil.which(command[0]) is None:
        raise Absent(f"no {command[0]} here (apt-get install {command[0]})")
    with room.apart.anywhere():
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def ready(ask: Callable[[], object], error: type[Exception], name: str) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while True:
        with suppress(error):
            ask()
            return
        if time.monotonic() > deadline:
            raise Absent(f"{name} was started and does not answer")
        time.sleep(0.02)


@contextmanager
def rivals(keys: int, apart: Apart) -> Iterator[dict[str, Store]]:
    """Every rival that is installed; of the others, a line each."""
    with ExitStack() as stack:
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=f"cachee-bench-{os.getpid()}-", dir=shared)
        )
        found: dict[str, Store] = {}
        for name, adapter in RIVALS.items():
            try:
                found[name] = stack.enter_context(adapter(Room(keys, Path(folder), apart)))
            except Absent as reason:
                print(f"{name} is left out: {reason}")
        yield found
