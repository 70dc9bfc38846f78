"""Peer fill, as a worker sees it: a load asks this host's bridge first, which may get another host's value.

`peer_fill = true` of a namespace puts this before the loader. The lease is held and the token taken by then,
so what is given is stored as what the loader returns is: not after an invalidation that came meanwhile. The
bridge sees to it that it is no older than the token (bridge/cachee_bridge/protocol/fetches.py). It comes with
its age, what is left of its lifetime, and the hashes of its tags.

Whatever goes wrong, the loader is called: the bridge is down, does not answer in time, or has nothing; the
value does not decode here, or lacks a tag that the caller names.
"""

from __future__ import annotations

import json
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from cachee_shm._core import flight
from cachee_shm.asking import check_owner
from cachee_shm.codec import Encoded
from cachee_shm.errors import CacheeError
from cachee_shm.loads import Unchanged
from cachee_shm.segment import bridge_socket
from cachee_shm.waiting import library

if TYPE_CHECKING:
    from cachee_shm._core import Flight
    from cachee_shm.segment import Segment

__all__ = ["afrom_peers", "from_peers"]

SLACK_S = 0.02  # the bridge ends the wait by itself, and says so
ANSWER_BYTES_MAX = 1 << 20
NOTHING: Any = object()


def from_peers(segment: Segment, key: str | bytes, loader: Callable[..., Any]) -> Callable[..., Any]:
    """`loader`, called only if no other host gives the value."""

    def load(*args: Any) -> Any:
        running = flight.get(None)
        if running is not None and running.asks_peers:
            began = time.monotonic()
            value = _taken(segment, running, _asked(segment, key), began)
            if value is not NOTHING:
                return value
        return loader(*args)

    return load


def afrom_peers(
    segment: Segment, key: str | bytes, loader: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """`from_peers` for a coroutine function."""

    async def load(*args: Any) -> Any:
        running = flight.get(None)
        if running is not None and running.asks_peers:
            began = time.monotonic()
            value = _taken(segment, running, await _aasked(segment, key), began)
            if value is not NOTHING:
                return value
        return await loader(*args)

    return load


def _taken(segment: Segment, running: Flight, answer: bytes, began: float) -> Any:
    """The value, which is stored as it was given; or NOTHING."""
    try:
        told = json.loads(answer)
        tag, data = told["type"], b64decode(told["value"], validate=True)
        age_ms, left_ms, tags = told["age_ms"], told["left_ms"], tuple(told["tags"])
        value = segment._codec.decode(tag, data)
        if left_ms:
            left_ms -= int(1000 * (time.monotonic() - began)) + 1
            if left_ms <= 0:
                return NOTHING
        if not running.given(age_ms, left_ms, tags):
            return NOTHING
    except (ValueError, KeyError, TypeError, OverflowError, CacheeError):
        return NOTHING
    running.stores = Unchanged(value, Encoded(tag, data), None)
    return value


def _request(segment: Segment, key: str | bytes) -> bytes:
    told = {
        "do": "fetch",
        "namespace": segment.namespace,
        "key": b64encode(key.encode() if isinstance(key, str) else key).decode(),
        "patience_ms": round(1000 * segment.peer_fill_s),
    }
    return json.dumps(told).encode() + b"\n"


def _asked(segment: Segment, key: str | bytes) -> bytes:
    """The answer's line; b"" without one."""
    end = time.monotonic() + segment.peer_fill_s + SLACK_S
    path, answer = bridge_socket(segment.spec.host), b""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(segment.peer_fill_s + SLACK_S)
            sock.connect(path)
            check_owner(sock, path, segment.spec.group)
            sock.sendall(_request(segment, key))
            while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES_MAX:
                sock.settimeout(max(0.001, end - time.monotonic()))
                some = sock.recv(1 << 17)
                if not some:
                    break
                answer += some
    except (OSError, CacheeError):
        return b""
    return answer


async def _aasked(segment: Segment, key: str | bytes) -> bytes:
    return await (_asked_in_trio if library() == "trio" else _asked_in_asyncio)(segment, key)


async def _asked_in_asyncio(segment: Segment, key: str | bytes) -> bytes:
    import asyncio

    try:
        return await asyncio.wait_for(_talk_in_asyncio(segment, key), segment.peer_fill_s + SLACK_S)
    except (OSError, ValueError, CacheeError, asyncio.TimeoutError):  # ValueError: a line beyond the limit
        return b""


async def _talk_in_asyncio(segment: Segment, key: str | bytes) -> bytes:
    import asyncio

    path = bridge_socket(segment.spec.host)
    reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
    try:
        check_owner(writer.get_extra_info("socket"), path, segment.spec.group)
        writer.write(_request(segment, key))
        return await reader.readline()
    finally:
        writer.close()


async def _asked_in_trio(segment: Segment, key: str | bytes) -> bytes:
    import trio

    path, answer = bridge_socket(segment.spec.host), b""
    try:
        with trio.move_on_after(segment.peer_fill_s + SLACK_S):
            async with await trio.open_unix_socket(path) as stream:
                check_owner(stream.socket, path, segment.spec.group)
                await stream.send_all(_request(segment, key))
                while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES_MAX:
                    some = await stream.receive_some(1 << 17)
                    if not some:
                        break
                    answer += bytes(some)
    except (OSError, CacheeError, trio.BrokenResourceError):
        return b""
    return answer
