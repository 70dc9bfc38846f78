"""The bridge as a process: it starts, serves until it is told to stop, and reports its state.

    starting   the configuration is checked; doorbell and segments are taken (both refuse a second bridge)
    serving    the shell relays; once a second: sweep, new namespaces, replaced segments, changed certificates
               and secrets, status, watchdog. On SIGHUP the configuration is read anew (reload.py)
    draining   told to stop while workers are attached: goes on until the last of them has left, for as long
               as the configuration allows; told again: stops at once
    stopping   with workers attached: peers take it for a restart, and go on waiting for this host
               with none attached, and everything sent: this host leaves for good

All important state is in the segments. So after an error everything starts again: the shell if a segment was
replaced under it, otherwise the process, by the service manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cachee_bridge.daemon.in_force import InForce, in_force
from cachee_bridge.daemon.operator_socket import OperatorSocket
from cachee_bridge.daemon.reload import Reloads, When, read_anew, tell
from cachee_bridge.daemon.requests import Requests
from cachee_bridge.daemon.segments import Segments
from cachee_bridge.daemon.web import Web
from cachee_bridge.shell.doorbell import Doorbell, DoorbellUnavailable
from cachee_bridge.shell.pump import SLOW_US
from cachee_bridge.shell.question import Resolver
from cachee_bridge.shell.shell import Shell
from cachee_bridge.sources.boots import BOOT_BITS
from cachee_bridge.system.boot import boot_of_shared_memory
from cachee_bridge.system.log_formats import fields
from cachee_bridge.system.logs import Mistakes
from cachee_shm.config import Bridge, Config, Host, split_address
from cachee_shm.errors import (
    BridgeError,
    BridgeRunning,
    CacheeError,
    ConfigError,
    ListenRefused,
    SegmentRetired,
)
from cachee_shm.segment import boot_file, bridge_socket

if TYPE_CHECKING:
    from cachee_bridge.system.notify import Notifier

CARE_S = 1.0
DRAIN_LOOK_S = 0.1
LEAVE_S = 2.0  # peers apply in milliseconds; one that takes longer may be gone
AGAIN_S = 0.5  # between two attempts to serve, when segments are replaced again and again

log = logging.getLogger("cachee_bridge")


class Daemon:
    """One bridge process."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        """Raises what `credentials_of` and `settings` raise; nothing has been touched then."""
        self._used = in_force(config)
        self._before: InForce | None = None
        """The configuration before the last reload, until the new one has proven to work."""
        self._notifier = notifier
        self._care_s = min(CARE_S, notifier.watchdog_s / 2) if notifier.watchdog_s else CARE_S
        self._wake = asyncio.Event()
        self._stopping = self._at_once = False
        self._reloads = Reloads()
        self._broken: BaseException | None = None
        self._status = self._no_doorbell = ""
        self._mistakes = Mistakes()
        self._web = Web()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises a CacheeError when it cannot serve (any more)."""
        self._take_signals()
        with contextlib.ExitStack() as stack:
            stack.callback(self._notifier.close)
            bell = self._make_bell()
            if bell is not None:
                stack.callback(bell.close)
            while not await self._serve(bell):
                await asyncio.sleep(0.0 if self._before else AGAIN_S)
        log.info("stopped")

    async def _serve(self, bell: Doorbell | None) -> bool:
        """One life of the shell. True: it was told to stop. False: it must begin again."""
        self._broken = None
        segments = Segments(self._used.config)
        with contextlib.ExitStack() as stack:
            stack.callback(segments.close)
            try:
                segments.open_configured()
                shell = self._make_shell(segments, bell)
                stack.callback(shell.stop)
                shell.tell_unserved(segments.unserved)
                await self._start(shell)
                name = self._used.config.host.name
                requests = Requests(name, shell, self._mistakes, self._no_doorbell)
                door = await self._open_door(requests)
                stack.callback(door.close)
                stack.callback(self._open_web(shell, segments, requests).close)
                self._say_ready(segments)
                if not await self._care(shell, segments, door):
                    return False
                await self._farewell(shell, segments)
            except SegmentRetired as error:
                log.warning("attaching anew: %s", error)
                return self._stopping
            except CacheeError as error:
                if self._before is None:
                    raise
                log.error("%s; the configuration from before the reload is used again", error)
                self._used, self._before = self._before, None
                return self._stopping
        return True

    async def _start(self, shell: Shell) -> None:
        host, port = split_address(self._used.bridge.listen)
        try:
            await shell.start(host, port, self._used.bridge.peers, _resolver(self._used.bridge))
        except OSError as error:
            raise BridgeError(
                f"cannot listen on {self._used.bridge.listen!r}: {error}; nothing was relayed; stop what "
                "listens there, or set bridge.listen to another address"
            ) from error
        self._before = None

    def _say_ready(self, segments: Segments) -> None:
        """Called once the bridge relays, and answers its operator."""
        gc.unfreeze()  # what was left of an earlier life
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        names = ",".join(sorted(segments.held)) or "none yet"
        name, listen = self._used.config.host.name, self._used.bridge.listen
        log.info("serving", extra=fields(name=name, listen=listen, namespaces=names))
        self._notifier.ready(f"serving {names}")

    async def _open_door(self, requests: Requests) -> OperatorSocket:
        host = self._used.config.host
        control = OperatorSocket(bridge_socket(host.name), host.gid(), requests.answer)
        await self._open(control)
        return control

    def _open_web(self, shell: Shell, segments: Segments, requests: Requests) -> Web:
        self._web = web = Web()
        used = self._used
        given = (used.config, shell, segments, used.credentials.tls, self._mistakes, requests.answer)
        self._attempt("opening HTTP", web.begin, *given)
        return web

    async def _open(self, control: OperatorSocket) -> None:
        try:
            await control.open()
        except OSError as error:
            self._mistakes.tell("`cachee peers` will find no bridge here", error)

    async def _care(self, shell: Shell, segments: Segments, door: OperatorSocket) -> bool:
        """The once-a-second work, until a signal or a failure. False: all links must be made anew."""
        while not self._stopping:
            self._look_after(shell, segments)
            if self._reloads.due() and await self._reload(shell, segments):
                return False
            if door.is_lost:
                await self._open(door)
            await self._wait(self._care_s)
        return True

    async def _reload(self, shell: Shell, segments: Segments) -> bool:
        """Reads the configuration again. True: all links must be made anew. A configuration that cannot be
        used changes nothing. Runs in a thread, because it may wait for the DNS or a slow disk."""
        try:
            changes, new = await asyncio.to_thread(read_anew, self._used)
        except (ConfigError, ListenRefused) as error:
            log.error("%s; nothing was changed; the bridge goes on with its present configuration", error)
            return False
        tell(changes)
        if any(change.when is When.LINKS for change in changes):
            self._before, self._used = self._used, new
            return True
        self._used = new
        segments.use(new.config)
        shell.set_peers(new.bridge.peers)
        shell.mesh.fetches.use(new.settings.peer_fill)
        self._attempt("reading certificates and secrets", self._renew, shell, True)
        return False

    async def _drain(self, shell: Shell, segments: Segments) -> None:
        """Bridge and workers may be told to stop at the same time, and workers may take longer."""
        end = time.monotonic() + self._used.bridge.drain
        if segments.unused() or not self._used.bridge.drain:
            return
        log.info(
            "workers are attached: the bridge goes on for up to %g s; another SIGTERM ends it at once",
            self._used.bridge.drain,
        )
        while not (segments.unused() or self._at_once) and time.monotonic() < end:
            self._look_after(shell, segments)
            await self._wait(DRAIN_LOOK_S)

    def _look_after(self, shell: Shell, segments: Segments) -> None:
        """Each task runs by itself: one that fails (no descriptor, no memory) is tried again in a second, and
        does not stop the others."""
        self._notifier.watchdog()
        self._attempt("looking at the segments", segments.check)
        self._attempt("sweeping", segments.sweep)
        self._attempt("looking for new namespaces", self._serve_found, shell, segments)
        shell.pump.look()  # the sweep's announcements do not ring the doorbell
        self._attempt("reading certificates and secrets", self._renew, shell)
        self._attempt("telling the status", self._tell_status, shell, segments)
        self._attempt("looking after HTTP", self._web.look)

    def _attempt(self, what: str, task: Callable[..., None], *arguments: Any) -> None:
        """Run one task. Only the loss of the segments ends this life of the shell."""
        try:
            task(*arguments)
        except (SegmentRetired, BridgeRunning):
            raise
        except Exception as error:
            self._mistakes.tell(what, error)

    def _serve_found(self, shell: Shell, segments: Segments) -> None:
        for namespace in segments.open_found():
            log.info("serving a new", extra=fields(namespace=namespace))
            shell.add_namespace(namespace, segments.held[namespace])
        shell.tell_unserved(segments.unserved)

    def _renew(self, shell: Shell, told: bool = False) -> None:
        """Certificates and secrets that have changed; `told`: also if they have not."""
        credentials = self._used.credentials
        if not (credentials.reload() if told else credentials.look()):
            return
        settings = replace(self._used.settings, secrets=credentials.secrets)
        self._used = self._used._replace(settings=settings)
        shell.renew(credentials.secrets, credentials.tls)
        self._web.renew(credentials.tls)
        log.info("certificates and secrets were read again; existing links stay up")

    async def _wait(self, seconds: float) -> None:
        """Wait, or shorter when there is news. Raises the error that broke the shell."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()
        if self._broken is not None:
            raise self._broken

    async def _farewell(self, shell: Shell, segments: Segments) -> None:
        self._notifier.stopping()
        self._web.stopping()
        shell.pump.look()
        await self._drain(shell, segments)
        if not segments.leave():
            log.info("stopping without leaving: workers are attached, so peers go on waiting for this host")
        elif await shell.leave(LEAVE_S, lambda: self._at_once):
            log.info("left for good: no worker is attached, and every linked peer has applied all writes")
        else:
            log.warning(
                "left, but not all linked peers have acknowledged all writes: those still wait for this host"
            )

    def _make_shell(self, segments: Segments, bell: Doorbell | None) -> Shell:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        shell = Shell(
            loop,
            self._used.config.host.name,
            segments.held,
            self._used.settings,
            bell,
            self._on_broken,
            self._used.credentials.tls,
            _boot_of(self._used.config.host, self._mistakes),
        )
        shell.network.dialler.only_loopback = not self._used.credentials.given
        return shell

    def _make_bell(self) -> Doorbell | None:
        try:
            return Doorbell.create(self._used.config.host.name, self._used.config.host.group)
        except DoorbellUnavailable as error:
            self._no_doorbell = str(error)
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
        if self._reloads.told():
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
    """Imported only if needed, because it costs a bridge some MiB."""
    if bridge.discover is None:
        return None
    from cachee_bridge.shell import resolver

    return resolver.Resolver(bridge.discover, bridge.nameserver)


def _boot_of(host: Host, mistakes: Mistakes) -> int:
    try:
        return boot_of_shared_memory(boot_file(host.name), host.gid())
    except OSError as error:
        what = "peers take this start for a boot of the host: they evict namespaces that it does not have"
        mistakes.tell(what, error)
        return secrets.randbits(BOOT_BITS)
