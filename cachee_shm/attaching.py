"""Finding the configuration and attaching: ``cachee_shm.attach()``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cachee_shm.bypass import Bypass
from cachee_shm.cache import Cache
from cachee_shm.segment import Spec, embedded, explained, spec_of
from cachee_shm.segment import private as private_spec
from cachee_shm.service import service_name

if TYPE_CHECKING:
    from cachee_shm.config import Config

__all__ = ["attach", "host_of", "kind_of_cache", "spec_for"]

CONFIG_PATH = "/etc/cachee/cachee.toml"
DISABLE = "CACHEE_DISABLE"


def attach(
    namespace: str | None = None,
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    private: bool = False,
    service: str | None = None,
) -> Cache:
    """Attach to a namespace's segment on this host, creating it if this process is the first.

    ``namespace``: left out, it is "default", or the only one that the configuration lists. ``config``: a
    path, a dict shaped like the file, or a ``Config``; left out, ``$CACHEE_CONFIG``, else
    ``/etc/cachee/cachee.toml`` if that exists, else an embedded default of 32 MiB without a bridge.
    ``private``: an anonymous segment of this process alone, for tests and notebooks; a forked child's is its
    own, and empty.
    ``service``: what this process is called where processes are listed (`cachee stat`, ``roster()``, errors):
    1 to 24 bytes of printable text; left out, ``$CACHEE_SERVICE``, else the name of its program.
    In an environment with ``CACHEE_DISABLE=1`` the cache holds nothing and still announces every write.

    Waits up to 10 s for another process that is making the segment. A segment whose size is not the
    configured ``memory`` is made anew, empty, when no process (nor the bridge) is attached to it.

    Raises ``ConfigError`` (``UnknownNamespace``) and ``SegmentError`` (``NoSpace``, ``ProcessLimit``,
    ``AccessDenied``, ``SegmentBusy``, ``LayoutMismatch``, ``RosterFull``, ``TimeNamespace``); nothing is
    attached then. Once attached, no verb raises these: while a segment that was removed or retired has no
    successor that can be attached, reads miss, writes are announced when it can, and ``health()`` says why.
    """
    spec = spec_for(namespace, config, private)._replace(service=service_name(service))
    return kind_of_cache()(spec)


def kind_of_cache() -> type[Cache]:
    """``Bypass`` in an environment with ``CACHEE_DISABLE=1``, else ``Cache``."""
    return Bypass if os.environ.get(DISABLE) == "1" else Cache


def spec_for(
    namespace: str | None,
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None,
    is_private: bool,
) -> Spec:
    if config is None and not is_private:
        config = _machines()
    spec = embedded(namespace) if config is None else spec_of(_parsed(config), namespace)
    return private_spec(spec) if is_private else spec


def host_of(config: str | None) -> str:
    """The host whose segments ``attach(config=config)`` uses; without a configuration, this user's number."""
    config = config or _machines()
    return str(os.getuid()) if config is None else _parsed(config).host.name


def _machines() -> str | None:
    return os.environ.get("CACHEE_CONFIG") or (CONFIG_PATH if os.path.exists(CONFIG_PATH) else None)


def _parsed(config: str | os.PathLike[str] | Mapping[str, Any] | Config) -> Config:
    try:
        from cachee_shm import (
            config as config_module,
        )  # pydantic is imported only when there is something to read
    except OSError as error:  # there is no descriptor left to open a module's file by
        raise explained(error, "The configuration") from error

    if isinstance(config, config_module.Config):
        return config
    if isinstance(config, Mapping):
        return config_module.Config.parse(config)
    return config_module.load(config)
