"""Listening sockets: connections are accepted at a bounded rate, also when descriptors have run out.

readable            at most AT_ONCE connections are accepted, then the event loop has its turn
the gate is closed  the socket is not read for as long: new connections wait in the kernel's backlog
out of descriptors  a descriptor that is kept in reserve is given up for a moment, so that one connection
                    can be taken and closed; then the socket is not looked at for SCARCE_S
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachee_bridge.carriers.gate import Gate

BACKLOG_MAX = 256  # a mesh that reconnects after a switch's restart comes all at once
AT_ONCE = 16
PAUSE_S_MIN = 0.005  # a timer for each token would cost more than the connections
SCARCE_S = 0.1
SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Taken = Callable[[socket.socket, str, int], None]
"""taken(socket, host, port): a connection that may be heard; the socket belongs to the callee."""
Refused = Callable[[str, int, str], None]
"""refused(host, port, reason): a connection that was closed at once."""


class Listener:
    """One listening socket. Its callback raises nothing."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, gate: Gate, taken: Taken, refused: Refused
    ) -> None:
        self._loop, self._sock, self._gate = loop, sock, gate
        self._taken, self._refused = taken, refused
        self._paused: asyncio.TimerHandle | None = None
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def close(self) -> None:
        """Accepts no connection any more."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        if self._reserve >= 0:
            os.close(self._reserve)

    def _on_readable(self) -> None:
        for _ in range(AT_ONCE):
            wait_s = self._gate.accepts_in_s(time.monotonic())
            if wait_s:
                self._pause(max(wait_s, PAUSE_S_MIN))
                return
            try:
                if not self._accept():
                    return
            except OSError as error:
                if error.errno in SCARCE:
                    self._drop_one(str(error))
                self._pause(SCARCE_S)
                return

    def _accept(self) -> bool:
        """Whether there was one."""
        try:
            sock, address = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        host, port = plain(str(address[0])), int(address[1])
        reason = self._gate.hears(host, time.monotonic())
        if reason:
            sock.close()
            self._refused(host, port, reason)
        else:
            self._taken(sock, host, port)
        return True

    def _drop_one(self, reason: str) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        with contextlib.suppress(OSError):
            sock, address = self._sock.accept()
            sock.close()
            self._refused(plain(str(address[0])), int(address[1]), reason)
        with contextlib.suppress(
            OSError
        ):  # another part of the process has taken it: tried again the next time
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._paused = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._paused = None
        self._loop.add_reader(self._sock.fileno(), self._on_readable)


def bound(hosts: list[str], port: int) -> list[socket.socket]:
    """Sockets that listen on these addresses; on [], on every address of the machine. OSError."""
    if not hosts:
        return [_everywhere(port)]
    made: list[socket.socket] = []
    try:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            made.append(socket.create_server((host, port), family=family, backlog=BACKLOG_MAX))
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def _everywhere(port: int) -> socket.socket:
    """One socket for both families, or IPv4 alone on a machine without the other."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=BACKLOG_MAX, dualstack_ipv6=True
        )
    return socket.create_server(("", port), backlog=BACKLOG_MAX)


def plain(host: str) -> str:
    """IPv4 as such on a socket for both families."""
    return host.removeprefix("::ffff:") if "." in host else host
