"""The service manager's notify protocol (sd_notify(3)), spoken over one datagram socket.

systemd starts the bridge with ``Type=notify``: until READY=1 arrives, what is ordered after it waits, and
when WATCHDOG=1 stays away for longer than WATCHDOG_USEC, it is killed and started again. A bridge that hangs
is as bad as a dead one (every host then serves by its isolation policy), so WATCHDOG=1 is sent from the event
loop that relays, never from a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

STATUS_BYTES_MAX = 512  # one line for `systemctl status`; a longer one would be cut there anyway


class Notifier:
    """Reports the bridge's state to the service manager; without one, every call does nothing."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from `environ` (default: the process's own)."""
        env = os.environ if environ is None else environ
        self._address = _address(env.get("NOTIFY_SOCKET", ""))
        self._socket = None if self._address is None else _datagram_socket()
        self.watchdog_s = _watchdog_s(env) if self._socket else None
        """Seconds within which WATCHDOG=1 must come, or None where nobody watches."""

    def ready(self, status: str) -> None:
        """The bridge is ready: units that are ordered after it may start."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}\nMAINPID={os.getpid()}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_one_line(text)}")

    def watchdog(self) -> None:
        """Still alive."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """A stop was asked for and is under way."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        """Never waits and never fails: a service manager that does not listen must not stop the bridge."""
        if self._socket is not None and self._address is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)


def _address(name: str) -> str | bytes | None:
    """A path, or (after an @) a name in Linux's abstract space; anything else is not for us."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return name if name.startswith("/") else None


def _datagram_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    return sock


def _watchdog_s(env: Mapping[str, str]) -> float | None:
    """The watchdog's period, when it is meant for this process."""
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = env.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


def _one_line(text: str) -> str:
    """A line break inside would begin another assignment."""
    return " ".join(text.split())[:STATUS_BYTES_MAX]
