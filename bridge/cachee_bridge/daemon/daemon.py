"""The bridge as a process: it starts, serves until it is told to stop, and says how it fares.

    starting   the configuration is checked; doorbell and segments are taken (both refuse a second bridge)
    serving    the shell relays; once a second: sweep, new namespaces, replaced segments, changed certificates
               and secrets (at once on SIGHUP), status, watchdog
    draining   told to stop while workers are attached: serves on until the last of them has left, for as long
               as the configuration allows; told once more: stops at once
    stopping   with workers attached: peers take it for a restart, and go on expecting this host
               with none attached, and everything sent: this host leaves for good

All state that matters is in the segments. So an error here ends in a fresh start: of the shell if a segment
was replaced under it, else of the process, by the service manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cachee_bridge.carriers.credentials import Credentials
from cachee_bridge.carriers.names import is_loopback, look_up_all
from cachee_bridge.daemon.operator_socket import OperatorSocket
from cachee_bridge.daemon.requests import Requests
from cachee_bridge.daemon.segments import Segments
from cachee_bridge.protocol.mesh import Settings
from cachee_bridge.shell.doorbell import Doorbell, DoorbellUnavailable
from cachee_bridge.shell.pump import SLOW_US
from cachee_bridge.shell.question import Resolver
from cachee_bridge.shell.shell import Shell
from cachee_bridge.system.logs import Mistakes
from cachee_shm.config import Bridge, Config, split_address
from cachee_shm.errors import (
    BridgeError,
    BridgeRunning,
    ConfigError,
    ListenRefused,
    SegmentRetired,
)
from cachee_shm.segment import bridge_socket

if TYPE_CHECKING:
    from cachee_bridge.system.notify import Notifier

CARE_S = 1.0
DRAIN_LOOK_S = 0.1
RELOAD_S = 1.0  # between two reloads: one reads all files, and shakes hands twice
LEAVE_S = 2.0  # peers apply in milliseconds; one that does not may be gone
LOOK_UP_S = 1.0  # for the names in the configuration, all together
AGAIN_S = 0.5  # between two attempts to serve, when segments are replaced again and again

log = logging.getLogger("cachee_bridge")


def settings(config: Config, credentials: Credentials) -> Settings:
    """What the configuration says to the mesh.

    Raises ConfigError without a [bridge], and ListenRefused for an address that the network reaches, or a
    peer beyond this machine, when nobody has to prove anything.
    """
    bridge = bridge_of(config)
    host, port = split_address(bridge.listen)
    if not credentials.given:
        _keep_to_loopback(config.source, bridge)
    return Settings(
        address=f":{port}" if _is_everywhere(host) else bridge.listen,
        secrets=credentials.secrets,
        namespaces=credentials.namespaces,
        peer_budget=bridge.peer_budget,
        region=config.host.region or "",
        fanout=bridge.fanout,
        heartbeat_s=bridge.heartbeat,
        lost_after_s=bridge.lost_after,
        forget_after_s=bridge.forget_after,
    )


def _keep_to_loopback(source: str, bridge: Bridge) -> None:
    """Names that do not resolve by now are looked at when they are dialled (Dialler.only_loopback)."""
    hosts = {split_address(address)[0]: address for address in bridge.peers}
    host, port = split_address(bridge.listen)
    found = look_up_all([host, *hosts], LOOK_UP_S)
    missing = "there is no secret_file and no [bridge.tls]; nothing was started"
    if _is_everywhere(host) or not (found.get(host) and all(map(is_loopback, found[host]))):
        raise ListenRefused(
            f"{source}: bridge.listen: {bridge.listen!r} can be reached from the network, and {missing}; set "
            f"one of them, or listen on '127.0.0.1:{port}'"
        )
    for host, address in hosts.items():
        if not all(map(is_loopback, found.get(host, []))):
            raise ListenRefused(
                f"{source}: bridge.peers: {address!r} is beyond this machine, and {missing}; set one of "
                "them: without, anybody who answers there is believed"
            )
    server = split_address(bridge.nameserver)[0] if bridge.nameserver is not None else ""
    if bridge.discover is not None and not (server and is_loopback(server)):
        raise ListenRefused(
            f"{source}: bridge.discover: {bridge.discover!r} names hosts beyond this machine, and {missing}; "
            "set one of them: without, anybody who answers there is believed"
        )


def credentials_of(config: Config) -> Credentials:
    """What the configuration's files hold; ConfigError when they cannot be used."""
    return Credentials(bridge_of(config), config.host.name)


def bridge_of(config: Config) -> Bridge:
    """The [bridge] table; ConfigError without one."""
    if config.bridge is None:
        raise ConfigError(f"{config.source}: bridge: found nothing; accepted: a table: [bridge]")
    return config.bridge


class Daemon:
    """One bridge process."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        """Raises what `credentials_of` and `settings` raise; nothing has been touched then."""
        self._config = config
        self._bridge = bridge_of(config)
        self._credentials = credentials_of(config)
        self._settings = settings(config, self._credentials)
        self._notifier = notifier
        self._care_s = min(CARE_S, notifier.watchdog_s / 2) if notifier.watchdog_s else CARE_S
        self._wake = asyncio.Event()
        self._stopping = self._at_once = self._told_to_reload = False
        self._reload_from = 0.0
        """By time.monotonic(): until then, SIGHUPs are gathered."""
        self._broken: BaseException | None = None
        self._status = ""
        self._mistakes = Mistakes()

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
                shell.tell_unserved(segments.unserved)
                await self._start(shell)
                door = await self._open_door(shell)
                stack.callback(door.close)
                self._say_ready(segments)
                await self._care(shell, segments, door)
                await self._farewell(shell, segments)
            except SegmentRetired as error:
                log.warning("attaching anew: %s", error)
                return self._stopping
        return True

    async def _start(self, shell: Shell) -> None:
        host, port = split_address(self._bridge.listen)
        try:
            await shell.start(host, port, self._bridge.peers, _resolver(self._bridge))
        except OSError as error:
            raise BridgeError(
                f"cannot listen on {self._bridge.listen!r}: {error}; nothing was relayed; stop what listens "
                f"there, or set bridge.listen to another address"
            ) from error

    def _say_ready(self, segments: Segments) -> None:
        """Once it relays, and answers its operator."""
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        names = ",".join(sorted(segments.held)) or "none yet"
        log.info(
            "serving name=%s listen=%s namespaces=%s", self._config.host.name, self._bridge.listen, names
        )
        self._notifier.ready(f"serving {names}")

    async def _open_door(self, shell: Shell) -> OperatorSocket:
        host = self._config.host
        requests = Requests(host.name, shell, self._mistakes)
        control = OperatorSocket(bridge_socket(host.name), host.gid(), requests.answer)
        await self._open(control)
        return control

    async def _open(self, control: OperatorSocket) -> None:
        try:
            await control.open()
        except OSError as error:
            self._mistakes.tell("`cachee peers` will find no bridge here", error)

    async def _care(self, shell: Shell, segments: Segments, door: OperatorSocket) -> None:
        """The work of every second, until a signal or a failure."""
        while not self._stopping:
            self._look_after(shell, segments)
            if door.is_lost:
                await self._open(door)
            await self._wait(self._care_s)

    async def _drain(self, shell: Shell, segments: Segments) -> None:
        """Bridge and workers may be told to stop at one time, and workers may take longer."""
        end = time.monotonic() + self._bridge.drain
        if segments.unused() or not self._bridge.drain:
            return
        log.info(
            "workers are attached: serving on for up to %g s; SIGTERM again ends at once", self._bridge.drain
        )
        while not (segments.unused() or self._at_once) and time.monotonic() < end:
            self._look_after(shell, segments)
            await self._wait(DRAIN_LOOK_S)

    def _look_after(self, shell: Shell, segments: Segments) -> None:
        """Each task by itself: one that fails (no descriptor, no memory) is tried again in a second, and the
        others are done."""
        self._notifier.watchdog()
        self._attempt("looking at the segments", segments.check)
        self._attempt("sweeping", segments.sweep)
        self._attempt("looking for new namespaces", self._serve_found, shell, segments)
        shell.pump.look()  # the sweep's announcements ring no bell
        self._attempt("reading certificates and secrets", self._renew, shell)
        self._attempt("telling the status", self._tell_status, shell, segments)

    def _attempt(self, what: str, task: Callable[..., None], *arguments: Any) -> None:
        """The loss of the segments ends this life of the shell, nothing else does."""
        try:
            task(*arguments)
        except (SegmentRetired, BridgeRunning):
            raise
        except Exception as error:
            self._mistakes.tell(what, error)

    def _serve_found(self, shell: Shell, segments: Segments) -> None:
        for namespace in segments.open_found():
            log.info("serving a new namespace=%s", namespace)
            shell.add_namespace(namespace, segments.held[namespace])
        shell.tell_unserved(segments.unserved)

    def _renew(self, shell: Shell) -> None:
        """Certificates and secrets that have changed."""
        told = self._told_to_reload and time.monotonic() >= self._reload_from
        if told:
            self._told_to_reload, self._reload_from = False, time.monotonic() + RELOAD_S
        if not (self._credentials.reload() if told else self._credentials.look()):
            return
        self._settings = replace(self._settings, secrets=self._credentials.secrets)
        shell.renew(self._credentials.secrets, self._credentials.tls)
        log.info("certificates and secrets are read anew; links that are up stay up")

    async def _wait(self, seconds: float) -> None:
        """Less when there is news; raises the error that broke the shell."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()
        if self._broken is not None:
            raise self._broken

    async def _farewell(self, shell: Shell, segments: Segments) -> None:
        self._notifier.stopping()
        shell.pump.look()
        await self._drain(shell, segments)
        if not segments.leave():
            log.info(
                "stopping without leaving: workers are attached here, so peers go on expecting this host"
            )
        elif await shell.leave(LEAVE_S, lambda: self._at_once):
            log.info("left for good: no worker is attached, and every linked peer has applied all writes")
        else:
            log.warning(
                "left, but not all linked peers have acknowledged all writes: those still expect this host"
            )

    def _make_shell(self, segments: Segments, bell: Doorbell | None) -> Shell:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        shell = Shell(
            loop,
            self._config.host.name,
            segments.held,
            self._settings,
            bell,
            self._on_broken,
            self._credentials.tls,
        )
        shell.network.dialler.only_loopback = not self._credentials.given
        return shell

    def _make_bell(self) -> Doorbell | None:
        try:
            return Doorbell.create(self._config.host.name, self._config.host.group)
        except DoorbellUnavailable as error:
            log.warning("no doorbell (%s): looking for writes every %g ms instead", error, SLOW_US / 1000)
            return None

    def _tell_status(self, shell: Shell, segments: Segments) -> None:
        up, peers = shell.mesh.views.tally()
        status = f"{len(segments.held)} namespaces, {up} of {peers} peers up"
        if status != self._status:
            self._status = status
            self._notifier.status(status)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)

    def _on_stop(self, name: str) -> None:
        log.info("%s", name)
        self._at_once = self._stopping
        self._stopping = True
        self._wake.set()

    def _on_reload(self) -> None:
        """However many come, files are read once in RELOAD_S; what comes sooner waits for a look."""
        self._told_to_reload = True
        if time.monotonic() >= self._reload_from:
            self._wake.set()

    def _on_broken(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self._wake.set()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that a callback has not caught. It ends the connection that the callback was for."""
        error, what = context.get("exception"), str(context.get("message"))
        if isinstance(error, SegmentRetired | BridgeRunning):
            self._on_broken(error)
            return
        self._mistakes.tell(what, error if error is not None else RuntimeError(what))
        if (transport := context.get("transport")) is not None:
            transport.abort()


def _resolver(bridge: Bridge) -> Resolver | None:
    """Imported by those who need it: it costs a bridge some MiB."""
    if bridge.discover is None:
        return None
    from cachee_bridge.shell import resolver

    return resolver.Resolver(bridge.discover, bridge.nameserver)


def _is_everywhere(host: str) -> bool:
    return not host or host in ("0.0.0.0", "::")
