"""A listener for HTTP: it accepts connections at a bounded rate, and a table maps paths to handlers.

the gate        how many connections are taken in a second, in all and from one address (gate.py)
at most         CONNECTIONS_MAX at a time: one that waits for its client gives way to a new one
the Host        of a request must be a name of this host (hosts.py): a page of another site that has its
                own name lead here (DNS rebinding) gets 421
a handler       that fails or hangs costs its client a 500 or a 504, nobody else anything
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cachee_bridge.carriers.accepting import Listener
from cachee_bridge.carriers.gate import Gate
from cachee_bridge.http.connection import Connection
from cachee_bridge.http.messages import HttpError, Request, Response
from cachee_bridge.http.turns import Turns

if TYPE_CHECKING:
    from cachee_bridge.http.routes import Routes
    from cachee_bridge.system.logs import Mistakes

CONNECTIONS_MAX = 64
"""Prometheus and a probe keep one each, a browser up to six."""
HANDSHAKE_S = 5.0
HANDLE_S = 5.0


class Server:
    """One listener and its connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routes: Routes,
        is_own_name: Callable[[str], bool],
        mistakes: Mistakes,
    ) -> None:
        """`is_own_name(host)`: whether a request may call this host so; "" is a request without a name."""
        self._loop, self._routes, self._mistakes = loop, routes, mistakes
        self._is_own_name = is_own_name
        self._listeners: list[Listener] = []
        self._connections: dict[Connection, None] = {}
        """In the order in which they came."""
        self._arriving: dict[Connection, tuple[socket.socket, asyncio.Task[None]]] = {}
        """Connections whose transport is being made, which with TLS takes a handshake."""
        self._tls: ssl.SSLContext | None = None
        self.turns = Turns(loop)
        self.is_closing = False
        self.statuses: dict[int, int] = {}
        """How many responses had which status."""

    @property
    def ports(self) -> list[int]:
        return [listener.port for listener in self._listeners]

    @property
    def is_tls(self) -> bool:
        return self._tls is not None

    def listen(self, sockets: list[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """On sockets that are bound (accepting.bound). They belong to the server then."""
        self._tls = tls
        gate = Gate(time.monotonic())
        self._listeners = [Listener(self._loop, sock, gate, self._taken, _refused) for sock in sockets]

    def renew(self, tls: ssl.SSLContext) -> None:
        """The certificate for new connections."""
        self._tls = tls

    def close(self) -> None:
        """Stop answering."""
        self.is_closing = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self.turns.stop()
        for connection in list(self._connections):
            self._cut(connection)

    # for connections

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """The handler's response. Raises only HttpError."""
        try:
            if not self._is_own_name(_host_of(request)):
                raise HttpError(
                    421, "this host is not called so; ask it by its address or its configured name"
                )
            return self._routes.find(request)(request)
        except HttpError:
            raise
        except Exception as error:
            return self._failed(request, error)

    async def awaited(self, request: Request, answer: Awaitable[Response]) -> Response:
        """The handler's awaited response. Raises only CancelledError."""
        try:
            return await asyncio.wait_for(_coroutine(answer), HANDLE_S)
        except HttpError as error:
            return error.response()
        except asyncio.TimeoutError:
            return HttpError(504, f"no answer within {HANDLE_S:g} s").response()
        except Exception as error:
            return self._failed(request, error)

    def counted(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def mistake(self, error: Exception) -> None:
        self._mistakes.tell("a response over HTTP", error)

    def ended(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def _failed(self, request: Request, error: Exception) -> Response:
        self._mistakes.tell(f"{request.method} {request.path}", error)
        return HttpError(500, "a mistake in the bridge; its log says more").response()

    # new connections

    def _taken(self, sock: socket.socket, host: str, port: int) -> None:
        if len(self._connections) >= CONNECTIONS_MAX and not self._make_room():
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(self, host)
        self._connections[connection] = None
        self._arriving[connection] = sock, self._loop.create_task(self._arrive(connection, sock))

    def _make_room(self) -> bool:
        """Cut the oldest connection that is not being answered."""
        for connection in self._connections:
            if connection.state in ("waiting", "reading", "ending"):
                self._cut(connection)
                return True
        return False

    def _cut(self, connection: Connection) -> None:
        """A handshake that is going on ends as if the client had gone."""
        connection.cut()
        self._connections.pop(connection, None)
        sock, _ = self._arriving.get(connection, (None, None))
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    async def _arrive(self, connection: Connection, sock: socket.socket) -> None:
        """Raises nothing, because without a transport only this code closes the socket."""
        timeout = HANDSHAKE_S if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self._tls, ssl_handshake_timeout=timeout
            )
        except BaseException as error:
            sock.close()
            self._connections.pop(connection, None)
            if not isinstance(error, OSError | asyncio.CancelledError | asyncio.TimeoutError):
                self._mistakes.tell("an HTTP connection", error)
        finally:
            self._arriving.pop(connection, None)


async def _coroutine(answer: Awaitable[Response]) -> Response:
    return await answer


def _host_of(request: Request) -> str:
    return request.headers.get("host", "")


def _refused(host: str, port: int, reason: str) -> None:
    """A connection beyond what the gate lets in. It is not logged, because clients could fill the log."""
