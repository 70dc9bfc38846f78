"""The configuration in use: checked, with the secrets and certificates from its files."""

from __future__ import annotations

from typing import NamedTuple

from cachee_bridge.carriers.credentials import Credentials
from cachee_bridge.carriers.names import is_loopback, look_up_all
from cachee_bridge.http import addresses
from cachee_bridge.ports.settings import Settings
from cachee_shm.config import Bridge, Config, split_address
from cachee_shm.errors import ConfigError, ListenRefused

LOOK_UP_S = 1.0  # for the names in the configuration, all together


class InForce(NamedTuple):
    """By what one bridge serves."""

    config: Config
    bridge: Bridge
    credentials: Credentials
    settings: Settings


def in_force(config: Config) -> InForce:
    """Raises what `credentials_of` and `settings` raise. Waits for the DNS, at most LOOK_UP_S."""
    credentials = credentials_of(config)
    return InForce(config, bridge_of(config), credentials, settings(config, credentials))


def settings(config: Config, credentials: Credentials) -> Settings:
    """The configuration's settings for the mesh.

    Raises ConfigError without a [bridge], and ListenRefused for an address that the network reaches, or a
    peer beyond this machine, when nobody has to prove anything; and what http/addresses.py says.
    """
    bridge = bridge_of(config)
    addresses.check(config)
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
        check_every_s=bridge.check_every,
        peer_fill=_peer_fill(config, credentials),
    )


def _peer_fill(config: Config, credentials: Credentials) -> dict[str, int]:
    """By namespace with peer fill, how large a value may be. ConfigError for one that this host's certificate
    does not allow: no peer would give it anything.

    Without [bridge.tls] there is none. A reload may have taken the certificates away at once, together with
    `peer_fill`, which waits for a restart: until then no value may travel in plain text."""
    if bridge_of(config).tls is None:
        return {}
    allowed = credentials.namespaces
    for name, table in config.namespaces.items():
        if table.peer_fill and allowed is not None and name not in allowed:
            raise ConfigError(
                f"{config.source}: namespaces.{name}.peer_fill: found True; accepted: a certificate that "
                f"allows {name!r}, as URI:cachee://{config.host.name}/{name} does; nothing was started"
            )
    return {name: table.peer_fill_max for name, table in config.namespaces.items() if table.peer_fill}


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


def _is_everywhere(host: str) -> bool:
    return not host or host in ("0.0.0.0", "::")
