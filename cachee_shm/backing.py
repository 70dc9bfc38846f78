"""What the backends of all frameworks share: a cache that cannot be attached is one that misses.

A framework makes its backend as the application is imported, long before it is known whether the cache can be
had. So a backend attaches at its first use. Where that fails, whatever the reason, it answers as an empty
cache does, says so once in the log, fails its health check, and tries again each second. What was written
meanwhile could not be announced: the namespace is cleared, on every host, before the first use of the cache
that is attached at last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cachee_shm.attaching import attach
from cachee_shm.bypass import Bypass
from cachee_shm.cache import Cache
from cachee_shm.errors import CacheeError, NotACounter, NotLocal, SegmentError, Unserializable
from cachee_shm.health import Health
from cachee_shm.keys import WHOLE_BYTES_MAX, shortened
from cachee_shm.segment import embedded, private, warn

if TYPE_CHECKING:
    from cachee_shm.config import Config

    Source = str | os.PathLike[str] | Mapping[str, Any] | Config | None

__all__ = [
    "Backing",
    "Missing",
    "changed",
    "count",
    "fitting",
    "lasting",
    "remaining_s",
    "seconds_of",
    "unpicklable",
]

RETRY_S = 1.0
STAND_IN_BYTES = 1 << 20
TRIES = 64
LASTING_S_MAX = 1e10  # three centuries


class Missing(Bypass):
    """A cache that nobody shares: it finds nothing, keeps nothing, and knows that it has lost writes."""

    why = ""
    has_lost_writes = False

    def set(self, *args: Any, **kwargs: Any) -> bool:
        self.has_lost_writes = True
        return super().set(*args, **kwargs)

    def set_many(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.has_lost_writes = True
        return super().set_many(*args, **kwargs)

    def delete(self, key: str | bytes) -> bool:
        self.has_lost_writes = True
        return super().delete(key)

    def delete_many(self, keys: Iterable[str | bytes]) -> None:
        self.has_lost_writes = True
        super().delete_many(keys)

    def delete_tags(self, *tags: str) -> None:
        self.has_lost_writes = True
        super().delete_tags(*tags)

    def clear(self) -> None:
        self.has_lost_writes = True
        super().clear()

    def _set_fenced(self, *args: Any) -> bool:
        self.has_lost_writes = True
        return super()._set_fenced(*args)

    def health(self) -> Health:
        """That of a cache which cannot be attached: never ``ok``."""
        return Health(False, self.why, "none", None, False, (), 0, 0)


class Backing:
    """The cache of one backend: ``backing.cache`` is attached at its first use.

    Once attached, ``cache`` is a plain attribute. Until then it is looked up anew each time.
    """

    cache: Cache

    def __init__(self, namespace: str | None = None, config: Source = None, attached: Cache | None = None):
        """``namespace``, ``config``: as of ``attach``. ``attached``: a cache to use instead of one's own."""
        self._namespace, self._config = namespace, config
        self._missing: Missing | None = None
        self._next_try = 0.0
        self._owns = attached is None
        if attached is not None:
            self.cache = attached

    def __getattr__(self, name: str) -> Any:
        if name != "cache":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._missing is not None and time.monotonic() < self._next_try:
            return self._missing
        return self._attached()

    def _attached(self) -> Cache:
        try:
            cache = attach(self._namespace, config=self._config)
        except CacheeError as error:
            return self._without(error)
        if self._missing is not None:
            warn("namespace %s: attached at last", cache.namespace)
            if self._missing.has_lost_writes:
                cache.clear()
        self.cache, self._missing = cache, None
        return cache

    def _without(self, error: CacheeError) -> Missing:
        self._next_try = time.monotonic() + RETRY_S
        if self._missing is None:
            self._missing = Missing(private(embedded(None)._replace(memory_bytes=STAND_IN_BYTES)))
            warn(
                "namespace %s cannot be attached: reads miss, what is written is announced nowhere until it "
                "can, and the namespace is then cleared; it is tried each second: %s",
                self._namespace or "(default)",
                error,
            )
        self._missing.why = str(error)
        return self._missing

    def health(self) -> Health:
        """``Cache.health``; not ``ok``, and why, while there is no cache."""
        return self.cache.health()

    def close(self) -> None:
        """Detach, if it was this backing that attached. A later use attaches again."""
        cache = self.__dict__.get("cache")
        if cache is not None and self._owns:
            del self.cache
            cache.close()


def fitting(key: str) -> str:
    """A key of any length as one that the cache takes: a long one is its beginning and a digest."""
    return key if len(key) <= WHOLE_BYTES_MAX // 4 else shortened(key)


def seconds_of(timeout: float | timedelta) -> float:
    """A number of seconds or a ``timedelta``, as seconds."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def lasting(seconds: float) -> float | None:
    """A lifetime of any length as one that the cache takes: what no clock tells is for ever."""
    return seconds if seconds < LASTING_S_MAX else None


def unpicklable(error: Unserializable, cache: Cache) -> Unserializable:
    """The refusal of a value in a framework whose other backends pickle: it says what would take it."""
    if cache.spec.pickle:
        return error
    return Unserializable(
        f"{error}. The other backends of this framework pickle such a value: `pickle = true` in "
        f"[namespaces.{cache.namespace}] of the configuration does so here. Whoever may write the segment "
        "may then run code in the processes that read it."
    )


def count(
    cache: Cache, key: str, delta: int, initial: int | None, ttl: Any, tags: tuple[str, ...] = ()
) -> Any:
    """Add to the number of ``key`` on this host; ``initial`` is what a missing one counts as.

    Counts are of this host alone. An integer that was set for all hosts becomes one of this host's with its
    first count; it keeps its lifetime, and other hosts keep their copies. No count is lost. The sum of any
    other number is set for all hosts, and of two such sums at once one may be lost. Returns the sum.
    ``KeyError``: there is none, and no ``initial``. ``TypeError``: what is there is no number.
    """
    for _ in range(TRIES):
        try:
            total = cache._incr(key, delta, True)
        except NotACounter:
            value, found = cache.lookup(key)
            total = (value if found else 0) + delta
            cache.set(key, total, ttl=ttl, tags=tags)
        if total is not None:
            return total
        if initial is None:
            raise KeyError(key)
        if cache.add(key, initial + delta, ttl=ttl, tags=tags, local=True) or isinstance(cache, Bypass):
            return initial + delta
    raise NotACounter(f"There is no room for a counter of {key!r}. It was not counted.")


def changed(cache: Cache, key: str, change: Callable[[Any], tuple[Any, Any]], ttl: Any) -> Any:
    """Replace this host's value of ``key`` by what ``change`` makes of it: no concurrent change is lost.

    ``change`` gets the value, None where there is none, and returns the new value and a result. It runs
    again when another process was faster. Returns the result of its last run. Where the value cannot be
    stored, it is as if it had been evicted.
    """
    for _ in range(TRIES):
        try:
            value, token = cache.host.gets(key)
        except NotLocal:  # it was set for all hosts: from now on it is this host's
            new, result = change(cache.get(key))
            cache.set(key, new, ttl, local=True)
            return result
        except SegmentError:  # this host has none at present
            return change(None)[1]
        new, result = change(value)
        if cache.host.cas(key, new, token, ttl):
            break
    return result


def remaining_s(cache: Cache, key: str) -> float | None:
    """The seconds that are left to the value of ``key``; None: it never expires. KeyError: there is none."""
    state, _, ends_ms = cache._find_early(key, 0.0)
    if not state:
        raise KeyError(key)
    return max(0, ends_ms - cache.now_ms()) / 1000 if ends_ms else None
