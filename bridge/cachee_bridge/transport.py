"""TCP under the mesh: bytes in, bytes out, and word when a socket has room again. It knows no frame.

    Network.listen, connect   ->  Handler.opened, Handler.connect_failed
    a socket's bytes          ->  Handler.received
    Network.send              ->  True: all of it is with the kernel; False: Handler.writable follows
    the other end closes      ->  Handler.closed

Bounds. Nothing is queued here: the write buffer's high mark is 0, so that uvloop writes at once, in the
caller's stack, and what the kernel refuses is at most one allowance of the mesh. TCP_NOTSENT_LOWAT keeps the
kernel's part short as well: what waits unsent grows old, while what stays in the ring is coalesced and fresh
when it goes. Links are at most LINKS_MAX.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

LINKS_MAX = 8192  # one each way for every host that a ring record can name
BACKLOG_MAX = 256  # a mesh that reconnects after a switch's restart comes all at once
CONNECT_TIMEOUT_S = 3.0  # a SYN and its first repetition
FLUSH_S = 1.0  # what a closing link may take for its last bytes (an error for the peer's log)
UNSENT_BYTES_MAX = 128 << 10
TCP_USER_TIMEOUT_MS = 10_000
TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; not every Python's socket module has the name
OPTIONS = (
    (socket.TCP_NODELAY, 1),
    (TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX),
    (socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS),
    (socket.TCP_KEEPIDLE, 5),  # the kernel's word on a host that vanished; beats find it sooner
    (socket.TCP_KEEPINTVL, 2),
    (socket.TCP_KEEPCNT, 3),
)


class Handler(Protocol):
    """Who is told. No method may raise."""

    def opened(self, link: int, address: str | None, remote_host: str) -> None:
        """`address` is what was dialled, None for a link that came in."""

    def connect_failed(self, address: str, reason: str) -> None:
        """A dial came to nothing."""

    def received(self, link: int, data: bytes) -> None:
        """In order, as they came."""

    def writable(self, link: int) -> None:
        """All that was sent is with the kernel. Only after a send() that returned False."""

    def closed(self, link: int, reason: str) -> None:
        """By the other end or an error; never after our own close()."""


class Network:
    """All sockets of one bridge. Links are numbers, never used twice."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        self._loop = loop
        self._handler = handler
        self._links: dict[int, _Connection] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._last_link = 0
        self._stopped = False

    async def listen(self, host: str, port: int) -> list[int]:
        """Accepts on `host` ("" = every address of the machine). The ports; OSError when it cannot."""
        make = self._loop.create_server
        if host:
            server = await make(lambda: _Connection(self, None), host, port, backlog=BACKLOG_MAX)
        else:
            server = await make(lambda: _Connection(self, None), sock=_everywhere(port), backlog=BACKLOG_MAX)
        self._servers.append(server)
        return [sock.getsockname()[1] for sock in server.sockets]

    def connect(self, address: str, host: str, port: int) -> None:
        """Dials; the answer is opened(link, address, ...) or connect_failed(address, ...)."""
        task = self._loop.create_task(self._dial(address, host, port))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def send(self, link: int, data: bytes) -> bool:
        """True when the kernel took all; else writable() follows. A link that has gone takes everything."""
        connection = self._links.get(link)
        return connection is None or connection.write(data)

    def close(self, link: int) -> None:
        """Sends what was given, for at most FLUSH_S, and closes. Nothing more is told of this link."""
        connection = self._links.pop(link, None)
        if connection is not None:
            connection.close(self._loop)

    def stranger(self, link: int) -> str:
        """Where an inbound link comes from, as "host:port"; "" for one that was dialled or has gone."""
        connection = self._links.get(link)
        return connection.stranger if connection is not None else ""

    def stop(self) -> None:
        """Stops listening and dialling and closes every link; nothing more is told."""
        self._stopped = True
        for server in self._servers:
            server.close()
        for task in self._dials:
            task.cancel()
        for link in list(self._links):
            self.close(link)

    async def _dial(self, address: str, host: str, port: int) -> None:
        connection = _Connection(self, address)
        try:
            await asyncio.wait_for(
                self._loop.create_connection(lambda: connection, host, port), CONNECT_TIMEOUT_S
            )
        except (asyncio.TimeoutError, OSError, UnicodeError) as error:
            if not connection.link:  # else it opened just in time, and its end is told by closed()
                self._handler.connect_failed(address, _reason(error) or "no answer in time")

    def _opened(self, connection: _Connection, address: str | None, remote_host: str) -> int:
        """The new link's number; 0 when there is no place for it."""
        if self._stopped:
            return 0
        if len(self._links) >= LINKS_MAX:
            if address is not None:
                self._handler.connect_failed(address, f"{LINKS_MAX} links are open already")
            return 0
        self._last_link = link = self._last_link + 1
        self._links[link] = connection
        self._handler.opened(link, address, remote_host)
        return link

    def _received(self, link: int, data: bytes) -> None:
        if link in self._links:
            self._handler.received(link, data)

    def _writable(self, link: int) -> None:
        if link in self._links:
            self._handler.writable(link)

    def _closed(self, link: int, reason: str) -> None:
        if self._links.pop(link, None) is not None:
            self._handler.closed(link, reason)


class _Connection(asyncio.Protocol):
    """One socket."""

    link = 0
    stranger = ""

    def __init__(self, network: Network, address: str | None) -> None:
        self._network = network
        self._address = address
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        _set_options(transport.get_extra_info("socket"))
        host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
        host = host.removeprefix("::ffff:") if "." in host else host  # IPv4 on a socket for both
        if self._address is None:
            self.stranger = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.link = self._network._opened(self, self._address, host)
        if not self.link:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._network._received(self.link, data)

    def resume_writing(self) -> None:
        self._network._writable(self.link)

    def connection_lost(self, exc: Exception | None) -> None:
        self._network._closed(self.link, "closed by the other end" if exc is None else _reason(exc))

    def write(self, data: bytes) -> bool:
        assert self._transport is not None  # it has a link, so it was made
        self._transport.write(data)
        return self._transport.get_write_buffer_size() == 0

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._transport is not None
        self._transport.close()
        loop.call_later(FLUSH_S, self._transport.abort)


def _everywhere(port: int) -> socket.socket:
    """One socket for both families, or IPv4 alone on a machine without the other."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _reason(error: Exception) -> str:
    return str(error) or "no answer in time"
