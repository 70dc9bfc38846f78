"""Somebody on the way between two bridges: keeps what passes, and changes it when asked to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Change = Callable[[bytes], list[bytes]]
"""What is sent on in the place of one piece; a piece is what one read gives, some messages as a rule."""


class Relay:
    """Listens at `port` and carries every connection on to `target`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.kept: list[bytearray] = []
        """What the dialler of each connection sent."""
        self.change: Change | None = None
        """For what the diallers send; used once, then forgotten."""
        self.changed = 0
        self.passes = threading.Event()
        """Cleared: nothing gets through, and no connection ends."""
        self.passes.set()
        self._held = b""
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.passes.set()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                dialler, _ = self._listener.accept()
                self._begin(dialler)

    def _begin(self, dialler: socket.socket) -> None:
        try:
            acceptor = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            dialler.close()
            return
        self._sockets += [dialler, acceptor]
        kept = bytearray()
        self.kept.append(kept)
        for source, target, keep in ((dialler, acceptor, kept), (acceptor, dialler, None)):
            threading.Thread(target=self._carry, args=(source, target, keep), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, keep: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passes.wait()
                pieces = [data]
                if keep is not None:
                    keep += data
                    pieces = self._changed(data)
                for piece in pieces:
                    target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _changed(self, data: bytes) -> list[bytes]:
        if self._held:
            data, self._held = data + self._held, b""
            self.changed += 1
            return [data]
        if self.change is None:
            return [data]
        change, self.change = self.change, None
        if change is later:
            self._held = data
            return []
        self.changed += 1
        return change(data)


def flipped(data: bytes) -> list[bytes]:
    return [data[:-1] + bytes([data[-1] ^ 1])]


def repeated(data: bytes) -> list[bytes]:
    return [data, data]


def left_out(data: bytes) -> list[bytes]:
    return []


def cut_off(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2]]


def later(data: bytes) -> list[bytes]:
    """After the next piece."""
    return [data]


@contextlib.contextmanager
def relay(target: int) -> Iterator[Relay]:
    made = Relay(target)
    try:
        yield made
    finally:
        made.close()
