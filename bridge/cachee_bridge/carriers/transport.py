"""TCP under the mesh: bytes in, bytes out, and word when a socket has room again. It knows no frame.

    Network.listen, connect   ->  Handler.opened, Handler.connect_failed
    a TLS handshake fails     ->  Handler.connect_failed, Handler.refused
    a socket's bytes          ->  Handler.received
    Network.send              ->  True: all of it is with the kernel; False: Handler.writable follows
    the other end closes      ->  Handler.closed

Bounds. Nothing is queued here: the write buffer's high mark is 0, so that uvloop writes at once, in the
caller's stack, and what the kernel refuses is at most one allowance of the mesh. TCP_NOTSENT_LOWAT keeps the
kernel's part short as well: what waits unsent grows old, while what stays in the ring is coalesced and fresh
when it goes. Links are at most LINKS_MAX. Connections come in as gate.py allows. Of those whose other end has
not proven who it is (the mesh says when it has: `proven`) there are at most HANDSHAKES_MAX, and so many only
as leave the process some descriptors for itself; then the oldest of the address with the most of them gives
way, so that a stranger pushes out its own. A TLS handshake may take HANDSHAKE_S.

With TLS (Network.tls) a link is opened when the other end has proven a certificate, and everything above sees
plain bytes. The tls.Channel is under our own hands, not in the event loop's TLS transport: that one keeps a
buffer of its own under each write, so that nobody could say what is with the kernel.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from cachee_bridge.carriers.accepting import Listener, bound, plain
from cachee_bridge.carriers.gate import Gate, network_of
from cachee_bridge.carriers.names import Names, is_loopback
from cachee_bridge.carriers.own import Own
from cachee_bridge.system.logs import Mistakes
from cachee_shm.errors import AuthError

if TYPE_CHECKING:
    from cachee_bridge.carriers.tls import Channel, Contexts
    from cachee_bridge.wire.identity import Identity

LINKS_MAX = 8192  # one each way for every host that a ring record can name
CONNECT_TIMEOUT_S = 3.0  # a SYN and its first repetition
HANDSHAKE_S = 5.0  # TLS takes two round trips and some milliseconds
HANDSHAKES_MAX = 64  # of strangers, some 100 KB each; then one gives way
DESCRIPTORS_KEPT = 64  # for dials, name servers, segments; a quarter of them where there are few
READ_BYTES_MAX = 64 << 10  # at once, of one connection: 2,800 TLS records of one byte, 5 ms of decrypting
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

    def opened(self, link: int, address: str | None, remote_host: str, identity: Identity | None) -> None:
        """`address` is what was dialled, None for a link that came in; `identity` is None without TLS."""

    def refused(self, stranger: str, reason: str) -> None:
        """Who came in from `stranger` ("host:port") is turned away, before there was a link."""

    def connect_failed(self, address: str, reason: str, dialled: Collection[str]) -> None:
        """A dial came to nothing. `dialled`: the IP addresses that it went to; none where none was known."""

    def leads_here(self, address: str) -> None:
        """It is an address of this host itself, which was not dialled, or did not answer."""

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        """In order, as they came. `wire_bytes`: what the other end has sent for them, TLS and all. That costs
        work even where it brings no data."""

    def writable(self, link: int) -> None:
        """All that was sent is with the kernel. Only after a send() that returned False."""

    def closed(self, link: int, reason: str) -> None:
        """By the other end or an error; never after our own close()."""


Method = TypeVar("Method", bound=Callable[..., None])


def _alone(method: Method) -> Method:
    """For every method of a connection that the event loop calls: what it raises ends that connection."""

    @wraps(method)
    def guarded(self: _Connection, *arguments: Any) -> None:
        try:
            method(self, *arguments)
        except Exception as error:
            self.spoil(error)

    return cast(Method, guarded)


class Network:
    """All sockets of one bridge. Links are numbers, never used twice."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Handler) -> None:
        self._loop = loop
        self._handler = handler
        self._links: dict[int, _Connection] = {}
        self.tls: Contexts | None = None
        """For links that begin from now on; None = plain TCP."""
        self._unproven: dict[_Connection, None] = {}
        """Came in, and have not proven who they are; the oldest first."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[Listener] = []
        self.only_loopback = False
        """Dial nothing beyond this machine: there is nothing by which anybody could prove who it is."""
        self._gate = Gate(time.monotonic())
        self._names = Names(loop)
        self._own = Own()
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._descriptor_max = descriptors - min(DESCRIPTORS_KEPT, descriptors // 4)
        self._last_link = 0
        self._stopped = False
        self.mistakes = Mistakes()
        self.buffer = memoryview(bytearray(READ_BYTES_MAX))
        """For one read of any connection."""

    async def listen(self, host: str, port: int) -> list[int]:
        """Accepts on `host` ("" = every address of the machine). The ports; OSError when it cannot."""
        socks = bound(await self._names.addresses(host) if host else [], port)
        made = [Listener(self._loop, sock, self._gate, self._taken, self._turned_away) for sock in socks]
        self._listeners += made
        self._own.listens([sock.getsockname()[:2] for sock in socks])
        return [listener.port for listener in made]

    def connect(self, address: str, host: str, port: int) -> None:
        """Dials; the answer is opened(link, address, ...), connect_failed(address, ...) or, where it leads to
        this host itself, leads_here(address)."""
        self._begin(self._dial(_Connection(self, address), address, host, port))

    def proven(self, link: int) -> None:
        """The other end has proven who it is."""
        connection = self._links.get(link)
        if connection in self._unproven:
            del self._unproven[connection]
            self._gate.proven(connection.remote_host, time.monotonic())

    def send(self, link: int, data: bytes) -> bool:
        """True when the kernel took all; else writable() follows. A link that has gone takes everything."""
        connection = self._links.get(link)
        return connection is None or connection.write(data)

    def pause(self, link: int) -> None:
        """Reads no more of it, so that the sender comes to wait."""
        if (connection := self._links.get(link)) is not None:
            connection.pause()

    def resume(self, link: int) -> None:
        if (connection := self._links.get(link)) is not None:
            connection.resume()

    def abort(self, link: int) -> None:
        """Closes at once, without a last word. Nothing more is told of this link."""
        connection = self._links.pop(link, None)
        if connection is not None:
            connection.abort()

    def close(self, link: int) -> None:
        """Sends what was given, for at most FLUSH_S, and closes. Nothing more is told of this link."""
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
        self._names.stop()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._unproven):
            connection.close()
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

    async def _dial(self, connection: _Connection, address: str, host: str, port: int) -> None:
        try:
            found = self._own.others(await self._names.addresses(host), port)
        except Exception as error:  # OSError, mostly; without an answer it would never be dialled again
            connection.fail(_reason(error))
            return
        if not found:
            self._handler.leads_here(address)
            return
        connection.dialled = found
        deadline = self._later(CONNECT_TIMEOUT_S, partial(connection.give_up, asyncio.current_task()))
        try:
            await self._connect(connection, found, port)
        except Exception as error:  # OSError, mostly; whatever it is, it is this dial's alone
            if self._own.if_nobody_answers(found, port):
                self._handler.leads_here(address)
            else:
                connection.fail(_reason(error))
        finally:
            deadline.cancel()

    async def _connect(self, connection: _Connection, found: list[str], port: int) -> None:
        """By the first of the addresses that answers."""
        if self.only_loopback and not all(map(is_loopback, found)):
            raise PermissionError("it is beyond loopback, and there is no secret_file and no [bridge.tls]")
        for host in found[:-1]:
            try:
                await self._loop.create_connection(lambda: connection, host, port)
                return
            except OSError:
                continue
        await self._loop.create_connection(lambda: connection, found[-1], port)

    def _taken(self, sock: socket.socket, host: str, port: int) -> None:
        """A connection has come in."""
        if len(self._unproven) >= HANDSHAKES_MAX or sock.fileno() >= self._descriptor_max:
            self._push_out()
        if sock.fileno() >= self._descriptor_max and not self._unproven:
            sock.close()
            self._turned_away(host, port, "too few descriptors are left: see `ulimit -n`")
            return
        connection = _Connection(self, None)
        connection.remote_host, connection.stranger = host, _joined(host, port)
        self._unproven[connection] = None
        self._begin(self._accepted(connection, sock))

    async def _accepted(self, connection: _Connection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except Exception as error:
            sock.close()
            connection.fail(_reason(error))

    def _push_out(self) -> None:
        """One of those that have proven nothing."""
        counts = Counter(network_of(known.remote_host) for known in self._unproven)
        for connection in self._unproven:
            if counts[network_of(connection.remote_host)] == max(counts.values()):
                connection.push_out()
                return

    def _turned_away(self, host: str, port: int, reason: str) -> None:
        if not self._stopped:
            self._handler.refused(_joined(host, port), reason)

    def _begun(self, connection: _Connection) -> Channel | None:
        """A socket is there: what is to be done before it is a link, None if nothing."""
        if self.tls is None:
            return None
        return self.tls.accept() if connection.address is None else self.tls.dial()

    def _ended(self, connection: _Connection) -> None:
        """It is closed, or will be at once."""
        self._unproven.pop(connection, None)

    def _later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, call)

    def _failed(self, connection: _Connection, reason: str) -> None:
        """It will not be a link."""
        self._ended(connection)
        if self._stopped:
            return
        if connection.address is not None:
            self._handler.connect_failed(connection.address, reason, connection.dialled)
        elif connection.stranger:
            self._handler.refused(connection.stranger, reason)

    def _opened(self, connection: _Connection, remote_host: str, identity: Identity | None) -> int:
        """The new link's number; 0 when there is no place for it."""
        if self._stopped or len(self._links) >= LINKS_MAX:
            return 0
        self._last_link = link = self._last_link + 1
        self._links[link] = connection
        self._handler.opened(link, connection.address, remote_host, identity)
        return link

    def _received(self, link: int, data: bytes, wire_bytes: int) -> None:
        if link in self._links:
            self._handler.received(link, data, wire_bytes)

    def _writable(self, link: int) -> None:
        if link in self._links:
            self._handler.writable(link)

    def _closed(self, link: int, reason: str) -> None:
        if self._links.pop(link, None) is not None:
            self._handler.closed(link, reason)


class _Connection(asyncio.BufferedProtocol):
    """One socket, from the first byte on; with a number once it is a link."""

    link = 0
    stranger = ""

    def __init__(self, network: Network, address: str | None) -> None:
        self.address = address
        self.dialled: list[str] = []
        """The IP addresses that are tried."""
        self._network = network
        self.remote_host = ""
        self._transport: asyncio.Transport | None = None
        self._channel: Channel | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._over = False

    @_alone
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._over:  # given up before
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=0)
        _set_options(transport.get_extra_info("socket"))
        if self.address is not None:
            self.remote_host = plain((transport.get_extra_info("peername") or ("",))[0])
        self._channel = self._network._begun(self)
        if self._channel is None:
            self._open(None)
        else:
            self._deadline = self._network._later(HANDSHAKE_S, self._too_slow)
            self._received(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop puts what it reads; it is taken out before the next read of any connection."""
        return self._network.buffer

    @_alone
    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._network.buffer[:nbytes]))

    def _received(self, data: bytes) -> None:
        plain = data if self._channel is None else self._unwrapped(self._channel, data)
        if data:
            self._network._received(self.link, plain, len(data))
        if self._channel is not None and self._channel.ended:
            self._lose("closed by the other end")

    @_alone
    def resume_writing(self) -> None:
        self._network._writable(self.link)

    @_alone
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("closed by the other end" if exc is None else _reason(exc))

    def write(self, data: bytes) -> bool:
        assert self._transport is not None  # it has a link, so it was made
        if self._channel is not None:
            self._channel.write(data)
            data = self._channel.out()
        self._transport.write(data)
        return self._transport.get_write_buffer_size() == 0

    def pause(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def fail(self, reason: str) -> None:
        """It does not become a link; no word if it is one."""
        if not self.link and not self._over:
            self._over = True
            self._network._failed(self, reason)
            self.close()

    def push_out(self) -> None:
        """Others need its place."""
        if self.link:
            self._lose("pushed out by newer links; it had proven nothing")
        else:
            self.fail("pushed out by newer links")
        self.abort()

    @_alone
    def give_up(self, dialling: asyncio.Task[None] | None) -> None:
        """No answer in time. One that came just now stays: uvloop, cancelled then, would close the socket of
        a link and never say so."""
        if self._transport is None and dialling is not None:
            self.fail("no answer in time")
            dialling.cancel()

    def close(self) -> None:
        """Nothing more is told of it; what was given to be sent is sent first."""
        self._over = True
        self._network._ended(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is None or self._transport.is_closing():
            return
        if self._channel is not None:
            self._channel.end()
            self._flush(self._channel)
        self._transport.close()
        self._network._later(FLUSH_S, self._transport.abort)

    def abort(self) -> None:
        """At once; nothing more is told of it."""
        self._over = True
        self._network._ended(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is not None:
            self._transport.abort()

    def spoil(self, error: Exception) -> None:
        """A mistake of ours, or of a library that met bytes which it did not expect."""
        self._network.mistakes.tell("a connection is closed", error)
        reason = f"a mistake in the bridge: {error!r}"
        if self._over:
            self.abort()
            return
        self.abort()
        if self.link:
            self._network._closed(self.link, reason)
        else:
            self._network._failed(self, reason)

    def _unwrapped(self, channel: Channel, data: bytes) -> bytes:
        """What `data` brings to read; the handshake's next step on the way."""
        plain = b""
        try:
            plain = channel.feed(data)
        except AuthError as error:
            self._flush(channel)
            self._lose(str(error))
        self._flush(channel)
        if channel.identity is not None and not self.link and not self._over:
            self._open(channel.identity)
        return plain

    def _flush(self, channel: Channel) -> None:
        assert self._transport is not None
        if out := channel.out():
            self._transport.write(out)

    def _open(self, identity: Identity | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.link = self._network._opened(self, self.remote_host, identity)
        if not self.link:
            self.fail(f"{LINKS_MAX} links are open already")

    def _lose(self, reason: str) -> None:
        """It ends, and not by our own will."""
        if not self.link:
            self.fail(reason)
        elif not self._over:
            self.close()
            self._network._closed(self.link, reason)

    @_alone
    def _too_slow(self) -> None:
        self.fail(f"no TLS handshake in {HANDSHAKE_S:g} s")


def host_of(where: str) -> str:
    """The host of what `Handler.refused` is told."""
    return where.rpartition(":")[0]


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _reason(error: Exception) -> str:
    return str(error) or "no answer in time"
