"""The two listeners of a bridge, as the configuration has them.

    metrics    /metrics /healthz /readyz, and nothing else. It shows names and numbers, no keys. The network
               may reach it
    admin      the dashboard, what it asks for, and POST /invalidate. On loopback, or with the certificate of
               [bridge.tls]: addresses.py

An address that is taken, or that this machine does not have, costs the bridge the listener and nothing else:
it says so once, and tries again each second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.carriers.accepting import bound
from cachee_bridge.http.addresses import Address, check
from cachee_bridge.http.hosts import OwnNames, any_name
from cachee_bridge.http.routes import Routes
from cachee_bridge.http.server import Server

if TYPE_CHECKING:
    import asyncio

    from cachee_bridge.carriers.tls import Contexts
    from cachee_bridge.system.logs import Mistakes
    from cachee_shm.config import Config

log = logging.getLogger("cachee_bridge")


class Listeners:
    """Those that are configured. `metrics` and `admin` are their tables, to which routes are added."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, tls: Contexts | None, mistakes: Mistakes
    ) -> None:
        """Raises what addresses.check raises."""
        bridge = config.bridge
        assert bridge is not None
        self._loop, self._mistakes, self._tls, self._host = loop, mistakes, tls, config.host.name
        self.tokens = check(config)
        """None without a file."""
        self.metrics, self.admin = Routes(), Routes()
        given = {"metrics": bridge.metrics, "admin": bridge.admin}
        self._addresses = {what: Address(text) for what, text in given.items() if text is not None}
        self._failed: dict[str, str] = {}
        self.servers: dict[str, Server] = {}
        """Those that are open, by "metrics" and "admin"."""

    def look(self) -> None:
        """Opens what is configured and not open yet."""
        for what, address in self._addresses.items():
            if what not in self.servers:
                self._open(what, address)

    def renew(self, tls: Contexts | None) -> None:
        """The certificate was read again."""
        self._tls = tls
        for server in self.servers.values():
            if server.is_tls and tls is not None:
                server.renew(tls.serve())

    def close(self) -> None:
        for server in self.servers.values():
            server.close()
        self.servers.clear()

    def _open(self, what: str, address: Address) -> None:
        routes = self.metrics if what == "metrics" else self.admin
        server = Server(self._loop, routes, self._names(what, address), self._mistakes)
        tls = self._tls if what == "admin" and not address.is_local else None
        try:
            server.listen(bound(address.hosts(), address.port), tls.serve() if tls is not None else None)
        except OSError as error:
            self._tell_failed(what, address, error.strerror or str(error))
            return
        self._failed.pop(what, None)
        self.servers[what] = server
        log.info("%s on %s://%s", what, "http" if tls is None else "https", address.text)

    def _tell_failed(self, what: str, address: Address, reason: str) -> None:
        """Once for each reason."""
        if self._failed.get(what) != reason:
            log.error(
                "bridge.%s: cannot listen on %r: %s; the bridge goes on without it and tries again each "
                "second; stop what listens there, or set another address",
                *(what, address.text, reason),
            )
        self._failed[what] = reason

    def _names(self, what: str, address: Address) -> Callable[[str], bool]:
        if what == "metrics" and not address.is_local:
            return any_name
        certified = self._tls.names if self._tls is not None else ()
        return OwnNames([address.host, self._host, *certified])
