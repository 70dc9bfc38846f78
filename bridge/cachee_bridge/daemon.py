"""The bridge as a process: it starts, serves until it is told to stop, and says how it fares.

    starting   the configuration is judged; doorbell and segments are taken (both refuse a second bridge)
    serving    the shell relays; once a second: sweep, new namespaces, replaced segments, status, watchdog
    stopping   with workers attached: a restart as far as peers can tell, who go on expecting this host
               with none, and all written sent: farewell for good

What matters survives in the segments, so whatever goes wrong here is answered by a fresh start: of the shell
when a segment was replaced under it, else of the process, by whoever watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
from typing import Any

from cachee_bridge.doorbell import Doorbell, DoorbellUnavailable
from cachee_bridge.mesh import Settings
from cachee_bridge.notify import Notifier
from cachee_bridge.pump import SLOW_US
from cachee_bridge.segments import Segments
from cachee_bridge.shell import Shell
from cachee_shm.config import Bridge, Config, split_address
from cachee_shm.errors import BridgeError, ConfigError, ListenRefused, SegmentRetired

CARE_S = 1.0
LEAVE_S = 2.0  # peers apply in milliseconds; one that does not may be gone
AGAIN_S = 0.5  # between two attempts to serve, when segments are replaced again and again
SECRET_BYTES_MIN = 16
SECRET_BYTES_MAX = 4096

log = logging.getLogger("cachee_bridge")


def settings(config: Config) -> Settings:
    """What the configuration says to the mesh.

    Raises ConfigError without a [bridge] or with a secret that cannot be used, and ListenRefused for an
    address that the network reaches when there is no secret.
    """
    bridge = bridge_of(config)
    files = [path for path in (bridge.secret_file, bridge.previous_secret_file) if path is not None]
    host, port = split_address(bridge.listen)
    if not files and not _is_loopback(host):
        raise ListenRefused(
            f"{config.source}: bridge.listen: {bridge.listen!r} can be reached from the network, and there "
            f"is no secret_file; nothing was started; set secret_file, or listen on '127.0.0.1:{port}'"
        )
    return Settings(
        address=f":{port}" if _is_everywhere(host) else bridge.listen,
        secrets=tuple(_secret(path) for path in files),
        fanout=bridge.fanout,
        heartbeat_s=bridge.heartbeat,
        lost_after_s=bridge.lost_after,
    )


def bridge_of(config: Config) -> Bridge:
    """The [bridge] table; ConfigError without one."""
    if config.bridge is None:
        raise ConfigError(f"{config.source}: bridge: found nothing; accepted: a table: [bridge]")
    return config.bridge


class Daemon:
    """One bridge process."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        """Raises what `settings` raises; nothing has been touched then."""
        self._config = config
        self._bridge = bridge_of(config)
        self._settings = settings(config)
        self._notifier = notifier
        self._care_s = min(CARE_S, notifier.watchdog_s / 2) if notifier.watchdog_s else CARE_S
        self._wake = asyncio.Event()
        self._stopping = False
        self._broken: BaseException | None = None
        self._status = ""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises a CacheeError when it cannot serve (any more)."""
        self._take_signals()
        with contextlib.ExitStack() as stack:
            stack.callback(self._notifier.close)
            bell = self._make_bell()
            if bell is not None:
                stack.callback(bell.close)
            while not await self._serve(bell):
                await asyncio.sleep(AGAIN_S)
        log.info("stopped")

    async def _serve(self, bell: Doorbell | None) -> bool:
        """One life of the shell. True when it was told to stop, False when it is to begin anew."""
        self._broken = None
        segments = Segments(self._config)
        with contextlib.ExitStack() as stack:
            stack.callback(segments.close)
            try:
                segments.open_configured()
                shell = self._make_shell(segments, bell)
                stack.callback(shell.stop)
                await self._start(shell, segments)
                await self._care(shell, segments)
                await self._farewell(shell, segments)
            except SegmentRetired as error:
                log.warning("attaching anew: %s", error)
                return self._stopping
        return True

    async def _start(self, shell: Shell, segments: Segments) -> None:
        host, port = split_address(self._bridge.listen)
        try:
            await shell.start(host, port, self._bridge.peers)
        except OSError as error:
            raise BridgeError(
                f"cannot listen on {self._bridge.listen!r}: {error}; nothing was relayed; stop what listens "
                f"there, or set bridge.listen to another address"
            ) from error
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        names = ",".join(sorted(segments.held)) or "none yet"
        log.info(
            "serving name=%s listen=%s namespaces=%s", self._config.host.name, self._bridge.listen, names
        )
        self._notifier.ready(f"serving {names}")

    async def _care(self, shell: Shell, segments: Segments) -> None:
        """The work of every second, until a signal or a failure."""
        while not self._stopping:
            self._notifier.watchdog()
            segments.check()
            segments.sweep()
            for namespace in segments.open_found():
                log.info("serving a new namespace=%s", namespace)
                shell.add_namespace(namespace, segments.held[namespace])
            shell.pump.look()  # the sweep's announcements ring no bell
            self._tell_status(shell, segments)
            await self._wait()

    async def _wait(self) -> None:
        """A second, less when there is news; raises the error that broke the shell."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), self._care_s)
        self._wake.clear()
        if self._broken is not None:
            raise self._broken

    async def _farewell(self, shell: Shell, segments: Segments) -> None:
        self._notifier.stopping()
        shell.pump.look()
        if not segments.unused():
            log.info("stopping; workers are attached here, so peers go on expecting this host")
        elif await shell.leave(LEAVE_S):
            log.info("left for good: no worker is attached, and every linked peer has all that was written")
        else:
            log.warning("left, but not every linked peer has said that it has all that was written")

    def _make_shell(self, segments: Segments, bell: Doorbell | None) -> Shell:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        return Shell(loop, self._config.host.name, segments.held, self._settings, bell, self._on_broken)

    def _make_bell(self) -> Doorbell | None:
        try:
            return Doorbell.create(self._config.host.name, self._config.host.group)
        except DoorbellUnavailable as error:
            log.warning("no doorbell (%s): looking for writes every %g ms instead", error, SLOW_US / 1000)
            return None

    def _tell_status(self, shell: Shell, segments: Segments) -> None:
        peers = [peer for peer in shell.mesh.peers() if peer.state != "self"]
        up = sum(peer.state == "up" for peer in peers)
        status = f"{len(segments.held)} namespaces, {up} of {len(peers)} peers up"
        if status != self._status:
            self._status = status
            self._notifier.status(status)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, signal.Signals(number).name)
        loop.add_signal_handler(
            signal.SIGHUP, log.warning, "SIGHUP is reserved: nothing is read anew; restart"
        )

    def _on_stop(self, name: str) -> None:
        log.info("%s", name)
        self._stopping = True
        self._wake.set()

    def _on_broken(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self._wake.set()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback: the pump's, or a mistake. What goes wrong with a socket is neither."""
        error = context.get("exception")
        if error is None or isinstance(error, OSError):
            log.warning("%s: %s", context.get("message"), error)
        else:
            self._on_broken(error)


def _is_everywhere(host: str) -> bool:
    return not host or host in ("0.0.0.0", "::")


def _is_loopback(host: str) -> bool:
    """Every address that `host` stands for; a name that does not resolve is nowhere, so not on loopback."""
    if _is_everywhere(host):
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(row[4][0]).partition("%")[0]).is_loopback for row in found)


def _secret(path: str) -> bytes:
    """The file's bytes without the line's end; ConfigError when it cannot serve as a secret."""
    try:
        with open(path, "rb") as file:
            secret = file.read(SECRET_BYTES_MAX + 1).rstrip(b"\r\n")
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ConfigError(f"secret file {path}: cannot be read: {error.strerror}") from None
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ConfigError(
            f"secret file {path}: found {len(secret)} bytes; accepted: {SECRET_BYTES_MIN} to "
            f"{SECRET_BYTES_MAX} bytes and a line's end (head -c 32 /dev/urandom | base64 makes some)"
        )
    if mode & 0o007:
        log.warning("secret file %s is open to every user of this machine; chmod o= %s", path, path)
    return secret
