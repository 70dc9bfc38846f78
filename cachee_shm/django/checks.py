"""System checks: what a configuration promises that no cache of several hosts can keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from cachee_shm.attaching import spec_for
from cachee_shm.errors import ConfigError
from cachee_shm.segment import Spec

__all__ = ["namespace_of", "register", "session_error"]

CACHE_ONLY = "django.contrib.sessions.backends.cache"
ACCEPTED = {
    "namespace",
    "config",
    "private",
    "service",
    "set_after_miss_fills",
    "MAX_ENTRIES",
    "CULL_FREQUENCY",
}


def register() -> None:
    """Once is enough; more calls do nothing."""
    checks.register(check_caches, checks.Tags.caches)
    checks.register(check_sessions, checks.Tags.caches)


def namespace_of(location: str, options: dict[str, Any]) -> str | None:
    """``OPTIONS["namespace"]``, else LOCATION; None is the configuration's only one."""
    return options.get("namespace", location or None)


def check_caches(**_: Any) -> list[checks.CheckMessage]:
    """E001: a namespace or a configuration that cannot be used. Nothing is attached for it."""
    found = []
    for alias in _ours():
        try:
            _spec(alias)
        except ConfigError as error:
            found.append(
                checks.Error(
                    f"CACHES[{alias!r}] cannot be attached: {error}",
                    hint="Until this is corrected, this cache misses, and announces what it writes later.",
                    id="cachee_shm.E001",
                )
            )
    return found


def check_sessions(**_: Any) -> list[checks.CheckMessage]:
    """E002: sessions that are nowhere but in a cache whose values never leave their host."""
    error = session_error()
    if not error:
        return []
    hint = (
        'Set SESSION_ENGINE = "django.contrib.sessions.backends.cached_db": sessions are then in the '
        "database, and each host keeps copies, which are evicted when a session changes."
    )
    return [checks.Error(error, hint=hint, id="cachee_shm.E002")]


def session_error() -> str:
    """Why the project's sessions do not work across hosts; "" if that is not so."""
    alias = getattr(settings, "SESSION_CACHE_ALIAS", "default")
    if getattr(settings, "SESSION_ENGINE", "") != CACHE_ONLY or alias not in _ours():
        return ""
    try:
        if not _spec(alias).has_bridge:
            return ""
    except ConfigError:
        return ""  # E001
    return (
        f"SESSION_ENGINE = {CACHE_ONLY!r} keeps sessions in CACHES[{alias!r}] alone, whose values never "
        "leave their host, and the configuration has a [bridge]. A user is logged in on one host and unknown "
        "to the others."
    )


def _ours() -> Iterator[str]:
    from cachee_shm.django.backend import CacheeCache

    for alias, entry in settings.CACHES.items():
        try:
            kind = import_string(entry.get("BACKEND", ""))
        except ImportError:
            continue  # Django says so
        if isinstance(kind, type) and issubclass(kind, CacheeCache):
            yield alias


def _spec(alias: str) -> Spec:
    entry = settings.CACHES[alias]
    options = entry.get("OPTIONS", {})
    namespace = namespace_of(entry.get("LOCATION", ""), options)
    return spec_for(namespace, options.get("config"), options.get("private", False))
