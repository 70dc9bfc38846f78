"""The operator socket: in the file system, beside the segments, for users who may open those.

    one line of JSON in                        one line of JSON out
    {"do": "peers"}                            the snapshot (snapshot.py)
    {"do": "forget", "who": "web-3"}           {"done": "..."} or {"error": "..."}

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
from collections.abc import Callable
from typing import Any, cast

from cachee_bridge.system.owners import wrong_owner

REQUEST_BYTES_MAX = 4096
PATIENCE_S = 5.0
CLIENTS_MAX = 16
"""One operator, a dashboard that asks each second, and some more."""

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class OperatorSocket:
    """A listening socket. A request is answered in the callback in which its last byte has come."""

    def __init__(self, path: str, gid: int | None, answer: Answer) -> None:
        """`answer(request)` is called for each request that is an object; it does not raise."""
        self._path, self._gid, self._answer = path, gid, answer
        self._server: asyncio.AbstractServer | None = None
        self.clients = 0

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed the file: nobody finds this bridge until it is opened again."""
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
        """What a former bridge left. Somebody else's stays: who asks there must not believe the answer."""
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
        """Nobody is answered any more."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def answer(self, line: bytes) -> bytes:
        """To one line; b"" to what is no question."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return b""
        return json.dumps(self._answer(request)).encode() + b"\n" if isinstance(request, dict) else b""


class _Client(asyncio.Protocol):
    """One question, one answer, within PATIENCE_S. What a callback raises ends this connection alone: the
    event loop tells the daemon of it, which closes the transport."""

    def __init__(self, control: OperatorSocket, loop: asyncio.AbstractEventLoop) -> None:
        self._control, self._loop = control, loop
        self._asked = b""
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._control.clients += 1
        self._end = self._loop.call_later(PATIENCE_S, self._transport.abort)
        if self._control.clients > CLIENTS_MAX:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        line, whole, _ = (self._asked + data).partition(b"\n")
        self._asked = line
        if whole and len(line) <= REQUEST_BYTES_MAX:
            self._transport.write(self._control.answer(line))
        if whole or len(line) > REQUEST_BYTES_MAX:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._control.clients -= 1


def _bound(path: str, gid: int | None) -> socket.socket:
    """At no time may somebody open it who may not open it in the end."""
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
