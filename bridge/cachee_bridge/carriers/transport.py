"""TCP under the mesh: bytes in, bytes out, and a call when a socket has room again. It does not know about
frames.

    Network.listen, connect   ->  Handler.opened, Handler.connect_failed
    a TLS handshake fails     ->  Handler.connect_failed, Handler.refused
    a socket's bytes          ->  Handler.received
    Network.send              ->  True: all of it is with the kernel; False: Handler.writable follows
    the other end closes      ->  Handler.closed

Its parts: one socket (connection.py), dials (dialling.py), connections that come in (accepting.py, gate.py)
and have proven nothing yet (unproven.py), until the mesh calls `proven`. Links are at most LINKS_MAX.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Protocol

from cachee_bridge.carriers.accepting import Listener, bound
from cachee_bridge.carriers.connection import Connection, reason_of
from cachee_bridge.carriers.dialling import Dialler
from cachee_bridge.carriers.gate import Gate
from cachee_bridge.carriers.unproven import Unproven
from cachee_bridge.system.logs import Mistakes
from cachee_shm._core import send_each

if TYPE_CHECKING:
    from cachee_bridge.carriers.tls import Channel, Contexts
    from cachee_bridge.wire.identity import Identity

LINKS_MAX = 8192  # one each way for every host that a ring record can name
READ_BYTES_MAX = 64 << 10  # at once, of one connection: 2,800 TLS records of one byte, 5 ms of decrypting


class Handler(Protocol):
    """What the network calls. No method may raise."""

    def opened(self, link: int, address: str | None, remote_host: str, identity: Identity | None) -> None:
        """`address` is what was dialled, None for a link that came in; `identity` is None without TLS."""

    def refused(self, stranger: str, reason: str) -> None:
        """A connection from an unknown client ("host:port") is closed before it was a link."""

    def connect_failed(self, address: str, reason: str, dialled: Collection[str]) -> None:
        """A dial has failed. `dialled`: the IP addresses that it went to; none if none was known."""

    def leads_here(self, address: str) -> None:
        """It is an address of this host itself, which was not dialled, or did not answer."""

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        """In order, as they came. `wire_bytes`: what the other end has sent for them, TLS and all. That costs
        work even where it brings no data."""

    def writable(self, link: int) -> None:
        """The kernel has taken everything that was sent. Called only after a send() that returned False."""

    def closed(self, link: int, reason: str) -> None:
        """By the other end or an error; never after our own close()."""


class Network:
    """All sockets of one bridge. Links are numbers, never used twice. It is the Owner of each Connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        self._loop = loop
        self._handler = handler
        self._links: dict[int, Connection] = {}
        self.tls: Contexts | None = None
        """For links that begin from now on; None = plain TCP."""
        self.unproven = Unproven()
        self.dialler = Dialler(loop, handler.leads_here)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[Listener] = []
        self._gate = Gate(time.monotonic())
        self._last_link = 0
        self._stopped = False
        self.mistakes = Mistakes()
        self.buffer = memoryview(bytearray(READ_BYTES_MAX))
        """For one read of any connection."""

    async def listen(self, host: str, port: int) -> list[int]:
        """Accepts on `host` ("" = every address of the machine). The ports; OSError when it cannot."""
        socks = bound(await self.dialler.names.addresses(host) if host else [], port)
        made = [Listener(self._loop, sock, self._gate, self._taken, self._turned_away) for sock in socks]
        self._listeners += made
        self.dialler.own.listens([sock.getsockname()[:2] for sock in socks])
        return [listener.port for listener in made]

    def connect(self, address: str, host: str, port: int) -> None:
        """Dials; the answer is opened(link, address, ...), connect_failed(address, ...) or, where it leads to
        this host itself, leads_here(address)."""
        self._begin(self.dialler.dial(Connection(self, address), address, host, port))

    def proven(self, link: int) -> None:
        """The other end has proven who it is."""
        connection = self._links.get(link)
        if connection is not None and self.unproven.drop(connection):
            self._gate.proven(connection.remote_host, time.monotonic())

    def send(self, link: int, data: bytes) -> bool:
        """True: the kernel has taken everything; otherwise writable() follows. Always True for a link that
        has gone."""
        connection = self._links.get(link)
        return connection is None or connection.write(data)

    def send_each(self, links: list[int], data: list[bytes]) -> list[tuple[int, bytes]]:
        """`data[i]` to `links[i]`, by one call for all sockets where nothing waits and that have no TLS.
        Returns the rest for each link that has not taken all: it is to be given to send(), before anything
        else for that link."""
        known = self._links
        sockets = [known[link].socket if link in known else -1 for link in links]
        taken = send_each(sockets, data)
        if taken is None:
            return []
        counted = zip(links, data, taken, strict=True)
        return [(link, whole[count:]) for link, whole, count in counted if count < len(whole)]

    def pause(self, link: int) -> None:
        """Stops reading it, so that its sender must wait."""
        if (connection := self._links.get(link)) is not None:
            connection.pause()

    def resume(self, link: int) -> None:
        if (connection := self._links.get(link)) is not None:
            connection.resume()

    def abort(self, link: int) -> None:
        """Closes at once, without a last message. The handler gets no more calls for this link."""
        connection = self._links.pop(link, None)
        if connection is not None:
            connection.abort()

    def close(self, link: int) -> None:
        """Sends what was given, for at most FLUSH_S, and closes. The handler gets no more calls for this
        link."""
        connection = self._links.pop(link, None)
        if connection is not None:
            connection.close()

    def stranger(self, link: int) -> str:
        """Where an inbound link comes from, as "host:port"; "" for one that was dialled or has gone."""
        connection = self._links.get(link)
        return connection.stranger if connection is not None else ""

    def stop(self) -> None:
        """Stops listening and dialling and closes every link; nothing more is told."""
        self._stopped = True
        while self._listeners:
            self._listeners.pop().close()
        self.dialler.names.stop()
        for task in self._tasks:
            task.cancel()
        self.unproven.close()
        for link in list(self._links):
            self.close(link)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.mistakes.tell("a dial, or a connection that came in", error)

    def _taken(self, sock: socket.socket, host: str, port: int) -> None:
        """A connection has come in."""
        if not self.unproven.make_room(sock):
            sock.close()
            self._turned_away(host, port, "too few descriptors are left: see `ulimit -n`")
            return
        connection = Connection(self, None)
        connection.remote_host, connection.stranger = host, _joined(host, port)
        self.unproven.add(connection)
        self._begin(self._accepted(connection, sock))

    async def _accepted(self, connection: Connection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except Exception as error:
            sock.close()
            connection.fail(reason_of(error))

    def _turned_away(self, host: str, port: int, reason: str) -> None:
        if not self._stopped:
            self._handler.refused(_joined(host, port), reason)

    # What connections need, and tell

    def later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call it once, after this time."""
        return self._loop.call_later(delay_s, call)

    def channel(self, connection: Connection) -> Channel | None:
        """The TLS of a new connection, None = plain TCP."""
        if self.tls is None:
            return None
        return self.tls.accept() if connection.address is None else self.tls.dial()

    def opened(self, connection: Connection, identity: Identity | None) -> int:
        """It is ready to be a link. Its number; 0 when there is no place for it, and it has failed."""
        if self._stopped or len(self._links) >= LINKS_MAX:
            connection.fail(f"{LINKS_MAX} links are open already")
            return 0
        self._last_link = link = self._last_link + 1
        self._links[link] = connection
        self._handler.opened(link, connection.address, connection.remote_host, identity)
        return link

    def failed(self, connection: Connection, reason: str) -> None:
        """It will not be a link."""
        self.ended(connection)
        if self._stopped:
            return
        if connection.address is not None:
            self._handler.connect_failed(connection.address, reason, connection.dialled)
        elif connection.stranger:
            self._handler.refused(connection.stranger, reason)

    def ended(self, connection: Connection) -> None:
        """It is closed, or will be at once, whether it was a link or not."""
        self.unproven.drop(connection)

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        """Bytes have come, for which the other end has sent `wire_bytes`."""
        if link in self._links:
            self._handler.received(link, data, wire_bytes)

    def writable(self, link: int) -> None:
        """All that was written is with the kernel."""
        if link in self._links:
            self._handler.writable(link)

    def closed(self, link: int, reason: str) -> None:
        """A link has ended, and not by close() or abort()."""
        if self._links.pop(link, None) is not None:
            self._handler.closed(link, reason)


def host_of(where: str) -> str:
    """The host of what `Handler.refused` is told."""
    return where.rpartition(":")[0]


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
