"""The operator socket: in the file system, beside the segments, for users who may open those.

    one line of JSON in                        one line of JSON out
    {"do": "peers"}                            the snapshot (snapshot.py)
    {"do": "forget", "who": "web-3"}           {"done": "..."} or {"error": "..."}
    {"do": "explain", "namespace": "shop",     what the hosts of the mesh hold of a key (explaining.py)
     "hash": 123}
    {"do": "arm", "namespace": "shop",         who watches the key now (explaining.py)
     "hash": 123, "seconds": 60}
    {"do": "fetch", "namespace": "shop",       a worker's: the value of another host (shell/fetching.py)
     "key": BASE64, "patience_ms": 50}
    {"do": "checker"}                          nines and suspects (checker/)

The file's mode decides who may connect, as for the segments: 0600, or 0660 to the configured group. It is in
/dev/shm because a worker or an operator in another container reaches the bridge's segments there, and nothing
else of it. A bridge that was killed leaves the file behind; the next one of the host takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Any, cast

from cachee_bridge.system.owners import wrong_owner

REQUEST_BYTES_MAX = 4096
PATIENCE_S = 5.0
CLIENTS_MAX = 80
"""One operator, a dashboard that asks each second, some more, and 64 loads that ask for a value."""

Told = dict[str, Any]
Answer = Callable[[Told], Told | Awaitable[Told]]


class OperatorSocket:
    """A listening socket. A request is answered in the callback in which its last byte has come, unless the
    answer is to be waited for."""

    def __init__(self, path: str, gid: int | None, answer: Answer) -> None:
        """`answer(request)` is called for each request that is an object; neither it nor what it returns
        raises."""
        self._path, self._gid, self._answer = path, gid, answer
        self._server: asyncio.AbstractServer | None = None
        self.clients = 0

    @property
    def is_lost(self) -> bool:
        """Whether the file was removed: then no client finds this bridge until the socket is opened again."""
        return not os.path.lexists(self._path)

    async def open(self) -> None:
        """Also once more, when it is lost. OSError when it cannot: the bridge goes on without."""
        if self._server is not None:
            self._server.close()
        self._remove_left_over()
        sock = _bound(self._path, self._gid)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Client(self, loop), sock=sock)

    def _remove_left_over(self) -> None:
        """Removes what a former bridge left. A file of another user stays; clients refuse to use it."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return
        wrong = wrong_owner(found, self._gid) if stat.S_ISSOCK(found.st_mode) else "is no socket"
        if wrong:
            raise PermissionError(
                f"{self._path} {wrong}; it was not touched; find out who made it, remove it by "
                f"`rm {self._path}` as root, and start the bridge again"
            )
        os.unlink(self._path)

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def answer(self, line: bytes) -> Told | Awaitable[Told] | None:
        """To one line; None to what is no question."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return self._answer(request) if isinstance(request, dict) else None


class _Client(asyncio.Protocol):
    """One question, one answer, within PATIENCE_S. What a callback raises ends this connection alone: the
    event loop tells the daemon of it, which closes the transport."""

    def __init__(self, control: OperatorSocket, loop: asyncio.AbstractEventLoop) -> None:
        self._control, self._loop = control, loop
        self._asked = b""
        self._end: asyncio.TimerHandle | None = None
        self._later: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._control.clients += 1
        self._end = self._loop.call_later(PATIENCE_S, self._transport.abort)
        if self._control.clients > CLIENTS_MAX:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing() or self._later is not None:
            return
        line, whole, _ = (self._asked + data).partition(b"\n")
        self._asked = line
        if whole and len(line) <= REQUEST_BYTES_MAX:
            self._answer(self._control.answer(line))
        elif len(line) > REQUEST_BYTES_MAX:
            self._transport.close()

    def _answer(self, answer: Told | Awaitable[Told] | None) -> None:
        if answer is None or isinstance(answer, dict):
            self._say(answer)
        else:
            self._later = self._loop.create_task(self._wait_for(answer))

    async def _wait_for(self, answer: Awaitable[Told]) -> None:
        self._say(await answer)

    def _say(self, told: Told | None) -> None:
        if told is not None:
            self._transport.write(json.dumps(told).encode() + b"\n")
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._later is not None:
            self._later.cancel()
        self._control.clients -= 1


def _bound(path: str, gid: int | None) -> socket.socket:
    """The mode must never be wider than the final one, not even for a moment."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
        if gid is not None:
            os.chown(path, -1, gid)
            os.chmod(path, 0o660)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock
