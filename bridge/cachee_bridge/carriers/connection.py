"""One socket, from its first byte to its end: TCP alone, or TLS over it.

Nothing is queued: the write buffer's high mark is 0, so that uvloop writes at once, in the caller's stack,
and at most one allowance of the mesh waits here. TCP_NOTSENT_LOWAT keeps the kernel's buffer short too,
because bytes that wait there grow old, while records that stay in the ring are coalesced, and are fresh when
they are sent.

With TLS a connection becomes a link when the other end has proven a certificate, and everything above sees
plain bytes. The tls.Channel is driven here, not by the event loop's TLS transport: that transport has a
buffer of its own, so it would be unknown how much the kernel has taken. A TLS handshake may take HANDSHAKE_S.

An exception of a method that the event loop calls ends only this connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from cachee_bridge.carriers.accepting import plain
from cachee_shm.errors import AuthError

if TYPE_CHECKING:
    from cachee_bridge.carriers.tls import Channel
    from cachee_bridge.system.logs import Mistakes
    from cachee_bridge.wire.identity import Identity

HANDSHAKE_S = 5.0  # TLS takes two round trips and some milliseconds
FLUSH_S = 1.0  # how long a closing link may take to send its last bytes (an error for the peer's log)
UNSENT_BYTES_MAX = 128 << 10
TCP_USER_TIMEOUT_MS = 10_000
TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; not every Python's socket module has the name
OPTIONS = (
    (socket.TCP_NODELAY, 1),
    (TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX),
    (socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS),
    (socket.TCP_KEEPIDLE, 5),  # the kernel's check for a host that vanished; beats notice it sooner
    (socket.TCP_KEEPINTVL, 2),
    (socket.TCP_KEEPCNT, 3),
)


class Owner(Protocol):
    """What a connection needs of the network that it belongs to, and what it is told."""

    buffer: memoryview
    """For one read of any connection."""
    mistakes: Mistakes

    def later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call it once, after this time."""

    def channel(self, connection: Connection) -> Channel | None:
        """The TLS of a new connection, None = plain TCP."""

    def opened(self, connection: Connection, identity: Identity | None) -> int:
        """It is ready to be a link. Its number; 0 when there is no place for it, and it has failed."""

    def failed(self, connection: Connection, reason: str) -> None:
        """It will not be a link."""

    def ended(self, connection: Connection) -> None:
        """It is closed, or will be at once, whether it was a link or not."""

    def received(self, link: int, data: bytes, wire_bytes: int) -> None:
        """Bytes have come, for which the other end has sent `wire_bytes`."""

    def writable(self, link: int) -> None:
        """All that was written is with the kernel."""

    def closed(self, link: int, reason: str) -> None:
        """A link has ended, and not by close() or abort()."""


Method = TypeVar("Method", bound=Callable[..., None])


def _alone(method: Method) -> Method:
    """Decorates each method that the event loop calls: an exception ends only that connection."""

    @wraps(method)
    def guarded(self: Connection, *arguments: Any) -> None:
        try:
            method(self, *arguments)
        except Exception as error:
            self.spoil(error)

    return cast(Method, guarded)


class Connection(asyncio.BufferedProtocol):
    """One socket, from the first byte on; with a number once it is a link."""

    link = 0
    stranger = ""

    def __init__(self, owner: Owner, address: str | None) -> None:
        self.address = address
        self.dialled: list[str] = []
        """The IP addresses that are tried."""
        self._owner = owner
        self.remote_host = ""
        self.socket = -1
        """Where bytes may be written past the transport: its descriptor, while nothing waits in the transport
        and there is no TLS; else -1. It is open as long as the network knows the link: the transport closes
        it after it has called connection_lost."""
        self._descriptor = -1
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
        self._channel = self._owner.channel(self)
        if self._channel is None:
            self.socket = self._descriptor = transport.get_extra_info("socket").fileno()
            self._open(None)
        else:
            self._deadline = self._owner.later(HANDSHAKE_S, self._too_slow)
            self._received(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop puts what it reads; it is taken out before the next read of any connection."""
        return self._owner.buffer

    @_alone
    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._owner.buffer[:nbytes]))

    def _received(self, data: bytes) -> None:
        plain = data if self._channel is None else self._unwrapped(self._channel, data)
        if data:
            self._owner.received(self.link, plain, len(data))
        if self._channel is not None and self._channel.ended:
            self._lose("closed by the other end")

    @_alone
    def resume_writing(self) -> None:
        self.socket = self._descriptor
        self._owner.writable(self.link)

    @_alone
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("closed by the other end" if exc is None else reason_of(exc))

    def write(self, data: bytes) -> bool:
        assert self._transport is not None  # it has a link, so it was made
        if self._channel is not None:
            self._channel.write(data)
            data = self._channel.out()
        self._transport.write(data)
        if self._transport.get_write_buffer_size() == 0:
            return True
        self.socket = -1
        return False

    def pause(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def fail(self, reason: str) -> None:
        """The connection cannot become a link. Does nothing if it is one already."""
        if not self.link and not self._over:
            self._over = True
            self._owner.failed(self, reason)
            self.close()

    def push_out(self) -> None:
        """A newer connection needs its place."""
        if self.link:
            self._lose("closed to make room for newer links; it had proven nothing")
        else:
            self.fail("closed to make room for newer links")
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
        self._owner.ended(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is None or self._transport.is_closing():
            return
        if self._channel is not None:
            self._channel.end()
            self._flush(self._channel)
        self._transport.close()
        self._owner.later(FLUSH_S, self._transport.abort)

    def abort(self) -> None:
        """At once; nothing more is told of it."""
        self._over = True
        self._owner.ended(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is not None:
            self._transport.abort()

    def spoil(self, error: Exception) -> None:
        """An exception from our own code, or from a library that met bytes which it did not expect."""
        self._owner.mistakes.tell("a connection is closed", error)
        reason = f"a mistake in the bridge: {error!r}"
        if self._over:
            self.abort()
            return
        self.abort()
        if self.link:
            self._owner.closed(self.link, reason)
        else:
            self._owner.failed(self, reason)

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
        self.link = self._owner.opened(self, identity)

    def _lose(self, reason: str) -> None:
        """It ends, and not by close() or abort()."""
        if not self.link:
            self.fail(reason)
        elif not self._over:
            self.close()
            self._owner.closed(self.link, reason)

    @_alone
    def _too_slow(self) -> None:
        self.fail(f"no TLS handshake in {HANDSHAKE_S:g} s")


def reason_of(error: Exception) -> str:
    """Why a connection ended, for people."""
    return str(error) or "no answer in time"


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
