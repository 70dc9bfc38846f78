"""The rivals of propagation: ways to tell another host that a key was written, each before a local dict.

  rival            pip install     apt-get install   what it is
  Redis pub/sub    redis           redis-server      PUBLISH of the key; the subscriber's thread deletes it
  Redis tracking   redis           redis-server      SET; the server's invalidation (RESP3, CLIENT TRACKING
                                                     BCAST) deletes it once redis-py's connection has read it
  NATS core        nats-py         nats-server       PUB of the key, on uvloop; the subscription's callback
  Zenoh            eclipse-zenoh                     put, peer to peer over TCP; as it comes, a full
                                                     link drops what it is given

The pip packages are the extra: pip install 'cachee-shm[bench]'. What is not installed is left out, and said.
A server runs on the writer's host, which saves the second trip over the network that a server on a third host
would cost. The subscriber's own callback notes when a copy is dropped. (redis-py's client-side cache looks
for invalidations only when it is asked for a key, and needs a server of 7.4, so its connection is used
directly.)
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from measuring import Apart
from namespaces import Loopback, Place
from rivals import Absent, Room, ready, server, wanted
from two_hosts import LOST, LOST_AFTER_S, NEW, OLD, Watched, reader

REDIS_PORT, NATS_PORT, ZENOH_PORT = 16379, 14222, 17447
TOPIC = "invalidations"
now_ns = time.monotonic_ns
Publish = Callable[[str], object]
Arrived = Callable[[str], None]


class Held:
    """The subscriber's dict, and when what was watched in it went."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._copies: dict[str, bytes] = {}
        self._gone: dict[str, int] = {}
        self._watched: frozenset[str] = frozenset()
        self._tells = False
        self._all_gone = threading.Event()

    def fill(self, keys: Sequence[str]) -> int:
        """From now on, what goes is noted: what is written may arrive before `watch` is asked for."""
        self._copies = dict.fromkeys(keys, OLD)
        self._gone, self._watched = {}, frozenset(keys)
        self._all_gone.clear()
        return len(self._copies)

    def arrived(self, key: str) -> None:
        """The callback of every rival."""
        self._copies.pop(key, None)
        at = now_ns()
        if key not in self._watched or key in self._gone:
            return
        self._gone[key] = at
        if self._tells:
            self._pipe.send_bytes(b"x")
        if len(self._gone) == len(self._watched):
            self._all_gone.set()

    def watch(self, keys: Sequence[str], tells: bool) -> list[int]:
        """When each of those that were filled was gone; LOST for one that stayed."""
        self._tells = tells
        before = -1
        while not self._all_gone.wait(LOST_AFTER_S) and before < len(self._gone):
            before = len(self._gone)
        self._tells = False
        return [self._gone.get(key, LOST) for key in keys]


def hear(name: str, address: str, pipe: Connection) -> None:
    """The subscriber's process: two_hosts.read for a rival."""
    held = Held(pipe)
    gc.disable()  # as our reader does
    with suppress(EOFError, KeyboardInterrupt), CHANNELS[name].subscriber(address, held.arrived):
        while (order := pipe.recv()) is not None:
            verb, keys = order
            pipe.send(held.fill(keys) if verb == "fill" else held.watch(keys, verb == "watch, telling"))


def _room(folder: Path) -> Room:
    """On any core."""
    cores = frozenset(os.sched_getaffinity(0))
    return Room(0, folder, Apart(cores, cores))


def _in_thread(loop: Callable[[], object]) -> None:
    """Until the process ends."""
    threading.Thread(target=loop, daemon=True).start()


# Redis


@contextmanager
def redis_server(address: str, folder: Path) -> Iterator[None]:
    """The same for both of its rivals: the second finds it running."""
    module = wanted("redis")
    with suppress(module.RedisError):
        _redis(address).ping()
        yield
        return
    command = ["redis-server", "--port", str(REDIS_PORT), "--bind", address, "--protected-mode", "no"]
    with server([*command, "--save", "", "--appendonly", "no", "--dir", str(folder)], _room(folder)):
        ready(_redis(address).ping, module.RedisError, "redis-server")
        yield


def _redis(address: str) -> Any:
    return wanted("redis").Redis(address, REDIS_PORT, protocol=3, decode_responses=True, socket_timeout=None)


@contextmanager
def redis_publisher(address: str) -> Iterator[Publish]:
    client = _redis(address)
    yield lambda key: client.publish(TOPIC, key)
    client.close()


@contextmanager
def redis_subscriber(address: str, arrived: Arrived) -> Iterator[None]:
    subscription = _redis(address).pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(TOPIC)

    def listen() -> None:
        for message in subscription.listen():
            arrived(message["data"])

    _in_thread(listen)
    yield


@contextmanager
def redis_setter(address: str) -> Iterator[Publish]:
    client = _redis(address)
    yield lambda key: client.set(key, NEW)
    client.close()


@contextmanager
def redis_tracker(address: str, arrived: Arrived) -> Iterator[None]:
    connection = _redis(address).connection_pool.get_connection()

    def invalidated(push: list[Any]) -> None:
        for key in push[1] or ():
            arrived(key if isinstance(key, str) else key.decode())

    connection._parser.set_invalidation_push_handler(invalidated)
    connection.send_command("CLIENT", "TRACKING", "ON", "BCAST")
    connection.read_response()

    def listen() -> None:
        while True:
            connection.read_response(push_request=True)

    _in_thread(listen)
    yield


# NATS


@contextmanager
def nats_server(address: str, folder: Path) -> Iterator[None]:
    wanted("nats")
    command = ["nats-server", "--addr", address, "--port", str(NATS_PORT)]
    with server(command, _room(folder)):
        yield


def _nats(address: str) -> tuple[asyncio.AbstractEventLoop, Any]:
    loop = wanted("uvloop").new_event_loop()
    client = wanted("nats").connect(f"nats://{address}:{NATS_PORT}", max_reconnect_attempts=100)
    return loop, loop.run_until_complete(client)


@contextmanager
def nats_publisher(address: str) -> Iterator[Publish]:
    loop, client = _nats(address)

    async def send(key: str) -> None:
        await client.publish(TOPIC, key.encode())
        while client.pending_data_size:
            await asyncio.sleep(0)  # the client's own task writes

    yield lambda key: loop.run_until_complete(send(key))
    loop.run_until_complete(client.close())


@contextmanager
def nats_subscriber(address: str, arrived: Arrived) -> Iterator[None]:
    loop, client = _nats(address)

    async def called(message: Any) -> None:
        arrived(message.data.decode())

    loop.run_until_complete(client.subscribe(TOPIC, cb=called))
    loop.run_until_complete(client.flush())
    _in_thread(loop.run_forever)
    yield


# Zenoh: the subscriber listens, the publisher dials it


def _zenoh(**endpoints: str) -> Any:
    module = wanted("zenoh")
    config = module.Config()
    config.insert_json5("scouting/multicast/enabled", "false")
    for verb, endpoint in endpoints.items():
        config.insert_json5(f"{verb}/endpoints", f'["{endpoint}"]')
    return module.open(config)


@contextmanager
def no_server(address: str, folder: Path) -> Iterator[None]:
    wanted("zenoh")
    yield


@contextmanager
def zenoh_publisher(address: str) -> Iterator[Publish]:
    with _zenoh(connect=f"tcp/{address}:{ZENOH_PORT}") as session:
        put = session.declare_publisher(TOPIC, express=True).put  # express: not held back for a batch
        yield put


@contextmanager
def zenoh_subscriber(address: str, arrived: Arrived) -> Iterator[None]:
    with _zenoh(listen=f"tcp/{address}:{ZENOH_PORT}") as session:
        session.declare_subscriber(TOPIC, lambda sample: arrived(sample.payload.to_string()))
        yield


@dataclass(frozen=True)
class Channel:
    """One rival. Where it has no server, the subscriber listens."""

    server: Callable[[str, Path], AbstractContextManager[None]]
    publisher: Callable[[str], AbstractContextManager[Publish]]
    subscriber: Callable[[str, Arrived], AbstractContextManager[None]]
    has_server: bool = True


CHANNELS = {
    "Redis pub/sub": Channel(redis_server, redis_publisher, redis_subscriber),
    "Redis tracking": Channel(redis_server, redis_setter, redis_tracker),
    "NATS core": Channel(nats_server, nats_publisher, nats_subscriber),
    "Zenoh": Channel(no_server, zenoh_publisher, zenoh_subscriber, has_server=False),
}


@dataclass(frozen=True)
class Rival:
    """A channel from here to a subscriber over there, joined."""

    watched: Watched
    publish: Publish


@contextmanager
def channels(here: Place | Loopback, there: Place | Loopback, folder: Path) -> Iterator[dict[str, Rival]]:
    """Every rival that is installed; of the others, a line each. This process is in `here` already."""
    with ExitStack() as stack:
        found: dict[str, Rival] = {}
        for name, channel in CHANNELS.items():
            meeting = here if channel.has_server else there
            try:
                stack.enter_context(channel.server(meeting.address, folder))
            except Absent as reason:
                print(f"{name} is left out: {reason}")
                continue
            with there.inside():
                pipe = stack.enter_context(reader(hear, name, meeting.address))
            found[name] = stack.enter_context(_joined(channel, Watched(pipe), meeting.address))
        yield found


@contextmanager
def _joined(channel: Channel, watched: Watched, address: str) -> Iterator[Rival]:
    watched.prepare(1)  # it answers: it has subscribed, and it listens
    with channel.publisher(address) as publish:
        watched.join(publish)
        yield Rival(watched, publish)
